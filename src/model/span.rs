//! Lengths of time as people write them.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A text that is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time like 30, 30s, 5m or 2h")]
pub struct SpanError(String);

/// A length of time in whole seconds: a number of them, or a number and one of `s`, `m`, `h` and `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Written")]
pub struct Span(Duration);

impl Span {
    /// The time itself.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400)];
        let unit = UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
        let (number, seconds) = unit.unwrap_or((text, 1));
        let number = number.trim_end().parse::<u32>().map_err(|_| SpanError(text.chars().take(40).collect()))?;
        Ok(Self(Duration::from_secs(u64::from(number) * seconds)))
    }
}

/// A bare number is good enough for a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Seconds(u32),
    Text(String),
}

impl TryFrom<Written> for Span {
    type Error = SpanError;

    fn try_from(written: Written) -> Result<Self, SpanError> {
        match written {
            Written::Seconds(seconds) => Ok(Self(Duration::from_secs(seconds.into()))),
            Written::Text(text) => text.parse(),
        }
    }
}

/// How long a join waits for networks once its key is redeemed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Patience {
    /// This long.
    For(Duration),
    /// Until they are there.
    Forever,
    /// For what is left of the time that the join may take.
    #[default]
    Rest,
}

/// A [`Patience`] that somebody asked for: a [`Span`], or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Wait(Patience);

impl Wait {
    /// How long that is.
    pub fn patience(self) -> Patience {
        self.0
    }
}

impl FromStr for Wait {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        if text == "forever" {
            return Ok(Self(Patience::Forever));
        }
        text.parse::<Span>().map(|span| Self(Patience::For(span.duration())))
    }
}

impl TryFrom<Written> for Wait {
    type Error = SpanError;

    fn try_from(written: Written) -> Result<Self, SpanError> {
        match written {
            Written::Seconds(seconds) => Ok(Self(Patience::For(Duration::from_secs(seconds.into())))),
            Written::Text(text) => text.parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_seconds_unless_it_has_a_unit() {
        for (text, seconds) in [("0", 0), ("30", 30), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400)] {
            assert_eq!(text.parse::<Span>().map(Span::duration), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "-1", "1.5", "5 minutes", "4294967296", "forever"] {
            assert!(text.parse::<Span>().is_err(), "{text:?} was accepted");
        }
        assert_eq!(serde_json::from_str::<Span>("90").unwrap(), serde_json::from_str("\"90s\"").unwrap());
    }

    #[test]
    fn waiting_may_have_no_end() {
        let wait = |text: &str| text.parse::<Wait>().map(Wait::patience);

        assert_eq!(wait("forever"), Ok(Patience::Forever));
        assert_eq!(wait("2m"), Ok(Patience::For(Duration::from_secs(120))));
        assert_eq!(wait("never").unwrap_err().to_string(), "\"never\" is not a length of time like 30, 30s, 5m or 2h");
    }
}
