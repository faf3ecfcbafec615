//! What a user or a program is told; the shape of `agent status --json`, described by `agent status --schema`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Backend, Connection, DnsStatus, FirewallStatus, InterfaceName, LeavingStatus, Nat, NetworkName, PublicKey, Relay,
    RelayChoice, Requirement,
};

/// Everything about this device's memberships.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The agent that serves them; `None` when none runs.
    pub agent: Option<AgentStatus>,
    /// What could not be read, and is as it was.
    pub broken: Vec<Broken>,
    /// Keys that are being redeemed again and again until a server takes one.
    pub enrolling: Vec<Enrolling>,
    /// Memberships that were left, of which their servers do not know yet.
    #[serde(default)]
    pub leaving: Vec<LeavingStatus>,
    /// One for each server.
    pub memberships: Vec<Status>,
    /// Version of this document: 1. A number stands for the fields as they are; new ones may come without a new number.
    pub version: u32,
}

/// A serving agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentStatus {
    /// Process number.
    pub pid: u32,
    /// When it started, in seconds since 1970.
    pub since: u64,
    /// Every saved membership was looked at and put in order once.
    pub started: bool,
    /// Version of the program.
    pub version: String,
}

/// A membership that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Broken {
    /// What is wrong.
    pub error: ErrorReport,
    /// The server, by the name of its folder.
    pub server: String,
}

/// A key on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Enrolling {
    /// How often it was tried by this agent.
    pub attempts: u32,
    /// The key's fingerprint; `None` when it was read from the saved membership.
    pub key: Option<String>,
    /// Why the last attempt failed; `None` during the first.
    pub last_error: Option<ErrorReport>,
    /// When it is tried again, in seconds since 1970; `None` during an attempt.
    pub next_at: Option<u64>,
    /// The server.
    pub server: String,
    /// What it is at.
    #[serde(default)]
    pub state: EnrollingState,
}

/// What an enrollment is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnrollingState {
    /// It waits for this machine's clock, which is before the server's certificate; nothing was sent.
    Clock,
    /// It is tried now.
    #[default]
    Trying,
    /// It waits for the next attempt.
    Waiting,
}

/// One membership as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Who carries the packets; `None` when no interface is up.
    pub backend: Option<Backend>,
    /// The conversation with the server; `None` when no agent serves this membership.
    pub contact: Option<Contact>,
    /// How names of its networks are resolved; `None` when no agent serves this membership, or there are none.
    pub dns: Option<DnsStatus>,
    /// What became of the server's access rules; `None` while no interface is up, and where this process may not look.
    pub firewall: Option<FirewallStatus>,
    /// This host's id on the server.
    pub host_id: Uuid,
    /// The interface.
    #[schemars(with = "String")]
    pub interface: InterfaceName,
    /// Fingerprints of the redeemed keys.
    pub keys: BTreeSet<String>,
    /// Why the last contact with the server, or the last look at the interface, failed; `None` after a success, or when
    /// nobody tried.
    pub last_error: Option<ErrorReport>,
    /// UDP port in use; `None` when no interface is up.
    pub listen_port: Option<u16>,
    /// This host's name on the server; `None` while pending.
    pub name: Option<String>,
    /// The networks by name.
    #[schemars(with = "BTreeMap<String, NetworkStatus>")]
    pub networks: BTreeMap<NetworkName, NetworkStatus>,
    /// The peers on the interface.
    pub peers: Vec<PeerStatus>,
    /// Where others see this host; empty until somebody told, and from an agent that does not know of it.
    #[serde(default)]
    pub public_endpoints: Vec<PublicEndpoint>,
    /// This host's WireGuard key.
    #[schemars(with = "String")]
    pub public_key: PublicKey,
    /// What was left out of the server's answer.
    pub remarks: Vec<String>,
    /// What became of each network without which the membership is not complete; empty when the owner requires none.
    #[schemars(with = "BTreeMap<String, Requirement>")]
    #[serde(default)]
    pub required: BTreeMap<NetworkName, Requirement>,
    /// The server.
    pub server: String,
    /// When `state` became what it is, in seconds since 1970; `None` when no agent serves this membership.
    pub since: Option<u64>,
    /// In one word.
    pub state: State,
}

