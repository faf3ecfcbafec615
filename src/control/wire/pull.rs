//! Everything a host should be, as pulled over HTTP and as pushed over MQTT.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    EgressNetworkRoutes, FwUpdate, GoIp, Host, HostNetworkInfo, Node, PeerConfig, ServerConfig, document,
    encoding::or_default,
};

document! {
    /// The answer to a pull: the whole wanted state.
    pub struct HostPull {
        /// The stored record.
        host: Host = "host",
        /// All memberships, those pending deletion included.
        nodes: Option<Vec<Node>> = "nodes",
        /// All peers over all networks.
        peers: Option<Vec<PeerConfig>> = "peers",
        /// How to talk to the server.
        server_config: ServerConfig = "server_config",
        /// Never filled; left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer_ids: Option<serde_json::Value> = "peer_ids",
        /// By the peers' base64 keys; left out when empty.
        #[serde(skip_serializing_if = "Option::is_none")]
        host_network_info: Option<BTreeMap<String, HostNetworkInfo>> = "host_network_info",
        /// Routes behind peers.
        egress_network_routes: Option<Vec<EgressNetworkRoutes>> = "egress_network_routes",
        /// Packet filter rules; `null` from a server that has none.
        fw_update: Option<FwUpdate> = "fw_update",
        /// Send all traffic through a peer.
        change_default_gateway: bool = "change_default_gw",
        /// Overlay address of that peer.
        default_gateway: GoIp = "default_gw_ip",
        /// This host is an internet gateway.
        is_internet_gateway: bool = "is_inet_gw",
        /// Whether peers probe each other's LAN addresses.
        endpoint_detection: bool = "endpoint_detection",
        /// Never filled.
        name_servers: Option<Vec<String>> = "name_servers",
        /// Domains this host must resolve and report.
        egress_with_domains: Option<Vec<EgressDomain>> = "egress_with_domains",
        /// Split DNS.
        dns_nameservers: Option<Vec<Nameserver>> = "dns_nameservers",
        /// By network; Pro.
        auto_relay_nodes: Option<BTreeMap<String, Vec<Node>>> = "auto_relay_nodes",
        /// Gateways to choose from, by network.
        gateway_nodes: Option<BTreeMap<String, Vec<Node>>> = "gw_nodes",
        /// The list must replace what is configured; it always may.
        replace_peers: bool = "replace_peers",
        /// Who is behind an address; Pro.
        address_identity_map: Option<BTreeMap<String, AddressIdentity>> = "address_identity_map",
    }
}

impl HostPull {
    /// When this host last checked in, in the server's seconds since 1970; `None` if it never did.
    pub fn last_check_in(&self) -> Option<u64> {
        let nodes = self.nodes.iter().flatten();
        nodes.filter_map(|node| u64::try_from(node.last_check_in.unix_seconds()).ok()).max()
    }
}

/// The push twin of [`HostPull`]. The peers are in `host_peers` here, and `peers` is always empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the wire has them")]
pub struct HostPeerUpdate {
    /// The stored record.
    #[serde(deserialize_with = "or_default")]
    pub host: Host,
    /// Active memberships only.
    pub nodes: Option<Vec<Node>>,
    /// Send all traffic through a peer.
    #[serde(rename = "change_default_gw", deserialize_with = "or_default")]
    pub change_default_gateway: bool,
    /// Overlay address of that peer.
    #[serde(rename = "default_gw_ip")]
    pub default_gateway: GoIp,
    /// This host is an internet gateway.
    #[serde(rename = "is_inet_gw", deserialize_with = "or_default")]
    pub is_internet_gateway: bool,
    /// Never filled.
    pub nodes_addrs: Option<serde_json::Value>,
    /// The server's name.
    #[serde(deserialize_with = "or_default")]
    pub server: String,
    /// The server's version.
    #[serde(rename = "serverversion", deserialize_with = "or_default")]
    pub server_version: String,
    /// Never filled.
    #[serde(rename = "serveraddrs")]
    pub server_addresses: Option<Vec<serde_json::Value>>,
    /// Never filled.
    pub node_peers: Option<Vec<PeerConfig>>,
    /// All peers over all networks.
    pub host_peers: Option<Vec<PeerConfig>>,
    /// Never filled.
    #[serde(rename = "peerids")]
    pub peer_ids: Option<serde_json::Value>,
    /// By the peers' base64 keys.
    pub host_network_info: Option<BTreeMap<String, HostNetworkInfo>>,
    /// Routes behind peers.
    pub egress_network_routes: Option<Vec<EgressNetworkRoutes>>,
    /// Packet filter rules; `null` from a server that has none.
    pub fw_update: Option<FwUpdate>,
    /// The list must replace what is configured; it always may.
    #[serde(deserialize_with = "or_default")]
    pub replace_peers: bool,
    /// Never filled.
    pub name_servers: Option<Vec<String>>,
    /// Split DNS.
    pub dns_nameservers: Option<Vec<Nameserver>>,
    /// Domains this host must resolve and report.
    pub egress_with_domains: Option<Vec<EgressDomain>>,
    /// By network; Pro.
    pub auto_relay_nodes: Option<BTreeMap<String, Vec<Node>>>,
    /// Gateways to choose from, by network.
    #[serde(rename = "gw_nodes")]
    pub gateway_nodes: Option<BTreeMap<String, Vec<Node>>>,
    /// Who is behind an address; Pro.
    pub address_identity_map: Option<BTreeMap<String, AddressIdentity>>,
    /// How to talk to the server; its keys stand among the others.
    #[serde(flatten)]
    pub server_config: ServerConfig,
    /// The same as `node_peers`, for old clients.
    pub peers: Option<Vec<PeerConfig>>,
    /// The same as `host_peers`, for old clients.
    #[serde(rename = "Peers")]
    pub peers_compat: Option<Vec<PeerConfig>>,
    /// Whether peers probe each other's LAN addresses, for old clients.
    #[serde(rename = "endpoint_detection", deserialize_with = "or_default")]
    pub endpoint_detection_compat: bool,
}

document! {
    /// A domain whose addresses a host must resolve and report.
    pub struct EgressDomain {
        /// Id of the egress.
        id: String = "id",
        /// The node that routes it.
        node: Node = "node",
        /// The host of that node.
        host: Host = "host",
        /// The domain name.
        domain: String = "domain",
    }
}

document! {
    /// Name servers for one domain.
    pub struct Nameserver {
        /// Addresses as text.
        ips: Option<Vec<String>> = "ips",
        /// The domain; empty for all.
        match_domain: String = "match_domain",
        /// Also a search domain.
        is_search_domain: bool = "is_search_domain",
        /// For names nobody else knows.
        is_fallback: bool = "is_fallback",
        /// Active Directory.
        is_ad_domain: bool = "is_ad_domain",
    }
}

document! {
    /// The addresses of one name, as they are told to everybody in a network.
    pub struct DnsEntry {
        /// IPv4 address; empty for none.
        address: String = "address",
        /// IPv6 address; empty for none.
        address6: String = "address6",
        /// The full name.
        name: String = "name",
        /// Name of the network.
        network: String = "network",
    }
}

document! {
    /// Who is behind an overlay address.
    pub struct AddressIdentity {
        /// Id of the node, user, client or route.
        id: String = "id",
        /// 0 node, 1 user, 2 WireGuard client, 3 egress route.
        kind: i64 = "type",
        /// Its name.
        name: String = "name",
    }
}
