//! Work on what is saved, if it is this machine's.

use super::{
    Hands, HoldWatch, MembershipError, Work,
    bond::{self, Means},
    glance,
};
use crate::{
    model::{Backend, IdentityChoice, Membership, Server},
    plan,
};

impl Work {
    /// Takes up the saved membership with `server`.
    ///
    /// # Errors
    /// [`MembershipError::NotEnrolled`] if there is none, or only a pending one; [`MembershipError::Held`] and
    /// [`MembershipError::Inherited`] if it may be another machine's, or is.
    pub async fn resume(hands: &Hands, server: &Server, backend: Option<Backend>) -> Result<Self, MembershipError> {
        Self::resume_watching(hands, server, backend, &mut HoldWatch::default()).await
    }

    /// The same for somebody who asks again and again while the membership is held.
    ///
    /// # Errors
    /// As for [`resume`](Self::resume).
    pub async fn resume_watching(
        hands: &Hands,
        server: &Server,
        backend: Option<Backend>,
        watch: &mut HoldWatch,
    ) -> Result<Self, MembershipError> {
        let lock = hands.store.lock(server)?;
        let saved = hands.store.load(server)?.filter(|membership| membership.enrolled().is_some());
        // A leave may have begun that a crash interrupted.
        let membership = saved.filter(|membership| !hands.store.is_queued(membership.identity.host_id));
        let Some(membership) = membership else {
            let inherited = hands.store.load(server)?.is_none() && hands.store.is_inherited(server);
            return Err(if inherited {
                MembershipError::Inherited(server.clone())
            } else {
                MembershipError::NotEnrolled
            });
        };
        let admitted = bond::admit(hands, membership, None, Means::Act, watch).await?;
        let membership = admitted.ok_or_else(|| MembershipError::Inherited(server.clone()))?;
        let backend = glance::choose(backend, &membership).await?;
        Self::new(hands.clone(), lock, membership, backend)
    }

    /// Notes what the server said of this host's check-ins; returns whether that has to be saved now.
    pub(super) fn note_check_in(&mut self) -> bool {
        self.check_ins.note(self.last_check_in);
        let saved = self.membership.last_check_in.unwrap_or(0);
        self.last_check_in.is_some_and(|now| now.saturating_sub(saved) >= plan::KNOWN_WITHIN)
    }
}

/// Loads the membership with `server` unless it is another machine's.
pub(super) async fn admitted(
    hands: &Hands,
    server: &Server,
    choice: Option<IdentityChoice>,
    means: Means,
) -> Result<Option<Membership>, MembershipError> {
    let mut saved = hands.store.load(server)?;
    if saved.is_none() && choice == Some(IdentityChoice::Keep) && hands.store.is_inherited(server) {
        saved = hands.store.load_inherited(server)?;
        if means == Means::Act {
            hands.store.release(server)?;
        }
    }
    match saved {
        Some(saved) => bond::admit(hands, saved, choice, means, &mut HoldWatch::default()).await,
        None => Ok(None),
    }
}

/// Why there is nothing to go on with.
pub(super) fn absent(hands: &Hands, server: &Server) -> MembershipError {
    // A rehearsal leaves it where it is.
    let is_there = matches!(hands.store.load(server), Ok(Some(_)));
    if is_there || hands.store.is_inherited(server) {
        return MembershipError::Inherited(server.clone());
    }
    MembershipError::NotEnrolled
}
