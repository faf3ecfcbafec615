//! Packet filter rules.

use std::collections::BTreeMap;

use super::{EgressGatewayRequest, GoIp, IpNet, document};

document! {
    /// What this host's packet filter should allow.
    pub struct FwUpdate {
        /// Nothing is restricted.
        allow_all: bool = "allow_all",
        /// One rule per own node.
        networks: Option<Vec<AclRule>> = "networks",
        /// This host is an egress gateway.
        is_egress_gateway: bool = "is_egress_gw",
        /// This host is an ingress gateway.
        is_ingress_gateway: bool = "is_ingress_gw",
        /// Rules of the egress gateway, by id.
        egress_info: Option<BTreeMap<String, EgressInfo>> = "egress_info",
        /// Rules of the ingress gateway, by id.
        ingress_info: Option<BTreeMap<String, IngressInfo>> = "ingress_info",
        /// Restrictions, by id.
        acl_rules: Option<BTreeMap<String, AclRule>> = "acl_rules",
    }
}

document! {
    /// Who may send what to this host.
    pub struct AclRule {
        /// The rule's id.
        id: String = "id",
        /// IPv4 sources.
        ip_list: Option<Vec<IpNet>> = "ip_list",
        /// IPv6 sources.
        ip6_list: Option<Vec<IpNet>> = "ip6_list",
        /// `all`, `udp`, `tcp` or `icmp`.
        allowed_protocol: String = "allowed_protocols",
        /// Ports and ranges as text; `null` for all.
        allowed_ports: Option<Vec<String>> = "allowed_ports",
        /// 0 one way, 1 both.
        direction: i64 = "direction",
        /// IPv4 destinations.
        destinations: Option<Vec<IpNet>> = "dst",
        /// IPv6 destinations.
        destinations6: Option<Vec<IpNet>> = "dst6",
        /// Allowed, not denied.
        allowed: bool = "Allowed",
    }
}

document! {
    /// What an egress gateway forwards.
    pub struct EgressInfo {
        /// Its id.
        egress_id: String = "egress_id",
        /// The network's IPv4 range.
        network: IpNet = "network",
        /// The gateway's IPv4 address.
        gateway_address: IpNet = "egress_gw_addr",
        /// The network's IPv6 range.
        network6: IpNet = "network6",
        /// The gateway's IPv6 address.
        gateway_address6: IpNet = "egress_gw_addr6",
        /// The ranges behind it.
        gateway: EgressGatewayRequest = "egress_gateway_cfg",
        /// Restrictions, by id.
        rules: Option<BTreeMap<String, AclRule>> = "egress_fw_rules",
    }
}

document! {
    /// What an ingress gateway forwards.
    pub struct IngressInfo {
        /// Its id.
        ingress_id: String = "ingress_id",
        /// The network's IPv4 range.
        network: IpNet = "network",
        /// The network's IPv6 range.
        network6: IpNet = "network6",
        /// Addresses of its clients.
        static_node_ips: Option<Vec<GoIp>> = "static_node_ips",
        /// Restrictions.
        rules: Option<Vec<FirewallRule>> = "rules",
        /// IPv4 ranges behind egress gateways.
        egress_ranges: Option<Vec<IpNet>> = "egress_ranges",
        /// IPv6 ranges behind egress gateways.
        egress_ranges6: Option<Vec<IpNet>> = "egress_ranges6",
    }
}

document! {
    /// A restriction between two addresses.
    pub struct FirewallRule {
        /// Source.
        source: IpNet = "src_ip",
        /// Destination.
        destination: IpNet = "dst_ip",
        /// `all`, `udp`, `tcp` or `icmp`.
        allowed_protocol: String = "allowed_protocols",
        /// Ports and ranges as text.
        allowed_ports: Option<Vec<String>> = "allowed_ports",
        /// Allowed, not denied.
        allow: bool = "allow",
    }
}
