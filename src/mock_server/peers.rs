//! What each host should have as peers, computed for the host that asks.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    egress::{Forwards, merged},
    policies::Policies,
    world::World,
};
use crate::control::wire::{
    EgressNetworkRoutes, GoIp, Host, HostNetworkInfo, NamedPeers, Node, PeerConfig, PeerInfo, PeerInfoEntry, UdpAddr,
    WgKey,
};

/// What a host sees of all its networks.
#[derive(Default)]
pub(super) struct Sight {
    pub(super) peers: Vec<PeerConfig>,
    /// How to find peers in the same building, by their keys.
    pub(super) nearby: BTreeMap<String, HostNetworkInfo>,
    pub(super) routes: Vec<EgressNetworkRoutes>,
    /// Where all its traffic goes, if it does.
    pub(super) default_gateway: Option<GoIp>,
}

/// What one node sees of its network.
struct View<'a> {
    host: &'a Host,
    own: &'a Node,
    /// What it forwards to itself.
    forwards: Forwards,
    policies: Policies<'a>,
    /// The other nodes by address, with their hosts.
    others: Vec<(&'a Node, &'a Host)>,
}

impl World {
    /// What a host sees over all its networks; nothing of one in which it has been silent for an hour.
    pub(super) fn sight(&self, host: &Host, now: OffsetDateTime) -> Sight {
        let mut sight = Sight::default();
        let mut found: Vec<PeerConfig> = Vec::new();
        let mut places: BTreeMap<WgKey, usize> = BTreeMap::new();
        for own in self.nodes_of(host.id).filter(|own| is_active(own) && is_fresh(own, now)) {
            let view = self.view(host, own);
            sight.default_gateway = self.default_gateway(&view).or(sight.default_gateway);
            for (node, peer) in &view.others {
                let forwards = self.forwards_for(own, node, &view.policies);
                if !forwards.is_empty() {
                    let key = self.key_towards(own, node, peer);
                    sight.routes.push(forwards.routes(key, (own, &view.forwards), node));
                }
                let allowed = self.allowed_ips(&view, node, peer, &forwards);
                if allowed.is_some() {
                    sight.nearby.insert(peer.public_key.to_base64(), network_info(peer));
                }
                let place = *places.entry(peer.public_key).or_insert_with(|| {
                    found.push(blank_peer(peer));
                    found.len() - 1
                });
                let config = &mut found[place];
                if config.endpoint.is_none() && allowed.is_some() {
                    let waits = node.relayed_by == own.id.to_string() && node.internet_gateway_node_id.is_empty();
                    config.endpoint = Some(endpoint(host, peer, waits));
                }
                config.allowed_ips.get_or_insert_default().extend(allowed.into_iter().flatten().map(Into::into));
            }
        }
        sight.peers = found.into_iter().map(finished).collect();
        sight.routes = merged(sight.routes);
        sight
    }

    /// Who a host's peers are, by network.
    pub(super) fn peer_info(&self, host: Uuid) -> PeerInfo {
        let own_nodes = self.nodes_of(host).filter(|own| is_active(own));
        let networks = own_nodes.map(|own| {
            let policies = self.policies(&own.network);
            let others = self.others(own).filter(|(node, _)| is_active(node) && policies.allow(own, node));
            let entries: NamedPeers =
                others.map(|(node, peer)| (peer.public_key.to_base64(), info_entry(node, peer))).collect();
            (own.network.clone(), entries)
        });
        PeerInfo { network_peers: Some(networks.collect()) }
    }

