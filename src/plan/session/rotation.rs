//! When a new WireGuard key is made, and when one that is not confirmed yet is announced again.

use std::time::{Duration, Instant};

/// A key on its way.
#[derive(Debug)]
pub(super) struct Rotation {
    failures: u32,
    not_before: Instant,
    /// There is a new key that the server has not confirmed.
    pending: bool,
    /// Somebody asked for a new key.
    wanted: bool,
}

impl Rotation {
    pub(super) fn new(now: Instant) -> Self {
        Self { failures: 0, not_before: now, pending: false, wanted: false }
    }

    /// When to work on it; `None` if there is nothing to do.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.wanted || self.pending).then_some(self.not_before)
    }

    pub(super) fn asked(&mut self, now: Instant) {
        if !self.wanted && !self.pending {
            self.not_before = now;
        }
        self.wanted = true;
    }

    pub(super) fn set_pending(&mut self, pending: bool, now: Instant) {
        if self.pending && !pending {
            // Confirmed, perhaps by a pull that was made for something else.
            *self = Self::new(now);
        }
        self.pending = pending;
    }

    /// Notes how an attempt ended. Each makes the server compute everything anew, so they become rare.
    pub(super) fn ended(&mut self, now: Instant, good: bool) {
        if good {
            *self = Self::new(now);
            return;
        }
        self.not_before = now + FIRST_WAIT.saturating_mul(1 << self.failures.min(10)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
    }
}

const FIRST_WAIT: Duration = Duration::from_secs(5);

const LONGEST_WAIT: Duration = Duration::from_secs(3600);
