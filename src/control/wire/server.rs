//! What the server says about itself.

use super::{GoBytes, GoTime, Secret, document};

document! {
    /// How to talk to the server, sent with the registration, every pull and every push.
    pub struct ServerConfig {
        /// Address of the DNS server.
        core_dns_addr: String = "CoreDNSAddr",
        /// `host:port` of all HTTPS calls after the registration.
        api: String = "API",
        /// Never filled.
        api_host: String = "APIHost",
        /// The server's internal port.
        api_port: String = "APIPort",
        /// Flow logs; Pro.
        grpc: String = "GRPC",
        /// `on` or `off`; legacy.
        dns_mode: String = "DNSMode",
        /// The server's version.
        version: String = "Version",
        /// Never filled.
        mq_port: String = "MQPort",
        /// Broker user, or the literal `HOST_ID` with EMQX.
        mq_user_name: String = "MQUserName",
        /// Broker password shared by all hosts, or the literal `HOST_PASS` with EMQX.
        mq_password: Secret = "MQPassword",
        /// `mosquitto` or `emqx`.
        broker_type: String = "BrokerType",
        /// The server's name: part of every topic, never with a `/`.
        server: String = "Server",
        /// The broker's URL; empty when there is none.
        broker: String = "Broker",
        /// Enterprise edition.
        is_ee: bool = "Is_EE",
        /// The server's public key for sealed messages in its gob form, see [`crate::control::seal`].
        traffic_key: GoBytes = "TrafficKey",
        /// Minutes between metrics, as text.
        metric_interval: String = "MetricInterval",
        /// TCP port of the LAN probe.
        metrics_port: i64 = "MetricsPort",
        /// Seconds between looks at the public address.
        ip_detection_interval: i64 = "IPDetectionInterval",
        /// Whether the server manages DNS.
        manage_dns: bool = "ManageDNS",
        /// Whether to ask STUN servers for the public address.
        stun: bool = "Stun",
        /// `host:port` entries with commas between.
        stun_servers: String = "StunServers",
        /// Whether peers probe each other's LAN addresses.
        endpoint_detection: bool = "EndpointDetection",
        /// Last part of host names in DNS.
        default_domain: String = "DefaultDomain",
        /// Seconds between checks of peer connections, as text.
        peer_connection_check_interval: String = "PeerConnectionCheckInterval",
    }
}

document! {
    /// The server's health, for anyone who asks.
    pub struct ServerStatus {
        /// The database answers.
        db_connected: bool = "db_connected",
        /// The broker answers.
        broker_connected: bool = "broker_connected",
        /// The server's own connection to the broker is open.
        is_broker_conn_open: bool = "is_broker_conn_open",
        /// Trouble with the licence; empty for none.
        license_error: String = "license_error",
        /// Enterprise edition.
        is_pro: bool = "is_pro",
        /// `self-hosted` as a rule.
        deployment_mode: String = "deployment_mode",
        /// End of a trial; unset for none.
        trial_end_date: GoTime = "trial_end_date",
        /// Runs on a trial licence.
        is_on_trial_license: bool = "is_on_trial_license",
        /// The server's version.
        version: String = "version",
    }
}
