use std::{collections::BTreeMap, num::NonZeroU32};

use uuid::Uuid;

use super::*;
use crate::model::{Connection, Neighbour, NoDefaultRoute, Node, Overlap, Peer, PeerStats, PublicKey, RelayChoice};

#[test]
fn routes_only_what_the_addresses_do_not_imply() {
    let want = want(&assignment(&["10.101.0.2/32", "192.168.40.0/24"]), &Policy::default());

    assert_eq!(want.routes, routes(&["192.168.40.0/24"], Table::Main));
    assert_eq!((want.mtu, want.fwmark, want.rules), (DEFAULT_MTU, None, BTreeSet::new()));
}

#[test]
fn a_route_has_the_metric_that_the_server_sets() {
    let mut assignment = assignment(&["192.168.40.0/24", "192.168.41.0/24"]);
    assignment.route_metrics.insert("192.168.41.0/24".parse().unwrap(), NonZeroU32::new(300).unwrap());

    let want = want(&assignment, &Policy::default());

    let metrics: Vec<_> = want.routes.iter().map(|route| route.metric.map(NonZeroU32::get)).collect();
    assert_eq!(metrics, [None, Some(300)]);
}

#[test]
fn leaves_the_default_route_alone() {
    let assignment = assignment(&["0.0.0.0/0", "128.0.0.0/1", "::/0", "10.101.0.2/32"]);

    let Target { device, withheld } = target_of(&assignment, &Policy::default(), &Surroundings::default()).unwrap();

    assert_eq!(device.peers[&PublicKey([2; 32])].allowed_ips, nets(&["10.101.0.2/32"]));
    assert!(device.routes.is_empty() && device.rules.is_empty());
    let wide = ["0.0.0.0/0", "128.0.0.0/1", "::/0"].map(|net| Withheld::TooWide(net.parse().unwrap()));
    assert_eq!(withheld, wide.into());
}

#[test]
fn a_default_route_needs_the_owners_word() {
    let assignment = through_a_gateway();

    let Target { device, withheld } = target_of(&assignment, &Policy::default(), &Surroundings::default()).unwrap();

    assert_eq!(device.peers[&PublicKey([2; 32])].allowed_ips, nets(&["10.101.0.2/32"]));
    assert!(device.routes.is_empty() && device.rules.is_empty());
    assert_eq!(withheld, [Withheld::DefaultRoute(NoDefaultRoute::NotAllowed)].into());
}

#[test]
fn a_default_route_keeps_the_ways_that_the_machine_needs() {
    let policy = Policy { accept_default_route: true, ..Policy::default() };
    let surroundings = Surroundings {
        links: [("lo", "127.0.0.1/8"), ("eth0", "192.168.7.17/24"), ("eth0", "fe80::1/64"), ("eth0", "fd00:7::17/64")]
            .map(|(interface, net)| Neighbour { interface: interface.to_owned(), net: net.parse().unwrap() })
            .into(),
        servers: ["203.0.113.5".parse().unwrap()].into(),
        ..Surroundings::default()
    };

    let Target { device, withheld } = target_of(&through_a_gateway(), &policy, &surroundings).unwrap();

    assert_eq!(device.peers[&PublicKey([2; 32])].allowed_ips, nets(&["10.101.0.2/32", "0.0.0.0/0"]));
    assert_eq!(device.routes, routes(&["0.0.0.0/0"], Table::Own), "and none for IPv6, which the gateway does not have");
    assert_eq!(device.fwmark, Some(InterfaceName::numbered(0).mark()));
    let outside = Rule::From { source: "192.168.7.17".parse().unwrap(), table: Table::Main };
    let server = Rule::To("203.0.113.5".parse().unwrap());
    assert_eq!(device.rules, [server, outside, Rule::Specific(Family::V4), Rule::Unmarked(Family::V4)].into());
    assert!(withheld.is_empty());
}

