//! Networks that this host has to be in.

use std::{collections::BTreeSet, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NetworkName, NetworkNameError, listed::Listed};

/// Networks without which the owner of the machine does not call a membership complete; may be none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Listed", into = "Listed")]
pub struct Required(BTreeSet<NetworkName>);

impl Required {
    /// Their names.
    pub fn names(&self) -> &BTreeSet<NetworkName> {
        &self.0
    }
}

impl FromStr for Required {
    type Err = NetworkNameError;

    fn from_str(text: &str) -> Result<Self, NetworkNameError> {
        Listed::Line(text.to_owned()).try_into()
    }
}

impl TryFrom<Listed> for Required {
    type Error = NetworkNameError;

    fn try_from(listed: Listed) -> Result<Self, NetworkNameError> {
        listed.texts().map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Required> for Listed {
    fn from(required: Required) -> Self {
        Self::List(required.0.iter().map(ToString::to_string).collect())
    }
}

/// What became of a required network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// This host is in it, and its administrator has it disconnected.
    Disconnected,
    /// This host is in it.
    Joined,
    /// This host is in it, and it overlaps what this machine uses already.
    LeftOut,
    /// This host is not in it, and the server never said that it will be.
    Missing,
    /// The server granted it, and it is not there yet: it may have to be approved.
    Waiting,
}

impl Requirement {
    /// Whether that is what the owner of the machine wants.
    pub fn is_met(self) -> bool {
        match self {
            Self::Joined => true,
            Self::Disconnected | Self::LeftOut | Self::Missing | Self::Waiting => false,
        }
    }
}

/// What becomes of a new host when required networks are missing in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPartial {
    /// It stays enrolled, and what is missing may still come.
    #[default]
    Keep,
    /// It leaves again.
    Rollback,
}

/// A text that names neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be keep or rollback")]
pub struct OnPartialError;

impl FromStr for OnPartial {
    type Err = OnPartialError;

    fn from_str(text: &str) -> Result<Self, OnPartialError> {
        match text {
            "keep" => Ok(Self::Keep),
            "rollback" => Ok(Self::Rollback),
            _ => Err(OnPartialError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_a_line_or_in_a_list() {
        let read = |json: &str| serde_json::from_str::<Required>(json);
        let both: Required = "office, plant-a".parse().unwrap();

        assert_eq!(read(r#"["plant-a", "office"]"#).unwrap(), both);
        assert_eq!(read(r#""plant-a,office,""#).unwrap(), both);
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"["office","plant-a"]"#);
        assert_eq!("".parse::<Required>(), Ok(Required::default()));
        assert_eq!("a/b".parse::<Required>().unwrap_err().to_string(), "\"a/b\" is not a network name");
    }
}
