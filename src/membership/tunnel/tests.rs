//! When the interface is looked at, on an interface in memory that somebody else changes as well.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use uuid::Uuid;

use super::*;
use crate::{
    link::Memory,
    model::{
        Connection, Identity, Node, Outside, Peer, PeerStats, Phase, Policy, PublicKey, Redeeming, RelayChoice, Route,
        Switch,
    },
};

#[tokio::test]
async fn what_came_of_a_plan_is_known_without_a_look() {
    let mut tunnel = tunnel();

    apply(&mut tunnel, &[1, 2], Look::Afresh).await.unwrap();
    memory(&mut tunnel).set_stats(key(1), BUSY);

    let seen = tunnel.link.observe().await.unwrap().unwrap();
    let known = tunnel.last().unwrap().clone();
    assert_eq!(known.device, seen.device);
    assert_eq!((known.stats.get(&key(1)), seen.stats[&key(1)]), (None, BUSY), "it was not looked at");
}

#[tokio::test]
async fn a_plan_from_memory_leaves_what_others_did_for_the_next_look() {
    let mut tunnel = tunnel();
    apply(&mut tunnel, &[1, 2], Look::Afresh).await.unwrap();
    somebody_removes(&mut tunnel, 1).await;

    assert_eq!(apply(&mut tunnel, &[1, 2, 3], Look::Remembered).await.unwrap(), 1);
    assert_eq!(peers(&mut tunnel).await, [2, 3]);
    assert_eq!(apply(&mut tunnel, &[1, 2, 3], Look::Afresh).await.unwrap(), 1);
    assert_eq!(peers(&mut tunnel).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_plan_that_failed_halfway_is_finished_by_the_next_one() {
    let mut tunnel = tunnel();
    apply(&mut tunnel, &[1, 2, 3], Look::Afresh).await.unwrap();
    somebody_removes(&mut tunnel, 2).await;

    // Peer 1 goes, peer 2 is not there any more, peer 4 never gets its turn.
    let error = apply(&mut tunnel, &[3, 4], Look::Remembered).await.unwrap_err();
    assert!(matches!(error, MembershipError::Link(_)), "{error}");
    assert_eq!(tunnel.last().cloned(), tunnel.link.observe().await.unwrap(), "the failure was looked at");

    assert_eq!(apply(&mut tunnel, &[3, 4], Look::Remembered).await.unwrap(), 1);
    assert_eq!(peers(&mut tunnel).await, [3, 4]);
}

#[tokio::test]
async fn a_plan_that_comes_again_is_looked_after() {
    let mut tunnel = tunnel();
    apply(&mut tunnel, &[1], Look::Afresh).await.unwrap();

    for seen in [false, true] {
        somebody_removes(&mut tunnel, 1).await;
        memory(&mut tunnel).set_stats(key(9), BUSY);
        tunnel.observe().await.unwrap();
        memory(&mut tunnel).set_stats(key(9), IDLE);

        assert_eq!(apply(&mut tunnel, &[1], Look::Remembered).await.unwrap(), 1);

        assert_eq!(tunnel.last().unwrap().stats[&key(9)] == IDLE, seen);
    }
}

#[tokio::test]
async fn a_port_that_the_system_chooses_is_looked_up() {
    let mut tunnel = tunnel();
    let mut membership = membership();
    membership.policy.listen_port = None;
    tunnel.apply(&membership, &assignment(&[1]), Whereabouts::default(), &[], Look::Afresh).await.unwrap();
    memory(&mut tunnel).set_stats(key(9), BUSY);

    tunnel.apply(&membership, &assignment(&[1, 2]), Whereabouts::default(), &[], Look::Remembered).await.unwrap();

    assert_eq!(tunnel.last().unwrap().stats[&key(9)], BUSY);
}

#[test]
fn what_was_left_out_is_not_there_and_a_peer_made_anew_has_no_past() {
    let mut want = Device::blank();
    want.addresses = ["10.9.0.1/24", "fd09::1/64"].map(net).into();
    want.routes = ["10.8.0.0/16", "fd08::/48"].map(route).into();
    let left_out =
        LeftOut { addresses: [net("fd09::1/64")].into(), routes: [route("fd08::/48")].into(), ..LeftOut::default() };
    let before = Observation { device: Device::blank(), stats: BTreeMap::from([(key(1), BUSY), (key(2), BUSY)]) };
    let changes = [Change::RemovePeer(key(1)), Change::AddPeer { public_key: key(1), peer: Peer::default() }];

    let after = outcome(want, &left_out, &changes, Some(before));

    assert_eq!(after.device.addresses, [net("10.9.0.1/24")].into());
    assert_eq!(after.device.routes, [route("10.8.0.0/16")].into());
    assert_eq!(after.stats, BTreeMap::from([(key(2), BUSY)]));
}

async fn apply(tunnel: &mut Tunnel, peers: &[u8], look: Look) -> Result<usize, MembershipError> {
    tunnel.apply(&membership(), &assignment(peers), Whereabouts::default(), &[], look).await
}

fn tunnel() -> Tunnel {
    let link = AnyLink::Memory(Memory::new());
    Tunnel::over(link, Backend::Kernel, "enroll0".parse().unwrap())
}

fn memory(tunnel: &mut Tunnel) -> &mut Memory {
    match &mut tunnel.link {
        AnyLink::Memory(memory) => memory,
        AnyLink::Kernel(_) | AnyLink::Userspace(_) => unreachable!("these tests use no other link"),
    }
}

async fn somebody_removes(tunnel: &mut Tunnel, peer: u8) {
    tunnel.link.apply(&[Change::RemovePeer(key(peer))]).await.unwrap();
}

async fn peers(tunnel: &mut Tunnel) -> Vec<u8> {
    let seen = tunnel.link.observe().await.unwrap().unwrap();
    seen.device.peers.keys().map(|key| key.0[0]).collect()
}

fn membership() -> Membership {
    let identity = Identity::generate(|buffer| {
        buffer.fill(3);
        Ok::<(), std::convert::Infallible>(())
    });
    Membership {
        binding: None,
        identity: identity.unwrap(),
        interface: "enroll0".parse().unwrap(),
        last_check_in: None,
        outside: Outside::default(),
        phase: Phase::Pending {
            redeeming: Redeeming {
                attempts: 0,
                baseline: None,
                fingerprint: String::new(),
                sent_at: None,
                token: String::new().into(),
            },
        },
        policy: Policy { listen_port: NonZeroU16::new(51821), ..Policy::default() },
        sent: BTreeSet::new(),
        server: "https://nm.example.net".parse().unwrap(),
        switch: Switch::On,
    }
}

fn route(text: &str) -> Route {
    Route::main(net(text))
}

fn assignment(peers: &[u8]) -> Assignment {
    let node = Node {
        addresses: [net("10.9.0.1/16")].into(),
        connection: Connection::Connected,
        id: Uuid::nil(),
        relay: None,
        relay_choice: RelayChoice::Fixed,
        tags: BTreeSet::new(),
    };
    let peer = |number: &u8| {
        let allowed_ips = [IpNet::new([10, 9, 1, *number].into(), 32).unwrap()].into();
        (key(*number), Peer { allowed_ips, ..Peer::default() })
    };
    Assignment {
        nodes: BTreeMap::from([("plant-a".parse().unwrap(), node)]),
        peers: peers.iter().map(peer).collect(),
        ..Assignment::default()
    }
}

fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

const BUSY: PeerStats = PeerStats { handshake_age: None, rx_bytes: 7, tx_bytes: 7 };
const IDLE: PeerStats = PeerStats { handshake_age: None, rx_bytes: 0, tx_bytes: 0 };
