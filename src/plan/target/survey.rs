//! What of a grant this machine goes along with: each network and range is held against what is there already.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::Overlaps;
use crate::{
    model::{
        Assignment, Connection, Family, NetworkName, NoDefaultRoute, Obstacle, Overlap, Peer, Policy, PublicKey, Route,
        Table, Withheld,
    },
    plan::routes::{Obstacles, is_narrow},
};

/// Goes through what a server granted and notes what it does not get.
pub(super) struct Survey<'a> {
    pub(super) obstacles: Obstacles<'a>,
    pub(super) overlap: Overlap,
    pub(super) withheld: BTreeSet<Withheld>,
}

/// The networks of a host that are carried out.
#[derive(Default)]
pub(super) struct Networks {
    pub(super) addresses: BTreeSet<IpNet>,
    /// Addresses in networks that only packets from them see.
    pub(super) apart: BTreeSet<IpAddr>,
    /// What the addresses themselves lead to.
    ranges: Vec<IpNet>,
    /// Routes to the ranges of networks that stand apart.
    pub(super) routes: BTreeSet<Route>,
    /// Ranges of networks that are left out.
    skipped: Vec<IpNet>,
}

impl Survey<'_> {
    pub(super) fn networks(&mut self, assignment: &Assignment) -> Result<Networks, Overlaps> {
        let mut networks = Networks::default();
        let connected = assignment.nodes.iter().filter(|(_, node)| node.connection == Connection::Connected);
        for (name, node) in connected {
            let ranges = || node.addresses.iter().map(IpNet::trunc);
            let obstacle = ranges().find_map(|range| Some((range, self.obstacles.to_network(&range)?)));
            match obstacle {
                None => {
                    networks.addresses.extend(&node.addresses);
                    networks.ranges.extend(ranges());
                }
                Some((_, obstacle)) if self.stands_apart(&obstacle) => {
                    // With its prefix, the address would bring a route to the range for all packets.
                    networks.addresses.extend(node.addresses.iter().map(|net| IpNet::from(net.addr())));
                    networks.apart.extend(node.addresses.iter().map(IpNet::addr));
                    networks.routes.extend(ranges().map(|range| Route::new(range, None, Table::Own)));
                    networks.ranges.extend(ranges());
                }
                Some((range, obstacle)) => {
                    self.refuse(&obstacle, range, || format!("the range of network {name}"))?;
                    networks.skipped.extend(ranges());
                    self.withheld.insert(Withheld::Network { name: NetworkName::clone(name), range, obstacle });
                }
            }
        }
        Ok(networks)
    }

    /// The families whose default route a peer gets.
    ///
    /// Two tunnels for everything would carry each other's packets: of several that want it the first is it.
    pub(super) fn default_route(
        &mut self,
        assignment: &Assignment,
        policy: &Policy,
        is_taken: bool,
    ) -> BTreeSet<Family> {
        if assignment.default_gateway.is_none() {
            return BTreeSet::new();
        }
        let offered = assignment.peers.values().flat_map(|peer| &peer.allowed_ips).filter(|net| net.prefix_len() == 0);
        let offered: BTreeSet<Family> = offered.map(|net| Family::of(net.addr())).collect();
        if !policy.accept_default_route {
            self.withheld.insert(Withheld::DefaultRoute(NoDefaultRoute::NotAllowed));
            return BTreeSet::new();
        }
        if is_taken {
            self.withheld.insert(Withheld::DefaultRoute(NoDefaultRoute::Taken));
            return BTreeSet::new();
        }
        if offered.is_empty() {
            self.withheld.insert(Withheld::DefaultRoute(NoDefaultRoute::NoPeer));
        }
        offered
    }

    /// The peers with what they may be sent and may send, and the ranges behind them that need routes.
    pub(super) fn peers(
        &mut self,
        assignment: &Assignment,
        networks: &Networks,
        default: &BTreeSet<Family>,
    ) -> (BTreeMap<PublicKey, Peer>, BTreeSet<IpNet>) {
        let (mut peers, mut ranges) = (BTreeMap::new(), BTreeSet::new());
        for (&public_key, peer) in &assignment.peers {
            let mut permitted = Peer { allowed_ips: BTreeSet::new(), ..peer.clone() };
            for net in &peer.allowed_ips {
                let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(net));
                if net.prefix_len() == 0 && assignment.default_gateway.is_some() {
                    if default.contains(&Family::of(net.addr())) {
                        permitted.allowed_ips.insert(*net);
                    }
                } else if !is_narrow(net) {
                    self.withheld.insert(Withheld::TooWide(*net));
                } else if within(&networks.ranges) {
                    permitted.allowed_ips.insert(*net);
                } else if within(&networks.skipped) {
                    // Said of the network already.
                } else if self.obstacles.allows(net) {
                    permitted.allowed_ips.insert(*net);
                    ranges.insert(*net);
                } else {
                    self.withheld.insert(Withheld::Range { range: *net, obstacle: Obstacle::NotAllowed });
                }
            }
            if !permitted.allowed_ips.is_empty() || peer.allowed_ips.is_empty() {
                peers.insert(public_key, permitted);
            }
        }
        (peers, ranges)
    }

    /// Who sees the routes to the ranges behind peers; those left out are not in it.
    pub(super) fn ranges(&mut self, ranges: BTreeSet<IpNet>) -> Result<BTreeMap<IpNet, Table>, Overlaps> {
        let mut tables = BTreeMap::new();
        for range in ranges {
            match self.obstacles.to_range(&range) {
                None => {
                    tables.insert(range, Table::Main);
                }
                Some(obstacle) if self.stands_apart(&obstacle) => {
                    tables.insert(range, Table::Own);
                }
                Some(obstacle) => {
                    self.refuse(&obstacle, range, || "the range behind a peer".to_owned())?;
                    self.withheld.insert(Withheld::Range { range, obstacle });
                }
            }
        }
        Ok(tables)
    }

    /// Notes what the server asks for and the owner has decided.
    pub(super) fn settings(&mut self, assignment: &Assignment, policy: &Policy) {
        if let (Some(kept), Some(asked)) = (policy.listen_port, assignment.listen_port)
            && kept != asked
        {
            self.withheld.insert(Withheld::ListenPort { asked, kept });
        }
        if let (Some(kept), Some(asked)) = (policy.mtu, assignment.mtu)
            && kept != asked
        {
            self.withheld.insert(Withheld::Mtu { asked, kept });
        }
    }

    fn stands_apart(&self, obstacle: &Obstacle) -> bool {
        self.overlap == Overlap::Table && obstacle.is_overlap()
    }

    fn refuse(&self, obstacle: &Obstacle, range: IpNet, what: impl FnOnce() -> String) -> Result<(), Overlaps> {
        if self.overlap == Overlap::Refuse && obstacle.is_overlap() {
            return Err(Overlaps { obstacle: obstacle.clone(), range, what: what() });
        }
        Ok(())
    }
}
