//! How long to wait before the next attempt.

use std::time::Duration;

/// Returns the wait before attempt `failures + 1`: exponential with full jitter, between a tenth of the step and the
/// step itself, never above [`MAX_DELAY`]; what the server asked for (`retry_after`) is the least.
///
/// `random` is uniform in 0..=255.
pub fn backoff(failures: u32, random: u8, retry_after: Option<Duration>) -> Duration {
    let step = FIRST_STEP.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(MAX_DELAY);
    let floor = step / 10;
    let jittered = floor + step.saturating_sub(floor) * u32::from(random) / 255;
    jittered.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

const FIRST_STEP: Duration = Duration::from_secs(2);

/// Longest wait of our own choice.
pub const MAX_DELAY: Duration = Duration::from_secs(120);

/// A server cannot send us away for longer than this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_up_to_two_minutes_with_jitter() {
        assert_eq!(backoff(1, 255, None), Duration::from_secs(2));
        assert_eq!(backoff(1, 0, None), Duration::from_millis(200));
        assert_eq!(backoff(4, 255, None), Duration::from_secs(16));
        assert_eq!(backoff(u32::MAX, 255, None), MAX_DELAY);
    }

    #[test]
    fn the_server_may_ask_for_more_within_reason() {
        assert_eq!(backoff(1, 0, Some(Duration::from_secs(30))), Duration::from_secs(30));
        assert_eq!(backoff(1, 0, Some(Duration::MAX)), MAX_RETRY_AFTER);
    }
}
