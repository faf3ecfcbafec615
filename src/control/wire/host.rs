//! A host: what a device says about itself, and how it proves who it is.

use uuid::Uuid;

use super::{GoBytes, GoIp, GoTime, IpNet, Nanoseconds, Secret, ServerConfig, WgKey, document};

document! {
    /// One enrolled device, as it registers itself and as the server stores it.
    ///
    /// A device sends `nodes` null and `isdefault` false and leaves out the fields that are `None` or empty here.
    pub struct Host {
        /// Chosen by the device, a random UUID.
        id: Uuid = "id",
        /// Log level, 0 to 4.
        verbosity: i64 = "verbosity",
        /// `iptables`, `nftables` or `none`.
        firewall_in_use: String = "firewallinuse",
        /// Decides whether the server accepts the host (`v0.17.0` and up) and which payload encryption it uses.
        version: String = "version",
        /// Whether the kernel forwards packets.
        ip_forwarding: bool = "ipforwarding",
        /// Whether the agent runs as a service.
        daemon_installed: bool = "daemoninstalled",
        /// Whether the server may ask for a self-update; set by the server, ignored by us.
        auto_update: bool = "autoupdate",
        /// The device's password when it registers, a hash of it in every answer.
        password: Secret = "hostpass",
        /// The host name; part of its names in DNS.
        name: String = "name",
        /// `linux`, `windows`, `darwin`, `freebsd` or `iot`.
        os: String = "os",
        /// Distribution, as `debian`.
        os_family: String = "os_family",
        /// Version of the distribution.
        os_version: String = "os_version",
        /// Version of the kernel.
        kernel_version: String = "kernel_version",
        /// The local interface's name.
        interface: String = "interface",
        /// Debug logging.
        debug: bool = "debug",
        /// Local WireGuard UDP port; the server may change it.
        listen_port: i64 = "listenport",
        /// That port as seen from outside; 0 when unknown.
        public_listen_port: i64 = "wg_public_listen_port",
        /// MTU of the interface.
        mtu: i64 = "mtu",
        /// WireGuard public key.
        public_key: WgKey = "publickey",
        /// Hardware address, 6 bytes; two hosts with the same one make the older a zombie.
        mac_address: GoBytes = "macaddress",
        /// Public key for sealed messages in its gob form, see [`crate::control::seal`].
        traffic_key_public: GoBytes = "traffickeypublic",
        /// Ids of the host's nodes; the server's business.
        nodes: Option<Vec<String>> = "nodes",
        /// Local networks, offered to peers in the same building.
        interfaces: Option<Vec<HostInterface>> = "interfaces",
        /// The interface of the default route.
        default_interface: String = "defaultinterface",
        /// Public IPv4 address; unset when unknown.
        endpoint_ip: GoIp = "endpointip",
        /// Public IPv6 address; unset when unknown.
        endpoint_ipv6: GoIp = "endpointipv6",
        /// Runs in a container.
        is_docker: bool = "isdocker",
        /// Runs in Kubernetes.
        is_k8s: bool = "isk8s",
        /// The listen port must not be changed, and peers use it as is.
        is_static_port: bool = "isstaticport",
        /// The endpoint is configured, not detected.
        is_static: bool = "isstatic",
        /// Joins every new network as gateway; must be sent false.
        is_default: bool = "isdefault",
        /// `yes` or `no`: whether the server manages this host's DNS.
        dns_status: String = "dns_status",
        /// `public` or `behind_nat`; left out when empty.
        #[serde(skip_serializing_if = "String::is_empty")]
        nat_type: String = "nat_type",
        /// `address:port`; vestigial, left out when unset.
        #[serde(skip_serializing_if = "Option::is_none")]
        turn_endpoint: Option<String> = "turn_endpoint",
        /// Time between keepalives that peers send towards this host; 20 s unless an administrator changes it.
        persistent_keepalive: Nanoseconds = "persistentkeepalive",
        /// `latitude,longitude`; the server looks an empty one up by address.
        location: String = "location",
        /// Two letters; the server looks an empty one up by address.
        country_code: String = "country_code",
        /// Flow logs; Pro.
        enable_flow_logs: bool = "enable_flow_logs",
        /// When the server first saw the host; left out when unset, as `""` is an error.
        #[serde(skip_serializing_if = "Option::is_none")]
        created_at: Option<GoTime> = "created_at",
        /// When the record last changed; left out when unset.
        #[serde(skip_serializing_if = "Option::is_none")]
        updated_at: Option<GoTime> = "updated_at",
    }
}

document! {
    /// A local network of a host.
    pub struct HostInterface {
        /// Name of the interface.
        name: String = "name",
        /// Its address with the prefix.
        address: IpNet = "address",
        /// The same as text; usually empty.
        address_text: String = "addressString",
    }
}

document! {
    /// The answer to a registration. It names no network: a pull does.
    pub struct RegisterResponse {
        /// How to talk to the server from now on.
        server_config: ServerConfig = "server_config",
        /// The record as stored: password hashed, listen port possibly changed.
        requested_host: Host = "requested_host",
    }
}

document! {
    /// The request for a session token.
    pub struct AuthRequest {
        /// Only echoed into the token; colon form by custom.
        mac_address: String = "macaddress",
        /// The host's id as text, so that the server can say what is wrong with it.
        id: String = "id",
        /// The password of the registration.
        password: Secret = "password",
    }
}

document! {
    /// The session token, inside a [`super::Success`].
    pub struct AuthToken {
        /// The host's id.
        id: String = "ID",
        /// A JWT that is good for 15 minutes.
        auth_token: Secret = "AuthToken",
    }
}
