//! Whose a kernel interface is: it outlives the process that made it.

use enroll_agent::{
    link::{self, Link, LinkError},
    model::{Backend, Device, LinkState},
    plan::{Change, diff},
};

use crate::{
    Case, On,
    cases::cases,
    tools::{bring, bring_up, device, device_of, open, open_as, own_key, peer, peer_key},
};

/// For the kernel link alone.
pub(crate) const CASES: &[Case] = cases! {
    finds_its_interface_again
    leaves_an_interface_with_another_key_alone
    leaves_an_interface_with_peers_and_no_key_alone
    sweeps_what_a_killed_probe_left_behind
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

async fn sweeps_what_a_killed_probe_left_behind(on: On) {
    let left_behind = "enroll-0123abcd";
    let others = ["enroll-0123abce", "enroll-0123abcg", "enroll-0123abc", "wg-0123abcd"];
    for name in [left_behind].into_iter().chain(others) {
        let made = open_as(on, name, own_key(1).public_key()).await.apply(&[Change::CreateInterface]).await;
        made.unwrap();
    }
    bring_up(others[0]).await;
    let mut tunnel = open_as(On::Userspace, "enroll-76543210", own_key(1).public_key()).await;
    tunnel.apply(&[Change::CreateInterface]).await.unwrap();

    link::choose(Some(Backend::Kernel)).await.unwrap();

    let mut expected: Vec<_> = others.into_iter().chain(["enroll-76543210", "lo"]).collect();
    expected.sort_unstable();
    assert_eq!(link::interface_names().await.unwrap().into_iter().collect::<Vec<_>>(), expected);
}

async fn takes_an_interface_without_key_and_peers_over(on: On) {
    open(on).await.apply(&[Change::CreateInterface]).await.unwrap();

    let mut link = open(on).await;

    assert_eq!(device_of(&mut link).await, Device { state: LinkState::Down, ..Device::blank() });
    bring(&mut link, &device()).await;
}
