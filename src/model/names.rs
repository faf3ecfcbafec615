//! Names of hosts, and whom to ask for names.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NetworkName;

/// A text that is not a domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a domain name")]
pub struct DomainNameError(String);

/// A domain name in lower case, without a dot at its end: RFC 1123 §2.1 labels, with the underscores that services use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

impl DomainName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many labels it has; never 0.
    pub fn labels(&self) -> usize {
        self.0.split('.').count()
    }

    /// Returns whether `name` is this domain, or below it.
    pub fn contains(&self, name: &str) -> bool {
        lineage(name).any(|ancestor| ancestor == self.0)
    }
}

/// Returns a name in lower case and everything that it is below, the longest first.
pub fn lineage(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent))
}

/// Whether a name in lower case is one of those that stand for addresses (RFC 1035 §3.5).
pub fn is_reverse(name: &str) -> bool {
    name.rsplit('.').next() == Some("arpa")
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() <= 253 && name.split('.').all(is_label) {
            Ok(Self(name))
        } else {
            Err(DomainNameError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for DomainName {
    type Error = DomainNameError;

    fn try_from(text: String) -> Result<Self, DomainNameError> {
        text.parse()
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.0
    }
}

impl Borrow<str> for DomainName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a server says about names; nothing where it manages none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Last part of every host's name, as in `<host>.<network>.<domain>`; `None` where hosts have no names.
    pub domain: Option<DomainName>,
    /// Addresses of hosts by their full names; a network is missing until its names were told.
    pub hosts: BTreeMap<NetworkName, HostNames>,
    /// Whom to ask for which names.
    pub servers: Vec<NameServers>,
}

/// Addresses by full name.
pub type HostNames = BTreeMap<DomainName, BTreeSet<IpAddr>>;

/// Servers to ask for some names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameServers {
    /// Asked in this order, at port 53.
    pub addresses: Vec<IpAddr>,
    /// For which names.
    pub scope: NameScope,
}

/// Which names a server is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameScope {
    /// A domain and everything below it.
    Domain {
        /// The domain.
        name: DomainName,
        /// What else it is good for.
        usage: DomainUse,
    },
    /// All names.
    Everything,
    /// Names that nobody else is for.
    Rest,
}

/// What a domain is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainUse {
    /// Names in it are asked here.
    Route,
    /// Also, names without a dot are tried in it.
    Search,
}

impl Names {
    /// The domain of a network's host names; `None` where they have none.
    pub fn zone(&self, network: &NetworkName) -> Option<DomainName> {
        format!("{}.{}", network.as_str(), self.domain.as_ref()?).parse().ok()
    }
}

/// How much of what a server says about names this machine follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DnsMode {
    /// All of it: also for names that have nothing to do with the networks.
    Full,
    /// Nothing of it.
    Off,
    /// Names of hosts, and of domains that the server names.
    #[default]
    Split,
}

/// A text that names no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dns must be off, split or full")]
pub struct DnsModeError;

impl FromStr for DnsMode {
    type Err = DnsModeError;

    fn from_str(text: &str) -> Result<Self, DnsModeError> {
        match text {
            "full" => Ok(Self::Full),
            "off" => Ok(Self::Off),
            "split" => Ok(Self::Split),
            _ => Err(DnsModeError),
        }
    }
}

impl fmt::Display for DnsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Off => "off",
            Self::Split => "split",
        })
    }
}

/// How this machine resolves what its memberships bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsStatus {
    /// Domains whose names are resolved through this membership.
    pub domains: BTreeSet<String>,
    /// Whether all other names are resolved through it as well.
    pub everything: bool,
    /// How many host names are known.
    pub hosts: usize,
    /// Who asks us; `None` while nothing is set up.
    pub manager: Option<DnsManager>,
    /// How much of what the server says is followed.
    pub mode: DnsMode,
    /// Why nothing is set up although something should be; `None` if all is well.
    pub note: Option<String>,
}

/// Who decides on a machine which server is asked for which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DnsManager {
    /// openresolv, with a local resolver behind it.
    Openresolv,
    /// systemd-resolved.
    Resolved,
}

impl fmt::Display for DnsManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Openresolv => "openresolv",
            Self::Resolved => "systemd-resolved",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_refuses_what_is_none() {
        for (text, name) in
            [("Plant-A.NM.internal.", "plant-a.nm.internal"), ("_sip._tcp.x", "_sip._tcp.x"), ("a", "a")]
        {
            assert_eq!(text.parse::<DomainName>().unwrap().as_str(), name);
        }
        let long = ["a"; 128].join(".");
        for text in ["", ".", "..", "a..b", ".a", "-a.b", "a-.b", "a b", "é.x", "*.x", "~x", &"a".repeat(64), &long] {
            assert!(text.parse::<DomainName>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_domain_contains_itself_and_what_is_below() {
        let domain: DomainName = "nm.internal".parse().unwrap();

        assert!(domain.contains("nm.internal") && domain.contains("a.b.nm.internal"));
        assert!(!domain.contains("internal") && !domain.contains("xnm.internal"));
    }
}
