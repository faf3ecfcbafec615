//! Go's points in time.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A point in time as RFC 3339 text, kept letter by letter; unset is `0001-01-01T00:00:00Z`, and `""` is refused.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct GoTime(String);

impl GoTime {
    /// Writes seconds and nanoseconds since 1970 in UTC; `None` if RFC 3339 cannot express the year.
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Option<Self> {
        let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?.replace_nanosecond(nanoseconds).ok()?;
        time.format(&Rfc3339).ok().map(Self)
    }

    /// Tells whether the time is unset.
    pub fn is_zero(&self) -> bool {
        self.unix_seconds() == ZERO_SECONDS
    }

    /// Reads the time.
    pub fn time(&self) -> OffsetDateTime {
        // Every text was parsed when it was decoded, so the epoch never stands in for it.
        OffsetDateTime::parse(&self.0, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Whole seconds since 1970; negative for an unset time.
    pub fn unix_seconds(&self) -> i64 {
        self.time().unix_timestamp()
    }
}

impl Default for GoTime {
    fn default() -> Self {
        Self(ZERO.to_owned())
    }
}

impl fmt::Debug for GoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GoTime({})", self.0)
    }
}

impl<'de> Deserialize<'de> for GoTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(Self::default()) };
        match OffsetDateTime::parse(&text, &Rfc3339) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(de::Error::custom(format_args!("parsing time {text:?}: not RFC 3339"))),
        }
    }
}

/// Go's zero time.
const ZERO: &str = "0001-01-01T00:00:00Z";

/// [`ZERO`] in seconds since 1970.
const ZERO_SECONDS: i64 = -62_135_596_800;
