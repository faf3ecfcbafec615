//! When to pull, when to check in, and when a deleted host is believed to be deleted.

use std::time::{Duration, Instant};

/// The rhythm of a serving agent.
#[derive(Debug)]
pub struct Pace {
    /// When the next check-in is due.
    check_in: Instant,
    /// Check-ins since the peers were last computed afresh.
    check_ins: u32,
    failures: u32,
    /// Consecutive answers that the host does not exist, and the first one's time.
    gone: Option<(u32, Instant)>,
    /// The server may have recomputed our peers without us: the next pull must not come from its cache.
    recompute: bool,
    /// When to do the next round.
    round: Instant,
}

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// A check-in, before the pull.
    pub check_in: bool,
    /// Whether the pull has to be computed afresh.
    pub recompute: bool,
}

impl Pace {
    /// Starts at `now`, right after a join.
    pub fn new(now: Instant) -> Self {
        Self { check_in: now + CHECK_IN, check_ins: 0, failures: 0, gone: None, recompute: false, round: now + PULL }
    }

    /// When something is due next.
    pub fn next(&self) -> Instant {
        self.round
    }

    /// How many rounds failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Says what is due at `now`.
    pub fn due(&self, now: Instant) -> Due {
        // A server that did not hear of us for an hour empties our peers: tell it first (protocol page, "Peer list").
        let check_in = now >= self.check_in || self.failures > 0;
        // A revoked peer stays in the server's cache (protocol page, "Staleness").
        let stale = check_in && self.check_ins + 1 >= CHECK_INS_PER_RECOMPUTATION;
        Due { check_in, recompute: self.recompute || stale }
    }

    /// Notes a check-in.
    pub fn checked_in(&mut self, now: Instant) {
        self.check_in = now + CHECK_IN;
        self.check_ins = (self.check_ins + 1) % CHECK_INS_PER_RECOMPUTATION;
    }

    /// Notes a round that went well.
    pub fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.gone = None;
        self.recompute = false;
        self.round = now + PULL;
    }

    /// Notes a round that failed; the next is at `retry`. Returns whether the host has to be taken for deleted:
    /// `gone` answers only, at least [`GONE_ANSWERS`] of them over at least [`GONE_TIME`].
    pub fn failed(&mut self, now: Instant, retry: Instant, gone: bool) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.recompute = true;
        self.round = retry;
        self.gone = gone.then(|| self.gone.map_or((1, now), |(count, first)| (count + 1, first)));
        self.gone
            .is_some_and(|(count, first)| count >= GONE_ANSWERS && now.saturating_duration_since(first) >= GONE_TIME)
    }
}

/// Without push a change is noticed after this long.
const PULL: Duration = Duration::from_secs(3);

/// A host counts as online for 10 minutes after a check-in; 2 minutes is the real client's own rhythm.
const CHECK_IN: Duration = Duration::from_secs(120);

/// Every recomputation makes the server broadcast to everybody, so they are rare: every 10 minutes.
const CHECK_INS_PER_RECOMPUTATION: u32 = 5;

const GONE_ANSWERS: u32 = 3;

const GONE_TIME: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_in_every_two_minutes_and_first_thing_after_an_outage() {
        let start = start();
        let mut pace = Pace::new(start);

        assert!(!pace.due(start + PULL).check_in);
        assert!(pace.due(start + CHECK_IN).check_in);
        pace.checked_in(start + CHECK_IN);
        assert!(!pace.failed(start + CHECK_IN, start + CHECK_IN + PULL, false));
        assert_eq!(pace.due(start + CHECK_IN + PULL), Due { check_in: true, recompute: true });
    }

    #[test]
    fn every_fifth_check_in_has_the_peers_computed_afresh() {
        let start = start();
        let mut pace = Pace::new(start);

        let recomputed = (1..=10).map(|count| {
            let now = start + CHECK_IN * count;
            let due = pace.due(now);
            pace.checked_in(now);
            pace.succeeded(now);
            due.recompute
        });

        let expected: Vec<_> = (1..=10).map(|count| count % 5 == 0).collect();
        assert_eq!(recomputed.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn one_answer_never_deletes_a_host() {
        let start = start();
        let mut pace = Pace::new(start);
        let minute = |minutes: u64| start + Duration::from_secs(60 * minutes);

        assert!(!pace.failed(minute(0), minute(1), true));
        assert!(!pace.failed(minute(1), minute(2), true));
        assert!(!pace.failed(minute(2), minute(3), true), "three answers, but within two minutes");
        assert!(pace.failed(minute(10), minute(11), true));
    }

    #[test]
    fn another_failure_in_between_starts_the_count_again() {
        let start = start();
        let mut pace = Pace::new(start);
        let minute = |minutes: u64| start + Duration::from_secs(60 * minutes);
        pace.failed(minute(0), minute(1), true);
        pace.failed(minute(9), minute(9), true);
        pace.failed(minute(10), minute(10), false);

        assert!(!pace.failed(minute(11), minute(12), true));
    }

    #[expect(clippy::disallowed_methods, reason = "an arbitrary point in time")]
    fn start() -> Instant {
        Instant::now()
    }
}
