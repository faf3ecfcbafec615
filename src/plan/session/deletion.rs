//! When a host is believed to be deleted on the server.

use std::time::{Duration, Instant};

/// What speaks for it.
#[derive(Debug, Default)]
pub(super) struct Deletion {
    /// The server said so over the broker, which anybody who knows our traffic key could have done.
    announced: bool,
    /// Consecutive answers that the host does not exist, and the first one's time.
    answers: Option<(u32, Instant)>,
}

impl Deletion {
    /// Whether the server still has to confirm it.
    pub(super) fn is_announced(&self) -> bool {
        self.announced
    }

    /// Notes the announcement.
    pub(super) fn announced(&mut self) {
        self.announced = true;
    }

    /// Notes that the server knows the host.
    pub(super) fn denied(&mut self) {
        *self = Self::default();
    }

    /// Notes a failure at `now`: an answer that the host is `gone`, or another. Returns whether to believe it: at once
    /// if it was announced, else after [`ANSWERS`] in a row over at least [`TIME`].
    pub(super) fn answered(&mut self, now: Instant, gone: bool) -> bool {
        self.answers = gone.then(|| self.answers.map_or((1, now), |(count, first)| (count.saturating_add(1), first)));
        self.answers.is_some_and(|(count, first)| {
            self.announced || (count >= ANSWERS && now.saturating_duration_since(first) >= TIME)
        })
    }
}

const ANSWERS: u32 = 3;

const TIME: Duration = Duration::from_secs(600);
