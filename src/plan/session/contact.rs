//! When to talk to the server, and how much to ask of it.

use std::time::{Duration, Instant};

use super::{Deadline, Peers, Why};

/// The rhythm of rounds with the server.
#[derive(Debug)]
pub(super) struct Contact {
    /// When the next check-in is due.
    check_in: Instant,
    /// Nothing is asked before this: the server wants it so.
    not_before: Instant,
    poll: Duration,
    push: Push,
    /// When the peers were last computed for us; `None` before the first time.
    recomputed: Option<Instant>,
    /// Whether they have to be, the next time.
    recompute: bool,
    /// When the next round is due, and why.
    round: Deadline,
    state: State,
    /// When a hint last led to a round.
    hinted: Option<Instant>,
    /// When a hint leads to the next one.
    hint: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Offline { failures: u32, since: Instant },
    Online,
}

/// The connection to the broker.
#[derive(Clone, Copy, Debug)]
enum Push {
    /// The peers that the broker keeps for us were applied since we are connected, if `took_in`.
    Connected {
        took_in: bool,
    },
    Disconnected {
        ever: bool,
    },
}

/// A round that is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) check_in: bool,
    pub(super) peers: Peers,
}

impl Contact {
    pub(super) fn new(now: Instant, spread: Duration, poll: Duration) -> Self {
        let first = now + spread;
        Self {
            check_in: first,
            hint: None,
            hinted: None,
            not_before: now,
            poll: poll.min(CHECK_IN),
            push: Push::Disconnected { ever: false },
            recompute: false,
            recomputed: None,
            round: Deadline { at: first, why: Why::Start },
            state: State::Offline { failures: 0, since: now },
        }
    }

    pub(super) fn is_online(&self) -> bool {
        match self.state {
            State::Offline { .. } => false,
            State::Online => true,
        }
    }

    pub(super) fn failures(&self) -> u32 {
        match self.state {
            State::Offline { failures, .. } => failures,
            State::Online => 0,
        }
    }

    pub(super) fn deadline(&self) -> Deadline {
        let next = match self.hint {
            Some(at) if at < self.round.at => Deadline { at, why: Why::Hint },
            Some(_) | None => self.round,
        };
        Deadline { at: next.at.max(self.not_before), ..next }
    }

    /// Whether the server answers, and does not want to be left alone.
    pub(super) fn may_talk(&self, now: Instant) -> bool {
        self.is_online() && self.not_before <= now
    }

    /// Says whether a round is due at `now`, and what it consists of.
    pub(super) fn due(&mut self, now: Instant) -> Option<Round> {
        if self.deadline().at > now {
            return None;
        }
        if self.hint.take().is_some() {
            self.hinted = Some(now);
        }
        // A server that did not hear of us for an hour empties our peers: tell it first (protocol page, "Peer list").
        let check_in = now >= self.check_in || self.failures() > 0;
        let peers = match self.push {
            _ if self.recompute || self.is_stale(now) => Peers::Recomputed,
            Push::Connected { took_in: true } => Peers::Pushed,
            Push::Connected { took_in: false } | Push::Disconnected { .. } => Peers::Cached,
        };
        Some(Round { check_in, peers })
    }

    /// A revoked peer stays in the server's cache; but every recomputation makes the server broadcast to everybody.
    fn is_stale(&self, now: Instant) -> bool {
        let every = match self.push {
            Push::Connected { .. } => RECOMPUTE_PUSHED,
            Push::Disconnected { .. } => RECOMPUTE,
        };
        self.recomputed.is_none_or(|last| now >= last + every)
    }

    /// The broker is there; returns whether it is for the first time.
    pub(super) fn connected(&mut self, now: Instant) -> bool {
        let first = matches!(self.push, Push::Disconnected { ever: false });
        self.push = Push::Connected { took_in: false };
        if !first {
            // Of several actions only the last one waits at the broker (protocol page, "Topics").
            self.hinted(now, false);
        }
        first
    }

    pub(super) fn disconnected(&mut self, now: Instant) {
        self.push = Push::Disconnected { ever: true };
        if self.is_online() && self.round.why == Why::CheckIn {
            let poll = Deadline { at: now + self.poll, why: Why::Poll };
            self.round = if poll.at < self.round.at { poll } else { self.round };
        }
    }

    /// The peers that were pushed are on the interface.
    pub(super) fn took_in(&mut self) {
        if let Push::Connected { took_in } = &mut self.push {
            *took_in = true;
        }
    }

    /// The server asks us to look, perhaps with everything computed afresh.
    pub(super) fn hinted(&mut self, now: Instant, recompute: bool) {
        self.recompute |= recompute;
        // A server that repeats itself is not answered faster than this.
        self.hint = self.hint.or_else(|| Some(self.hinted.map_or(now, |last| now.max(last + HINT_GAP))));
    }

    /// The server may be reachable again, or see us elsewhere.
    pub(super) fn moved(&mut self, now: Instant) {
        self.check_in = now;
        self.hinted(now, false);
    }

    pub(super) fn succeeded(&mut self, now: Instant, checked_in: bool, recomputed: bool) {
        self.state = State::Online;
        if checked_in {
            self.check_in = now + CHECK_IN;
        }
        if recomputed {
            self.recompute = false;
            self.recomputed = Some(now);
        }
        self.round = match self.push {
            Push::Disconnected { .. } if now + self.poll < self.check_in => {
                Deadline { at: now + self.poll, why: Why::Poll }
            }
            Push::Connected { .. } | Push::Disconnected { .. } => Deadline { at: self.check_in, why: Why::CheckIn },
        };
    }

    pub(super) fn failed(&mut self, now: Instant, delay: Duration, retry_after: Option<Duration>) {
        let (failures, since) = match self.state {
            State::Offline { failures, since } => (failures.saturating_add(1), since),
            State::Online => (1, now),
        };
        self.state = State::Offline { failures, since };
        self.recompute |= now.saturating_duration_since(since) >= OUTAGE;
        self.hint = None;
        self.round = Deadline { at: now + delay, why: Why::Retry };
        if retry_after.is_some() {
            self.not_before = now + delay;
        }
    }
}

/// A host counts as online for 10 minutes after a check-in; 2 minutes is the real client's own rhythm.
const CHECK_IN: Duration = Duration::from_secs(120);

/// Time between rounds that the server asks for.
const HINT_GAP: Duration = Duration::from_millis(500);

/// After this long without the server its cache may have missed what it did not publish.
const OUTAGE: Duration = Duration::from_secs(60);

/// How often the peers are computed for us while nothing is pushed.
const RECOMPUTE: Duration = Duration::from_secs(600);

/// The same while everything is pushed.
const RECOMPUTE_PUSHED: Duration = Duration::from_secs(3600);