    fn view<'a>(&'a self, host: &'a Host, own: &'a Node) -> View<'a> {
        let (forwards, policies) = (self.forwards(own, |_| true), self.policies(&own.network));
        View { host, own, forwards, policies, others: self.others(own).collect() }
    }

    /// The other nodes of a node's network with their hosts, by address so that the order is stable.
    fn others(&self, own: &Node) -> impl Iterator<Item = (&Node, &Host)> {
        let others = self.nodes_in(&own.network).filter(|node| node.host_id != own.host_id);
        others.filter_map(|node| self.hosts.get(&node.host_id).map(|host| (node, host)))
    }

    /// The key by which `own` reaches what is behind a gateway: that of the relay, if the gateway is behind one.
    fn key_towards(&self, own: &Node, gateway: &Node, peer: &Host) -> String {
        let relay = Uuid::parse_str(&gateway.relayed_by).ok().filter(|relay| *relay != own.id);
        let relay = relay.and_then(|relay| self.nodes.get(&relay)).and_then(|node| self.hosts.get(&node.host_id));
        relay.unwrap_or(peer).public_key.to_base64()
    }

    /// The address that all traffic goes to: the node's own internet gateway, or that of its relay.
    fn default_gateway(&self, view: &View<'_>) -> Option<GoIp> {
        let node = |id: &str| Uuid::parse_str(id).ok().and_then(|id| self.nodes.get(&id));
        let relay = node(&view.own.relayed_by).filter(|relay| !relay.internet_gateway_node_id.is_empty());
        let gateway = relay.or_else(|| node(&view.own.internet_gateway_node_id))?;
        let only6 = gateway.address.ip.0.is_none() || view.host.endpoint_ip.0.is_none();
        Some(if only6 { gateway.address6.ip } else { gateway.address.ip })
    }

    /// What the view's node may reach through `node`; `None` if it must not be a peer at all.
    fn allowed_ips(&self, view: &View<'_>, node: &Node, peer: &Host, forwards: &Forwards) -> Option<Vec<IpNet>> {
        let own = view.own;
        let (id, own_id) = (node.id.to_string(), own.id.to_string());
        let behind_another = own.is_relayed && own.relayed_by != id || node.is_relayed && node.relayed_by != own_id;
        if behind_another || !is_active(node) || !view.policies.allow(own, node) {
            return None;
        }
        let mut allowed = addresses(node);
        allowed.extend(forwards.allowed_ips(peer, &view.forwards));
        let is_internet = node.is_internet_gateway && own.internet_gateway_node_id == id;
        if is_internet || own.is_relayed && !node.internet_gateway_node_id.is_empty() {
            allowed.extend(everything(node));
        } else if own.is_relayed {
            allowed.extend(self.behind_our_relay(view, node));
        }
        if node.is_relay && !own.is_relayed {
            let clients = view.others.iter().filter(|(other, _)| other.relayed_by == id && is_active(other));
            allowed.extend(clients.flat_map(|(other, host)| {
                let forwards = self.forwards(other, |_| true);
                [addresses(other), forwards.allowed_ips(host, &view.forwards)].concat()
            }));
        }
        Some(allowed)
    }

    /// Everybody else whom the view's node may talk to is behind its relay.
    fn behind_our_relay(&self, view: &View<'_>, relay: &Node) -> Vec<IpNet> {
        let is_behind = |node: &Node| node.id != relay.id && is_active(node) && view.policies.allow(view.own, node);
        let rest = view.others.iter().filter(|(other, _)| is_behind(other));
        let allowed = rest.flat_map(|(other, host)| {
            let forwards = self.forwards_for(view.own, other, &view.policies);
            [addresses(other), forwards.allowed_ips(host, &view.forwards)].concat()
        });
        allowed.collect()
    }
}

/// The whole internet, in the families that a gateway has.
fn everything(gateway: &Node) -> Vec<IpNet> {
    let v4 = gateway.address.ip.0.map(|_| IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0));
    let v6 = gateway.address6.ip.0.map(|_| IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0));
    v4.into_iter().chain(v6).collect()
}

/// Connected and not about to go.
pub(super) fn is_active(node: &Node) -> bool {
    node.connected && !node.pending_delete && node.action != "delete"
}

/// A host that has been silent for an hour gets no peers until it has checked in.
pub(super) fn is_fresh(node: &Node, now: OffsetDateTime) -> bool {
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
