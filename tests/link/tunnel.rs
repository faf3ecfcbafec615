//! A membership's plans on a real interface: what this machine does not take, and what did not work the first time.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs,
    net::UdpSocket,
};

use enroll_agent::{
    membership::{Look, MembershipError, Tunnel, Whereabouts},
    model::{
        Assignment, Backend, Connection, Identity, Membership, Node, Outside, Phase, Policy, Redeeming, RelayChoice,
        Route, Switch,
    },
};
use uuid::Uuid;

use crate::{
    Case, On,
    cases::{cases, routes},
    tools::{bring, device, name, nets, open_as, own_key, peer, peer_key},
};

/// For links with a real interface.
pub(crate) const CASES: &[Case] = cases! {
    a_plan_that_failed_is_finished_by_the_next
    does_not_ask_again_for_ipv6_where_it_is_disabled
    does_not_ask_again_for_a_route_that_is_taken
};

async fn does_not_ask_again_for_ipv6_where_it_is_disabled(on: On) {
    for part in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{part}/disable_ipv6"), "1").unwrap();
    }

    asks_once(on, &["10.99.0.1/24"], &["10.98.0.0/16"]).await;
}

async fn does_not_ask_again_for_a_route_that_is_taken(on: On) {
    let mut owner = open_as(On::Userspace, "enroll1", own_key(2).public_key()).await;
    let mut theirs = device();
    theirs.listen_port = 51999.try_into().ok();
    theirs.private_key = own_key(2);
    theirs.addresses = nets(["10.95.0.1/24"]);
    theirs.routes = routes(["10.98.0.0/16"]);
    theirs.peers.clear();
    bring(&mut owner, &theirs).await;

    asks_once(on, &["10.99.0.1/24", "fd99::1/64"], &["fd98::/48"]).await;
}

/// Expects the tunnel to have only `addresses` and `routes`, and later plans to change only what is new.
async fn asks_once(on: On, addresses: &[&str], routes: &[&str]) {
    let (mut tunnel, membership, mut assignment) = membership(on);
    assert_ne!(apply(&mut tunnel, &membership, &assignment, Look::Afresh).await.unwrap(), 0);

    for look in [Look::Afresh, Look::Remembered] {
        assert_eq!(apply(&mut tunnel, &membership, &assignment, look).await.unwrap(), 0, "{look:?}");
    }
    assignment.peers.insert(peer_key(2), peer(["10.99.0.3/32"]));
    assert_ne!(apply(&mut tunnel, &membership, &assignment, Look::Remembered).await.unwrap(), 0);
    assert_eq!(apply(&mut tunnel, &membership, &assignment, Look::Afresh).await.unwrap(), 0);

    let known = tunnel.last().unwrap().device.clone();
    assert_eq!(known.addresses, addresses.iter().map(|net| net.parse().unwrap()).collect());
    assert_eq!(known.routes, routes.iter().map(|net| Route::main(net.parse().unwrap())).collect());
    assert_eq!(known.peers, assignment.peers);
}

async fn a_plan_that_failed_is_finished_by_the_next(on: On) {
    let taken = UdpSocket::bind("0.0.0.0:51900").unwrap();
    let (mut tunnel, mut membership, mut assignment) = membership(on);
    apply(&mut tunnel, &membership, &assignment, Look::Afresh).await.unwrap();
    membership.policy.listen_port = 51900.try_into().ok();
    assignment.peers = [(peer_key(2), peer(["10.99.0.3/32"]))].into();

    for look in [Look::Remembered, Look::Remembered, Look::Afresh] {
        let error = apply(&mut tunnel, &membership, &assignment, look).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot set listen port 51900 on interface enroll0", "{look:?}");
        let known = tunnel.last().cloned();
        assert_eq!(known.as_ref(), tunnel.observe().await.unwrap(), "{look:?}");
    }
    drop(taken);
    apply(&mut tunnel, &membership, &assignment, Look::Remembered).await.unwrap();

    let seen = tunnel.observe().await.unwrap().unwrap().device.clone();
    assert_eq!((seen.listen_port, seen.peers), (membership.policy.listen_port, assignment.peers));
}

async fn apply(
    tunnel: &mut Tunnel,
    membership: &Membership,
    assignment: &Assignment,
    look: Look,
) -> Result<usize, MembershipError> {
    tunnel.apply(membership, assignment, Whereabouts::default(), &[], look).await
}

fn membership(on: On) -> (Tunnel, Membership, Assignment) {
    let identity = Identity::generate(|buffer| {
        buffer.fill(3);
        Ok::<(), Infallible>(())
    });
    let redeeming = Redeeming {
        attempts: 0,
        baseline: None,
        fingerprint: String::new(),
        sent_at: None,
        token: String::new().into(),
    };
    let membership = Membership {
        binding: None,
        identity: identity.unwrap(),
        interface: name("enroll0"),
        last_check_in: None,
        outside: Outside::default(),
        phase: Phase::Pending { redeeming },
        policy: Policy { listen_port: 51821.try_into().ok(), ..Policy::default() },
        sent: BTreeSet::new(),
        server: "https://nm.example.net".parse().unwrap(),
        switch: Switch::On,
    };
    let node = Node {
        addresses: nets(["10.99.0.1/24", "fd99::1/64"]),
        connection: Connection::Connected,
        id: Uuid::nil(),
        relay: None,
        relay_choice: RelayChoice::Fixed,
        tags: BTreeSet::new(),
    };
    let gateway = peer(["10.99.0.2/32", "fd99::2/128", "10.98.0.0/16", "fd98::/48"]);
    let assignment = Assignment {
        nodes: BTreeMap::from([("plant-a".parse().unwrap(), node)]),
        peers: BTreeMap::from([(peer_key(1), gateway)]),
        ..Assignment::default()
    };
    let backend = match on {
        On::Kernel => Backend::Kernel,
        On::Memory | On::Userspace => Backend::Userspace,
    };
    (Tunnel::open(backend, &membership).unwrap(), membership, assignment)
}
