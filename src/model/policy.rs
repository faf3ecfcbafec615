//! What the owner of this machine decided, which goes before what a server assigns.

use std::{fmt, net::SocketAddr, num::NonZeroU16, path::PathBuf, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{DnsMode, FirewallSetting, Pins, Required, StunChoice};

/// Local settings of one membership; saved with it, so that nothing has to be said twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Whether a server may send all of this machine's traffic through a gateway.
    pub accept_default_route: bool,
    /// Whether a server at a loopback address is talked to by plain HTTP.
    pub allow_http: bool,
    /// Where networks and ranges behind peers may lie; empty sets no bounds.
    pub allowed_prefixes: Vec<IpNet>,
    /// PEM certificate authority to trust alone for the server, as an absolute path; `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// How much of what the server says about names is followed.
    pub dns: DnsMode,
    /// Our public address as peers reach it, port 0 for the listen port; `None` lets peers learn it from our packets.
    pub endpoint: Option<SocketAddr>,
    /// What to do about the server's access rules; `None` enforces them where this machine can.
    pub firewall: Option<FirewallSetting>,
    /// UDP port that nobody may change; `None` adopts the server's.
    pub listen_port: Option<NonZeroU16>,
    /// Largest packet in bytes; `None` adopts the server's, else 1420.
    pub mtu: Option<u16>,
    /// Name shown to the administrator; `None` is the machine's host name.
    pub name: Option<String>,
    /// What becomes of a range that this machine uses already.
    pub overlap: Overlap,
    /// Keys of which the server's certificates have to have one.
    pub pins: Pins,
    /// Networks without which the membership is not complete.
    pub require: Required,
    /// Who is asked for our public address; `None` takes the servers that the enrollment server names.
    pub stun: Option<StunChoice>,
}

/// What becomes of a granted range that overlaps one that this machine uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// Nothing of the assignment is carried out, and the interface stays as it is.
    Refuse,
    /// The network, or the range behind a peer, is left out; everything else is carried out.
    #[default]
    SkipNetwork,
    /// Only packets from this host's own overlay addresses go there, by a routing table of the interface.
    Table,
}

/// A text that names no way to treat an overlap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overlap must be refuse, skip-network or table")]
pub struct OverlapError;

impl FromStr for Overlap {
    type Err = OverlapError;

    fn from_str(text: &str) -> Result<Self, OverlapError> {
        [Self::Refuse, Self::SkipNetwork, Self::Table]
            .into_iter()
            .find(|overlap| overlap.to_string() == text)
            .ok_or(OverlapError)
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::SkipNetwork => "skip-network",
            Self::Table => "table",
        })
    }
}

/// Settings given now; `None` leaves the saved one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// See [`Policy::accept_default_route`].
    pub accept_default_route: Option<bool>,
    /// See [`Policy::allow_http`].
    #[serde(default)]
    pub allow_http: Option<bool>,
    /// See [`Policy::allowed_prefixes`].
    pub allowed_prefixes: Option<Vec<IpNet>>,
    /// See [`Policy::ca_file`].
    pub ca_file: Option<PathBuf>,
    /// See [`Policy::dns`].
    pub dns: Option<DnsMode>,
    /// See [`Policy::endpoint`].
    pub endpoint: Option<SocketAddr>,
    /// See [`Policy::firewall`].
    pub firewall: Option<FirewallSetting>,
    /// See [`Policy::listen_port`].
    pub listen_port: Option<NonZeroU16>,
    /// See [`Policy::mtu`].
    pub mtu: Option<u16>,
    /// See [`Policy::name`].
    pub name: Option<String>,
    /// See [`Policy::overlap`].
    pub overlap: Option<Overlap>,
    /// See [`Policy::pins`].
    #[serde(default)]
    pub pins: Option<Pins>,
    /// See [`Policy::require`].
    #[serde(default)]
    pub require: Option<Required>,
    /// See [`Policy::stun`].
    #[serde(default)]
    pub stun: Option<StunChoice>,
}

impl Overrides {
    /// Returns these, and where they say nothing `others`.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        let Self {
            accept_default_route,
            allow_http,
            allowed_prefixes,
            ca_file,
            dns,
            endpoint,
            firewall,
            listen_port,
            mtu,
            name,
            overlap,
            pins,
            require,
            stun,
        } = self;
        Self {
            accept_default_route: accept_default_route.or(others.accept_default_route),
            allow_http: allow_http.or(others.allow_http),
            allowed_prefixes: allowed_prefixes.or(others.allowed_prefixes),
            ca_file: ca_file.or(others.ca_file),
            dns: dns.or(others.dns),
            endpoint: endpoint.or(others.endpoint),
            firewall: firewall.or(others.firewall),
            listen_port: listen_port.or(others.listen_port),
            mtu: mtu.or(others.mtu),
            name: name.or(others.name),
            overlap: overlap.or(others.overlap),
            pins: pins.or(others.pins),
            require: require.or(others.require),
            stun: stun.or(others.stun),
        }
    }

    /// Returns `saved` with what was given now on top.
    pub fn over(&self, saved: Policy) -> Policy {
        let Self {
            accept_default_route,
            allow_http,
            allowed_prefixes,
            ca_file,
            dns,
            endpoint,
            firewall,
            listen_port,
            mtu,
            name,
            overlap,
            pins,
            require,
            stun,
        } = self.clone();
        Policy {
            accept_default_route: accept_default_route.unwrap_or(saved.accept_default_route),
            allow_http: allow_http.unwrap_or(saved.allow_http),
            allowed_prefixes: allowed_prefixes.unwrap_or(saved.allowed_prefixes),
            ca_file: ca_file.or(saved.ca_file),
            dns: dns.unwrap_or(saved.dns),
            endpoint: endpoint.or(saved.endpoint),
            firewall: firewall.or(saved.firewall),
            listen_port: listen_port.or(saved.listen_port),
            mtu: mtu.or(saved.mtu),
            name: name.or(saved.name),
            overlap: overlap.unwrap_or(saved.overlap),
            pins: pins.unwrap_or(saved.pins),
            require: require.unwrap_or(saved.require),
            stun: stun.or(saved.stun),
        }
    }
}
