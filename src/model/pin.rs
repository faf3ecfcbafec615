//! Keys by which a server's certificates are known beside whoever signed them.

use std::{collections::BTreeSet, fmt, str::FromStr};

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

use super::listed::Listed;

/// A text that is no pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pin: sha256// and 44 characters of base64, or 64 hexadecimal digits")]
pub struct PinError(String);

/// SHA-256 of a certificate's `SubjectPublicKeyInfo` (RFC 7469 §2.4); written as curl does, `sha256//` and base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin with this hash.
    pub fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl FromStr for Pin {
    type Err = PinError;

    /// Takes both ways to write it, and hexadecimal digits with colons between them.
    fn from_str(text: &str) -> Result<Self, PinError> {
        let hash = match text.trim().strip_prefix(PREFIX) {
            Some(base64) => BASE64.decode(base64.as_bytes()),
            None => HEXLOWER_PERMISSIVE.decode(text.trim().replace(':', "").as_bytes()),
        };
        let hash = hash.ok().and_then(|hash| <[u8; 32]>::try_from(hash).ok());
        hash.map(Self).ok_or_else(|| PinError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// Pins of which a server's certificates have to match one; none asks for nothing, and is written as `off`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Listed", into = "Listed")]
pub struct Pins(BTreeSet<Pin>);

impl Pins {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `pin` is one of them.
    pub fn contains(&self, pin: Pin) -> bool {
        self.0.contains(&pin)
    }
}

impl FromIterator<Pin> for Pins {
    fn from_iter<I: IntoIterator<Item = Pin>>(pins: I) -> Self {
        Self(pins.into_iter().collect())
    }
}

impl FromStr for Pins {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        Listed::Line(text.to_owned()).try_into()
    }
}

impl TryFrom<Listed> for Pins {
    type Error = PinError;

    fn try_from(listed: Listed) -> Result<Self, PinError> {
        let pins: Vec<_> = listed.texts().collect();
        if pins == [OFF] {
            return Ok(Self::default());
        }
        pins.into_iter().map(str::parse).collect()
    }
}

impl From<Pins> for Listed {
    fn from(pins: Pins) -> Self {
        Self::List(pins.0.iter().map(ToString::to_string).collect())
    }
}

/// How curl marks a pin in base64.
const PREFIX: &str = "sha256//";

/// How to take back a pin that is saved.
const OFF: &str = "off";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_in_both_ways_and_written_in_one() {
        let base64 = "sha256//BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

        for text in [base64, &"07".repeat(32), &vec!["07"; 32].join(":"), &format!(" {base64}\n")] {
            assert_eq!(text.parse::<Pin>().map(|pin| pin.to_string()), Ok(base64.to_owned()), "{text}");
        }
        for text in ["", "sha256//", "sha256//BwcH", "07", "sha256/BwcH", &"0g".repeat(32)] {
            assert!(text.parse::<Pin>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn several_stand_for_each_other_and_off_for_none() {
        let (a, b) = (Pin::new([1; 32]), Pin::new([2; 32]));
        let both: Pins = format!("{a},{b}").parse().unwrap();

        assert!(both.contains(a) && both.contains(b));
        assert_eq!(serde_json::from_str::<Pins>(&serde_json::to_string(&both).unwrap()).unwrap(), both);
        assert_eq!("off".parse::<Pins>(), Ok(Pins::default()));
        assert!(format!("{a},off").parse::<Pins>().is_err());
    }
}
