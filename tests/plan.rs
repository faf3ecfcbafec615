//! Properties of `plan::diff`: applied to what there is, it gives what there should be, and no more than that.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
    pin::pin,
    task::{Context, Poll, Waker},
};

use enroll_agent::{
    link::{Link, Memory},
    model::{Device, Family, LinkState, Observation, Peer, PresharedKey, PrivateKey, PublicKey, Route, Rule, Table},
    plan::{Change, diff, settle},
};
use ipnet::IpNet;
use proptest::{collection, option, prelude::*};

proptest! {
    #[test]
    fn applying_the_difference_gives_what_is_wanted(have in option::of(device()), want in device()) {
        let mut link = Memory::with(have.clone().map(observation));

        now(link.apply(&diff(have.as_ref(), &want))).unwrap();

        let seen = now(link.observe()).unwrap().unwrap().device;
        prop_assert_eq!(seen, want);
    }

    #[test]
    fn equal_devices_differ_in_nothing(have in device()) {
        prop_assert_eq!(diff(Some(&have), &have), vec![]);
    }

    #[test]
    fn one_thing_changed_is_one_change((have, want) in device().prop_flat_map(|have| (Just(have.clone()), touched(have)))) {
        let changes = diff(Some(&have), &want);

        prop_assert_eq!(changes.len(), usize::from(have != want), "{:?}", changes);
    }

    #[test]
    fn a_peer_is_made_anew_only_to_lose_its_endpoint(have in device(), want in device()) {
        let changes = diff(Some(&have), &want);

        for change in &changes {
            let Change::RemovePeer(key) = change else { continue };
            if let Some(wanted) = want.peers.get(key) {
                prop_assert!(have.peers[key].endpoint.is_some() && wanted.endpoint.is_none());
            }
        }
    }

    #[test]
    fn a_peer_is_named_once_unless_it_is_made_anew(have in device(), want in device()) {
        let mut named = BTreeMap::new();
        for change in diff(Some(&have), &want) {
            if let Change::AddPeer { public_key, .. } | Change::UpdatePeer { public_key, .. } = change {
                *named.entry(public_key).or_insert(0) += 1;
            }
        }

        prop_assert!(named.values().all(|count| *count == 1));
    }

    #[test]
    fn what_is_settled_never_costs_a_session(have in device(), want in device()) {
        let kept: BTreeSet<_> = want.peers.keys().copied().collect();
        let have = observation(have);

        let settled = settle(want, Some(&have), None);

        let removed = |change: &Change| matches!(change, Change::RemovePeer(key) if kept.contains(key));
        prop_assert!(!diff(Some(&have.device), &settled).iter().any(removed));
    }

    #[test]
    fn settling_twice_is_settling_once(have in device(), want in device()) {
        let have = observation(have);

        let once = settle(want, Some(&have), None);

        prop_assert_eq!(settle(once.clone(), Some(&have), None), once);
    }

    #[test]
    fn a_new_interface_is_settled_already(want in device()) {
        prop_assert_eq!(settle(want.clone(), None, None), want);
    }
}

/// A device as the agent wants one: no allowed IP twice, and routes only if it is up.
fn device() -> impl Strategy<Value = Device> {
    let peers = collection::vec((0..6_u8, peer()), 0..6);
    let scalars = (option::of(1..4_u16), 1280..1283_u16, 0..3_u8, any::<bool>());
    let policy = (collection::btree_set(route(), 0..4), collection::btree_set(rule(), 0..4), option::of(1..3_u32));
    let addresses = collection::btree_set(net(), 0..4);
    (addresses, policy, peers, scalars).prop_map(|(addresses, policy, listed, (port, mtu, key, up))| {
        let (routes, rules, fwmark) = policy;
        let mut free = BTreeSet::new();
        let mut peers = BTreeMap::new();
        for (number, mut peer) in listed {
            if let Entry::Vacant(place) = peers.entry(PublicKey([number; 32])) {
                peer.allowed_ips.retain(|net| free.insert(*net));
                place.insert(peer);
            }
        }
        Device {
            addresses,
            fwmark: fwmark.and_then(NonZeroU32::new),
            listen_port: port.and_then(NonZeroU16::new),
            mtu,
            peers,
            private_key: PrivateKey::from_bytes([key; 32]),
            routes: if up { routes } else { BTreeSet::new() },
            rules,
            state: if up { LinkState::Up } else { LinkState::Down },
        }
    })
}

fn route() -> impl Strategy<Value = Route> {
    (net(), 0..3_u32, table()).prop_map(|(net, metric, table)| Route::new(net, NonZeroU32::new(metric), table))
}

fn rule() -> impl Strategy<Value = Rule> {
    let ip = || (1..4_u8).prop_map(|last| IpAddr::from([192, 0, 2, last]));
    let family = || prop_oneof![Just(Family::V4), Just(Family::V6)];
    prop_oneof![
        ip().prop_map(Rule::To),
        (ip(), table()).prop_map(|(source, table)| Rule::From { source, table }),
        family().prop_map(Rule::Specific),
        family().prop_map(Rule::Unmarked),
    ]
}

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![Just(Table::Main), Just(Table::Own)]
}

fn peer() -> impl Strategy<Value = Peer> {
    let endpoint = option::of((1..4_u8).prop_map(|last| SocketAddr::new([192, 0, 2, last].into(), 51821)));
    let keepalive = option::of((1..3_u16).prop_map(|seconds| NonZeroU16::new(seconds).unwrap()));
    let key = option::of((1..3_u8).prop_map(|byte| PresharedKey([byte; 32])));
    (collection::btree_set(net(), 0..5), endpoint, keepalive, key).prop_map(
        |(allowed_ips, endpoint, persistent_keepalive, preshared_key)| Peer {
            allowed_ips,
            endpoint,
            persistent_keepalive,
            preshared_key,
        },
    )
}

/// Few ranges, so that peers fight for them.
fn net() -> impl Strategy<Value = IpNet> {
    (0..8_u8, any::<bool>()).prop_map(|(number, six)| {
        let address: IpAddr = if six {
            Ipv6Addr::new(0xfd00, u16::from(number), 0, 0, 0, 0, 0, 0).into()
        } else {
            Ipv4Addr::new(10, number, 0, 0).into()
        };
        IpNet::new(address, if six { 64 } else { 16 }).unwrap()
    })
}

/// The device with one thing changed to another valid value.
fn touched(device: Device) -> impl Strategy<Value = Device> {
    (0..8_u8, 1..4_u16, net(), peer()).prop_map(move |(what, number, net, peer)| {
        let mut device = device.clone();
        let new_key = PublicKey([7; 32]);
        match what {
            0 => device.mtu = 1300 + number,
            1 => device.listen_port = NonZeroU16::new(number),
            2 => device.private_key = PrivateKey::from_bytes([9; 32]),
            3 => drop(device.addresses.insert(net)),
            4 => drop(device.addresses.pop_first()),
            5 => drop(device.peers.pop_last()),
            6 => drop(device.peers.insert(new_key, Peer { allowed_ips: BTreeSet::new(), ..peer })),
            _ => {
                if let Some(first) = device.peers.values_mut().next() {
                    first.persistent_keepalive = NonZeroU16::new(number + 100);
                    first.endpoint = first.endpoint.and(peer.endpoint).or(first.endpoint);
                    first.preshared_key = peer.preshared_key;
                }
            }
        }
        device
    })
}

fn observation(device: Device) -> Observation {
    Observation { device, stats: BTreeMap::new() }
}

/// The memory link never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the memory link waits"),
    }
}
