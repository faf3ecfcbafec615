//! What this machine does about the server's access rules.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the owner of this machine wants done about access rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallSetting {
    /// Enforced, or there are no peers.
    Enforce,
    /// Left alone: everything may come in.
    Ignore,
}

/// A text that names no such setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("firewall must be enforce or ignore")]
pub struct FirewallSettingError;

impl FromStr for FirewallSetting {
    type Err = FirewallSettingError;

    fn from_str(text: &str) -> Result<Self, FirewallSettingError> {
        match text {
            "enforce" => Ok(Self::Enforce),
            "ignore" => Ok(Self::Ignore),
            _ => Err(FirewallSettingError),
        }
    }
}

/// What became of the server's access rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum FirewallStatus {
    /// They cannot be enforced, and the owner of this machine wants no peers then: there are none.
    Closed {
        /// Why, in words.
        why: String,
    },
    /// They are in force.
    Enforced {
        /// How many there are, besides that everything else is dropped.
        rules: usize,
    },
    /// The owner of this machine wants them ignored.
    Ignored,
    /// They cannot be enforced: everything may come in.
    NotEnforced {
        /// Why, in words.
        why: String,
    },
    /// The server allows everything.
    Open,
}

impl fmt::Display for FirewallStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { why } => write!(f, "access rules cannot be enforced, so there are no peers: {why}"),
            Self::Enforced { rules: 1 } => f.write_str("enforced (1 rule)"),
            Self::Enforced { rules } => write!(f, "enforced ({rules} rules)"),
            Self::Ignored => f.write_str("access rules are ignored, as configured"),
            Self::NotEnforced { why } => write!(f, "access rules are not enforced: {why}"),
            Self::Open => f.write_str("the server allows everything"),
        }
    }
}
