//! Leaving: on this machine at once, on the server as soon as it is there.
//!
//! ```text
//! queue what signing off takes ─► interface ─► saved membership ─► sign off ─► off the queue
//!   └── a crash anywhere: the next start ends it here ──┘   └── no server: tried again until it is done or dropped
//! ```

use std::{collections::BTreeSet, time::Duration};

use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Hands, HoldWatch, JoinRequest, MembershipError, Tunnel, Work,
    bond::{self, Means},
    error::describe,
    names,
};
use crate::{
    control::{Advice, RestError},
    daemon::clock,
    link::LinkError,
    model::{Backend, Class, Event, EventKind, Leaving, Listed, Membership, NetworkName, Server, Subject, Token},
    plan::Peers,
};

/// Whether the server is to know of a leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignOff {
    /// It is never told.
    Forget,
    /// It is told, now or later.
    Tell,
}

/// How leaving went.
#[derive(Debug, Default)]
pub struct Farewell {
    /// What did not work, with the step it happened in; everything else was done.
    pub failures: Vec<(&'static str, MembershipError)>,
    /// Hosts that their server still lists, and is told about later if that is wanted.
    pub listed: Vec<Listed>,
}

impl Work {
    /// Deletes a node of this host; one that is gone already is what was wanted.
    pub(super) async fn delete_node(&mut self, network: &NetworkName, node_id: Uuid) -> Result<(), MembershipError> {
        match self.call(async |rest| rest.leave_network(network, node_id).await).await {
            Err(MembershipError::Rest(error)) if error.advice() == Advice::Broken => Ok(()),
            other => other,
        }
    }

    /// Leaves one network; the membership with the server and its other networks stay.
    pub async fn leave_network(&mut self, network: &NetworkName) -> Result<(), MembershipError> {
        let Some(node_id) = self.assignment().nodes.get(network).map(|node| node.id) else {
            return Err(MembershipError::NotInNetwork(network.clone()));
        };
        self.delete_node(network, node_id).await?;
        self.round(Peers::Recomputed).await.map(|_| ())
    }

    /// Gives up a membership whose host the server deleted: the interface goes, the identity is kept aside.
    ///
    /// In this order, so that after a crash in between the next start finds it and removes the interface.
    pub async fn set_aside(&mut self) -> Result<(), MembershipError> {
        let deleted = [Event::new(EventKind::Deleted, Subject::of(&self.membership))];
        self.hands.record(&deleted);
        let set_aside = self.hands.store.set_aside(&self.membership.server);
        self.take_down().await?;
        self.hands.announce(&deleted);
        Ok(set_aside?)
    }

    /// Leaves the server: the interface goes, then the saved membership, then the host on the server.
    pub async fn leave_server(&mut self, sign_off: SignOff) -> Farewell {
        let mut farewell = Farewell::default();
        let leaving = Leaving::of(&self.membership, clock::unix_seconds());
        let (hands, store) = (self.hands.clone(), self.hands.store.clone());
        let queued = match sign_off {
            SignOff::Forget => true,
            SignOff::Tell => farewell.note("queue the sign-off", store.queue(&leaving).map_err(Into::into)),
        };
        farewell.note("remove the interface", self.take_down().await);
        farewell.note("forget the membership", forget(&hands, &self.membership));
        match sign_off {
            SignOff::Forget => {
                hands.tell(Event::new(EventKind::Forgotten, departed(&leaving)));
                farewell.listed.push(leaving.listed());
            }
            SignOff::Tell => farewell.sign_off(&hands, &leaving, queued).await,
        }
        farewell
    }
}

impl Farewell {
    /// Notes how a step went; returns whether it went well.
    fn note(&mut self, step: &'static str, result: Result<(), MembershipError>) -> bool {
        let Err(error) = result else { return true };
        tracing::warn!(step, error = %describe(&error), "leaving goes on");
        self.failures.push((step, error));
        false
    }

