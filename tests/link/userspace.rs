//! What only the data plane in this process can get wrong.

use enroll_agent::{
    link::{self, Link, LinkError},
    model::Backend,
    plan::Change,
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Uid, setuid},
};

use crate::{
    Case, On,
    cases::cases,
    tools::{bring, device, eventually, open, peer, peer_key},
};

/// For the userspace link alone.
pub(crate) const CASES: &[Case] = cases! {
    a_peer_that_comes_before_the_key_is_named
    lack_of_rights_is_not_absence
    the_interface_goes_with_the_link
};

/// Finds out whether trials on that backend can run here.
pub(crate) async fn probe(on: On) -> Result<(), String> {
    let backend = match on {
        On::Kernel => Backend::Kernel,
        On::Memory | On::Userspace => Backend::Userspace,
    };
    let text = |error: LinkError| match &error {
        LinkError::Denied { source, .. } | LinkError::Failed { source, .. } => format!("{error}: {source}"),
        LinkError::Absent | LinkError::NoTun | LinkError::Taken(_) => error.to_string(),
    };
    link::choose(Some(backend)).await.map_err(text)?;
    let mut link = open(on).await;
    link.apply(&[Change::CreateInterface]).await.map(|_| ()).map_err(text)
}

async fn a_peer_that_comes_before_the_key_is_named(on: On) {
    let mut link = open(on).await;
    let add = |seed| Change::AddPeer { public_key: peer_key(seed), peer: peer(["10.99.0.2/32"]) };

    let error = link.apply(&[Change::CreateInterface, add(1), add(2)]).await.unwrap_err();

    assert_eq!(error.to_string(), format!("cannot add peer {} to interface enroll0", peer_key(1)));
}

async fn the_interface_goes_with_the_link(on: On) {
    let mut link = open(on).await;
    bring(&mut link, &device()).await;

    drop(link);

    let gone = async || (!link::interface_names().await.unwrap().contains("enroll0")).then_some(());
    eventually("the interface goes", gone).await;
    bring(&mut open(on).await, &device()).await;
}

async fn lack_of_rights_is_not_absence(_: On) {
    // Nobody has no capabilities; and those of a new user namespace do not reach the network namespace of another.
    setuid(Uid::from_raw(65534)).or_else(|_| unshare(CloneFlags::CLONE_NEWUSER)).unwrap();

    assert!(matches!(link::choose(None).await, Err(LinkError::Denied { .. })));
}
