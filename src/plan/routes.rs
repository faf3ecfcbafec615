//! Which networks behind peers may be routed into a tunnel: a server must not be able to take a machine's traffic over,
//! by mistake or otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::model::{Neighbour, Obstacle, Surroundings};

/// Returns whether a peer may have `net` at all: the default route and its halves, quarters and so on are for an owner
/// to give away, not for a server.
pub(super) fn is_narrow(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.prefix_len() >= 8,
        IpNet::V6(net) => net.prefix_len() >= 16,
    }
}

/// What granted ranges must leave alone.
///
/// Prefixes either nest or are apart, so that a range is looked up among its own parents and in the stretch of the
/// sorted rest that it holds: thousands of ranges cost no more than their number.
pub(super) struct Obstacles<'a> {
    allowed: &'a [IpNet],
    claims: BTreeMap<IpNet, Obstacle>,
    endpoints: BTreeSet<IpAddr>,
}

impl<'a> Obstacles<'a> {
    /// Gathers them; `own` are addresses that this host has through the server, `endpoints` those of peers, `allowed` is
    /// the owner's list, empty for no bounds.
    pub(super) fn new(
        surroundings: &Surroundings,
        own: &BTreeSet<IpAddr>,
        endpoints: impl Iterator<Item = IpAddr>,
        allowed: &'a [IpNet],
    ) -> Self {
        let Surroundings { confirmed, links, name_servers, path_mtu: _, routes, servers: _, tunnels: _ } = surroundings;
        let mut claims = BTreeMap::new();
        let mut claim = |net: IpNet, obstacle| {
            claims.entry(net.trunc()).or_insert(obstacle);
        };
        for &ip in confirmed {
            claim(ip.into(), Obstacle::Server(ip));
        }
        // One at an address of ours is this agent.
        for &ip in name_servers.iter().filter(|ip| !own.contains(ip)) {
            claim(ip.into(), Obstacle::NameServer(ip));
        }
        for Neighbour { interface, net } in links {
            claim(*net, Obstacle::Link { interface: interface.clone(), net: net.trunc() });
        }
        // Half the internet through another interface is a default route by another name.
        for Neighbour { interface, net } in routes.iter().filter(|neighbour| is_narrow(&neighbour.net)) {
            claim(*net, Obstacle::Route { interface: interface.clone(), net: *net });
        }
        Self { allowed, claims, endpoints: endpoints.collect() }
    }

    /// Returns whether the owner lets a server use a range at all.
    pub(super) fn allows(&self, range: &IpNet) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|allowed| allowed.contains(range))
    }

    /// Returns what speaks against a network of ours with this range; `None` if nothing does.
    pub(super) fn to_network(&self, range: &IpNet) -> Option<Obstacle> {
        if !self.allows(range) {
            return Some(Obstacle::NotAllowed);
        }
        if is_special(range.addr()) {
            return Some(Obstacle::Special);
        }
        let held = self.claims.range(*range..).next().filter(|(net, _)| range.contains(*net));
        let holds = || std::iter::successors(range.supernet(), IpNet::supernet).find_map(|net| self.claims.get(&net));
        held.map(|(_, obstacle)| obstacle).or_else(holds).cloned()
    }

    /// The same for a range behind a peer, which must not hold the address of a peer either.
    pub(super) fn to_range(&self, range: &IpNet) -> Option<Obstacle> {
        let endpoint = || {
            let first = self.endpoints.range(range.network()..).next().copied();
            first.filter(|ip| range.contains(ip)).map(Obstacle::Peer)
        };
        self.to_network(range).or_else(endpoint)
    }
}

