//! Who may send what to this host through a tunnel, as the server's administrator decided.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What may come in: a rule that denies goes before one that allows, and `others` is for what no rule names.
///
/// Answers to what this host sent are no matter of these rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// What happens to packets that no rule names.
    pub others: Verdict,
    /// The rules by the server's id for them; empty where they would change nothing.
    pub rules: BTreeMap<String, AccessRule>,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It comes in.
    #[default]
    Allow,
    /// It is dropped.
    Deny,
}

/// One decision about packets from some addresses to some of ours.
///
/// Packets of a family in which there is no source, or no destination, are none of its matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// Where they go, of both families; `0.0.0.0/0` and `::/0` are every address.
    pub destinations: BTreeSet<IpNet>,
    /// Where they come from, of both families.
    pub sources: BTreeSet<IpNet>,
    /// What they are.
    pub traffic: Traffic,
    /// What happens to them.
    pub verdict: Verdict,
}

/// What packets are; an empty set of ports is every port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// Whatever they are.
    All,
    /// ICMP, of the version that goes with the addresses.
    Icmp,
    /// TCP to these ports.
    Tcp(BTreeSet<PortRange>),
    /// TCP or UDP to these ports.
    TcpOrUdp(BTreeSet<PortRange>),
    /// UDP to these ports.
    Udp(BTreeSet<PortRange>),
}

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// A text that is neither a port nor a range of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ports must be written as 80 or 80-90, each 0 to 65535")]
pub struct PortRangeError;

impl Access {
    /// Whether everything may come in.
    pub fn is_open(&self) -> bool {
        self.others == Verdict::Allow && self.rules.is_empty()
    }
}

impl PortRange {
    /// Returns the range from `first` to `last`.
    ///
    /// # Errors
    /// [`PortRangeError`] if it runs backwards.
    pub fn new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first <= last { Ok(Self { first, last }) } else { Err(PortRangeError) }
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        // `parse` alone would take "+80".
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or(PortRangeError)
        };
        match text.split_once('-') {
            Some((first, last)) => Self::new(port(first.trim())?, port(last.trim())?),
            None => port(text.trim()).map(|port| Self { first: port, last: port }),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl TryFrom<String> for PortRange {
    type Error = PortRangeError;

    fn try_from(text: String) -> Result<Self, PortRangeError> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_single_or_from_one_to_another() {
        for text in ["0", "443", "80-90", "0-65535"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        assert_eq!(" 80 - 90 ".parse(), PortRange::new(80, 90));
        for text in ["", "-", "80-", "-90", "90-80", "65536", "70000", "+80", "ssh", "80,90", "1-2-3"] {
            assert_eq!(text.parse::<PortRange>(), Err(PortRangeError), "{text:?}");
        }
    }

    #[test]
    fn what_was_saved_before_there_were_rules_is_open() {
        let saved = r#"{"leaving":{},"listen_port":null,"mtu":null,"name":"a","nodes":{},"peers":{},"remarks":[]}"#;

        let assignment: crate::model::Assignment = serde_json::from_str(saved).unwrap();

        assert!(assignment.access.is_open());
    }

    #[test]
    fn only_what_allows_everything_is_open() {
        let rule = AccessRule {
            destinations: BTreeSet::new(),
            sources: BTreeSet::new(),
            traffic: Traffic::All,
            verdict: Verdict::Deny,
        };

        assert!(Access::default().is_open());
        assert!(!Access { others: Verdict::Deny, rules: BTreeMap::new() }.is_open());
        assert!(!Access { others: Verdict::Allow, rules: BTreeMap::from([("a".into(), rule)]) }.is_open());
    }
}
