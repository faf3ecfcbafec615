//! The server's clock: the one place that reads the system's, unless a test brings its own.

use std::{sync::Arc, time::SystemTime};

use time::{OffsetDateTime, UtcOffset};

use crate::control::wire::GoTime;

/// Tells the time. Expiry of keys and sessions, and every date in a document, come from it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Clock {
    /// A clock that asks `now` each time.
    pub fn new(now: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The system's clock.
    pub fn system() -> Self {
        Self::new(system_now)
    }

    /// The time now.
    pub fn now(&self) -> OffsetDateTime {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

/// The system's time; certificates always follow it, because clients check them by theirs.
#[expect(clippy::disallowed_methods, reason = "this is the mock server's clock")]
pub(super) fn system_now() -> OffsetDateTime {
    SystemTime::now().into()
}

/// Writes a time into a document.
pub(super) fn go_time(time: OffsetDateTime) -> GoTime {
    GoTime::from_unix(time.unix_timestamp(), time.nanosecond()).unwrap_or_default()
}

/// Writes a time into a message, the way Go prints one.
pub(super) fn go_text(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    format!("{date} {hour:02}:{minute:02}:{second:02} +0000 UTC")
}
