//! Whether a saved membership is this machine's: asked before anything of it is used.
//!
//! ```text
//! same, reset ──────────────────────────► in use, bound to what the machine says now
//! hold ──ask the server: moved ─────────► in use
//!   ├────────────────────── clone ──► out of use, kept aside
//!   └──── unclear, no server ──► held: nothing of it is used
//! clone ─────────────────────────────────► out of use, kept aside; the server is not asked
//! ```

use std::{io, time::Instant};

use ring::rand::{SecureRandom, SystemRandom};

use super::{Hands, MembershipError, describe, glance};
use crate::{
    control::Freshness,
    daemon::clock,
    facts,
    model::{Binding, Event, EventKind, IdentityChoice, Machine, Membership, Server, Subject},
    plan::{self, Bond, Word},
    store::Store,
};

/// What is known of an identity while it is held.
#[derive(Debug, Default)]
pub struct HoldWatch {
    /// What the server said at first, and when.
    first: Option<(u64, Instant)>,
}

/// How far an admission may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// What is decided is saved.
    Act,
    /// Nothing is asked or saved.
    Look,
}

/// Admits a membership that was just loaded, under its lock; `None` if it is another machine's and out of use now.
///
/// # Errors
/// [`MembershipError::Held`] if that cannot be told, [`MembershipError::Store`] if it could not be taken out of use.
pub(super) async fn admit(
    hands: &Hands,
    membership: Membership,
    choice: Option<IdentityChoice>,
    means: Means,
    watch: &mut HoldWatch,
) -> Result<Option<Membership>, MembershipError> {
    let machine = hands.machine();
    let server = membership.server.clone();
    let bond = match choice {
        Some(IdentityChoice::Keep) => Bond::Same,
        Some(IdentityChoice::New) => Bond::Clone,
        None => plan::bond(membership.binding.as_ref(), &machine),
    };
    let held = |source: Option<MembershipError>| MembershipError::Held {
        server: server.clone(),
        source: source.map(Box::new),
    };
    match (bond, means) {
        (Bond::Same, _) | (Bond::Reset, Means::Look) => {}
        (Bond::Hold, Means::Look) => return Err(held(None)),
        (Bond::Clone, Means::Look) => return Ok(None),
        (Bond::Reset, Means::Act) => {
            tracing::info!(%server, "this machine has another machine-id; the identity stays");
            tell(hands, &membership, EventKind::Reset);
        }
        (Bond::Hold, Means::Act) => match ask(hands, &membership, watch).await {
            Ok(Word::Moved) => {
                tracing::warn!(%server, "this disk is in another machine; the identity goes with it");
                tell(hands, &membership, EventKind::Moved);
            }
            Ok(Word::Clone) => return set_out_of_use(hands, &membership, EventKind::Clone).await.map(|()| None),
            unclear @ (Ok(Word::Unclear) | Err(_)) => {
                tell(hands, &membership, EventKind::Held);
                return Err(held(unclear.err()));
            }
        },
        (Bond::Clone, Means::Act) => {
            let kind = if choice.is_some() { EventKind::Renounced } else { EventKind::Clone };
            return set_out_of_use(hands, &membership, kind).await.map(|()| None);
        }
    }
    rebind(hands, membership, &machine, means).map(Some)
}

/// Says what the saved state of `membership` looks like from outside.
pub(super) fn look(membership: &Membership) -> Bond {
    plan::bond(membership.binding.as_ref(), &facts::machine(None))
}

/// Binds a new identity to this machine.
pub(super) fn binding(random: &SystemRandom, hands: &Hands) -> Result<Binding, MembershipError> {
    let mut salt = [0; 16];
    random.fill(&mut salt).map_err(|_| MembershipError::Host {
        action: "get random numbers",
        source: io::Error::other("the system's random number generator failed"),
    })?;
    Ok(plan::bind(&plan::unbound(salt), &hands.machine()))
}

/// Binds `membership` to what the machine says now; state that cannot be written does not stop a machine that is right.
fn rebind(
    hands: &Hands,
    membership: Membership,
    machine: &Machine,
    means: Means,
) -> Result<Membership, MembershipError> {
    let binding = match &membership.binding {
        Some(known) => plan::bind(known, machine),
        None => binding(&SystemRandom::new(), hands)?,
    };
    if membership.binding.as_ref() == Some(&binding) {
        return Ok(membership);
    }
    let bound = Membership { binding: Some(binding), ..membership };
    if means == Means::Act
        && let Err(error) = hands.store.save(&bound)
    {
        tracing::warn!(%error, "the machine that the identity belongs to is not noted");
    }
    Ok(bound)
}

/// One proof and one plain pull, which changes nothing on the server.
async fn ask(hands: &Hands, membership: &Membership, watch: &mut HoldWatch) -> Result<Word, MembershipError> {
    let mut rest = hands.rest(membership)?;
    rest.authenticate(&membership.identity).await?;
    let now = rest.pull(Freshness::Cached).await?.last_check_in().unwrap_or(0);
    let (first, since) = *watch.first.get_or_insert((now, clock::now()));
    let watched = clock::now().saturating_duration_since(since);
    Ok(plan::word(membership.last_check_in, first, now, watched))
}

fn tell(hands: &Hands, membership: &Membership, kind: EventKind) {
    hands.tell(Event::new(kind, Subject::of(membership)));
}

/// Keeps what is another machine's aside, with nothing of it in use.
async fn set_out_of_use(hands: &Hands, membership: &Membership, kind: EventKind) -> Result<(), MembershipError> {
    let server = &membership.server;
    tell(hands, membership, kind);
    tracing::warn!(
        %server, host_id = %membership.identity.host_id,
        "this machine is a copy of another one; its identity is not used. With an enrollment key this machine enrolls \
         as a new host; `agent join --keep-identity` says that it is the same machine"
    );
    hands.store.quarantine(server)?;
    if let Err(error) = glance::clear_kernel(membership).await {
        tracing::warn!(%server, error = %describe(&error), "an interface with that identity stays");
    }
    Ok(())
}

/// What was last heard of this host's check-ins, saved in the end.
///
/// Meanwhile it is saved with whatever else is, at least every hour.
#[derive(Debug)]
pub(super) struct CheckIns {
    newest: Option<u64>,
    server: Server,
    store: Store,
}

impl CheckIns {
    pub(super) fn new(store: Store, server: Server) -> Self {
        Self { newest: None, server, store }
    }

    pub(super) fn note(&mut self, newest: Option<u64>) {
        self.newest = self.newest.max(newest);
    }
}

impl Drop for CheckIns {
    fn drop(&mut self) {
        if self.newest.is_none() {
            return;
        }
        // Only what is there still: it may have been left.
        let saved = self.store.load(&self.server).and_then(|saved| match saved {
            Some(saved) if saved.last_check_in < self.newest => {
                self.store.save(&Membership { last_check_in: self.newest, ..saved })
            }
            Some(_) | None => Ok(()),
        });
        if let Err(error) = saved {
            tracing::debug!(%error, "the last check-in is not noted");
        }
    }
}