    /// Tells the server; one that is not there is told later if that is `queued`.
    async fn sign_off(&mut self, hands: &Hands, leaving: &Leaving, queued: bool) {
        match sign_off(hands, leaving, PATIENCE).await {
            Ok(()) => {}
            Err(error) if queued && error.class() == Class::Temporary => {
                tracing::warn!(server = %leaving.server, error = %describe(&error), "the server is told later");
                self.listed.push(leaving.listed());
            }
            Err(error) => {
                self.note("tell the server", Err(error));
                self.listed.push(leaving.listed());
            }
        }
    }
}

/// Leaves `server`, or one `network` of it, without a serving agent. What is another machine's is forgotten; the server,
/// which knows it as that one's, is not told. Without a membership it is sign-offs that wait which are made, or dropped.
///
/// # Errors
/// [`MembershipError::NotEnrolled`] if there is nothing to leave. What fails on the way is in the [`Farewell`].
pub async fn leave(
    hands: &Hands,
    server: &Server,
    network: Option<&NetworkName>,
    backend: Option<Backend>,
    sign_off: SignOff,
) -> Result<Farewell, MembershipError> {
    finish_leaves(hands).await?;
    let lock = hands.store.lock(server)?;
    let admitted = match hands.store.load(server)? {
        Some(saved) => bond::admit(hands, saved, None, Means::Act, &mut HoldWatch::default()).await?,
        None if hands.store.is_inherited(server) => None,
        None => return settle(hands, server, sign_off).await,
    };
    let Some(membership) = admitted else {
        hands.store.forget_inherited(server)?;
        return Ok(Farewell::default());
    };
    // A userspace interface ended with its process; what is left to remove can only be the kernel's.
    let mut work = Work::new(hands.clone(), lock, membership, backend.unwrap_or(Backend::Kernel))?;
    match network {
        None => Ok(work.leave_server(sign_off).await),
        Some(network) => work.leave_network(network).await.map(|()| Farewell::default()),
    }
}

/// Makes the sign-offs that wait for `server`, or drops them.
///
/// # Errors
/// [`MembershipError::NotEnrolled`] if none waits.
pub async fn settle(hands: &Hands, server: &Server, word: SignOff) -> Result<Farewell, MembershipError> {
    let waiting = hands.store.queued_for(server)?;
    if waiting.is_empty() {
        return Err(MembershipError::NotEnrolled);
    }
    let mut farewell = Farewell::default();
    for leaving in waiting {
        match word {
            SignOff::Forget => {
                hands.record(&[Event::new(EventKind::Forgotten, departed(&leaving))]);
                hands.store.unqueue(leaving.host_id)?;
                farewell.listed.push(leaving.listed());
            }
            SignOff::Tell => farewell.sign_off(hands, &leaving, true).await,
        }
    }
    Ok(farewell)
}

/// Has the server of a join know of leaves before this machine comes again, if it is there; whatever becomes of that, the host that
/// was left is gone.
pub(super) async fn settle_before_joining(hands: &Hands, request: &JoinRequest) -> Result<(), MembershipError> {
    let meant = request.token.as_ref().map(Token::server).or(request.server.as_ref());
    let Some(server) = meant else { return Ok(()) };
    finish_leaves(hands).await?;
    for leaving in hands.store.queued_for(server)? {
        if let Err(error) = sign_off(hands, &leaving, IMPATIENCE).await {
            tracing::warn!(
                %server, host_id = %leaving.host_id, error = %describe(&error),
                "the server is told later that the host before was left; this machine joins as a new one"
            );
        }
    }
    Ok(())
}

/// Tells the server that a host was left, and takes that off the queue; a host that it does not know is what was wanted.
///
/// # Errors
/// [`MembershipError::Rest`] if the server is not there within `patience`, [`MembershipError::Proof`] if it knows the
/// host with another password.
pub async fn sign_off(hands: &Hands, leaving: &Leaving, patience: Duration) -> Result<(), MembershipError> {
    match timeout(patience, tell_server(hands, leaving)).await {
        Ok(told) => told?,
        Err(_) => return Err(RestError::Timeout(leaving.api.clone()).into()),
    }
    hands.record(&[Event::new(EventKind::SignedOff, departed(leaving))]);
    tracing::info!(server = %leaving.server, host_id = %leaving.host_id, "the server knows that this host was left");
    Ok(hands.store.unqueue(leaving.host_id)?)
}

async fn tell_server(hands: &Hands, leaving: &Leaving) -> Result<(), MembershipError> {
    let Leaving { api, host_id, mac, password, policy, server, server_addresses, .. } = leaving;
    let mut last = None;
    // The one that the key named is asked when the one it sent us to is not there.
    for (at, known) in [(api, server_addresses.clone()), (server, BTreeSet::new())] {
        if last.is_some() && api == server {
            break;
        }
        let mut rest = hands.rest_at(at, &known, policy)?;
        let told = match rest.prove(*host_id, *mac, password).await {
            Ok(()) => rest.delete_host(*host_id).await,
            Err(error) => Err(error),
        };
        let Err(error) = told else { return Ok(()) };
        match error.advice() {
            Advice::Gone => return Ok(()),
            Advice::Denied => return Err(MembershipError::Proof(server.clone())),
            Advice::RetryAfter(_) if error.is_unreachable() => last = Some(error),
            Advice::Broken | Advice::RetryAfter(_) => return Err(error.into()),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Ends on this machine what leaves began that a crash interrupted.
///
/// # Errors
/// [`MembershipError::Store`] if the state cannot be read, [`MembershipError::Link`] and [`MembershipError::Firewall`]
/// if an interface or its packet filter stays.
pub async fn finish_leaves(hands: &Hands) -> Result<(), MembershipError> {
    for leaving in hands.store.queued()? {
        // Whoever has the lock is at it.
        let Ok(_lock) = hands.store.lock(&leaving.server) else { continue };
        let saved = match hands.store.load(&leaving.server) {
            Ok(saved) => saved.filter(|saved| saved.identity.host_id == leaving.host_id),
            Err(error) => {
                tracing::warn!(%error, "whether a leave came to its end cannot be told");
                continue;
            }
        };
        let Some(membership) = saved else { continue };
        tracing::info!(server = %leaving.server, "going on with a leave that was interrupted");
        names::release(&membership.interface).await;
        match Tunnel::open(Backend::Kernel, &membership)?.remove().await {
            // Meanwhile somebody else's.
            Ok(()) | Err(MembershipError::Link(LinkError::Taken(_))) => {}
            Err(error) => return Err(error),
        }
        forget(hands, &membership)?;
    }
    Ok(())
}

/// Forgets what is saved of `membership`, and tells that it was left.
fn forget(hands: &Hands, membership: &Membership) -> Result<(), MembershipError> {
    let left = [Event::new(EventKind::Left, Subject::of(membership))];
    hands.record(&left);
    hands.store.remove(&membership.server)?;
    hands.store.forget_inherited(&membership.server)?;
    hands.announce(&left);
    Ok(())
}

/// What is still known of a host that was left.
fn departed(leaving: &Leaving) -> Subject {
    Subject {
        default_gateway: None,
        host_id: leaving.host_id,
        interface: leaving.interface.clone(),
        keys: BTreeSet::new(),
        name: String::new(),
        networks: std::collections::BTreeMap::new(),
        public_key: leaving.public_key,
        server: leaving.server.clone(),
    }
}

/// How long somebody who leaves waits for the server.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How long somebody who joins does: the server is needed next anyway.
const IMPATIENCE: Duration = Duration::from_secs(5);
