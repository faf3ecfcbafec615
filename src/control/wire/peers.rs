//! Peers: what to configure in WireGuard, and the routes that go with it.

use super::{EgressRange, HostInterface, IpNet, Nanoseconds, PresharedWgKey, UdpAddr, WgKey, document};

document! {
    /// One WireGuard peer. The list they come in is the whole wanted set.
    pub struct PeerConfig {
        /// The peer's key.
        public_key: WgKey = "PublicKey",
        /// The peer must not be there.
        remove: bool = "Remove",
        /// Always false.
        update_only: bool = "UpdateOnly",
        /// Always null from this server.
        preshared_key: Option<PresharedWgKey> = "PresharedKey",
        /// Where to send; null, or without an address, when the peer has to speak first.
        endpoint: Option<UdpAddr> = "Endpoint",
        /// Time between keepalives; null leaves it as it is.
        persistent_keepalive: Option<Nanoseconds> = "PersistentKeepaliveInterval",
        /// True in normal entries.
        replace_allowed_ips: bool = "ReplaceAllowedIPs",
        /// Networks routed to, and accepted from, the peer.
        allowed_ips: Option<Vec<IpNet>> = "AllowedIPs",
    }
}

document! {
    /// How to find a peer in the same building.
    pub struct HostNetworkInfo {
        /// The peer's local networks.
        interfaces: Option<Vec<HostInterface>> = "interfaces",
        /// The peer's local WireGuard port.
        listen_port: i64 = "listen_port",
        /// That port is fixed.
        is_static_port: bool = "is_static_port",
        /// The peer's endpoint is configured, not detected.
        is_static: bool = "is_static",
        /// Never filled.
        version: String = "version",
    }
}

document! {
    /// Routes behind a peer; the same ranges are among the peer's allowed IPs.
    pub struct EgressNetworkRoutes {
        /// Base64 key of the peer, or of the relay in front of it.
        peer_key: String = "peer_key",
        /// The gateway's IPv4 address.
        gateway_address: IpNet = "egress_gw_addr",
        /// The gateway's IPv6 address.
        gateway_address6: IpNet = "egress_gw_addr6",
        /// This node's IPv4 address.
        node_address: IpNet = "node_addr",
        /// This node's IPv6 address.
        node_address6: IpNet = "node_addr6",
        /// CIDR texts.
        ranges: Option<Vec<String>> = "egress_ranges",
        /// The same with metrics.
        ranges_with_metric: Option<Vec<EgressRange>> = "egress_ranges_metric",
        /// Name of the network.
        network: String = "network",
    }
}
