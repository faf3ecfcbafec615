//! What the cases share: devices, interfaces seen from outside, waiting for a fact.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use enroll_agent::{
    link::{self, AnyLink, Link, Memory},
    model::{Backend, Device, InterfaceName, LinkState, Peer, PrivateKey, PublicKey, Route},
    plan::diff,
};
use ipnet::IpNet;
use rtnetlink::{Handle, LinkUnspec};

use crate::On;

/// Opens the link of that kind called `enroll0`, for [`device`].
pub(crate) async fn open(on: On) -> AnyLink {
    open_as(on, "enroll0", own_key(1).public_key()).await
}

/// Opens the link of that kind and name; `public_key` is the one that makes a kernel interface ours.
pub(crate) async fn open_as(on: On, name: &str, public_key: PublicKey) -> AnyLink {
    let backend = match on {
        On::Kernel => Backend::Kernel,
        On::Memory => return AnyLink::Memory(Memory::new()),
        On::Userspace => Backend::Userspace,
    };
    link::open(backend, self::name(name), [public_key].into()).unwrap()
}

/// Plans from what is there, applies, and checks that it is as wanted and that nothing is left to plan.
pub(crate) async fn bring(link: &mut AnyLink, want: &Device) {
    let have = link.observe().await.unwrap().map(|seen| seen.device);

    link.apply(&diff(have.as_ref(), want)).await.unwrap();

    let seen = device_of(link).await;
    assert_eq!(seen, *want);
    assert_eq!(diff(Some(&seen), want), vec![]);
}

pub(crate) async fn device_of(link: &mut AnyLink) -> Device {
    link.observe().await.unwrap().expect("the interface is there").device
}

/// A device with everything on it.
pub(crate) fn device() -> Device {
    Device {
        addresses: nets(["10.99.0.1/24", "fd99::1/64"]),
        fwmark: None,
        listen_port: 51821.try_into().ok(),
        mtu: 1380,
        peers: BTreeMap::from([(peer_key(1), peer(["10.99.0.2/32", "fd99::2/128", "10.98.0.0/16"]))]),
        private_key: own_key(1),
        routes: ["10.98.0.0/16", "fd98::/48"].map(|text| Route::main(net(text))).into(),
        rules: BTreeSet::new(),
        state: LinkState::Up,
    }
}

pub(crate) fn peer<const N: usize>(allowed_ips: [&str; N]) -> Peer {
    Peer {
        allowed_ips: nets(allowed_ips),
        endpoint: Some("192.0.2.2:51822".parse().unwrap()),
        persistent_keepalive: 25.try_into().ok(),
        preshared_key: None,
    }
}

pub(crate) fn nets<C: FromIterator<IpNet>, const N: usize>(texts: [&str; N]) -> C {
    texts.into_iter().map(net).collect()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn own_key(seed: u8) -> PrivateKey {
    PrivateKey::from_bytes([seed; 32])
}

pub(crate) fn peer_key(seed: u8) -> PublicKey {
    own_key(100 + seed).public_key()
}

pub(crate) fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

/// Deletes an interface behind its owner's back.
pub(crate) async fn delete(name: &str) {
    let message = LinkUnspec::new_with_name(name).build();
    outside().link().del_with_message(message).execute().await.unwrap();
}

/// Brings an interface up that is none of ours.
pub(crate) async fn bring_up(name: &str) {
    outside().link().set(LinkUnspec::new_with_name(name).up().build()).execute().await.unwrap();
}

fn outside() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

/// Waits until the fact holds.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(fact) = look().await {
            return fact;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} does not come true in 10 s");
}
