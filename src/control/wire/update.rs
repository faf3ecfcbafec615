//! Single events: what a server asks of a host, and what a host tells.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{EgressDomain, GoTime, Host, Node, document};

document! {
    /// One action with what it needs; the other parts are zero documents, and may be missing on input.
    pub struct HostUpdate {
        /// What to do, or what happened.
        action: HostAction = "Action",
        /// The host's full record.
        host: Host = "Host",
        /// The node it is about.
        node: Node = "Node",
        /// A message between two hosts.
        signal: Signal = "Signal",
        /// A domain to resolve.
        egress_domain: EgressDomain = "EgressDomain",
        /// Pro.
        new_metrics: Metrics = "NewMetrics",
    }
}

/// What a [`HostUpdate`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostAction {
    /// The host wants its next queued message.
    Ack,
    /// The host should choose a gateway; Pro.
    CheckAutoAssignGateway,
    /// The host lives.
    CheckIn,
    /// The host is deleted, or leaves.
    DeleteHost,
    /// A domain should be resolved, or was.
    EgressUpdate,
    /// The host should update itself at once; ignored by us.
    ForceUpgrade,
    /// The host has a new node.
    JoinHostToNetwork,
    /// Registration work is finished.
    RequestAck,
    /// The host should pull.
    RequestPull,
    /// A message between two hosts.
    SignalHost,
    /// The host should pull without a restart.
    SignalPull,
    /// The record changed.
    UpdateHost,
    /// The host should make a new WireGuard key.
    UpdateKeys,
    /// Metrics; Pro.
    UpdateMetrics,
    /// A node was connected or disconnected.
    UpdateNode,
    /// The host should update itself; ignored by us.
    Upgrade,
    /// Anything else, kept as it came; also the empty text of a zero document.
    Other(String),
}

impl HostAction {
    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        if let Self::Other(text) = self {
            return text;
        }
        NAMES.iter().find(|(action, _)| action == self).map_or("", |(_, name)| name)
    }
}

impl Default for HostAction {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl From<String> for HostAction {
    fn from(text: String) -> Self {
        match NAMES.iter().find(|(_, name)| *name == text) {
            Some((action, _)) => action.clone(),
            None => Self::Other(text),
        }
    }
}

impl Serialize for HostAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for HostAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

document! {
    /// A message from one host to another, carried by the server.
    pub struct Signal {
        /// The server's name.
        server: String = "server",
        /// Sender's WireGuard key, base64.
        from_host_public_key: String = "from_host_pubkey",
        /// Receiver's WireGuard key, base64.
        to_host_public_key: String = "to_host_pubkey",
        /// Sender.
        from_host_id: String = "from_host_id",
        /// Receiver.
        to_host_id: String = "to_host_id",
        /// Sender's node.
        from_node_id: String = "from_node_id",
        /// Receiver's node.
        to_node_id: String = "to_node_id",
        /// Name of the network.
        network: String = "networkID",
        /// An answer.
        reply: bool = "reply",
        /// Latencies to relays; Pro.
        auto_relay_node_metrics: Option<serde_json::Value> = "auto_relay_node_metrics",
        /// `CONNECTION_NEGOTIATION` or `RELAY_ME`.
        action: String = "action",
        /// Pro.
        is_pro: bool = "is_pro",
        /// Unix seconds; older than 5 s is ignored.
        timestamp: i64 = "timestamp",
    }
}

document! {
    /// Traffic figures; Pro.
    pub struct Metrics {
        /// Name of the network.
        network: String = "network",
        /// The node.
        node_id: String = "node_id",
        /// Its name.
        node_name: String = "node_name",
        /// By peer.
        connectivity: Option<serde_json::Value> = "connectivity",
        /// When.
        updated_at: GoTime = "updated_at",
    }
}

const NAMES: [(HostAction, &str); 16] = [
    (HostAction::Ack, "ACK"),
    (HostAction::CheckAutoAssignGateway, "CHECK_AUTO_ASSIGN_GW"),
    (HostAction::CheckIn, "CHECK_IN"),
    (HostAction::DeleteHost, "DELETE_HOST"),
    (HostAction::EgressUpdate, "EGRESS_UPDATE"),
    (HostAction::ForceUpgrade, "FORCE_UPGRADE"),
    (HostAction::JoinHostToNetwork, "JOIN_HOST_TO_NETWORK"),
    (HostAction::RequestAck, "REQ_ACK"),
    (HostAction::RequestPull, "REQ_PULL"),
    (HostAction::SignalHost, "SIGNAL_HOST"),
    (HostAction::SignalPull, "SIGNAL_PULL"),
    (HostAction::UpdateHost, "UPDATE_HOST"),
    (HostAction::UpdateKeys, "UPDATE_KEYS"),
    (HostAction::UpdateMetrics, "UPDATE_METRICS"),
    (HostAction::UpdateNode, "UPDATE_NODE"),
    (HostAction::Upgrade, "UPGRADE"),
];