impl Status {
    /// Required networks that this host is not usefully in, with what became of them.
    pub fn unmet(&self) -> impl Iterator<Item = (&NetworkName, Requirement)> {
        self.required.iter().filter(|(_, requirement)| !requirement.is_met()).map(|(name, found)| (name, *found))
    }
}

/// A membership in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A copy of another machine: its identity is not used, and this machine has none of its own yet.
    Clone,
    /// Enrolled, but the interface is not up.
    Down,
    /// Perhaps a copy of another machine: nothing of the identity is used until that is clear.
    Held,
    /// Switched off by the owner of this machine; `agent up` switches it on.
    Off,
    /// A key is being redeemed; run `agent join` again.
    Pending,
    /// The server deleted this host; its identity is kept aside.
    Revoked,
    /// Enrolled and the interface is up.
    Up,
    /// Enrolled, without any network yet.
    Waiting,
}

/// How the conversation with the server goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Contact {
    /// The last round that went well; `None` before the first.
    pub last_sync: Option<SyncReport>,
    /// What is done next; `None` while something is being done.
    pub next: Option<NextStep>,
    /// Whether the server answered last time.
    pub online: bool,
    /// Whether changes are pushed by the server's broker.
    pub push: PushState,
    /// When `online` became what it is, in seconds since 1970.
    pub since: u64,
    /// The server asked for an update of the agent, which is left to the machine's package manager.
    pub upgrade_requested: bool,
}

/// What a round with the server did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SyncReport {
    /// When, in seconds since 1970.
    pub at: u64,
    /// Changes made to the interface.
    pub changes: usize,
    /// Whether networks or peers differed from what was known.
    pub news: bool,
}

/// Something that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NextStep {
    /// When, in seconds since 1970.
    pub at: u64,
    /// What for, in words.
    pub why: String,
}

/// The connection to the server's broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum PushState {
    /// The server has no broker, or has not said where it is: changes are pulled.
    Absent,
    /// Changes come at once.
    Connected,
    /// Changes are pulled meanwhile.
    Disconnected {
        /// Why, in words; empty before the first attempt has ended.
        why: String,
    },
}

/// A failure with its class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorReport {
    /// When, in seconds since 1970.
    pub at: u64,
    /// What kind.
    pub class: Class,
    /// What happened, with its causes.
    pub message: String,
}

/// The kinds of failure that there is an exit code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// This machine's clock is before the server's certificate.
    Clock,
    /// The configuration cannot be used.
    Configuration,
    /// The process lacks a right.
    Denied,
    /// The identity or the interface belongs to something else.
    Foreign,
    /// The identity is another machine's, or may be.
    Held,
    /// This host is not enrolled, or not any more.
    NotEnrolled,
    /// Anything else.
    Other,
    /// Enrolled, and not in every required network.
    Partial,
    /// The server refuses the key.
    Refused,
    /// Network, DNS, TLS, clock or server trouble.
    Temporary,
    /// The command was not used as it is meant.
    Usage,
    /// Enrolled, without a network by the deadline.
    Waiting,
}

/// One network of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkStatus {
    /// Our addresses in it.
    #[schemars(with = "BTreeSet<String>")]
    pub addresses: BTreeSet<IpNet>,
    /// Whether the administrator has it connected.
    pub connection: Connection,
    /// Our node's id.
    pub node_id: Uuid,
    /// The relay gateway that the server assigned, if there is one.
    pub relay: Option<Relay>,
    /// Who picks it.
    pub relay_choice: RelayChoice,
    /// Whether that gateway carries our traffic now: it is a peer, with a handshake younger than 180 s.
    pub relay_effective: bool,
    /// Device tags.
    pub tags: BTreeSet<String>,
}

/// An address of this host as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PublicEndpoint {
    /// The address.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// Whether something changes it on the way; `None` when the owner of the machine gave it.
    pub nat: Option<Nat>,
    /// The UDP port that leads to the interface's; `None` when nobody told, and peers take the interface's own.
    pub port: Option<u16>,
}

/// One peer on the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// Networks behind it.
    #[schemars(with = "BTreeSet<String>")]
    pub allowed_ips: BTreeSet<IpNet>,
    /// Where its packets go now.
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; `None` before the first.
    pub handshake_age: Option<u64>,
    /// Its key.
    #[schemars(with = "String")]
    pub public_key: PublicKey,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// [`Report::version`] of today's shape.
pub const REPORT_VERSION: u32 = 1;
