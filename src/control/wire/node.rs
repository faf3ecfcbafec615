//! A node: a host's membership in one network.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::{GoIp, GoTime, IpNet, Secret, document};

/// A set as Go writes it: an object whose values are `{}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, serde_json::Value>")]
pub struct TagSet(pub BTreeSet<String>);

impl From<BTreeMap<String, serde_json::Value>> for TagSet {
    fn from(object: BTreeMap<String, serde_json::Value>) -> Self {
        Self(object.into_keys().collect())
    }
}

impl Serialize for TagSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|tag| (tag, serde_json::Map::new())))
    }
}

document! {
    /// A host's membership in one network, created by the server alone.
    pub struct Node {
        /// The node's id.
        id: Uuid = "id",
        /// The host it belongs to.
        host_id: Uuid = "hostid",
        /// Name of the network.
        network: String = "network",
        /// The network's IPv4 range; empty when it has none.
        network_range: IpNet = "networkrange",
        /// The network's IPv6 range; empty when it has none.
        network_range6: IpNet = "networkrange6",
        /// The server's name.
        server: String = "server",
        /// False means: keep the membership, remove the addresses.
        connected: bool = "connected",
        /// IPv4 address with the network's prefix; empty when unused.
        address: IpNet = "address",
        /// IPv6 address with the network's prefix; empty when unused.
        address6: IpNet = "address6",
        /// Empty, `noop`, `force`, `delete` or `pending`.
        action: String = "action",
        /// Vestigial.
        local_address: IpNet = "localaddress",
        /// Never filled.
        is_egress_gateway: bool = "isegressgateway",
        /// Filled by a host only, to report resolved addresses.
        egress_gateway_ranges: Option<Vec<String>> = "egressgatewayranges",
        /// Takes clients that are no hosts.
        is_ingress_gateway: bool = "isingressgateway",
        /// This node is behind a relay.
        is_relayed: bool = "isrelayed",
        /// Node id of that relay; empty for none.
        relayed_by: String = "relayedby",
        /// This node relays others.
        is_relay: bool = "isrelay",
        /// This node is a gateway: ingress and relay.
        is_gateway: bool = "is_gw",
        /// Ids of the nodes it relays.
        relay_nodes: Option<Vec<String>> = "relaynodes",
        /// Name server for clients of an ingress gateway.
        ingress_dns: String = "ingressdns",
        /// Wants the nearest gateway; Pro.
        auto_assign_gateway: bool = "auto_assign_gw",
        /// To be deleted as soon as the host confirms.
        pending_delete: bool = "pendingdelete",
        /// Last change.
        last_modified: GoTime = "lastmodified",
        /// Last check-in of the host.
        last_check_in: GoTime = "lastcheckin",
        /// Last peer update; never filled.
        last_peer_update: GoTime = "lastpeerupdate",
        /// When the membership ends; a hundred years away.
        expiration: GoTime = "expdatetime",
        /// Never filled.
        egress_gateway_nat_enabled: bool = "egressgatewaynatenabled",
        /// Never filled.
        egress_gateway_request: EgressGatewayRequest = "egressgatewayrequest",
        /// Gateway setting.
        ingress_gateway_range: String = "ingressgatewayrange",
        /// Gateway setting.
        ingress_gateway_range6: String = "ingressgatewayrange6",
        /// Gateway setting, seconds.
        ingress_persistent_keepalive: i64 = "ingresspersistentkeepalive",
        /// Gateway setting.
        ingress_mtu: i64 = "ingressmtu",
        /// A remark.
        metadata: String = "metadata",
        /// The user who registered it; left out when empty.
        #[serde(skip_serializing_if = "String::is_empty")]
        owner_id: String = "ownerid",
        /// Legacy.
        is_fail_over: bool = "is_fail_over",
        /// Relays between others on demand; Pro.
        is_auto_relay: bool = "is_auto_relay",
        /// Peer node id to relay node id; Pro.
        auto_relayed_peers: Option<BTreeMap<String, String>> = "auto_relayed_peers_v1",
        /// Legacy.
        fail_over_peers: Option<TagSet> = "fail_over_peers",
        /// Legacy.
        failed_over_by: Uuid = "failed_over_by",
        /// Takes all traffic of its clients.
        is_internet_gateway: bool = "isinternetgateway",
        /// Its clients.
        inet_node_req: InetNodeReq = "inet_node_req",
        /// Node id of this node's internet gateway.
        internet_gateway_node_id: String = "internetgw_node_id",
        /// Further addresses of a remote access gateway.
        additional_rag_ips: Option<Vec<GoIp>> = "additional_rag_ips",
        /// Device tags, ids of the form `<network>.<name>`.
        tags: Option<TagSet> = "tags",
        /// A stand-in for a client that is no host.
        is_static: bool = "is_static",
        /// A stand-in for a user.
        is_user_node: bool = "is_user_node",
        /// That client; empty for a real node.
        static_node: StaticNode = "static_node",
        /// `online`, `offline`, `warning`, `error`, `unknown`, `disconnected` or empty.
        node_status: String = "node_status",
        /// Pro.
        posture_check_violations: Option<Vec<serde_json::Value>> = "posture_check_violations",
        /// Pro.
        posture_check_violation_severity_level: i64 = "posture_check_violation_severity_level",
        /// Pro.
        last_evaluated_at: GoTime = "last_evaluated_at",
        /// Informational.
        location: String = "location",
        /// Informational.
        country_code: String = "country_code",
    }
}

