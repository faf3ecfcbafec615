//! What is wrong with a server's certificate.

use std::fmt;

use rustls::CertificateError;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::pinned::NotPinned;
use crate::model::Pin;

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateProblem {
    /// Its time is over by our clock.
    Expired(Option<ClockProblem>),
    /// It is for another name.
    Name,
    /// Its time has not come by our clock.
    NotYetValid(Option<ClockProblem>),
    /// It has none of the pinned keys, but this one.
    NotPinned(Pin),
    /// It is broken in another way.
    Other,
    /// Nobody we trust vouches for it.
    Untrusted,
}

/// The clock and the time of a certificate, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockProblem {
    /// When the certificate begins or ends.
    pub bound: u64,
    /// What our clock says.
    pub now: u64,
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(None) => f.write_str("has expired"),
            Self::Expired(Some(ClockProblem { bound, now })) => {
                write!(f, "has expired: it ended at {}, and this machine's clock says {}", utc(*bound), utc(*now))
            }
            Self::Name => f.write_str("is for another name"),
            Self::NotPinned(own) => write!(f, "has none of the pinned keys; its own is {own}"),
            Self::NotYetValid(None) => f.write_str("is not valid yet by this machine's clock"),
            Self::NotYetValid(Some(clock)) => {
                write!(f, "is not valid yet by this machine's clock, which says {}", utc(clock.now))?;
                if clock.is_implausible() {
                    f.write_str(" and cannot be right")
                } else {
                    write!(f, "; it begins at {}", utc(clock.bound))
                }
            }
            Self::Other => f.write_str("is broken"),
            Self::Untrusted => f.write_str("is signed by nobody this machine trusts"),
        }
    }
}

impl ClockProblem {
    /// Whether our clock cannot be right whatever the certificate says.
    pub fn is_implausible(self) -> bool {
        self.now < EARLIEST
    }
}

/// Sorts what the TLS library says; `None` if it is not about the certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "the TLS library's enums grow")]
pub(super) fn problem(error: &rustls::Error) -> Option<CertificateProblem> {
    match error {
        rustls::Error::InvalidCertificate(certificate) => Some(match certificate {
            CertificateError::Expired => CertificateProblem::Expired(None),
            CertificateError::ExpiredContext { time, not_after } => {
                CertificateProblem::Expired(Some(ClockProblem { bound: not_after.as_secs(), now: time.as_secs() }))
            }
            CertificateError::NotValidYet => CertificateProblem::NotYetValid(None),
            CertificateError::NotValidYetContext { time, not_before } => {
                CertificateProblem::NotYetValid(Some(ClockProblem { bound: not_before.as_secs(), now: time.as_secs() }))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                CertificateProblem::Name
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => CertificateProblem::Untrusted,
            CertificateError::Other(other) => match other.0.downcast_ref::<NotPinned>() {
                Some(NotPinned(own)) => CertificateProblem::NotPinned(*own),
                None => CertificateProblem::Other,
            },
            _ => CertificateProblem::Other,
        }),
        _ => None,
    }
}

/// A time as people read it, to the second.
fn utc(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{seconds} s after 1970"))
}

/// This agent did not exist before: 2026-01-01.
const EARLIEST: u64 = 1_767_225_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_right_is_told_from_one_that_may_be() {
        let begins =
            |now| CertificateProblem::NotYetValid(Some(ClockProblem { bound: 1_800_000_000, now })).to_string();
        let ended = CertificateProblem::Expired(Some(ClockProblem { bound: 1_790_000_000, now: 1_800_000_000 }));

        assert_eq!(
            begins(12),
            "is not valid yet by this machine's clock, which says 1970-01-01T00:00:12Z and cannot be right"
        );
        assert_eq!(
            begins(1_799_999_999),
            "is not valid yet by this machine's clock, which says 2027-01-15T07:59:59Z; it begins at 2027-01-15T08:00:00Z"
        );
        let says = "has expired: it ended at 2026-09-21T14:13:20Z, and this machine's clock says 2027-01-15T08:00:00Z";
        assert_eq!(ended.to_string(), says);
    }
}