#[test]
fn one_interface_at_a_time_takes_the_default_route() {
    let policy = Policy { accept_default_route: true, ..Policy::default() };
    let taken =
        |index| Surroundings { tunnels: [InterfaceName::numbered(index).mark()].into(), ..Surroundings::default() };
    let of = |interface: u16, other: u16| {
        target(&through_a_gateway(), &policy, &InterfaceName::numbered(interface), &key(), &taken(other)).unwrap()
    };

    assert!(of(0, 0).withheld.is_empty(), "its own");
    assert!(of(0, 1).withheld.is_empty(), "the other one yields");
    assert_eq!(of(1, 0).withheld, [Withheld::DefaultRoute(NoDefaultRoute::Taken)].into());
    assert!(of(1, 0).device.rules.is_empty());
}

#[test]
fn never_routes_what_the_tunnel_itself_needs() {
    let assignment = assignment(&["192.0.2.0/24", "203.0.113.0/24", "192.168.7.0/24", "192.168.40.0/24"]);
    let surroundings = Surroundings { confirmed: ["203.0.113.5".parse().unwrap()].into(), ..beside("192.168.7.17/24") };

    let Target { device, withheld } = target_of(&assignment, &Policy::default(), &surroundings).unwrap();

    assert_eq!(device.routes, routes(&["192.168.40.0/24"], Table::Main));
    let told: Vec<_> = withheld.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "192.0.2.0/24 is not routed: it holds the address 192.0.2.1 of a peer",
            "192.168.7.0/24 is not routed: it overlaps 192.168.7.0/24 on this machine's interface eth0",
            "203.0.113.0/24 is not routed: it holds the address 203.0.113.5 of the enrollment server",
        ]
    );
}

#[test]
fn a_network_in_use_is_left_out_with_its_peers() {
    let assignment = assignment(&["10.101.0.2/32", "192.168.40.0/24"]);

    let Target { device, withheld } = target_of(&assignment, &Policy::default(), &beside("10.101.7.1/24")).unwrap();

    assert!(device.addresses.is_empty() && device.peers.is_empty() && device.routes.is_empty());
    let told: Vec<_> = withheld.iter().map(ToString::to_string).collect();
    let expected = "network plant-a is left out: its range 10.101.0.0/16 overlaps 10.101.7.0/24 on this machine's \
                    interface eth0";
    assert_eq!(told, [expected]);
}

#[test]
fn a_name_server_in_the_network_is_in_the_way_unless_it_is_this_host() {
    for (ip, expected) in [("10.101.0.53", 0), ("10.101.0.3", 1)] {
        let surroundings = Surroundings { name_servers: vec![ip.parse().unwrap()], ..Surroundings::default() };

        let want = target_of(&assignment(&["10.101.0.2/32"]), &Policy::default(), &surroundings).unwrap().device;

        assert_eq!(want.addresses.len(), expected, "{ip}");
    }
}

#[test]
fn what_is_left_of_a_peer_without_a_network_is_not_configured() {
    let mut assignment = assignment(&["10.101.0.2/32"]);
    let mut node = assignment.nodes.values().next().unwrap().clone();
    node.addresses = nets(&["10.202.0.3/24"]);
    assignment.nodes.insert("office".parse().unwrap(), node);
    let other = Peer { allowed_ips: nets(&["10.202.0.2/32", "10.101.0.9/32"]), ..Peer::default() };
    assignment.peers.insert(PublicKey([3; 32]), other);

    let want = target_of(&assignment, &Policy::default(), &beside("10.101.7.1/24")).unwrap().device;

    assert_eq!(want.addresses, nets(&["10.202.0.3/24"]));
    assert_eq!(want.peers.keys().collect::<Vec<_>>(), [&PublicKey([3; 32])]);
    assert_eq!(want.peers[&PublicKey([3; 32])].allowed_ips, nets(&["10.202.0.2/32"]));
}

