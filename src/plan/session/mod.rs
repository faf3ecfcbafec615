//! The conversation with one server as a state machine: what to do next, when, and why.
//!
//! ```text
//!                    a round went well
//!   Offline{next try, why} ◄──────────► Online{since}
//!                    a round failed
//!
//!   events in: answers, pushes, what happened on the host ──► handle ──► actions out, one piece of work at a time
//!   time in:                                                  tick
//! ```
//!
//! HTTP is the authority. What is pushed is either a snapshot of the peers that a pull could have given as well, or a
//! hint to ask. Nothing but an explicit deletion, confirmed by the server, ever gives a membership up.

mod contact;
mod deletion;
mod rotation;

use std::time::{Duration, Instant};

use self::{
    contact::{Contact, Round},
    deletion::Deletion,
    rotation::Rotation,
};

/// One membership's course.
#[derive(Debug)]
pub struct Session {
    /// The work under way; nothing else is begun before it ends.
    busy: Option<Action>,
    contact: Contact,
    deletion: Deletion,
    failures_here: u32,
    /// When the interface has to be looked at sooner than regularly.
    look_by: Option<Instant>,
    observe: Instant,
    rotation: Rotation,
    /// What was asked for meanwhile.
    wishes: Wishes,
}

/// What is to be done as soon as there is nothing else to do.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    give_up: bool,
    select: bool,
    take_in: bool,
}

/// What a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The broker takes our messages.
    Connected,
    /// The connection to the broker is gone.
    Disconnected,
    /// Somebody changed our interface.
    Disturbed,
    /// The work that was begun came to its end.
    Ended(Outcome),
    /// The server asks for something.
    Hinted(Hint),
    /// This machine's addresses or default route changed, or it slept.
    Moved,
    /// The peers were pushed.
    PeersPushed,
    /// Peers were pushed that cannot be read, or that came before.
    PeersSpoiled,
}

/// What a server asks of a host over the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// Say that you are there.
    Acknowledge,
    /// You are deleted.
    Delete,
    /// You are in a further network.
    Join,
    /// Your record or one of your nodes changed.
    Look,
    /// Pull everything.
    Pull,
    /// Make a new WireGuard key.
    RotateKeys,
    /// Choose the nearest gateway.
    SelectGateway,
    /// Update yourself; only shown to people.
    Upgrade,
}

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to be asked of the server: the interface is as it should be.
    InOrder,
    /// The interface could not be observed or changed.
    Stuck,
    /// Something is known of this host that the server has to hear of.
    Untold,
    /// What was pushed cannot be used.
    Unusable,
    /// The server was talked to without success.
    Failed {
        /// What kind of failure.
        trouble: Trouble,
        /// How long the server asked to wait.
        retry_after: Option<Duration>,
    },
    /// A round with the server went well.
    Synced {
        /// It heard that we live.
        checked_in: bool,
        /// It was computed afresh.
        recomputed: bool,
    },
}

/// Why a round with the server failed, by what it means for the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing that the server said of this host: it passes, or a person has to look.
    Any,
    /// The server does not know this host.
    Gone,
}

/// What a session wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the broker that we are there.
    Acknowledge,
    /// Look at the interface and put it in order, from what is known.
    Observe,
    /// Give up connections that were made from where this machine was before.
    Reconnect,
    /// Make and announce a new WireGuard key.
    Rotate,
    /// Talk to the server.
    Round(Talk),
    /// Measure the gateways and choose.
    SelectGateway,
    /// The server deleted this host: remove the interface, keep the identity aside.
    SetAside,
    /// Apply the peers that were pushed.
    TakeIn,
}

/// What a round with the server consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    /// Whether to check in before the pull.
    pub check_in: bool,
    /// Which peers to believe.
    pub peers: Peers,
    /// Whether to prove who we are even if that was done lately.
    pub prove: bool,
}

