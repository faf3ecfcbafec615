//! The world as documents, for hosts and for administrators.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Discovery, Edition, Names,
    broker::{Announced, Login},
    peers::{Sight, is_active, is_fresh},
    refusal::Refusal,
    world::World,
};
use crate::control::wire::{
    ApiHost, ApiInterface, ApiNode, GoTime, Host, HostPull, IpNet, Nameserver, Node, Secret, ServerConfig, ServerStatus,
};

impl World {
    /// Everything a host should be.
    pub(super) fn pull(&self, id: Uuid, mut config: ServerConfig, now: OffsetDateTime) -> Result<HostPull, Refusal> {
        let host = self.hosts.get(&id).ok_or_else(|| Refusal::internal("record not found"))?;
        let Sight { peers, nearby, routes, default_gateway } = self.sight(host, now);
        config.manage_dns &= host.dns_status != "no";
        let active: Vec<_> = self.nodes_of(id).filter(|node| is_active(node) && is_fresh(node, now)).collect();
        let domains: Vec<_> = active.iter().flat_map(|node| self.domains_of(host, node)).collect();
        Ok(HostPull {
            host: host.clone(),
            nodes: Some(self.nodes_of(id).cloned().collect()),
            peers: Some(peers),
            endpoint_detection: config.endpoint_detection,
            server_config: config,
            host_network_info: Some(nearby).filter(|nearby| !nearby.is_empty()),
            egress_network_routes: Some(routes),
            fw_update: Some(self.firewall(&active)),
            change_default_gateway: default_gateway.is_some(),
            default_gateway: default_gateway.unwrap_or_default(),
            is_internet_gateway: active.iter().any(|node| node.is_internet_gateway),
            egress_with_domains: Some(domains).filter(|domains| !domains.is_empty()),
            dns_nameservers: Some(self.all_name_servers(host, &active)),
            auto_relay_nodes: Some(BTreeMap::new()),
            gateway_nodes: Some(self.gateways_to_choose(id)),
            address_identity_map: Some(BTreeMap::new()),
            ..HostPull::default()
        })
    }

    /// Who knows which names: the servers of the networks, and gateways for the domains behind them.
    fn all_name_servers(&self, host: &Host, nodes: &[&Node]) -> Vec<Nameserver> {
        let domains = nodes.iter().flat_map(|node| self.domain_servers(node, &self.policies(&node.network)));
        self.name_servers_for(host, nodes).into_iter().chain(domains).collect()
    }

    /// The gateways of the networks in which a host chooses its own; behind one of them it is told of no other.
    pub(super) fn gateways_to_choose(&self, host: Uuid) -> BTreeMap<String, Vec<Node>> {
        let choosing = self.nodes_of(host).filter(|own| is_active(own) && own.auto_assign_gateway);
        let gateways = choosing.map(|own| {
            let policies = self.policies(&own.network);
            let others = self.nodes_in(&own.network).filter(|node| node.host_id != host);
            let visible = |node: &&Node| !own.is_relayed || own.relayed_by == node.id.to_string();
            let gateways = others.filter(|node| node.is_gateway && is_active(node) && policies.allow(own, node));
            let gateways = gateways.filter(visible);
            (own.network.clone(), gateways.cloned().collect())
        });
        gateways.collect()
    }

    pub(super) fn api_nodes(&self, network: Option<&str>, now: OffsetDateTime) -> Vec<ApiNode> {
        match network {
            Some(network) => self.nodes_in(network).map(|node| self.api_node(node, now)).collect(),
            None => self.nodes.values().map(|node| self.api_node(node, now)).collect(),
        }
    }

    /// A node for people.
    pub(super) fn api_node(&self, node: &Node, now: OffsetDateTime) -> ApiNode {
        let node = node.clone();
        let host = self.hosts.get(&node.host_id);
        ApiNode {
            id: node.id.to_string(),
            host_id: node.host_id.to_string(),
            address: cidr(&node.address),
            address6: cidr(&node.address6),
            last_modified: node.last_modified.unix_seconds(),
            expiration: node.expiration.unix_seconds(),
            last_check_in: node.last_check_in.unix_seconds(),
            last_peer_update: node.last_peer_update.unix_seconds(),
            network: node.network.clone(),
            network_range: cidr(&node.network_range),
            network_range6: cidr(&node.network_range6),
            is_relayed: node.is_relayed,
            is_relay: node.is_relay,
            is_gateway: node.is_gateway,
            auto_assign_gateway: node.auto_assign_gateway,
            is_ingress_gateway: node.is_ingress_gateway,
            is_internet_gateway: node.is_internet_gateway,
            ingress_persistent_keepalive: node.ingress_persistent_keepalive,
            ingress_mtu: node.ingress_mtu,
            connected: node.connected,
            pending_delete: node.pending_delete,
            fail_over_peers: node.fail_over_peers.clone(),
            additional_rag_ips: Some(vec![]),
            location: host.map(|host| host.location.clone()).unwrap_or_default(),
            country: host.map(|host| host.country_code.clone()).unwrap_or_default(),
            status: status(&node, now).to_owned(),
            inet_node_req: node.inet_node_req,
            internet_gateway_node_id: node.internet_gateway_node_id,
            ingress_dns: node.ingress_dns,
            relayed_by: node.relayed_by,
            relay_nodes: node.relay_nodes,
            server: node.server,
            metadata: node.metadata,
            tags: node.tags,
            ..ApiNode::default()
        }
    }
}

