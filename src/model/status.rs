//! What a user or a program is told about a membership; the shape of `--json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Backend, Connection, InterfaceName, NetworkName, PublicKey, Relay, RelayChoice};

/// One membership as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Who carries the packets; `None` when no interface is up.
    pub backend: Option<Backend>,
    /// This host's id on the server.
    pub host_id: Uuid,
    /// The interface.
    pub interface: InterfaceName,
    /// Fingerprints of the redeemed keys.
    pub keys: BTreeSet<String>,
    /// Why the last contact with the server failed; `None` after a success, or when nobody tried.
    pub last_error: Option<String>,
    /// UDP port in use; `None` when no interface is up.
    pub listen_port: Option<u16>,
    /// This host's name on the server; `None` while pending.
    pub name: Option<String>,
    /// The networks by name.
    pub networks: BTreeMap<NetworkName, NetworkStatus>,
    /// The peers on the interface.
    pub peers: Vec<PeerStatus>,
    /// This host's WireGuard key.
    pub public_key: PublicKey,
    /// What was left out of the server's answer.
    pub remarks: Vec<String>,
    /// The server.
    pub server: String,
    /// In one word.
    pub state: State,
}

/// A membership in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Enrolled, but the interface is not up.
    Down,
    /// A key is being redeemed; run `agent join` again.
    Pending,
    /// Enrolled and the interface is up.
    Up,
    /// Enrolled, without any network yet.
    Waiting,
}

/// One network of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Our addresses in it.
    pub addresses: BTreeSet<IpNet>,
    /// Whether the administrator has it connected.
    pub connection: Connection,
    /// Our node's id.
    pub node_id: Uuid,
    /// The relay gateway, if one is assigned.
    pub relay: Option<Relay>,
    /// Who picks it.
    pub relay_choice: RelayChoice,
    /// Device tags.
    pub tags: BTreeSet<String>,
}

/// One peer on the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Networks behind it.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Where its packets go now.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; `None` before the first.
    pub handshake_age: Option<u64>,
    /// Its key.
    pub public_key: PublicKey,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}
