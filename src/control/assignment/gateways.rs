//! Gateways: those that a host is behind, and those that it may choose.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use uuid::Uuid;

use super::wire;
use crate::model::{Assignment, NetworkName, PublicKey};

/// Fills in what the server knows about the relays that an assignment names by node id only.
pub fn name_relays(assignment: &mut Assignment, peers: &wire::PeerInfo) {
    let known = peers.network_peers.iter().flatten().flat_map(|(_, peers)| peers);
    let known: BTreeMap<Uuid, _> =
        known.filter_map(|(key, entry)| Some((entry.id.parse().ok()?, (key, entry)))).collect();
    for relay in assignment.nodes.values_mut().filter_map(|node| node.relay.as_mut()) {
        let Some((key, entry)) = known.get(&relay.node_id) else { continue };
        relay.public_key = key.parse().ok();
        relay.name = Some(entry.name.chars().filter(|character| !character.is_control()).take(253).collect());
        relay.address = entry.address.parse().ok();
    }
}

/// A gateway that a node of ours may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it answers probes outside of the tunnel; `None` while it is no peer, as behind the relay in use.
    pub endpoint: Option<SocketAddr>,
    /// Its node.
    pub node_id: Uuid,
    /// Where it answers probes within the tunnel.
    pub overlay: SocketAddr,
}

/// Returns the gateways to choose from, by network; `peers` tells which of them is which peer.
pub fn candidates(pull: &wire::HostPull, peers: &wire::PeerInfo) -> BTreeMap<NetworkName, Vec<Candidate>> {
    let port = u16::try_from(pull.server_config.metrics_port).ok().filter(|port| *port != 0).unwrap_or(PROBE_PORT);
    let entries = peers.network_peers.iter().flatten().flat_map(|(_, peers)| peers);
    let keys: BTreeMap<Uuid, PublicKey> =
        entries.filter_map(|(key, entry)| Some((entry.id.parse().ok()?, key.parse().ok()?))).collect();
    let endpoints: BTreeMap<PublicKey, IpAddr> = pull
        .peers
        .iter()
        .flatten()
        .filter_map(|peer| Some((peer.public_key.into(), peer.endpoint.as_ref()?.to_socket().ok()??.ip())))
        .collect();
    let candidate = |node: &wire::Node| {
        let overlay = [&node.address, &node.address6].into_iter().find_map(|net| net.to_net().ok()?)?;
        let endpoint = keys.get(&node.id).and_then(|key| endpoints.get(key)).copied();
        let endpoint = endpoint.map(|address| SocketAddr::new(address, port));
        Some(Candidate { endpoint, node_id: node.id, overlay: SocketAddr::new(overlay.addr(), port) })
    };
    let listed = pull.gateway_nodes.iter().flatten();
    listed
        .filter_map(|(name, nodes)| Some((name.parse().ok()?, nodes.iter().filter_map(candidate).collect())))
        .collect()
}

/// Where hosts answer each other's probes unless the server says otherwise (protocol page, "LAN endpoint detection").
const PROBE_PORT: u16 = 51821;
