//! What the interface should look like, and which of that we do not mind.

mod survey;

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU16, time::Duration};

use ipnet::IpNet;

use self::survey::Survey;
use super::routes::Obstacles;
use crate::model::{
    Assignment, Device, Family, InterfaceName, LinkState, Observation, Obstacle, Policy, PrivateKey, Route, Rule,
    Surroundings, Table, Withheld,
};

/// MTU of an interface when neither the server, the owner nor the path says one: 1500 less [`OVERHEAD`].
pub const DEFAULT_MTU: u16 = 1420;

/// WireGuard drops a session this long after its handshake (whitepaper §6.1, `REJECT_AFTER_TIME`).
pub(super) const SESSION_LIFETIME: Duration = Duration::from_secs(180);

/// The device that an assignment asks for, as far as this machine goes along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What the interface should look like.
    pub device: Device,
    /// What the server asked for beyond that, and why it is left out.
    pub withheld: BTreeSet<Withheld>,
}

/// A granted range that is in use already, where the owner wants no part of such an assignment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {range} {obstacle}")]
pub struct Overlaps {
    /// What it is in the way of.
    pub obstacle: Obstacle,
    /// The range.
    pub range: IpNet,
    /// Where the server names it: a network, or a range behind a peer.
    pub what: String,
}

/// Returns the device that `assignment` asks for within `policy` and `surroundings`.
///
/// `private_key` is the identity's; an assignment never carries one.
///
/// # Errors
/// [`Overlaps`] if a granted range is in use already and the policy refuses that.
pub fn target(
    assignment: &Assignment,
    policy: &Policy,
    interface: &InterfaceName,
    private_key: &PrivateKey,
    surroundings: &Surroundings,
) -> Result<Target, Overlaps> {
    let endpoints = assignment.peers.values().filter_map(|peer| peer.endpoint).map(|endpoint| endpoint.ip());
    let own = assignment.nodes.values().flat_map(|node| node.addresses.iter().map(IpNet::addr)).collect();
    let mut survey = Survey {
        obstacles: Obstacles::new(surroundings, &own, endpoints, &policy.allowed_prefixes),
        overlap: policy.overlap,
        withheld: BTreeSet::new(),
    };
    let networks = survey.networks(assignment)?;
    let is_taken = surroundings.tunnels.iter().any(|mark| *mark < interface.mark());
    let default = survey.default_route(assignment, policy, is_taken);
    let (peers, ranges) = if networks.addresses.is_empty() {
        // A server may go on listing the peers of a network that this host has left (protocol page, "Staleness").
        Default::default()
    } else {
        survey.peers(assignment, &networks, &default)
    };
    let ranges = survey.ranges(ranges)?;
    survey.settings(assignment, policy);

    let apart = ranges.values().any(|table| *table == Table::Own);
    let of_ranges = ranges
        .into_iter()
        .map(|(range, table)| Route::new(range, assignment.route_metrics.get(&range).copied(), table));
    let mut routes: BTreeSet<Route> = of_ranges.chain(networks.routes).collect();
    let own = |ip: IpAddr| Rule::From { source: ip, table: Table::Own };
    let mut rules: BTreeSet<Rule> = networks.apart.iter().copied().map(own).collect();
    if apart {
        rules.extend(networks.addresses.iter().map(|net| own(net.addr())));
    }
    let default = if networks.addresses.is_empty() { BTreeSet::new() } else { default };
    for family in &default {
        routes.insert(Route::new(everything(*family), None, Table::Own));
        rules.extend(around(*family, surroundings));
    }
    let device = Device {
        addresses: networks.addresses,
        fwmark: (!default.is_empty()).then(|| interface.mark()),
        listen_port: policy.listen_port.or(assignment.listen_port),
        mtu: policy.mtu.unwrap_or_else(|| mtu(assignment.mtu, surroundings.path_mtu)),
        peers,
        private_key: private_key.clone(),
        routes,
        rules,
        state: LinkState::Up,
    };
    Ok(Target { device, withheld: survey.withheld })
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

/// The rules that send all traffic of a family through the interface, except what has to stay outside: packets to the
/// server, answers from the machine's other addresses, its other routes, and the tunnel's own packets.
///
/// Answers stay where the question came from, so that who is logged in from elsewhere stays so, and the check of
/// reverse paths that many systems do finds WireGuard's packets in order.
fn around(family: Family, surroundings: &Surroundings) -> impl Iterator<Item = Rule> {
    let addresses = surroundings.links.iter().map(|neighbour| neighbour.net.addr());
    let outside = addresses.filter(|ip| !ip.is_loopback() && !is_link_local(*ip));
    let outside = outside.map(|source| Rule::From { source, table: Table::Main });
    let rules =
        outside.chain(surroundings.servers.iter().copied().map(Rule::To)).filter(move |rule| rule.family() == family);
    rules.chain([Rule::Specific(family), Rule::Unmarked(family)])
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn everything(family: Family) -> IpNet {
    let any: IpAddr = match family {
        Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new(any, 0).unwrap_or_else(|_| IpNet::from(any))
}

/// The server's MTU, or the usual one, unless the path to the server takes less; never below IPv6's minimum.
fn mtu(server: Option<u16>, path: Option<NonZeroU16>) -> u16 {
    let fits = path.map_or(u16::MAX, |path| path.get().saturating_sub(OVERHEAD).max(SMALLEST_MTU));
    server.unwrap_or(DEFAULT_MTU).min(fits)
}

/// What WireGuard adds to a packet, in bytes: an IPv6 header of 40, UDP of 8, and its own 32 (whitepaper §5.4.6).
const OVERHEAD: u16 = 80;

/// The smallest MTU of IPv6 (RFC 8200, section 5); Linux takes IPv6 from interfaces below it.
const SMALLEST_MTU: u16 = 1280;

#[cfg(test)]
mod tests;
