//! A link that exists only in memory and behaves as WireGuard does: for tests and `--dry-run`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use ipnet::IpNet;

use crate::{
    link::{LeftOut, Link, LinkError, failed},
    model::{Device, LinkState, Observation, Peer, PeerStats, PublicKey},
    plan::Change,
};

/// An interface in memory. Stricter than the kernel: removing what is not there is an error, so wrong plans show.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    observed: Option<Observation>,
    /// Whose an allowed IP is: WireGuard gives it to whoever was told of it last.
    owners: BTreeMap<IpNet, PublicKey>,
}

impl Memory {
    /// Starts without an interface.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts with what a host reported; `None` means no interface yet.
    pub fn with(observation: Option<Observation>) -> Self {
        let peers = observation.iter().flat_map(|observation| &observation.device.peers);
        let owned =
            |(&key, peer): (&PublicKey, &Peer)| -> Vec<_> { peer.allowed_ips.iter().map(|net| (*net, key)).collect() };
        let owners = peers.flat_map(owned).collect();
        Self { observed: observation, owners }
    }

    /// Sets the traffic figures of a peer; without an interface nothing happens.
    pub fn set_stats(&mut self, public_key: PublicKey, stats: PeerStats) {
        if let Some(observation) = &mut self.observed {
            observation.stats.insert(public_key, stats);
        }
    }

    fn carry_out(&mut self, change: &Change) -> Result<(), Mistake> {
        if *change == Change::CreateInterface {
            if self.observed.is_some() {
                return Err(Mistake::Exists("interface"));
            }
            self.observed = Some(Observation { device: Device::blank(), stats: BTreeMap::new() });
            return Ok(());
        }
        let Observation { device, stats } = self.observed.as_mut().ok_or(Mistake::Missing("interface"))?;
        match change {
            Change::AddAddress(address) => return insert(&mut device.addresses, *address, "address"),
            Change::AddPeer { public_key, peer } => {
                if device.peers.contains_key(public_key) {
                    return Err(Mistake::Exists("peer"));
                }
                give(&mut self.owners, device, *public_key, &peer.allowed_ips);
                device.peers.insert(*public_key, peer.clone());
            }
            Change::AddRoute(_) if device.state == LinkState::Down => return Err(Mistake::Down),
            Change::AddRule(rule) => return insert(&mut device.rules, *rule, "rule"),
            Change::AddRoute(route) => return insert(&mut device.routes, *route, "route"),
            Change::CreateInterface => {}
            Change::RemoveAddress(address) => return remove(&mut device.addresses, address, "address"),
            Change::RemovePeer(public_key) => {
                stats.remove(public_key);
                let peer = device.peers.remove(public_key).ok_or(Mistake::Missing("peer"))?;
                for net in &peer.allowed_ips {
                    self.owners.remove(net);
                }
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
            Change::UpdatePeer { have: _, public_key, want } => {
                give(&mut self.owners, device, *public_key, &want.allowed_ips);
                let peer = device.peers.get_mut(public_key).ok_or(Mistake::Missing("peer"))?;
                for net in peer.allowed_ips.difference(&want.allowed_ips) {
                    self.owners.remove(net);
                }
                *peer = Peer { endpoint: want.endpoint.or(peer.endpoint), ..want.clone() };
            }
        }
        Ok(())
    }
}

impl Link for Memory {
    async fn observe(&mut self) -> Result<Option<Observation>, LinkError> {
        Ok(self.observed.clone())
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<LeftOut, LinkError> {
        for change in changes {
            self.carry_out(change).map_err(|mistake| failed(format!("carry out {change:?}"), mistake.into()))?;
        }
        Ok(LeftOut::default())
    }

    async fn remove(&mut self) -> Result<(), LinkError> {
        *self = Self::new();
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

/// Takes `allowed_ips` from whoever has them.
fn give(
    owners: &mut BTreeMap<IpNet, PublicKey>,
    device: &mut Device,
    public_key: PublicKey,
    allowed_ips: &BTreeSet<IpNet>,
) {
    for net in allowed_ips {
        if let Some(former) = owners.insert(*net, public_key)
            && former != public_key
            && let Some(peer) = device.peers.get_mut(&former)
        {
            peer.allowed_ips.remove(net);
        }
    }
}