#[test]
fn an_owner_may_want_all_or_nothing() {
    let policy = Policy { overlap: Overlap::Refuse, ..Policy::default() };

    let of_network = target_of(&assignment(&[]), &policy, &beside("10.101.7.1/24")).unwrap_err();
    let of_range = target_of(&assignment(&["10.9.0.0/16"]), &policy, &beside("10.9.7.1/24")).unwrap_err();

    assert_eq!(
        of_network.to_string(),
        "the range of network plant-a 10.101.0.0/16 overlaps 10.101.7.0/24 on this machine's interface eth0"
    );
    assert_eq!(
        of_range.to_string(),
        "the range behind a peer 10.9.0.0/16 overlaps 10.9.7.0/24 on this machine's interface eth0"
    );
}

#[test]
fn a_table_of_its_own_keeps_both_sides_of_an_overlap() {
    let policy = Policy { overlap: Overlap::Table, ..Policy::default() };
    let own = Rule::From { source: "10.101.0.3".parse().unwrap(), table: Table::Own };

    let network = target_of(&assignment(&["10.101.0.2/32"]), &policy, &beside("10.101.7.1/24")).unwrap();
    let range = target_of(&assignment(&["10.9.0.0/16"]), &policy, &beside("10.9.7.1/24")).unwrap();

    assert_eq!(network.device.addresses, nets(&["10.101.0.3/32"]), "its prefix would bring a route for everybody");
    assert_eq!(network.device.routes, routes(&["10.101.0.0/16"], Table::Own));
    assert_eq!(network.device.peers[&PublicKey([2; 32])].allowed_ips, nets(&["10.101.0.2/32"]));
    assert_eq!((network.device.rules, network.withheld), ([own].into(), BTreeSet::new()));
    assert_eq!(range.device.addresses, nets(&["10.101.0.3/16"]));
    assert_eq!(range.device.routes, routes(&["10.9.0.0/16"], Table::Own));
    assert_eq!((range.device.rules, range.withheld), ([own].into(), BTreeSet::new()));
}

#[test]
fn an_owner_bounds_the_prefixes() {
    let policy = Policy { allowed_prefixes: vec!["10.0.0.0/8".parse().unwrap()], ..Policy::default() };

    let Target { device, withheld } =
        target_of(&assignment(&["10.101.0.2/32", "192.168.40.0/24"]), &policy, &Surroundings::default()).unwrap();

    assert_eq!(device.peers[&PublicKey([2; 32])].allowed_ips, nets(&["10.101.0.2/32"]));
    assert!(device.routes.is_empty());
    let told: Vec<_> = withheld.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["192.168.40.0/24 is not routed: it is none that allowed_prefixes permits"]);
}

#[test]
fn packets_fit_the_path_to_the_server() {
    for (server, path, expected) in [
        (None, None, 1420),
        (None, Some(1500), 1420),
        (Some(1420), Some(1492), 1412),
        (Some(1300), Some(1492), 1300),
        (None, Some(1300), 1280),
        (Some(8920), Some(9001), 8920),
    ] {
        let mut assignment = assignment(&[]);
        assignment.mtu = server;
        let surroundings = Surroundings { path_mtu: path.and_then(NonZeroU16::new), ..Surroundings::default() };

        let want = target_of(&assignment, &Policy::default(), &surroundings).unwrap().device;

        assert_eq!(want.mtu, expected, "{server:?} {path:?}");
    }
}

#[test]
fn a_host_without_a_connected_network_has_no_peers() {
    let mut assignment = assignment(&["10.101.0.2/32"]);
    for node in assignment.nodes.values_mut() {
        node.connection = Connection::Disconnected;
    }

    let want = want(&assignment, &Policy::default());

    assert!(want.peers.is_empty() && want.addresses.is_empty());
}

#[test]
fn the_owner_goes_before_the_server() {
    let mut assignment = assignment(&[]);
    assignment.mtu = Some(1380);
    assignment.listen_port = 51830.try_into().ok();
    let policy = Policy { mtu: Some(1300), listen_port: 4500.try_into().ok(), ..Policy::default() };

    let Target { device, withheld } = target_of(&assignment, &policy, &Surroundings::default()).unwrap();

    assert_eq!((device.mtu, device.listen_port), (1300, 4500.try_into().ok()));
    let told: Vec<_> = withheld.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "the server asks for UDP port 51830; it stays 4500, as this machine's owner set it",
            "the server asks for an MTU of 1380; it stays 1300, as this machine's owner set it",
        ]
    );
}