document! {
    /// What makes a node forward to other ranges; empty inside a node.
    pub struct EgressGatewayRequest {
        /// The node.
        node_id: String = "nodeid",
        /// Its network.
        network: String = "netid",
        /// `yes` or `no`.
        nat_enabled: String = "natenabled",
        /// CIDR texts.
        ranges: Option<Vec<String>> = "ranges",
        /// The same with metrics.
        ranges_with_metric: Option<Vec<EgressRange>> = "ranges_with_metric",
    }
}

document! {
    /// A range behind a gateway.
    pub struct EgressRange {
        /// CIDR text.
        network: String = "network",
        /// CIDR text of the range it is translated to.
        virtual_network: String = "virtual_network",
        /// Metric of the route.
        route_metric: u32 = "route_metric",
        /// Whether the gateway translates addresses.
        nat: bool = "nat",
        /// `disabled`, `virtual_nat` or `direct_nat`.
        nat_mode: String = "nat_mode",
    }
}

document! {
    /// Clients of an internet gateway.
    pub struct InetNodeReq {
        /// Node ids.
        client_ids: Option<Vec<String>> = "inet_node_client_ids",
    }
}

document! {
    /// A WireGuard client that is no host; always present in a node, and empty in a real one.
    pub struct StaticNode {
        /// Name of the client.
        client_id: String = "clientid",
        /// Its private key, if the server made it.
        private_key: Secret = "privatekey",
        /// Its public key, base64.
        public_key: String = "publickey",
        /// Name of the network.
        network: String = "network",
        /// Name server.
        dns: String = "dns",
        /// IPv4 address.
        address: String = "address",
        /// IPv6 address.
        address6: String = "address6",
        /// Further ranges behind it.
        extra_allowed_ips: Option<Vec<String>> = "extraallowedips",
        /// What it may reach.
        allowed_ips: Option<Vec<String>> = "allowed_ips",
        /// Node id of its gateway.
        ingress_gateway_id: String = "ingressgatewayid",
        /// Endpoint of its gateway.
        ingress_gateway_endpoint: String = "ingressgatewayendpoint",
        /// Unix seconds.
        last_modified: i64 = "lastmodified",
        /// May connect.
        enabled: bool = "enabled",
        /// Its user.
        owner_id: String = "ownerid",
        /// Nodes it must not reach.
        denied_node_acls: Option<TagSet> = "deniednodeacls",
        /// Remote access.
        remote_access_client_id: String = "remote_access_client_id",
        /// A shell command for `wg-quick`.
        post_up: String = "postup",
        /// A shell command for `wg-quick`.
        post_down: String = "postdown",
        /// Device tags.
        tags: Option<TagSet> = "tags",
        /// Operating system.
        os: String = "os",
        /// Distribution.
        os_family: String = "os_family",
        /// Version of the distribution.
        os_version: String = "os_version",
        /// Version of the kernel.
        kernel_version: String = "kernel_version",
        /// Version of the client.
        client_version: String = "client_version",
        /// Id of the device.
        device_id: String = "device_id",
        /// Name of the device.
        device_name: String = "device_name",
        /// Public address.
        public_endpoint: String = "public_endpoint",
        /// Country.
        country: String = "country",
        /// Location.
        location: String = "location",
        /// Pro.
        posture_check_violations: Option<Vec<serde_json::Value>> = "posture_check_violations",
        /// Pro.
        posture_check_violation_severity_level: i64 = "posture_check_violation_severity_level",
        /// Pro.
        last_evaluated_at: GoTime = "last_evaluated_at",
    }
}
