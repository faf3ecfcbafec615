//! A link that exists only in memory and behaves as WireGuard does: for tests and `--dry-run`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use ipnet::IpNet;

use crate::{
    link::{Link, LinkError, failed},
    model::{Device, LinkState, Observation, Peer, PeerStats, PublicKey},
    plan::Change,
};

/// An interface in memory. Stricter than the kernel: removing what is not there is an error, so wrong plans show.
#[derive(Clone, Debug, Default)]
pub struct Memory(Option<Observation>);

impl Memory {
    /// Starts without an interface.
    pub fn new() -> Self {
        Self(None)
    }

    /// Starts with what a host reported; `None` means no interface yet.
    pub fn with(observation: Option<Observation>) -> Self {
        Self(observation)
    }

    /// Sets the traffic figures of a peer; without an interface nothing happens.
    pub fn set_stats(&mut self, public_key: PublicKey, stats: PeerStats) {
        if let Some(observation) = &mut self.0 {
            observation.stats.insert(public_key, stats);
        }
    }

    fn carry_out(&mut self, change: &Change) -> Result<(), Mistake> {
        if *change == Change::CreateInterface {
            if self.0.is_some() {
                return Err(Mistake::Exists("interface"));
            }
            self.0 = Some(Observation { device: Device::blank(), stats: BTreeMap::new() });
            return Ok(());
        }
        let Observation { device, stats } = self.0.as_mut().ok_or(Mistake::Missing("interface"))?;
        match change {
            Change::AddAddress(address) => return insert(&mut device.addresses, *address, "address"),
            Change::AddPeer { public_key, peer } => return add_peer(device, *public_key, peer),
            Change::AddRoute(_) if device.state == LinkState::Down => return Err(Mistake::Down),
            Change::AddRule(rule) => return insert(&mut device.rules, *rule, "rule"),
            Change::AddRoute(route) => return insert(&mut device.routes, *route, "route"),
            Change::CreateInterface => {}
            Change::RemoveAddress(address) => return remove(&mut device.addresses, address, "address"),
            Change::RemovePeer(public_key) => {
                stats.remove(public_key);
                return device.peers.remove(public_key).map(drop).ok_or(Mistake::Missing("peer"));
            }
            Change::RemoveRoute(route) => return remove(&mut device.routes, route, "route"),
            Change::RemoveRule(rule) => return remove(&mut device.rules, rule, "rule"),
            Change::SetFwmark(mark) => device.fwmark = *mark,
            Change::SetListenPort(port) => device.listen_port = *port,
            Change::SetMtu(mtu) => device.mtu = *mtu,
            Change::SetPrivateKey(key) => device.private_key.clone_from(key),
            Change::SetState(state) => {
                device.state = *state;
                if *state == LinkState::Down {
                    device.routes.clear(); // as the kernel does
                }
            }
            Change::UpdatePeer { have: _, public_key, want } => return update_peer(device, *public_key, want),
        }
        Ok(())
    }
}

impl Link for Memory {
    async fn observe(&mut self) -> Result<Option<Observation>, LinkError> {
        Ok(self.0.clone())
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), LinkError> {
        changes.iter().try_for_each(|change| {
            self.carry_out(change).map_err(|mistake| failed(format!("carry out {change:?}"), mistake.into()))
        })
    }

    async fn remove(&mut self) -> Result<(), LinkError> {
        self.0 = None;
        Ok(())
    }
}

/// A change that does not fit the state it meets.
#[derive(Debug, thiserror::Error)]
enum Mistake {
    #[error("interface is down")]
    Down,
    #[error("{0} is there already")]
    Exists(&'static str),
    #[error("{0} is not there")]
    Missing(&'static str),
}

impl From<Mistake> for io::Error {
    fn from(mistake: Mistake) -> Self {
        Self::other(mistake)
    }
}

fn insert<T: Ord>(set: &mut BTreeSet<T>, item: T, what: &'static str) -> Result<(), Mistake> {
    if set.insert(item) { Ok(()) } else { Err(Mistake::Exists(what)) }
}

fn remove<T: Ord>(set: &mut BTreeSet<T>, item: &T, what: &'static str) -> Result<(), Mistake> {
    if set.remove(item) { Ok(()) } else { Err(Mistake::Missing(what)) }
}

fn add_peer(device: &mut Device, public_key: PublicKey, peer: &Peer) -> Result<(), Mistake> {
    if device.peers.contains_key(&public_key) {
        return Err(Mistake::Exists("peer"));
    }
    take_from_others(device, public_key, &peer.allowed_ips);
    device.peers.insert(public_key, peer.clone());
    Ok(())
}

fn update_peer(device: &mut Device, public_key: PublicKey, want: &Peer) -> Result<(), Mistake> {
    take_from_others(device, public_key, &want.allowed_ips);
    let peer = device.peers.get_mut(&public_key).ok_or(Mistake::Missing("peer"))?;
    let endpoint = want.endpoint.or(peer.endpoint);
    *peer = Peer { endpoint, ..want.clone() };
    Ok(())
}

/// An allowed IP belongs to one peer at most: WireGuard gives it to whoever was told of it last.
fn take_from_others(device: &mut Device, public_key: PublicKey, allowed_ips: &BTreeSet<IpNet>) {
    for (_, other) in device.peers.iter_mut().filter(|(key, _)| **key != public_key) {
        other.allowed_ips.retain(|net| !allowed_ips.contains(net));
    }
}
