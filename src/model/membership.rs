//! This host's enrollment with one server, as it is saved.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{
    Assignment, Binding, Identity, InterfaceName, NetworkName, Node, Outside, Policy, Secret, Server, StunChoice, Token,
};

/// A membership on disk.
///
/// ```text
/// (absent) ──join──► Pending ──redeemed, interface up──► Enrolled ──leave──► (absent)
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The machine that it belongs to; `None` in a file of an agent that did not note it yet.
    #[serde(default)]
    pub binding: Option<Binding>,
    /// Who this host is to the server.
    pub identity: Identity,
    /// The interface of this membership.
    pub interface: InterfaceName,
    /// Where this host was last seen from outside; see [`Membership::seen`].
    #[serde(default)]
    pub outside: Outside,
    /// When this host last checked in, in the server's seconds since 1970; up to an hour behind, `None` before the first
    /// pull.
    #[serde(default)]
    pub last_check_in: Option<u64>,
    /// What the owner of the machine decided.
    pub policy: Policy,
    /// How far it got.
    pub phase: Phase,
    /// Fingerprints of keys that were sent with this identity and never clearly answered: as long as there is one, the
    /// server may know this host.
    pub sent: BTreeSet<String>,
    /// The server as its key names it.
    pub server: Server,
    /// Whether the owner of the machine wants the interface up.
    pub switch: Switch,
}

/// Whether the owner of the machine wants a membership's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Taken down until further notice; the membership stays.
    Off,
    /// Up whenever the agent serves it.
    #[default]
    On,
}

/// How far an enrollment got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "phase")]
pub enum Phase {
    /// The key was redeemed and the interface stood.
    Enrolled(Box<Enrolled>),
    /// The key may or may not have been shown to the server yet.
    Pending {
        /// The key being redeemed.
        redeeming: Redeeming,
    },
}

/// A redeemed membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Where the server wants all further calls.
    pub api: Server,
    /// Networks that the server said a key of this host grants; empty unless it speaks our extension header.
    #[serde(default)]
    pub announced: BTreeSet<NetworkName>,
    /// The last good assignment; brings the interface up without the server.
    pub assignment: Assignment,
    /// Fingerprints of the keys this host has redeemed here.
    pub fingerprints: BTreeSet<String>,
    /// A further key that may or may not have been shown to the server yet.
    pub redeeming: Option<Redeeming>,
    /// Where `api` was when it was last talked to.
    #[serde(default)]
    pub server_addresses: BTreeSet<IpAddr>,
    /// The server's own name and version.
    pub server_name: String,
    /// Version the server last reported.
    pub server_version: String,
}

/// A key on its way to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeeming {
    /// What the host had when the key was first sent, by which it shows whether it was counted; `None` before that, and
    /// for a host that was new then.
    pub baseline: Option<BTreeMap<NetworkName, Node>>,
    /// How often it was sent without a clear answer.
    pub attempts: u32,
    /// The key's fingerprint.
    pub fingerprint: String,
    /// When it, or a key before it, was last sent, in seconds since 1970; `None` if that is no matter any more.
    pub sent_at: Option<u64>,
    /// The key itself; gone from the disk once redeemed.
    pub token: Secret,
}

impl Redeeming {
    /// A key that was not sent yet.
    pub fn new(token: &Token) -> Self {
        Self {
            attempts: 0,
            baseline: None,
            fingerprint: token.fingerprint(),
            sent_at: None,
            token: token.text().clone(),
        }
    }
}

impl Membership {
    /// The key on its way to the server, if there is one.
    pub fn redeeming(&self) -> Option<&Redeeming> {
        match &self.phase {
            Phase::Enrolled(enrolled) => enrolled.redeeming.as_ref(),
            Phase::Pending { redeeming } => Some(redeeming),
        }
    }

    /// The key on its way to the server, to note what happened to it.
    pub fn redeeming_mut(&mut self) -> Option<&mut Redeeming> {
        match &mut self.phase {
            Phase::Enrolled(enrolled) => enrolled.redeeming.as_mut(),
            Phase::Pending { redeeming } => Some(redeeming),
        }
    }

    /// Where this host is seen from outside; nowhere if the owner wants nobody asked.
    pub fn seen(&self) -> Outside {
        match self.policy.stun {
            Some(StunChoice::Off) => Outside::default(),
            Some(StunChoice::Servers(_)) | None => self.outside,
        }
    }

    /// The enrolled part; `None` while pending.
    pub fn enrolled(&self) -> Option<&Enrolled> {
        match &self.phase {
            Phase::Enrolled(enrolled) => Some(enrolled),
            Phase::Pending { .. } => None,
        }
    }
}
