//! Documents for administrators, in human encodings: base64 keys, CIDR texts, seconds.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{EgressRange, GoIp, GoTime, InetNodeReq, StaticNode, TagSet, document};

document! {
    /// A named address range.
    pub struct Network {
        /// Its id.
        id: String = "id",
        /// Its name: up to 32 of `a-z0-9-_`.
        name: String = "netid",
        /// IPv4 CIDR; empty for none.
        address_range: String = "addressrange",
        /// IPv6 CIDR; empty for none.
        address_range6: String = "addressrange6",
        /// Seconds.
        default_keepalive: i64 = "defaultkeepalive",
        /// MTU.
        default_mtu: i64 = "defaultmtu",
        /// Devices need no approval.
        auto_join: bool = "auto_join",
        /// Absent devices are removed.
        auto_remove: bool = "auto_remove",
        /// Of devices with these tags.
        auto_remove_tags: Option<Vec<String>> = "auto_remove_tags",
        /// Minutes until then.
        auto_remove_threshold: i64 = "auto_remove_threshold",
        /// Pro.
        jit_enabled: bool = "jit_enabled",
        /// CIDR for translated ranges.
        virtual_nat_pool_ipv4: String = "virtual_nat_pool_ipv4",
        /// Prefix length of a translated range.
        virtual_nat_site_prefixlen_ipv4: i64 = "virtual_nat_site_prefixlen_ipv4",
        /// Last change of its nodes.
        nodes_updated_at: GoTime = "nodes_updated_at",
        /// The user who made it.
        created_by: String = "created_by",
        /// When it was made.
        created_at: GoTime = "created_at",
        /// When it was changed.
        updated_at: GoTime = "updated_at",
    }
}

document! {
    /// A host for people.
    pub struct ApiHost {
        /// Its id.
        id: String = "id",
        /// Log level.
        verbosity: i64 = "verbosity",
        /// Packet filter.
        firewall_in_use: String = "firewallinuse",
        /// Version.
        version: String = "version",
        /// Name.
        name: String = "name",
        /// Operating system.
        os: String = "os",
        /// Distribution.
        os_family: String = "os_family",
        /// Version of the distribution.
        os_version: String = "os_version",
        /// Version of the kernel.
        kernel_version: String = "kernel_version",
        /// Debug logging.
        debug: bool = "debug",
        /// The port is fixed.
        is_static_port: bool = "isstaticport",
        /// The endpoint is fixed.
        is_static: bool = "isstatic",
        /// WireGuard port.
        listen_port: i64 = "listenport",
        /// That port from outside.
        public_listen_port: i64 = "wg_public_listen_port",
        /// MTU.
        mtu: i64 = "mtu",
        /// Local networks.
        interfaces: Option<Vec<ApiInterface>> = "interfaces",
        /// The interface of the default route.
        default_interface: String = "defaultinterface",
        /// Public IPv4 address.
        endpoint_ip: String = "endpointip",
        /// Public IPv6 address.
        endpoint_ipv6: String = "endpointipv6",
        /// WireGuard key, base64.
        public_key: String = "publickey",
        /// Hardware address, colon form.
        mac_address: String = "macaddress",
        /// Ids of its nodes.
        nodes: Option<Vec<String>> = "nodes",
        /// Joins every new network.
        is_default: bool = "isdefault",
        /// `public` or `behind_nat`.
        nat_type: String = "nat_type",
        /// Seconds.
        persistent_keepalive: i64 = "persistentkeepalive",
        /// Self-update.
        auto_update: bool = "autoupdate",
        /// `yes` or `no`.
        dns: String = "dns",
        /// Pro.
        enable_flow_logs: bool = "enable_flow_logs",
        /// Latitude and longitude.
        location: String = "location",
        /// Two letters.
        country_code: String = "country_code",
    }
}

document! {
    /// A local network for people.
    pub struct ApiInterface {
        /// Name of the interface.
        name: String = "name",
        /// CIDR text.
        address: String = "addressString",
    }
}