/// Where a round's peers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// The server's cache.
    Cached,
    /// Those that were pushed: they are never older than the server's cache (protocol page, "Staleness").
    Pushed,
    /// Computed for us; makes the server broadcast to everybody.
    Recomputed,
}

/// When something is due, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// What for.
    pub why: Why,
}

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The next regular round.
    CheckIn,
    /// A round that the server asked for, held back for a moment.
    Hint,
    /// The next look at the interface.
    Look,
    /// The next regular pull, since nothing is pushed.
    Poll,
    /// Another try after a failure.
    Retry,
    /// A new WireGuard key.
    Rotation,
    /// The first round; hosts that start together do not all come at once.
    Start,
}

impl Session {
    /// Starts at `now` with an interface that was just put in order; the first round is `spread` later.
    ///
    /// `poll` is the time between pulls while nothing is pushed.
    pub fn new(now: Instant, spread: Duration, poll: Duration) -> Self {
        Self {
            busy: None,
            contact: Contact::new(now, spread, poll),
            deletion: Deletion::default(),
            failures_here: 0,
            look_by: None,
            observe: now + OBSERVE,
            rotation: Rotation::new(now),
            wishes: Wishes::default(),
        }
    }

    /// Whether the server answered last time.
    pub fn is_online(&self) -> bool {
        self.contact.is_online()
    }

    /// When something is due next; `None` while work is under way.
    pub fn deadline(&self) -> Option<Deadline> {
        if self.busy.is_some() {
            return None;
        }
        let look = Deadline { at: self.look_by.map_or(self.observe, |by| by.min(self.observe)), why: Why::Look };
        let rotation = self.rotation.due().filter(|_| self.contact.is_online());
        let rotation = rotation.map(|at| Deadline { at: self.contact.not_before(at), why: Why::Rotation });
        let all = [self.contact.deadline(), look].into_iter().chain(rotation);
        all.min_by_key(|deadline| deadline.at)
    }

