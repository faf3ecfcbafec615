//! What the interface should look like, and which of that we do not mind.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

use super::routes::{is_narrow, is_routable};
use crate::model::{Assignment, Connection, Device, LinkState, Observation, Peer, Policy, PrivateKey, PublicKey};

/// MTU of an interface when neither the server nor the owner says one: 1500 less 80 bytes of IPv6, UDP and WireGuard.
pub const DEFAULT_MTU: u16 = 1420;

/// WireGuard drops a session this long after its handshake (whitepaper §6.1, `REJECT_AFTER_TIME`).
pub(super) const SESSION_LIFETIME: Duration = Duration::from_secs(180);

/// What there is around the interface that no route may take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Networks on the machine's other interfaces.
    pub local: Vec<IpNet>,
    /// The enrollment server's address; `None` until it answered.
    pub server: Option<IpAddr>,
}

/// Returns the device that `assignment` asks for within `policy` and `surroundings`.
///
/// `private_key` is the identity's; an assignment never carries one.
pub fn target(
    assignment: &Assignment,
    policy: &Policy,
    private_key: &PrivateKey,
    surroundings: &Surroundings,
) -> Device {
    let connected = assignment.nodes.values().filter(|node| node.connection == Connection::Connected);
    let addresses: BTreeSet<IpNet> = connected.flat_map(|node| node.addresses.iter().copied()).collect();
    let peers = if addresses.is_empty() {
        // A server may go on listing the peers of a network that this host has left (protocol page, "Staleness").
        BTreeMap::default()
    } else {
        assignment.peers.iter().map(|(&public_key, peer)| (public_key, permitted(peer))).collect()
    };
    let routes = routes(&addresses, &peers, surroundings);
    Device {
        addresses,
        listen_port: policy.listen_port.or(assignment.listen_port),
        mtu: policy.mtu.or(assignment.mtu).unwrap_or(DEFAULT_MTU),
        peers,
        private_key: private_key.clone(),
        routes,
        state: LinkState::Up,
    }
}

/// Adopts from the host what we do not mind: the endpoint a peer roamed to while its session lives, an endpoint where
/// we know none, and any port where we asked for none.
///
/// `before` is what the interface was last made from: an endpoint that the server has changed since is news, and goes
/// before one that a peer roamed to.
pub fn settle(mut want: Device, have: Option<&Observation>, before: Option<&Assignment>) -> Device {
    let Some(Observation { device, stats }) = have else {
        return want;
    };
    want.listen_port = want.listen_port.or(device.listen_port);
    for (public_key, peer) in &mut want.peers {
        let Some(current) = device.peers.get(public_key) else { continue };
        let age = stats.get(public_key).and_then(|stats| stats.handshake_age);
        let alive = age.is_some_and(|age| age < SESSION_LIFETIME);
        let known = before.and_then(|before| before.peers.get(public_key));
        let moved = known.is_some_and(|known| known.endpoint != peer.endpoint);
        if peer.endpoint.is_none() || (alive && !moved && current.endpoint.is_some()) {
            peer.endpoint = current.endpoint;
        }
    }
    want
}

fn permitted(peer: &Peer) -> Peer {
    let mut peer = peer.clone();
    peer.allowed_ips.retain(is_narrow);
    peer
}

/// What peers may be sent beyond the prefixes of our own addresses, as far as it may be routed.
fn routes(
    addresses: &BTreeSet<IpNet>,
    peers: &BTreeMap<PublicKey, Peer>,
    surroundings: &Surroundings,
) -> BTreeSet<IpNet> {
    let Surroundings { local, server } = surroundings;
    let implied: Vec<IpNet> = addresses.iter().map(IpNet::trunc).collect();
    let endpoints = peers.values().filter_map(|peer| peer.endpoint).map(|endpoint| endpoint.ip());
    let outside: Vec<IpAddr> = endpoints.chain(*server).collect();
    let behind = peers.values().flat_map(|peer| &peer.allowed_ips);
    behind
        .filter(|net| !implied.iter().any(|range| range.contains(*net)) && is_routable(net, &outside, local))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{Node, PeerStats, RelayChoice};

    #[test]
    fn routes_only_what_the_addresses_do_not_imply() {
        let want = want(&assignment(&["10.101.0.2/32", "192.168.40.0/24"]), &Policy::default());

        assert_eq!(want.routes, nets(&["192.168.40.0/24"]));
        assert_eq!(want.mtu, DEFAULT_MTU);
    }

    #[test]
    fn leaves_the_default_route_alone() {
        let assignment = assignment(&["0.0.0.0/0", "128.0.0.0/1", "::/0", "10.101.0.2/32"]);

        let want = want(&assignment, &Policy::default());

        assert_eq!(want.peers[&PublicKey([2; 32])].allowed_ips, nets(&["10.101.0.2/32"]));
        assert!(want.routes.is_empty());
    }

    #[test]
    fn never_routes_what_the_tunnel_itself_needs() {
        let assignment = assignment(&["192.0.2.0/24", "203.0.113.0/24", "192.168.7.0/24", "192.168.40.0/24"]);
        let surroundings =
            Surroundings { local: vec!["192.168.7.17/24".parse().unwrap()], server: "203.0.113.5".parse().ok() };

        let want = target(&assignment, &Policy::default(), &key(), &surroundings);

        assert_eq!(want.routes, nets(&["192.168.40.0/24"]), "not the endpoint's, the server's and the local one");
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

        let want = want(&assignment, &policy);

        assert_eq!((want.mtu, want.listen_port), (1300, 4500.try_into().ok()));
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
        target(assignment, policy, &key(), &Surroundings::default())
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
}
