//! What each host should have as peers, computed for the host that asks.

use std::collections::BTreeMap;

use ipnet::IpNet;
use time::OffsetDateTime;
use uuid::Uuid;

use super::world::World;
use crate::control::wire::{
    GoIp, Host, HostNetworkInfo, NamedPeers, Node, PeerConfig, PeerInfo, PeerInfoEntry, UdpAddr, WgKey,
};

impl World {
    /// The peers of a host over all its networks, and how to find those in the same building.
    pub(super) fn peers(
        &self,
        host: &Host,
        now: OffsetDateTime,
    ) -> (Vec<PeerConfig>, BTreeMap<String, HostNetworkInfo>) {
        let mut found: Vec<(WgKey, PeerConfig)> = Vec::new();
        let mut nearby = BTreeMap::new();
        for own in self.nodes_of(host.id).filter(|own| is_active(own) && is_fresh(own, now)) {
            for (node, peer) in self.others(own) {
                let allowed = self.allowed_ips(own, node);
                if allowed.is_some() {
                    nearby.insert(peer.public_key.to_base64(), network_info(peer));
                }
                let index = found.iter().position(|(key, _)| *key == peer.public_key);
                let index = index.unwrap_or_else(|| {
                    found.push((peer.public_key, blank_peer(peer)));
                    found.len() - 1
                });
                let config = &mut found[index].1;
                if config.endpoint.is_none() && allowed.is_some() {
                    let behind_us = node.relayed_by == own.id.to_string();
                    config.endpoint = Some(endpoint(host, peer, behind_us));
                }
                config.allowed_ips.get_or_insert_default().extend(allowed.into_iter().flatten().map(Into::into));
            }
        }
        (found.into_iter().map(|(_, config)| finished(config)).collect(), nearby)
    }

    /// Who a host's peers are, by network.
    pub(super) fn peer_info(&self, host: Uuid) -> PeerInfo {
        let own_nodes = self.nodes_of(host).filter(|own| is_active(own));
        let networks = own_nodes.map(|own| {
            let others = self.others(own).filter(|(node, _)| is_active(node));
            let entries: NamedPeers =
                others.map(|(node, peer)| (peer.public_key.to_base64(), info_entry(node, peer))).collect();
            (own.network.clone(), entries)
        });
        PeerInfo { network_peers: Some(networks.collect()) }
    }

    /// The other nodes of a node's network with their hosts, by address so that the order is stable.
    fn others(&self, own: &Node) -> impl Iterator<Item = (&Node, &Host)> {
        let others = self.nodes.values().filter(|node| node.network == own.network && node.host_id != own.host_id);
        let mut others: Vec<_> =
            others.filter_map(|node| self.hosts.get(&node.host_id).map(|host| (node, host))).collect();
        others.sort_by_key(|(node, _)| (node.address.ip, node.address6.ip));
        others.into_iter()
    }

    /// What `own` may reach through `node`; `None` if it must not be a peer at all.
    fn allowed_ips(&self, own: &Node, node: &Node) -> Option<Vec<IpNet>> {
        let (id, own_id) = (node.id.to_string(), own.id.to_string());
        let behind_another = own.is_relayed && own.relayed_by != id || node.is_relayed && node.relayed_by != own_id;
        if behind_another || !is_active(node) {
            return None;
        }
        let mut allowed = addresses(node);
        if own.is_relayed {
            // Our relay: everybody else is behind it.
            let rest = self.others(own).filter(|(other, _)| other.id != node.id && is_active(other));
            allowed.extend(rest.flat_map(|(other, _)| addresses(other)));
        } else if node.is_relay {
            let clients = self.others(own).filter(|(other, _)| other.relayed_by == id && is_active(other));
            allowed.extend(clients.flat_map(|(other, _)| addresses(other)));
        }
        Some(allowed)
    }
}

/// Connected and not about to go.
pub(super) fn is_active(node: &Node) -> bool {
    node.connected && !node.pending_delete && node.action != "delete"
}

/// A host that has been silent for an hour gets no peers until it has checked in.
fn is_fresh(node: &Node, now: OffsetDateTime) -> bool {
    now - node.last_check_in.time() <= time::Duration::HOUR
}

fn addresses(node: &Node) -> Vec<IpNet> {
    [node.address.ip, node.address6.ip].into_iter().filter_map(|ip| ip.0.map(IpNet::from)).collect()
}

fn blank_peer(peer: &Host) -> PeerConfig {
    PeerConfig {
        public_key: peer.public_key,
        persistent_keepalive: Some(peer.persistent_keepalive),
        replace_allowed_ips: true,
        ..PeerConfig::default()
    }
}

/// A peer that nothing is reached through must go.
fn finished(mut config: PeerConfig) -> PeerConfig {
    if config.allowed_ips.as_ref().is_none_or(Vec::is_empty) {
        config.remove = true;
        config.endpoint = None;
        config.allowed_ips = None;
    }
    config
}

/// Chooses an address both sides can use; a relay waits for the node behind it to speak first.
fn endpoint(own: &Host, peer: &Host, behind_us: bool) -> UdpAddr {
    let (v4, v6) = (peer.endpoint_ip.0, peer.endpoint_ipv6.0);
    let only6 = own.endpoint_ip.0.is_none() && own.endpoint_ipv6.0.is_some();
    let address = if behind_us {
        None
    } else if only6 {
        v6.or(v4)
    } else {
        v4.or(v6)
    };
    let fixed = peer.is_static_port || peer.public_listen_port == 0;
    let port = if fixed { peer.listen_port } else { peer.public_listen_port };
    UdpAddr { ip: GoIp(address), port, zone: String::new() }
}

fn network_info(peer: &Host) -> HostNetworkInfo {
    HostNetworkInfo {
        interfaces: peer.interfaces.clone(),
        listen_port: peer.listen_port,
        is_static_port: peer.is_static_port,
        is_static: peer.is_static,
        version: String::new(),
    }
}

fn info_entry(node: &Node, peer: &Host) -> PeerInfoEntry {
    let text = |ip: GoIp| ip.0.map_or_else(|| "<nil>".to_owned(), |address| address.to_string());
    PeerInfoEntry {
        id: node.id.to_string(),
        host_id: peer.id.to_string(),
        address: node.address.ip.0.or(node.address6.ip.0).map(|address| address.to_string()).unwrap_or_default(),
        address4: text(node.address.ip),
        address6: text(node.address6.ip),
        name: peer.name.clone(),
        network: node.network.clone(),
        listen_port: peer.listen_port,
        ..PeerInfoEntry::default()
    }
}
