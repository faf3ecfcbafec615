//! Where to look for peers that may be in one of this machine's own networks.
//!
//! ```text
//!           silent, with an address nearby         every address was tried
//!  (nothing) ─────────────────────────────► trial ───────────────────────► rest, at what the server said
//!      ▲                                      │ ▲                           │    longer each time
//!      └──────────── its session lives ───────┘ └───────────────────────────┘
//! ```
//!
//! Only the handshake is tried: nobody but the owner of the peer's key can complete it. A peer whose session lives is
//! left alone.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::target::SESSION_LIFETIME;
use crate::model::{Assignment, Device, Observation, PublicKey};

/// Which peers are looked for, and where.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    /// Addresses nearby by which sessions live: they hold, whatever the server says.
    kept: BTreeMap<PublicKey, SocketAddr>,
    trials: BTreeMap<PublicKey, Trial>,
}

/// The look for one peer.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Where it is looked for; `None` is where the server said.
    at: Option<SocketAddr>,
    /// How often all addresses were tried in vain.
    rounds: u32,
    until: Instant,
}

/// What this machine knows of where it is.
#[derive(Clone, Copy, Debug)]
pub struct Vicinity<'a> {
    /// Its private networks with its own addresses in them; those of tunnels are not among them.
    pub attached: &'a [IpNet],
    /// Its public addresses: a peer with the same one is behind the same NAT.
    pub public: &'a [IpAddr],
}

impl Trials {
    /// Decides at `now` where to look for each peer of `assignment` that is not heard of, by what the host shows.
    pub fn advance(&mut self, assignment: &Assignment, have: Option<&Observation>, around: Vicinity<'_>, now: Instant) {
        let before = std::mem::take(self);
        for (&key, peer) in &assignment.peers {
            let mut places = places(assignment, key, around);
            places.retain(|place| Some(*place) != peer.endpoint);
            let Some(&first) = places.first() else { continue };
            let current = have.and_then(|have| have.device.peers.get(&key)).and_then(|peer| peer.endpoint);
            let age = have.and_then(|have| have.stats.get(&key)).and_then(|stats| stats.handshake_age);
            if age.is_some_and(|age| age < SESSION_LIFETIME) {
                self.kept.extend(current.filter(|current| places.contains(current)).map(|current| (key, current)));
                continue;
            }
            let is_near = peer.endpoint.is_none_or(|endpoint| around.public.contains(&endpoint.ip()));
            let trial = match before.trials.get(&key) {
                Some(trial) if trial.at.is_none_or(|at| places.contains(&at)) => trial.at_time(now, &places),
                // One that is behind the same NAT is hardly reached from outside.
                Some(_) | None => Trial { at: is_near.then_some(first), rounds: 0, until: now + SLOT },
            };
            self.trials.insert(key, trial);
        }
    }

    /// Returns `want` with the endpoints that are to be tried.
    #[must_use]
    pub fn put_into(&self, mut want: Device) -> Device {
        let trials = self.trials.iter().filter_map(|(key, trial)| Some((key, trial.at?)));
        for (key, endpoint) in trials.chain(self.kept.iter().map(|(key, endpoint)| (key, *endpoint))) {
            if let Some(peer) = want.peers.get_mut(key) {
                peer.endpoint = Some(endpoint);
            }
        }
        want
    }

    /// When to decide again; `None` when there is nobody to look for.
    pub fn deadline(&self) -> Option<Instant> {
        self.trials.values().map(|trial| trial.until).min()
    }
}

impl Trial {
    /// The look as it goes on at `now`: from one place to the next, then a rest.
    fn at_time(self, now: Instant, places: &[SocketAddr]) -> Self {
        if now < self.until {
            return self;
        }
        let next = places.iter().find(|place| self.at.is_none_or(|at| **place > at)).copied();
        match next {
            Some(_) => Self { at: next, until: now + SLOT, ..self },
            None => Self { at: None, rounds: self.rounds.saturating_add(1), until: now + rest(self.rounds) },
        }
    }
}

/// The addresses of a peer that are in a network of this machine, in order: nothing is sent to any other.
fn places(assignment: &Assignment, key: PublicKey, around: Vicinity<'_>) -> Vec<SocketAddr> {
    let overlay = || assignment.nodes.values().flat_map(|node| &node.addresses);
    let is_there = |ip: IpAddr| {
        around.attached.iter().any(|net| net.contains(&ip) && !is_edge(*net, ip))
            && around.attached.iter().all(|net| net.addr() != ip)
            && !overlay().any(|net| net.contains(&ip))
    };
    let told = assignment.nearby.get(&key).into_iter().flatten();
    told.filter(|place| is_there(place.ip())).take(MOST_PLACES).copied().collect()
}

/// The addresses of an IPv4 network that are nobody's.
fn is_edge(net: IpNet, ip: IpAddr) -> bool {
    ip.is_ipv4() && net.prefix_len() < 31 && (ip == net.network() || ip == net.broadcast())
}

/// Twice as long each time, up to the time between two regular looks at the interface.
fn rest(rounds: u32) -> Duration {
    FIRST_REST.saturating_mul(1 << rounds.min(10)).min(LONGEST_REST)
}

/// How long one place is tried: WireGuard repeats a handshake every 5 s (whitepaper §6.1, `REKEY_TIMEOUT`).
const SLOT: Duration = Duration::from_secs(7);

const FIRST_REST: Duration = Duration::from_secs(30);
const LONGEST_REST: Duration = Duration::from_secs(600);

/// A peer in more networks of ours than this is not looked for in all of them.
const MOST_PLACES: usize = 4;

#[cfg(test)]
mod tests;