#[test]
fn keeps_the_endpoint_a_live_peer_roamed_to() {
    for (age, expected) in [(179, "198.51.100.9:7"), (180, "192.0.2.1:51821")] {
        let want = want(&assignment(&["10.101.0.2/32"]), &Policy::default());
        let have = observed(&want, Duration::from_secs(age));

        let settled = settle(want, Some(&have), None);

        assert_eq!(settled.peers[&PublicKey([2; 32])].endpoint, expected.parse().ok());
    }
}

#[test]
fn takes_an_endpoint_that_the_server_changed_from_a_live_peer() {
    let before = assignment(&["10.101.0.2/32"]);
    let mut now = before.clone();
    for peer in now.peers.values_mut() {
        peer.endpoint = "192.0.2.1:4500".parse().ok();
    }
    let want = want(&now, &Policy::default());
    let have = observed(&want, Duration::from_secs(10));

    let settled = settle(want, Some(&have), Some(&before));

    assert_eq!(settled.peers[&PublicKey([2; 32])].endpoint, "192.0.2.1:4500".parse().ok());
}

#[test]
fn adopts_a_port_nobody_chose_and_an_endpoint_nobody_knows() {
    let mut want = want(&assignment(&["10.101.0.2/32"]), &Policy::default());
    let mut have = observed(&want, Duration::from_secs(1000));
    have.device.listen_port = 40000.try_into().ok();
    for peer in want.peers.values_mut() {
        peer.endpoint = None;
    }

    let settled = settle(want, Some(&have), None);

    assert_eq!(settled, have.device);
}

fn want(assignment: &Assignment, policy: &Policy) -> Device {
    target_of(assignment, policy, &Surroundings::default()).unwrap().device
}

fn target_of(assignment: &Assignment, policy: &Policy, surroundings: &Surroundings) -> Result<Target, Overlaps> {
    target(assignment, policy, &InterfaceName::numbered(0), &key(), surroundings)
}

fn through_a_gateway() -> Assignment {
    let assignment = assignment(&["0.0.0.0/0", "10.101.0.2/32"]);
    Assignment { default_gateway: "10.101.0.2".parse().ok(), ..assignment }
}

fn beside(net: &str) -> Surroundings {
    let links = vec![Neighbour { interface: "eth0".to_owned(), net: net.parse().unwrap() }];
    Surroundings { links, ..Surroundings::default() }
}

fn routes(texts: &[&str], table: Table) -> BTreeSet<Route> {
    texts.iter().map(|text| Route::new(text.parse().unwrap(), None, table)).collect()
}

fn assignment(allowed_ips: &[&str]) -> Assignment {
    let node = Node {
        addresses: nets(&["10.101.0.3/16"]),
        connection: Connection::Connected,
        id: Uuid::nil(),
        relay: None,
        relay_choice: RelayChoice::Fixed,
        tags: BTreeSet::new(),
    };
    let peer = Peer { allowed_ips: nets(allowed_ips), endpoint: "192.0.2.1:51821".parse().ok(), ..Peer::default() };
    Assignment {
        nodes: BTreeMap::from([("plant-a".parse().unwrap(), node)]),
        peers: BTreeMap::from([(PublicKey([2; 32]), peer)]),
        ..Assignment::default()
    }
}

fn observed(device: &Device, age: Duration) -> Observation {
    let mut device = device.clone();
    for peer in device.peers.values_mut() {
        peer.endpoint = "198.51.100.9:7".parse().ok();
    }
    let stats = PeerStats { handshake_age: Some(age), ..PeerStats::default() };
    Observation { stats: device.peers.keys().map(|&key| (key, stats)).collect(), device }
}

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn key() -> PrivateKey {
    PrivateKey::from_bytes([1; 32])
}