/// Addresses that no tunnel can lead to.
fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_multicast() || ip.is_link_local() || ip.is_unspecified() || ip.is_broadcast()
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_networks_behind_a_gateway_are_routed() {
        for net in ["192.168.40.0/24", "10.9.0.0/16", "10.0.0.0/8", "fd00:9::/64", "203.0.113.7/32"] {
            let surroundings = Surroundings::default();
            let obstacles = Obstacles::new(&surroundings, &BTreeSet::new(), std::iter::empty(), &[]);

            assert_eq!(obstacles.to_range(&net.parse().unwrap()), None, "{net}");
        }
    }

    #[test]
    fn a_machine_cannot_be_taken_over() {
        let surroundings = Surroundings {
            links: vec![on("eth0", "192.168.7.17/24"), on("eth0", "fd00:7::17/64")],
            name_servers: vec!["172.20.0.53".parse().unwrap()],
            path_mtu: None,
            routes: vec![on("tun0", "10.8.0.0/16")],
            confirmed: ["198.51.100.20".parse().unwrap()].into(),
            ..Surroundings::default()
        };
        let endpoint: IpAddr = "2001:db8::20".parse().unwrap();
        let obstacles = Obstacles::new(&surroundings, &BTreeSet::new(), [endpoint].into_iter(), &[]);

        for (net, expected) in [
            ("127.0.0.0/8", "is no range that a tunnel can lead to"),
            ("169.254.169.254/32", "is no range that a tunnel can lead to"),
            ("224.0.0.0/8", "is no range that a tunnel can lead to"),
            ("fe80::/64", "is no range that a tunnel can lead to"),
            ("198.51.100.0/24", "holds the address 198.51.100.20 of the enrollment server"),
            ("198.51.100.20/32", "holds the address 198.51.100.20 of the enrollment server"),
            ("2001:db8::/32", "holds the address 2001:db8::20 of a peer"),
            ("192.168.0.0/16", "overlaps 192.168.7.0/24 on this machine's interface eth0"),
            ("192.168.7.1/32", "overlaps 192.168.7.0/24 on this machine's interface eth0"),
            ("fd00:7::/64", "overlaps fd00:7::/64 on this machine's interface eth0"),
            ("172.16.0.0/12", "holds this machine's name server 172.20.0.53"),
            ("10.8.9.0/24", "overlaps this machine's route to 10.8.0.0/16 through tun0"),
            ("10.0.0.0/8", "overlaps this machine's route to 10.8.0.0/16 through tun0"),
        ] {
            let found = obstacles.to_range(&net.parse().unwrap()).map(|obstacle| obstacle.to_string());

            assert_eq!(found.as_deref(), Some(expected), "{net}");
        }
    }

    #[test]
    fn another_tunnel_for_everything_is_in_nobodys_way() {
        let halves = vec![on("tun0", "0.0.0.0/1"), on("tun0", "128.0.0.0/1"), on("tun0", "8000::/1")];
        let surroundings = Surroundings { routes: halves, ..Surroundings::default() };
        let obstacles = Obstacles::new(&surroundings, &BTreeSet::new(), std::iter::empty(), &[]);

        for net in ["10.101.0.0/16", "192.168.40.0/24", "fd00:9::/64"] {
            assert_eq!(obstacles.to_range(&net.parse().unwrap()), None, "{net}");
        }
    }

    #[test]
    fn the_owner_bounds_what_a_server_may_use() {
        let allowed = ["10.0.0.0/8".parse().unwrap()];
        let surroundings = Surroundings::default();
        let obstacles = Obstacles::new(&surroundings, &BTreeSet::new(), std::iter::empty(), &allowed);

        assert_eq!(obstacles.to_network(&"10.101.0.0/16".parse().unwrap()), None);
        for outside in ["8.0.0.0/7", "172.16.0.0/12", "fd00::/64"] {
            assert_eq!(obstacles.to_network(&outside.parse().unwrap()), Some(Obstacle::NotAllowed));
        }
    }

    proptest! {
        #[test]
        fn finds_an_overlap_exactly_where_two_prefixes_share_an_address(
            links in prop::collection::vec(prefix(), 0..8), range in prefix()
        ) {
            let neighbours = links.iter().map(|net| Neighbour { interface: "eth0".to_owned(), net: *net }).collect();
            let surroundings = Surroundings { links: neighbours, ..Surroundings::default() };
            let obstacles = Obstacles::new(&surroundings, &BTreeSet::new(), std::iter::empty(), &[]);

            let overlaps = links.iter().any(|net| net.contains(&range) || range.contains(&net.trunc()));

            prop_assert_eq!(obstacles.to_network(&range).is_some(), overlaps);
        }

        #[test]
        fn finds_a_peer_exactly_where_a_range_holds_it(ips in prop::collection::vec(any::<u16>(), 0..6), range in prefix()) {
            let endpoints: Vec<IpAddr> = ips.iter().map(|low| ip(*low)).collect();
            let surroundings = Surroundings::default();
            let obstacles = Obstacles::new(&surroundings, &BTreeSet::new(), endpoints.iter().copied(), &[]);

            let holds = endpoints.iter().any(|ip| range.contains(ip));

            prop_assert_eq!(obstacles.to_range(&range).is_some(), holds);
        }
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (any::<u16>(), 10_u8..=32).prop_map(|(low, len)| IpNet::new(ip(low), len).unwrap().trunc())
    }

    /// Few bits, so that prefixes meet.
    fn ip(low: u16) -> IpAddr {
        let [a, b] = low.to_be_bytes();
        [10, a & 3, b & 7, b >> 6].into()
    }

    fn on(interface: &str, net: &str) -> Neighbour {
        Neighbour { interface: interface.to_owned(), net: net.parse().unwrap() }
    }
}
