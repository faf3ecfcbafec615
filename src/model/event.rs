//! What happened to a membership, for those who keep count of it and those who act on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Connection, Identity, InterfaceName, Membership, NetworkName, PublicKey, Server};

/// Something that happened, with the membership as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Why, in words; `None` where the kind says it all.
    pub detail: Option<String>,
    /// What.
    pub kind: EventKind,
    /// To which membership.
    pub subject: Subject,
}

/// The kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The identity is another machine's, of which this one is a copy, and is out of use.
    Clone,
    /// The server deleted this host; the identity is kept aside.
    Deleted,
    /// The interface went down.
    Down,
    /// A queued sign-off was dropped: the server was never told.
    Forgotten,
    /// Another gateway, or none any more.
    GatewayChanged,
    /// It cannot be told whose the identity is, and nothing of it is used.
    Held,
    /// The enrollment of another agent was taken over.
    Imported,
    /// The server took this host in.
    Joined,
    /// A further key was redeemed.
    KeyRedeemed,
    /// A new WireGuard key is in force.
    KeysRotated,
    /// The membership was left on this machine.
    Left,
    /// The disk was moved to other hardware, and the identity with it.
    Moved,
    /// Networks came or went, or addresses or tags in them changed.
    NetworksChanged,
    /// The server refused a key.
    Refused,
    /// The owner wants a new identity; the one before is out of use.
    Renounced,
    /// The machine-id is another; the identity stays.
    Reset,
    /// The server deleted this host because it was left.
    SignedOff,
    /// The interface is up.
    Up,
}

/// A membership as far as events tell of it: nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The gateway for all of this machine's traffic, by its overlay address; `None` for none.
    pub default_gateway: Option<IpAddr>,
    /// This host's id on the server.
    pub host_id: Uuid,
    /// The interface.
    pub interface: InterfaceName,
    /// Fingerprints of the redeemed keys.
    pub keys: BTreeSet<String>,
    /// This host's name on the server; empty before it was told.
    pub name: String,
    /// The networks by name.
    pub networks: BTreeMap<NetworkName, Part>,
    /// This host's WireGuard key.
    pub public_key: PublicKey,
    /// The server.
    pub server: Server,
}

/// This host's part in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Our addresses with the network's prefix.
    pub addresses: BTreeSet<IpNet>,
    /// Whether the administrator has it connected.
    pub connection: Connection,
    /// The gateway that forwards for this host; `None` for none.
    pub gateway: Option<PartGateway>,
    /// Device tags.
    pub tags: BTreeSet<String>,
}

/// A gateway that forwards for this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartGateway {
    /// One of its overlay addresses; `None` until the server told.
    pub address: Option<IpAddr>,
    /// Its host name; `None` until the server told.
    pub name: Option<String>,
    /// Its node id.
    pub node_id: Uuid,
}

impl EventKind {
    /// In one word, for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Deleted => "deleted",
            Self::Down => "down",
            Self::Forgotten => "forgotten",
            Self::GatewayChanged => "gateway-changed",
            Self::Held => "held",
            Self::Imported => "imported",
            Self::Joined => "joined",
            Self::KeyRedeemed => "key-redeemed",
            Self::KeysRotated => "keys-rotated",
            Self::Left => "left",
            Self::Moved => "moved",
            Self::NetworksChanged => "networks-changed",
            Self::Refused => "refused",
            Self::Renounced => "renounced",
            Self::Reset => "reset",
            Self::SignedOff => "signed-off",
            Self::Up => "up",
        }
    }

    /// Whether a receipt is kept of it: interfaces come and go too often.
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::Down | Self::Up)
    }

    /// What hooks are told; `None` if it is no matter of theirs.
    pub fn hook(self) -> Option<&'static str> {
        match self {
            Self::Deleted | Self::Left => Some("left"),
            Self::Imported | Self::Joined => Some("joined"),
            Self::Down | Self::GatewayChanged | Self::NetworksChanged | Self::Up => Some(self.word()),
            Self::Clone
            | Self::Forgotten
            | Self::Held
            | Self::KeyRedeemed
            | Self::KeysRotated
            | Self::Moved
            | Self::Refused
            | Self::Renounced
            | Self::Reset
            | Self::SignedOff => None,
        }
    }
}

impl Event {
    /// An event that says it all by its kind.
    pub fn new(kind: EventKind, subject: Subject) -> Self {
        Self { detail: None, kind, subject }
    }
}

impl Subject {
    /// What events tell of `membership`.
    pub fn of(membership: &Membership) -> Self {
        let Identity { host_id, private_key, .. } = &membership.identity;
        let enrolled = membership.enrolled();
        let assignment = enrolled.map(|enrolled| &enrolled.assignment);
        let nodes = assignment.into_iter().flat_map(|assignment| &assignment.nodes);
        let networks = nodes.map(|(name, node)| {
            let gateway = node.relay.as_ref();
            let gateway = gateway.map(|relay| PartGateway {
                address: relay.address,
                name: relay.name.clone(),
                node_id: relay.node_id,
            });
            let (addresses, tags) = (node.addresses.clone(), node.tags.clone());
            (name.clone(), Part { addresses, connection: node.connection, gateway, tags })
        });
        Self {
            default_gateway: assignment.and_then(|assignment| assignment.default_gateway),
            host_id: *host_id,
            interface: membership.interface.clone(),
            keys: enrolled.map(|enrolled| enrolled.fingerprints.clone()).unwrap_or_default(),
            name: assignment.map(|assignment| assignment.name.clone()).unwrap_or_default(),
            networks: networks.collect(),
            public_key: private_key.public_key(),
            server: membership.server.clone(),
        }
    }
}
