//! Our words for gotatun's peers, and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
};

use gotatun::{
    device::{Peer as GotatunPeer, configure},
    x25519,
};
use ipnet::IpNet;
use nix::errno::Errno;

use super::userspace::{Plane, Transports, system_error};
use crate::{
    model::{Peer, PeerStats, PresharedKey, PrivateKey, PublicKey},
    plan::Change,
};

/// What gotatun reports.
pub(super) struct Figures {
    pub(super) fwmark: Option<NonZeroU32>,
    /// `None` until one was bound.
    pub(super) listen_port: Option<NonZeroU16>,
    pub(super) peers: BTreeMap<PublicKey, Peer>,
    pub(super) private_key: PrivateKey,
    pub(super) stats: BTreeMap<PublicKey, PeerStats>,
}

/// Reads everything but what is rtnetlink's.
pub(super) async fn read(plane: &Plane) -> Figures {
    plane
        .read(async |device| {
            let private_key = device.private_key().map(|key| PrivateKey::from_bytes(key.to_bytes()));
            let mut peers = BTreeMap::new();
            let mut stats = BTreeMap::new();
            for configure::PeerStats { peer, stats: figures, .. } in device.peers().await {
                let public_key = PublicKey(peer.public_key.to_bytes());
                peers.insert(public_key, peer_from(&peer));
                let configure::Stats { last_handshake, rx_bytes, tx_bytes, .. } = figures;
                let [rx_bytes, tx_bytes] = [rx_bytes, tx_bytes].map(|bytes| bytes as u64);
                stats.insert(public_key, PeerStats { handshake_age: last_handshake, rx_bytes, tx_bytes });
            }
            Figures {
                fwmark: device.fwmark().and_then(NonZeroU32::new),
                listen_port: NonZeroU16::new(device.listen_port()),
                peers,
                private_key: private_key.unwrap_or_else(PrivateKey::blank),
                stats,
            }
        })
        .await
}

/// Removes all peers at once if that is what `changes` ask for; returns whether it was. gotatun goes through everybody's
/// allowed IPs for each peer it removes, so that thousands take minutes one by one.
pub(super) async fn clear(device: &mut configure::DeviceWrite<'_, Transports>, changes: &[Change]) -> bool {
    let removed = |change: &Change| if let Change::RemovePeer(public_key) = change { Some(*public_key) } else { None };
    let removed: BTreeSet<PublicKey> = changes.iter().filter_map(removed).collect();
    // Sockets are opened anew, which a few peers are not worth.
    if removed.len() < MANY {
        return false;
    }
    let peers = device.peers().await;
    let all = peers.iter().all(|there| removed.contains(&PublicKey(there.peer.public_key.to_bytes())));
    if all {
        device.clear_peers();
    }
    all
}

/// Carries out one change of keys, port or peers; other changes are not its business.
///
/// An allowed IP is expected to be free: `diff` takes it from its old peer first.
pub(super) async fn edit(device: &mut configure::DeviceWrite<'_, Transports>, change: &Change) -> io::Result<()> {
    let done = match change {
        // gotatun panics at a peer without a key of our own.
        Change::AddPeer { .. } if device.private_key().is_none() => {
            return Err(io::Error::other("the interface has no private key yet"));
        }
        Change::AddPeer { public_key, peer } => device.add_peer(peer_to(*public_key, peer)),
        Change::RemovePeer(public_key) => device.remove_peer(&x25519::PublicKey::from(public_key.0)).await,
        Change::SetFwmark(mark) => {
            device.set_fwmark(mark.map_or(0, NonZeroU32::get)).map_err(system_error)?;
            true
        }
        Change::SetListenPort(port) => {
            device.set_listen_port(port.map_or(0, NonZeroU16::get));
            true
        }
        Change::SetPrivateKey(key) => {
            device.set_private_key(x25519::StaticSecret::from(*key.as_bytes())).await;
            true
        }
        Change::UpdatePeer { have, public_key, want } => {
            let public_key = x25519::PublicKey::from(public_key.0);
            device.modify_peer(&public_key, |peer| update(peer, have, want)).await
        }
        Change::AddAddress(_)
        | Change::AddRoute(_)
        | Change::AddRule(_)
        | Change::CreateInterface
        | Change::RemoveAddress(_)
        | Change::RemoveRoute(_)
        | Change::RemoveRule(_)
        | Change::SetMtu(_)
        | Change::SetState(_) => true,
    };
    match (done, change) {
        (true, _) => Ok(()),
        (false, Change::AddPeer { .. }) => Err(Errno::EEXIST.into()),
        (false, _) => Err(Errno::ENOENT.into()),
    }
}

fn update(peer: &mut configure::PeerMut, have: &Peer, want: &Peer) {
    let Peer { allowed_ips, endpoint, persistent_keepalive, preshared_key } = want;
    // Between clearing and adding nobody else gets to see the peer.
    if !have.allowed_ips.is_subset(allowed_ips) {
        peer.clear_allowed_ips();
    }
    if have.allowed_ips != *allowed_ips {
        peer.add_allowed_ips(allowed_ips.iter().map(|net| network(*net)));
    }
    if endpoint.is_some() && have.endpoint != *endpoint {
        peer.set_endpoint(*endpoint);
    }
    if have.persistent_keepalive != *persistent_keepalive {
        peer.set_keepalive(persistent_keepalive.map(NonZeroU16::get));
    }
    if have.preshared_key != *preshared_key {
        peer.set_preshared_key(preshared_key.as_ref().map(|key| key.0));
    }
}

fn peer_to(public_key: PublicKey, peer: &Peer) -> GotatunPeer {
    let Peer { allowed_ips, endpoint, persistent_keepalive, preshared_key } = peer;
    let mut built = GotatunPeer::new(x25519::PublicKey::from(public_key.0));
    built.allowed_ips = allowed_ips.iter().map(|net| network(*net)).collect();
    built.endpoint = *endpoint;
    built.keepalive = persistent_keepalive.map(NonZeroU16::get);
    built.preshared_key = preshared_key.as_ref().map(|key| key.0);
    built
}

fn peer_from(peer: &GotatunPeer) -> Peer {
    let allowed_ips = peer.allowed_ips.iter().filter_map(|net| IpNet::new(net.ip(), net.prefix()).ok());
    Peer {
        allowed_ips: allowed_ips.collect::<BTreeSet<_>>(),
        // One socket serves both families, so IPv4 may come as an IPv6 address.
        endpoint: peer.endpoint.map(|endpoint| SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port())),
        persistent_keepalive: peer.keepalive.and_then(NonZeroU16::new),
        preshared_key: peer.preshared_key.filter(|key| *key != [0; 32]).map(PresharedKey),
    }
}

/// gotatun's type for an address range.
fn network(net: IpNet) -> ipnetwork::IpNetwork {
    ipnetwork::IpNetwork::new(net.addr(), net.prefix_len()).expect("an IpNet's prefix length fits its address")
}

/// Peers that are quickly removed one by one.
const MANY: usize = 100;