/// A host for people.
pub(super) fn api_host(host: &Host) -> ApiHost {
    let address = |ip: Option<std::net::IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let host = host.clone();
    let interfaces = host.interfaces.map(|interfaces| {
        let texts = interfaces.into_iter();
        texts.map(|interface| ApiInterface { name: interface.name, address: cidr(&interface.address) }).collect()
    });
    let mac: Vec<_> = host.mac_address.as_slice().iter().map(|byte| format!("{byte:02x}")).collect();
    ApiHost {
        id: host.id.to_string(),
        verbosity: host.verbosity,
        firewall_in_use: host.firewall_in_use,
        version: host.version,
        name: host.name,
        os: host.os,
        os_family: host.os_family,
        os_version: host.os_version,
        kernel_version: host.kernel_version,
        debug: host.debug,
        is_static_port: host.is_static_port,
        is_static: host.is_static,
        listen_port: host.listen_port,
        public_listen_port: host.public_listen_port,
        mtu: host.mtu,
        interfaces,
        default_interface: host.default_interface,
        endpoint_ip: address(host.endpoint_ip.0),
        endpoint_ipv6: address(host.endpoint_ipv6.0),
        public_key: host.public_key.to_base64(),
        mac_address: mac.join(":"),
        nodes: Some(host.nodes.unwrap_or_default()),
        is_default: host.is_default,
        nat_type: host.nat_type,
        persistent_keepalive: host.persistent_keepalive / 1_000_000_000,
        auto_update: host.auto_update,
        dns: host.dns_status,
        enable_flow_logs: host.enable_flow_logs,
        location: host.location,
        country_code: host.country_code,
    }
}

/// The server's health; `broker` tells whether there is a broker and messages get through.
pub(super) fn server_status(broker: bool) -> ServerStatus {
    ServerStatus {
        db_connected: true,
        broker_connected: broker,
        is_broker_conn_open: broker,
        deployment_mode: "self-hosted".to_owned(),
        trial_end_date: GoTime::default(),
        version: VERSION.to_owned(),
        ..ServerStatus::default()
    }
}

/// How hosts are to talk to this server; every feature that touches the machine is off.
pub(super) fn server_config(server: &str, api: &str, traffic_key: &[u8]) -> ServerConfig {
    ServerConfig {
        api: api.to_owned(),
        api_port: api.rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap_or_default(),
        dns_mode: "off".to_owned(),
        version: VERSION.to_owned(),
        broker_type: "mosquitto".to_owned(),
        server: server.to_owned(),
        traffic_key: traffic_key.into(),
        metric_interval: "15".to_owned(),
        metrics_port: 51821,
        ip_detection_interval: 15,
        default_domain: "nm.internal".to_owned(),
        peer_connection_check_interval: "15".to_owned(),
        ..ServerConfig::default()
    }
}

/// Tells hosts what this server does beside enrolling them.
pub(super) fn offer(config: &mut ServerConfig, edition: Edition, names: Names, discovery: &Discovery) {
    let Discovery { nearby, stun_servers } = discovery;
    config.is_ee = edition == Edition::Pro;
    config.manage_dns = names == Names::Managed;
    config.endpoint_detection = *nearby;
    config.stun = !stun_servers.is_empty();
    config.stun_servers = stun_servers.join(",");
}

/// Tells hosts where the broker is.
pub(super) fn announce(config: &mut ServerConfig, broker: &Announced) {
    let Announced { url, login, user, password } = broker;
    config.broker.clone_from(url);
    let (kind, user, password) = match login {
        // Every host puts in its own.
        Login::Host => ("emqx", "HOST_ID", Secret::from("HOST_PASS")),
        Login::Shared => ("mosquitto", user.as_str(), password.clone()),
    };
    kind.clone_into(&mut config.broker_type);
    user.clone_into(&mut config.mq_user_name);
    config.mq_password = password;
}

fn cidr(net: &IpNet) -> String {
    net.to_net().ok().flatten().map(|net| net.to_string()).unwrap_or_default()
}

/// Online for ten minutes after a check-in.
fn status(node: &Node, now: OffsetDateTime) -> &'static str {
    if !node.connected {
        "disconnected"
    } else if now - node.last_check_in.time() <= time::Duration::minutes(10) {
        "online"
    } else {
        "offline"
    }
}

/// The protocol's version that this server speaks.
const VERSION: &str = "v1.5.1";