    /// Notes what happened at `now`, and says what to do about it; `random` is uniform in 0..=255.
    pub fn handle(&mut self, event: Event, now: Instant, random: u8) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Connected => {
                // What waits for us at the server comes after an acknowledgement (protocol page, "ACK flow").
                if self.contact.connected(now) {
                    actions.push(Action::Acknowledge);
                }
            }
            Event::Disconnected => self.contact.disconnected(now),
            Event::Disturbed => self.observe = now,
            Event::Ended(outcome) => self.ended(outcome, now, random),
            Event::Hinted(hint) => actions.extend(self.hinted(hint, now)),
            Event::Moved => {
                self.observe = now;
                self.contact.moved(now);
                actions.push(Action::Reconnect);
            }
            Event::PeersPushed => self.wishes.take_in = true,
            Event::PeersSpoiled => {
                self.contact.distrust();
                self.contact.hinted(now, false);
            }
        }
        actions.extend(self.tick(now));
        actions
    }

    /// Says what is due at `now`.
    pub fn tick(&mut self, now: Instant) -> Option<Action> {
        if self.busy.is_none() {
            self.busy = self.next(now);
            return self.busy;
        }
        None
    }

    /// Takes note of whether a new key waits to be confirmed: it is gone on with, and not made a second time.
    pub fn set_rotating(&mut self, rotating: bool, now: Instant) {
        self.rotation.set_pending(rotating, now);
    }

    /// Has the interface looked at again at `by`, which is after `now`, if not sooner; `None` leaves it to the regular looks.
    pub fn look_by(&mut self, by: Option<Instant>, now: Instant) {
        self.look_by = by.filter(|by| *by > now);
    }

    /// Changes the time between pulls while nothing is pushed.
    pub fn set_poll(&mut self, poll: Duration) {
        self.contact.set_poll(poll);
    }

    /// Work that somebody else asked for begins: nothing of ours does until it ends.
    ///
    /// Returns whether that is possible now.
    pub fn lend(&mut self) -> bool {
        let free = self.busy.is_none();
        if free {
            self.busy = Some(Action::Observe);
        }
        free
    }

    fn next(&mut self, now: Instant) -> Option<Action> {
        let Wishes { give_up, select, take_in } = &mut self.wishes;
        if *give_up {
            return Some(Action::SetAside);
        }
        if std::mem::take(take_in) {
            return Some(Action::TakeIn);
        }
        if self.observe <= now || self.look_by.is_some_and(|by| by <= now) {
            self.look_by = None;
            self.observe = now + OBSERVE;
            return Some(Action::Observe);
        }
        if self.contact.may_talk(now) && self.rotation.due().is_some_and(|due| due <= now) {
            return Some(Action::Rotate);
        }
        if *select && self.contact.may_talk(now) {
            *select = false;
            return Some(Action::SelectGateway);
        }
        let Round { check_in, peers } = self.contact.due(now)?;
        Some(Action::Round(Talk { check_in, peers, prove: self.deletion.is_announced() }))
    }

    fn hinted(&mut self, hint: Hint, now: Instant) -> Option<Action> {
        match hint {
            Hint::Acknowledge => return Some(Action::Acknowledge),
            Hint::Delete => {
                self.deletion.announced();
                self.contact.hinted(now, false);
            }
            Hint::Join => {
                self.contact.hinted(now, false);
                return Some(Action::Acknowledge);
            }
            Hint::Look => self.contact.hinted(now, false),
            Hint::Pull => self.contact.hinted(now, true),
            Hint::RotateKeys => self.rotation.asked(now),
            Hint::SelectGateway => self.wishes.select = true,
            Hint::Upgrade => {}
        }
        None
    }

    fn ended(&mut self, outcome: Outcome, now: Instant, random: u8) {
        let ended = self.busy.take();
        let good = match outcome {
            Outcome::InOrder | Outcome::Synced { .. } | Outcome::Untold => true,
            Outcome::Failed { .. } | Outcome::Stuck | Outcome::Unusable => false,
        };
        match (ended, good) {
            (Some(Action::Rotate), _) => self.rotation.ended(now, good),
            // What was pushed and is not on the interface is told by pulls again.
            (Some(Action::TakeIn), false) => self.contact.distrust(),
            (Some(Action::TakeIn), true) => self.contact.took_in(),
            (Some(Action::Round(_)), _) if outcome == Outcome::InOrder => self.contact.interrupted(),
            (_, _) => {}
        }
        let proved = matches!(ended, Some(Action::Round(Talk { prove: true, .. })));
        match outcome {
            Outcome::InOrder => self.failures_here = 0,
            Outcome::Stuck => {
                self.failures_here = self.failures_here.saturating_add(1);
                let wait = super::backoff(self.failures_here, random, None);
                self.observe = now + wait;
                if matches!(ended, Some(Action::Rotate | Action::Round(_) | Action::SelectGateway)) {
                    // Whatever the server wants cannot be done here yet.
                    self.contact.failed(now, wait, None);
                }
            }
            Outcome::Failed { trouble, retry_after } => {
                self.contact.failed(now, super::backoff(self.contact.failures() + 1, random, retry_after), retry_after);
                self.wishes.give_up |= self.deletion.answered(now, trouble == Trouble::Gone, proved);
                if trouble == Trouble::Gone && self.deletion.is_announced() && !proved {
                    // What was announced is believed only after a proof of who asks.
                    self.contact.hinted(now, false);
                }
                // What failed may have left the interface half done.
                self.observe = self.observe.min(now + super::backoff(1, random, None));
            }
            Outcome::Untold | Outcome::Unusable => self.contact.hinted(now, false),
            Outcome::Synced { checked_in, recomputed } => {
                self.failures_here = 0;
                if self.observe > now {
                    self.observe = now + OBSERVE;
                }
                self.deletion.denied(proved);
                self.contact.succeeded(now, checked_in, recomputed);
            }
        }
    }
}

/// How often the interface is looked at when nothing happens.
const OBSERVE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
