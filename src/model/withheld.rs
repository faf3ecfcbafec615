//! What a server asked of this machine and did not get.

use std::{fmt, net::IpAddr, num::NonZeroU16};

use ipnet::IpNet;

use super::NetworkName;

/// Something of a valid assignment that this machine does not carry out, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Withheld {
    /// All of this machine's traffic should go through a gateway.
    DefaultRoute(NoDefaultRoute),
    /// Another UDP port than the owner's.
    ListenPort {
        /// The server's.
        asked: NonZeroU16,
        /// The owner's.
        kept: NonZeroU16,
    },
    /// Another packet size than the owner's.
    Mtu {
        /// The server's, in bytes.
        asked: u16,
        /// The owner's, in bytes.
        kept: u16,
    },
    /// A network, with everything in it.
    Network {
        /// Which.
        name: NetworkName,
        /// Its range that is in the way.
        range: IpNet,
        /// Of what.
        obstacle: Obstacle,
    },
    /// A range behind a peer.
    Range {
        /// Which.
        range: IpNet,
        /// What it is in the way of.
        obstacle: Obstacle,
    },
    /// A range behind a peer so wide that it takes over the machine's traffic.
    TooWide(IpNet),
}

/// Why a default route is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoDefaultRoute {
    /// The owner did not allow any.
    NotAllowed,
    /// No peer carries it.
    NoPeer,
    /// It goes through another interface of ours.
    Taken,
}

/// What a granted range would take away from this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// The network on one of this machine's other interfaces.
    Link {
        /// Its name.
        interface: String,
        /// The network.
        net: IpNet,
    },
    /// An address that this machine asks for names.
    NameServer(IpAddr),
    /// The owner's list of what a server may use.
    NotAllowed,
    /// The address of a peer, whose packets would chase themselves.
    Peer(IpAddr),
    /// A route of this machine through another interface.
    Route {
        /// The interface's name.
        interface: String,
        /// The destination.
        net: IpNet,
    },
    /// The enrollment server.
    Server(IpAddr),
    /// Addresses that no tunnel can lead to, as loopback or multicast.
    Special,
}

impl Obstacle {
    /// Whether two ranges claim the same addresses, which the owner's `overlap` decides about.
    pub fn is_overlap(&self) -> bool {
        match self {
            Self::Link { .. } | Self::NameServer(_) | Self::Peer(_) | Self::Route { .. } | Self::Server(_) => true,
            Self::NotAllowed | Self::Special => false,
        }
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DefaultRoute(NoDefaultRoute::NotAllowed) => f.write_str(
                "the server wants all of this machine's traffic, which stays as it is; set accept_default_route to \
                 allow that",
            ),
            Self::DefaultRoute(NoDefaultRoute::NoPeer) => {
                f.write_str("the server wants all of this machine's traffic, but no peer carries it")
            }
            Self::DefaultRoute(NoDefaultRoute::Taken) => f.write_str(
                "the server wants all of this machine's traffic, which goes through the gateway of another membership",
            ),
            Self::ListenPort { asked, kept } => {
                write!(f, "the server asks for UDP port {asked}; it stays {kept}, as this machine's owner set it")
            }
            Self::Mtu { asked, kept } => {
                write!(f, "the server asks for an MTU of {asked}; it stays {kept}, as this machine's owner set it")
            }
            Self::Network { name, range, obstacle } => {
                write!(f, "network {name} is left out: its range {range} {obstacle}")
            }
            Self::Range { range, obstacle } => write!(f, "{range} is not routed: it {obstacle}"),
            Self::TooWide(range) => write!(f, "{range} is not routed: it takes too much of this machine's traffic"),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { interface, net } => write!(f, "overlaps {net} on this machine's interface {interface}"),
            Self::NameServer(ip) => write!(f, "holds this machine's name server {ip}"),
            Self::NotAllowed => f.write_str("is none that allowed_prefixes permits"),
            Self::Peer(ip) => write!(f, "holds the address {ip} of a peer"),
            Self::Route { interface, net } => write!(f, "overlaps this machine's route to {net} through {interface}"),
            Self::Server(ip) => write!(f, "holds the address {ip} of the enrollment server"),
            Self::Special => f.write_str("is no range that a tunnel can lead to"),
        }
    }
}
