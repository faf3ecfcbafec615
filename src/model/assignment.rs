//! What the server assigned to this host, checked: from here on every value is valid.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Access, DomainName, Names, NetworkName, Peer, PublicKey, StunServer};

/// The host's networks and peers.
///
/// No two connected networks overlap, no two peers claim the same allowed IP, and our own key is not among the peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Who may send what to this host; open in states that were saved without it.
    #[serde(default)]
    pub access: Access,
    /// The overlay address of the gateway that all of this machine's traffic should go through; `None` for none.
    #[serde(default)]
    pub default_gateway: Option<IpAddr>,
    /// Memberships that the server wants gone and we have to confirm.
    pub leaving: BTreeMap<NetworkName, Uuid>,
    /// UDP port the server settled on; `None` leaves it to us.
    pub listen_port: Option<NonZeroU16>,
    /// Largest packet in bytes; `None` leaves it to us.
    pub mtu: Option<u16>,
    /// The host's name on the server.
    pub name: String,
    /// What the server says about names.
    #[serde(default)]
    pub names: Names,
    /// Addresses of peers in networks of their own, private ones, where they may be tried; empty unless the server wants
    /// that.
    #[serde(default)]
    pub nearby: BTreeMap<PublicKey, BTreeSet<SocketAddr>>,
    /// The memberships by network.
    pub nodes: BTreeMap<NetworkName, Node>,
    /// The peers over all networks.
    pub peers: BTreeMap<PublicKey, Peer>,
    /// What was left out of the server's answer, and why.
    pub remarks: BTreeSet<Remark>,
    /// The metrics of routes to ranges behind peers, where the server sets one.
    #[serde(default)]
    pub route_metrics: BTreeMap<IpNet, NonZeroU32>,
    /// Who may be asked where this host is seen from outside; empty is nobody.
    #[serde(default)]
    pub stun: Vec<StunServer>,
}

/// This host's membership in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Overlay addresses with the network's prefix: at most one IPv4 and one IPv6.
    pub addresses: BTreeSet<IpNet>,
    /// Whether the administrator has it connected.
    pub connection: Connection,
    /// The node's id.
    pub id: Uuid,
    /// The relay gateway; `None` talks to every peer directly.
    pub relay: Option<Relay>,
    /// Whether the server picks the nearest gateway.
    pub relay_choice: RelayChoice,
    /// Device tags as the server writes them, `<network>.<name>`.
    pub tags: BTreeSet<String>,
}

/// Whether a membership carries traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// Addresses and peers are configured.
    Connected,
    /// Switched off by the administrator: the membership stays, its addresses do not.
    Disconnected,
}

/// Who picks the relay gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RelayChoice {
    /// The nearest one is selected automatically.
    Automatic,
    /// The administrator, or nobody.
    Fixed,
}

/// The gateway that forwards for this host in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Relay {
    /// One of its overlay addresses; `None` until the server told.
    #[schemars(with = "Option<String>")]
    pub address: Option<IpAddr>,
    /// Its host name; `None` until the server told.
    pub name: Option<String>,
    /// Its node id.
    pub node_id: Uuid,
    /// Its WireGuard key; `None` until the server told.
    #[schemars(with = "Option<String>")]
    pub public_key: Option<PublicKey>,
}

/// Something of the server's answer that was left out without refusing the rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remark {
    /// An access rule allows something that this agent cannot tell apart, so it allows nothing here.
    AccessRuleUnused(String),
    /// An access rule denies something that this agent cannot tell apart, so it denies everything from its sources.
    AccessRuleWidened(String),
    /// Names in this domain are left to this machine's own resolver: the enrollment server's is among them.
    DomainOfServer(DomainName),
    /// This domain is half the internet, and only the owner of a machine may give that away.
    DomainTooWide(DomainName),
    /// The server has this host forward to ranges behind it, which this agent leaves to others.
    EgressGatewayUnsupported,
    /// A peer's endpoint has port 0; the peer has to initiate.
    EndpointWithoutPort(PublicKey),
    /// Name servers with no usable address, or for something that is no domain.
    NameServersUnusable(String),
    /// Name servers for all names, which only the owner of a machine may accept.
    NameServersForEverything,
    /// A network gives this host no address, so nothing of it can be used.
    NetworkWithoutAddress(NetworkName),
    /// Our own key was listed as a peer.
    OwnKeyAmongPeers,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccessRuleUnused(id) => {
                write!(f, "access rule {id} has a protocol or ports that this agent does not know; it allows nothing")
            }
            Self::AccessRuleWidened(id) => {
                write!(f, "access rule {id} denies by a protocol or ports that this agent does not know; it denies all")
            }
            Self::DomainOfServer(domain) => write!(
                f,
                "names in {domain} are not asked where the server says: its own name is among them, and would be lost"
            ),
            Self::DomainTooWide(domain) => {
                write!(f, "names in {domain} are not asked where the server says, unless dns is full")
            }
            Self::EndpointWithoutPort(key) => {
                write!(f, "peer {key} has an endpoint without a port; waiting for it to call")
            }
            Self::EgressGatewayUnsupported => {
                f.write_str("the server uses this host as an egress gateway, which this agent does not support")
            }
            Self::NameServersForEverything => {
                f.write_str("the server names name servers for all names; they are not asked, unless dns is full")
            }
            Self::NameServersUnusable(scope) => write!(f, "the name servers for {scope:?} cannot be used"),
            Self::NetworkWithoutAddress(network) => write!(f, "network {network} gives this host no address"),
            Self::OwnKeyAmongPeers => f.write_str("the server lists this host's own key as a peer; it was skipped"),
        }
    }
}

impl Remark {
    /// Whether it comes with the list of peers, also when that is pushed.
    pub fn comes_with_peers(&self) -> bool {
        match self {
            Self::DomainOfServer(_)
            | Self::DomainTooWide(_)
            | Self::EgressGatewayUnsupported
            | Self::NameServersForEverything
            | Self::NetworkWithoutAddress(_) => false,
            Self::AccessRuleUnused(_)
            | Self::AccessRuleWidened(_)
            | Self::EndpointWithoutPort(_)
            | Self::NameServersUnusable(_)
            | Self::OwnKeyAmongPeers => true,
        }
    }
}

impl Assignment {
    /// Returns whether any membership carries traffic.
    pub fn is_connected(&self) -> bool {
        self.nodes.values().any(|node| node.connection == Connection::Connected)
    }
}
