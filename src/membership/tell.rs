//! What happens to memberships is told to whoever keeps count of it and whoever acts on it: receipts and hooks.
//!
//! A receipt is written before the change is saved, hooks are called after it: a crash in between tells once more.

use super::{Hands, Work};
use crate::{
    daemon::clock,
    model::{Assignment, Backend, Event, EventKind, Membership, Report, State, Status, Subject},
    plan,
};

impl Hands {
    /// Keeps receipts of `events`; one that cannot be written holds nothing up.
    pub(super) fn record(&self, events: &[Event]) {
        for event in events.iter().filter(|event| event.kind.is_kept()) {
            if let Err(error) = self.store.record(clock::unix_seconds(), event) {
                tracing::error!(%error, event = event.kind.word(), "no receipt is kept of this");
            }
        }
    }

    /// Has hooks act on `events`.
    pub(super) fn announce(&self, events: &[Event]) {
        for event in events {
            self.hooks.call(clock::unix_seconds(), event);
        }
    }

    /// Tells of something that is not saved, or was.
    pub(super) fn tell(&self, event: Event) {
        let events = [event];
        self.record(&events);
        self.announce(&events);
    }
}

/// What was told of a membership in work.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// As it was told last; `None` before it is enrolled.
    subject: Option<Subject>,
    /// Whether its interface is up; `None` before anybody looked.
    up: Option<bool>,
}

impl Told {
    /// What is saved was told when it was.
    pub(super) fn of(membership: &Membership) -> Self {
        Self { subject: membership.enrolled().map(|_| Subject::of(membership)), up: None }
    }
}

impl Work {
    /// Saves `next` as the membership, and tells what is new in it.
    pub(super) fn commit(&mut self, next: Membership) -> Result<(), super::MembershipError> {
        let now = next.enrolled().map(|_| Subject::of(&next));
        let events = now.as_ref().map(|now| plan::events(self.told.subject.as_ref(), now)).unwrap_or_default();
        self.hands.record(&events);
        self.hands.store.save(&next)?;
        self.membership = next;
        self.told.subject = now;
        self.hands.announce(&events);
        Ok(())
    }

    /// Saves `assignment` as the first one of an enrollment that was taken over, and tells that.
    pub(super) fn import(&mut self, assignment: Assignment) -> Result<(), super::MembershipError> {
        let subject = Subject::of(&self.imagine(assignment.clone()));
        let imported = [Event::new(EventKind::Imported, subject.clone())];
        self.told.subject = Some(subject);
        self.hands.record(&imported);
        self.keep(assignment)?;
        self.hands.announce(&imported);
        Ok(())
    }

    /// Notes how the interface is before it is changed.
    pub(super) async fn note_interface(&mut self) {
        if self.told.up.is_none() {
            // What cannot be looked at is seen when it is changed.
            let seen = self.tunnel.recent().await;
            self.told.up = Some(matches!(seen, Ok(Some(_))));
        }
    }

    /// Tells whether the interface is up since it was last told; of a host that is not enrolled yet only later.
    pub(super) fn tell_interface(&mut self, assignment: &Assignment) {
        let now = self.tunnel.last().is_some() && !assignment.nodes.is_empty();
        if self.membership.enrolled().is_none() || self.told.up == Some(now) {
            return;
        }
        self.told.up = Some(now);
        let kind = if now { EventKind::Up } else { EventKind::Down };
        let mut subject = Subject::of(&self.membership);
        if now {
            subject.networks = Subject::of(&self.imagine(assignment.clone())).networks;
        }
        self.hands.tell(Event::new(kind, subject));
    }
}

/// Tells of userspace interfaces that end with this process, as `report` has them.
pub fn tell_ended(hands: &Hands, report: &Report) {
    let is_ending = |status: &&Status| status.backend == Some(Backend::Userspace) && status.state == State::Up;
    for status in report.memberships.iter().filter(is_ending) {
        let Ok(server) = status.server.parse() else { continue };
        match hands.store.load(&server) {
            Ok(Some(membership)) => hands.tell(Event::new(EventKind::Down, Subject::of(&membership))),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "hooks are not told that an interface ends"),
        }
    }
}
