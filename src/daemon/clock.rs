//! The only reader of the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time, for waits and durations.
#[expect(clippy::disallowed_methods, reason = "everybody else asks here")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970 by the wall clock; zero on a machine whose clock is before that.
#[expect(clippy::disallowed_methods, reason = "everybody else asks here")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
