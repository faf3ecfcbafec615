//! This host as others see it.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where this host is seen from outside, as STUN servers told; empty until one did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outside {
    /// By IPv4.
    pub v4: Option<Seen>,
    /// By IPv6.
    pub v6: Option<Seen>,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Address and port that the question came from, as the server saw it.
    pub address: SocketAddr,
    /// The local port it was sent from: only for that one `address` has the right port.
    pub asked_from: NonZeroU16,
    /// Whether the server saw what we sent from.
    pub nat: Nat,
}

/// Whether something between this host and the internet changes its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nat {
    /// Others see another address or port than this host has.
    BehindNat,
    /// Others see this host's own address and port.
    Public,
}

impl Nat {
    /// The protocol's word (protocol page, "Host").
    pub fn word(self) -> &'static str {
        match self {
            Self::BehindNat => "behind_nat",
            Self::Public => "public",
        }
    }
}

impl Seen {
    /// Returns the port by which `listen_port` is reached; `None` if it was not asked from there.
    pub fn port_of(&self, listen_port: NonZeroU16) -> Option<u16> {
        (self.asked_from == listen_port).then(|| self.address.port())
    }
}

impl Outside {
    /// The answers there are, IPv4 first.
    pub fn all(self) -> impl Iterator<Item = Seen> {
        [self.v4, self.v6].into_iter().flatten()
    }

    /// The answer that counts where there is room for one only: peers take IPv4 where both sides have it (protocol
    /// page, "Peer list").
    pub fn main(self) -> Option<Seen> {
        self.v4.or(self.v6)
    }

    /// Takes an answer in, in place of an earlier one of the same family.
    pub fn put(&mut self, seen: Seen) {
        match seen.address.ip() {
            IpAddr::V4(_) => self.v4 = Some(seen),
            IpAddr::V6(_) => self.v6 = Some(seen),
        }
    }
}
