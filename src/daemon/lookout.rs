//! A keeper's look at its host from outside, beside its other work.

use super::keeper::First;
use crate::{endpoint::Look, membership::Work, model::Outside};

/// When it is looked, and the look under way.
pub(super) struct Lookout {
    due: bool,
    look: Option<Look>,
}

impl Lookout {
    /// A host that has just joined and was not seen on the way is looked at now, others after their first round.
    pub(super) fn new(work: &Work, first: First) -> Self {
        let joined = match first {
            First::After(_) => false,
            First::Joined => true,
        };
        Self { due: joined && work.membership().seen().main().is_none(), look: None }
    }

    /// The server is told that we live, and so where.
    pub(super) fn checked_in(&mut self) {
        self.due = true;
    }

    /// What is being asked is not asked from here.
    pub(super) fn moved(&mut self) {
        *self = Self { due: true, look: None };
    }

    /// Begins a look if it is time.
    pub(super) fn begin(&mut self, work: &Work) {
        if self.look.is_none() && std::mem::take(&mut self.due) {
            self.look = work.look_again();
        }
    }

    /// Waits for the end of a look; for ever while there is none.
    pub(super) async fn next(&mut self) -> Outside {
        let Some(look) = &mut self.look else { return std::future::pending().await };
        let found = look.finished().await;
        self.look = None;
        found
    }
}
