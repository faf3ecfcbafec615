//! What the owner of this machine decided, which goes before what a server assigns.

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::DnsMode;

/// Local settings of one membership; saved with it, so that nothing has to be said twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// PEM certificate authority to trust alone for the server, as an absolute path; `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// How much of what the server says about names is followed.
    pub dns: DnsMode,
    /// Our public address as peers reach it, port 0 for the listen port; `None` lets peers learn it from our packets.
    pub endpoint: Option<SocketAddr>,
    /// UDP port that nobody may change; `None` adopts the server's.
    pub listen_port: Option<NonZeroU16>,
    /// Largest packet in bytes; `None` adopts the server's, else 1420.
    pub mtu: Option<u16>,
    /// Name shown to the administrator; `None` is the machine's host name.
    pub name: Option<String>,
}

/// Settings given now; `None` leaves the saved one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// See [`Policy::ca_file`].
    pub ca_file: Option<PathBuf>,
    /// See [`Policy::dns`].
    pub dns: Option<DnsMode>,
    /// See [`Policy::endpoint`].
    pub endpoint: Option<SocketAddr>,
    /// See [`Policy::listen_port`].
    pub listen_port: Option<NonZeroU16>,
    /// See [`Policy::mtu`].
    pub mtu: Option<u16>,
    /// See [`Policy::name`].
    pub name: Option<String>,
}

impl Overrides {
    /// Returns these, and where they say nothing `others`.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        let Self { ca_file, dns, endpoint, listen_port, mtu, name } = self;
        Self {
            ca_file: ca_file.or(others.ca_file),
            dns: dns.or(others.dns),
            endpoint: endpoint.or(others.endpoint),
            listen_port: listen_port.or(others.listen_port),
            mtu: mtu.or(others.mtu),
            name: name.or(others.name),
        }
    }

    /// Returns `saved` with what was given now on top.
    pub fn over(&self, saved: Policy) -> Policy {
        let Self { ca_file, dns, endpoint, listen_port, mtu, name } = self.clone();
        Policy {
            ca_file: ca_file.or(saved.ca_file),
            dns: dns.unwrap_or(saved.dns),
            endpoint: endpoint.or(saved.endpoint),
            listen_port: listen_port.or(saved.listen_port),
            mtu: mtu.or(saved.mtu),
            name: name.or(saved.name),
        }
    }
}
