//! What can be told of an enrollment key without redeeming it.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Serialize;

/// What an enrollment key looks like, with nothing of its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyShape {
    /// Characters of the whole key, white space left out.
    pub length: usize,
    /// Whether the value is 32 characters of the base32 alphabet, as servers make them; users may bring others.
    pub usual: bool,
    /// Characters of the value in it.
    pub value_length: usize,
}

/// What a server that speaks our extension says about a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeyFacts {
    /// Whether an administrator has disabled it.
    pub disabled: bool,
    /// When it ends, in seconds since 1970; `None` if it has no date.
    pub expires_at: Option<u64>,
    /// The networks it grants.
    pub networks: BTreeSet<String>,
    /// The ranges of those networks.
    pub ranges: BTreeSet<IpNet>,
    /// The tags that hosts get with it.
    pub tags: BTreeSet<String>,
    /// How often it may still be used; `None` if that is not counted.
    pub uses_left: Option<u64>,
}

/// Whether a key can still be redeemed, by what the server says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyStanding {
    /// An administrator has disabled it.
    Disabled,
    /// Its date has passed.
    Expired,
    /// It can be redeemed.
    Good,
    /// It was used as often as it may be.
    UsedUp,
}

impl KeyFacts {
    /// Judges the key at `now`, in seconds since 1970.
    pub fn standing(&self, now: u64) -> KeyStanding {
        if self.disabled {
            KeyStanding::Disabled
        } else if self.expires_at.is_some_and(|end| end <= now) {
            KeyStanding::Expired
        } else if self.uses_left == Some(0) {
            KeyStanding::UsedUp
        } else {
            KeyStanding::Good
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_by_decision_by_date_or_by_use() {
        let good = KeyFacts { expires_at: Some(101), uses_left: Some(1), ..KeyFacts::default() };
        for (facts, standing) in [
            (KeyFacts::default(), KeyStanding::Good),
            (good.clone(), KeyStanding::Good),
            (KeyFacts { expires_at: Some(100), ..good.clone() }, KeyStanding::Expired),
            (KeyFacts { uses_left: Some(0), ..good.clone() }, KeyStanding::UsedUp),
            (KeyFacts { disabled: true, ..good }, KeyStanding::Disabled),
        ] {
            assert_eq!(facts.standing(100), standing, "{facts:?}");
        }
    }
}