document! {
    /// A node for people.
    pub struct ApiNode {
        /// Its id.
        id: String = "id",
        /// Its host.
        host_id: String = "hostid",
        /// IPv4 CIDR.
        address: String = "address",
        /// IPv6 CIDR.
        address6: String = "address6",
        /// Vestigial.
        local_address: String = "localaddress",
        /// Never filled.
        allowed_ips: Option<Vec<String>> = "allowedips",
        /// Unix seconds.
        last_modified: i64 = "lastmodified",
        /// Unix seconds.
        expiration: i64 = "expdatetime",
        /// Unix seconds.
        last_check_in: i64 = "lastcheckin",
        /// Unix seconds; the year 1 when never.
        last_peer_update: i64 = "lastpeerupdate",
        /// Name of the network.
        network: String = "network",
        /// IPv4 CIDR of the network.
        network_range: String = "networkrange",
        /// IPv6 CIDR of the network.
        network_range6: String = "networkrange6",
        /// Behind a relay.
        is_relayed: bool = "isrelayed",
        /// Relays others.
        is_relay: bool = "isrelay",
        /// A gateway.
        is_gateway: bool = "is_gw",
        /// Pro.
        is_auto_relay: bool = "is_auto_relay",
        /// Pro.
        auto_relayed_peers: Option<serde_json::Value> = "auto_relayed_peers",
        /// Pro.
        auto_assign_gateway: bool = "auto_assign_gw",
        /// Node id of its relay.
        relayed_by: String = "relayedby",
        /// Ids of the nodes it relays.
        relay_nodes: Option<Vec<String>> = "relaynodes",
        /// Forwards to other ranges.
        is_egress_gateway: bool = "isegressgateway",
        /// Takes clients that are no hosts.
        is_ingress_gateway: bool = "isingressgateway",
        /// CIDR texts.
        egress_gateway_ranges: Option<Vec<String>> = "egressgatewayranges",
        /// Translates addresses.
        egress_gateway_nat_enabled: bool = "egressgatewaynatenabled",
        /// The ranges with metrics.
        egress_ranges: Option<Vec<EgressRange>> = "egressgatewayranges_with_metric",
        /// DNS.
        dns_on: bool = "dnson",
        /// Name server for clients.
        ingress_dns: String = "ingressdns",
        /// Seconds.
        ingress_persistent_keepalive: i64 = "ingresspersistentkeepalive",
        /// MTU for clients.
        ingress_mtu: i64 = "ingressmtu",
        /// The server's name.
        server: String = "server",
        /// Administratively connected.
        connected: bool = "connected",
        /// To be deleted.
        pending_delete: bool = "pendingdelete",
        /// A remark.
        metadata: String = "metadata",
        /// Legacy.
        is_fail_over: bool = "is_fail_over",
        /// Legacy.
        fail_over_peers: Option<TagSet> = "fail_over_peers",
        /// Legacy.
        failed_over_by: Uuid = "failed_over_by",
        /// Takes all traffic.
        is_internet_gateway: bool = "isinternetgateway",
        /// Its clients.
        inet_node_req: InetNodeReq = "inet_node_req",
        /// Node id of its internet gateway.
        internet_gateway_node_id: String = "internetgw_node_id",
        /// Further addresses.
        additional_rag_ips: Option<Vec<GoIp>> = "additional_rag_ips",
        /// Device tags.
        tags: Option<TagSet> = "tags",
        /// No host.
        is_static: bool = "is_static",
        /// A user.
        is_user_node: bool = "is_user_node",
        /// That client.
        static_node: StaticNode = "static_node",
        /// `online` and so on.
        status: String = "status",
        /// Latitude and longitude.
        location: String = "location",
        /// Two letters.
        country: String = "country",
        /// Pro.
        posture_check_violations: Option<Vec<serde_json::Value>> = "posture_check_violations",
        /// Pro.
        posture_check_violation_severity_level: i64 = "posture_check_violation_severity_level",
        /// Pro.
        last_evaluated_at: GoTime = "last_evaluated_at",
    }
}

/// Peers of one network by base64 key, or by client id for clients that are no hosts.
pub type NamedPeers = BTreeMap<String, PeerInfoEntry>;

document! {
    /// Who a host's peers are.
    pub struct PeerInfo {
        /// By network name.
        network_peers: Option<BTreeMap<String, NamedPeers>> = "network_peers",
    }
}

document! {
    /// Who one peer is.
    pub struct PeerInfoEntry {
        /// Node id.
        id: String = "id",
        /// Host id.
        host_id: String = "host_id",
        /// The main address.
        address: String = "address",
        /// IPv4 address, or `<nil>`.
        address4: String = "address4",
        /// IPv6 address, or `<nil>`.
        address6: String = "address6",
        /// Host name.
        name: String = "name",
        /// Empty.
        is_server: String = "isserver",
        /// Name of the network.
        network: String = "network",
        /// WireGuard port.
        listen_port: i64 = "listen_port",
        /// No host.
        is_ext_client: bool = "is_extclient",
        /// Its user.
        user_name: String = "username",
    }
}

document! {
    /// A host that waits for somebody to let it into a network.
    pub struct PendingHost {
        /// Id of the request.
        id: String = "id",
        /// The host.
        host_id: String = "host_id",
        /// Its name.
        host_name: String = "host_name",
        /// Name of the network.
        network: String = "network",
        /// WireGuard key, base64.
        public_key: String = "public_key",
        /// The key it redeemed, a whole document.
        enrollment_key: Option<serde_json::Value> = "enrollment_key_id",
        /// Operating system.
        os: String = "os",
        /// Version.
        version: String = "version",
        /// Latitude and longitude.
        location: String = "location",
        /// When it asked.
        requested_at: GoTime = "requested_at",
    }
}

document! {
    /// A token that a user gave to a program; the token itself is shown once.
    pub struct AccessToken {
        /// Its id.
        id: String = "id",
        /// What it is for.
        name: String = "name",
        /// Whose rights it has.
        user_name: String = "user_name",
        /// When it ends.
        expires_at: GoTime = "expires_at",
        /// When it was last used.
        last_used: GoTime = "last_used",
        /// The user who made it.
        created_by: String = "created_by",
        /// When it was made.
        created_at: GoTime = "created_at",
    }
}
