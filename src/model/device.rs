//! A WireGuard interface as data: what it should be (want) and what the host reports (have).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{PresharedKey, PrivateKey, PublicKey, Route, Rule};

/// One interface with everything on it that is ours; what others put there is not part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Overlay addresses with their network's prefix length; link-local ones are left out.
    pub addresses: BTreeSet<IpNet>,
    /// Mark on the packets that WireGuard itself sends; `None` leaves them unmarked.
    pub fwmark: Option<NonZeroU32>,
    /// UDP port; `None` asks the kernel for any free one.
    pub listen_port: Option<NonZeroU16>,
    /// Largest packet in bytes.
    pub mtu: u16,
    /// The peers by their key.
    pub peers: BTreeMap<PublicKey, Peer>,
    /// Our key pair; all zero only on an interface that never had one.
    pub private_key: PrivateKey,
    /// Destinations routed here beyond those that the addresses' own prefixes imply.
    pub routes: BTreeSet<Route>,
    /// Who looks into which routing table.
    pub rules: BTreeSet<Rule>,
    /// Whether the administrator has it up.
    pub state: LinkState,
}

/// Whether an interface carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Configured, silent.
    Down,
    /// In service.
    Up,
}

/// Another WireGuard key we talk to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Networks routed to, and accepted from, this peer; host bits are zero.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Where its packets go; `None` waits for the peer to initiate.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalive packets; `None` turns them off.
    pub persistent_keepalive: Option<NonZeroU16>,
    /// Extra symmetric key; `None` when there is none.
    pub preshared_key: Option<PresharedKey>,
}

/// What the host reports about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The interface itself.
    pub device: Device,
    /// Traffic figures for peers; a peer without figures may be missing.
    pub stats: BTreeMap<PublicKey, PeerStats>,
}

/// Traffic figures of one peer since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStats {
    /// Time since the last completed handshake; `None` before the first.
    pub handshake_age: Option<Duration>,
    /// Bytes received from the peer.
    pub rx_bytes: u64,
    /// Bytes sent to the peer.
    pub tx_bytes: u64,
}

impl Device {
    /// An interface just made: no key, no peers, no addresses, down, with the kernel's own MTU for WireGuard.
    pub fn blank() -> Self {
        Self {
            addresses: BTreeSet::new(),
            fwmark: None,
            listen_port: None,
            mtu: 1420,
            peers: BTreeMap::new(),
            private_key: PrivateKey::blank(),
            routes: BTreeSet::new(),
            rules: BTreeSet::new(),
            state: LinkState::Down,
        }
    }
}
