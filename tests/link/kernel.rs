//! Whose a kernel interface is: it outlives the process that made it.

use enroll_agent::{
    link::{Link, LinkError},
    model::{Device, LinkState},
    plan::{Change, diff},
};

use crate::{
    Case, On,
    cases::cases,
    tools::{bring, device, device_of, open, open_as, own_key, peer, peer_key},
};

/// For the kernel link alone.
pub(crate) const CASES: &[Case] = cases! {
    finds_its_interface_again
    leaves_an_interface_with_another_key_alone
    leaves_an_interface_with_peers_and_no_key_alone
    takes_an_interface_without_key_and_peers_over
};

async fn finds_its_interface_again(on: On) {
    bring(&mut open(on).await, &device()).await;

    let mut again = open(on).await;

    assert_eq!(device_of(&mut again).await, device());
    again.remove().await.unwrap();
    assert_eq!(open(on).await.observe().await.unwrap(), None);
}

async fn leaves_an_interface_with_another_key_alone(on: On) {
    bring(&mut open(on).await, &device()).await;

    let mut other = open_as(on, "enroll0", own_key(2).public_key()).await;

    assert!(matches!(other.observe().await, Err(LinkError::Taken(_))));
    assert!(matches!(other.remove().await, Err(LinkError::Taken(_))));
    assert!(matches!(other.apply(&diff(None, &device())).await, Err(LinkError::Taken(_))));
    assert_eq!(device_of(&mut open(on).await).await, device());
}

async fn leaves_an_interface_with_peers_and_no_key_alone(on: On) {
    let mut link = open(on).await;
    let public_key = peer_key(1);
    let peer = peer(["10.99.0.2/32"]);
    link.apply(&[Change::CreateInterface, Change::AddPeer { public_key, peer }]).await.unwrap();

    assert!(matches!(link.observe().await, Err(LinkError::Taken(_))));
}

async fn takes_an_interface_without_key_and_peers_over(on: On) {
    open(on).await.apply(&[Change::CreateInterface]).await.unwrap();

    let mut link = open(on).await;

    assert_eq!(device_of(&mut link).await, Device { state: LinkState::Down, ..Device::blank() });
    bring(&mut link, &device()).await;
}
