//! One membership in work: its saved state, the conversation with its server, and its interface.

use std::time::{Duration, Instant};

use crate::{
    control::{self, Advice, Freshness, Rest, RestError, ServerFacts},
    daemon::clock,
    facts,
    link::LinkError,
    model::{Assignment, Backend, Enrolled, InterfaceName, Membership, Phase, Server, Status, Token},
    plan,
    store::Lock,
};

use super::{Greeting, Hands, MembershipError, OWN_PREFIX, Tunnel, error::describe, glance, join, tunnel};

/// The right and the means to work on one membership.
#[derive(Debug)]
pub struct Session {
    authenticated_at: Option<Instant>,
    error: Option<String>,
    pub(super) hands: Hands,
    _lock: Lock,
    pub(super) membership: Membership,
    /// Held until the name of a new interface is saved.
    pub(super) naming: Option<Lock>,
    /// Whether settings differ from those the server was told.
    pub(super) has_new_settings: bool,
    /// Whether the key on its way was taken in this run.
    pub(super) redeemed: bool,
    pub(super) rest: Rest,
    server_facts: Option<ServerFacts>,
    pub(super) tunnel: Tunnel,
    /// An address that the server gave for further calls and that does not answer.
    unreachable: Option<Server>,
}

/// What one round with the server brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Changes made to the interface.
    pub changes: usize,
    /// Whether the assignment differs from the saved one.
    pub news: News,
}

/// Whether a pull differs from what was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Peers or settings changed.
    Details,
    /// A network came, went or changed.
    Networks,
    /// Nothing changed.
    Nothing,
}

impl Session {
    /// Starts work on `membership`; the interface is opened, not changed.
    pub(super) fn new(
        hands: Hands,
        lock: Lock,
        membership: Membership,
        backend: Backend,
    ) -> Result<Self, MembershipError> {
        let rest = hands.rest(&membership)?;
        let tunnel = Tunnel::open(backend, &membership)?;
        Ok(Self {
            authenticated_at: None,
            error: None,
            hands,
            has_new_settings: false,
            _lock: lock,
            membership,
            naming: None,
            redeemed: false,
            rest,
            server_facts: None,
            tunnel,
            unreachable: None,
        })
    }

    /// Takes up the saved membership with `server`.
    ///
    /// # Errors
    /// [`MembershipError::NotEnrolled`] if there is none, or only a pending one.
    pub async fn resume(hands: &Hands, server: &Server, backend: Option<Backend>) -> Result<Self, MembershipError> {
        let lock = hands.store.lock(server)?;
        let membership = hands.store.load(server)?.filter(|membership| membership.enrolled().is_some());
        let membership = membership.ok_or(MembershipError::NotEnrolled)?;
        let backend = glance::choose(backend, &membership).await?;
        Self::new(hands.clone(), lock, membership, backend)
    }

    /// Who carries the packets.
    pub fn backend(&self) -> Backend {
        self.tunnel.backend()
    }

    /// The assignment in force; empty while pending.
    pub(super) fn assignment(&self) -> Assignment {
        self.membership.enrolled().map(|enrolled| enrolled.assignment.clone()).unwrap_or_default()
    }

    /// Removes an interface that this membership had under another name.
    pub(super) async fn abandon(&self, interface: InterfaceName) -> Result<(), MembershipError> {
        let before = Membership { interface, ..self.membership.clone() };
        match Tunnel::open(self.backend(), &before)?.remove().await {
            // Meanwhile somebody else's.
            Err(MembershipError::Link(LinkError::Taken(_))) => Ok(()),
            other => other,
        }
    }

    /// Why the last round failed; `None` after a good one.
    pub fn last_error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Brings the interface up from the saved assignment, without the server.
    pub async fn bring_up(&mut self) -> Result<usize, MembershipError> {
        match self.membership.enrolled() {
            Some(enrolled) => {
                let assignment = enrolled.assignment.clone();
                self.apply(&assignment).await
            }
            None => Ok(0),
        }
    }

    /// Proves to the server who this host is, unless that was done lately.
    ///
    /// # Errors
    /// [`MembershipError::Deleted`] and [`MembershipError::Proof`] if the server does not take us for that host.
    pub async fn authenticate(&mut self) -> Result<(), MembershipError> {
        if self.authenticated_at.is_some_and(|at| clock::now().saturating_duration_since(at) < RENEWAL) {
            return Ok(());
        }
        if let Err(error) = self.rest.authenticate(&self.membership.identity).await {
            self.retreat(error)?;
            let answer = self.rest.authenticate(&self.membership.identity).await;
            answer.map_err(|error| self.verdict(error))?;
        }
        self.authenticated_at = Some(clock::now());
        Ok(())
    }

    /// Goes back to the server that the key named when the address it gave for further calls cannot be reached.
    fn retreat(&mut self, error: RestError) -> Result<(), MembershipError> {
        if !error.is_unreachable() || *self.rest.server() == self.membership.server {
            return Err(self.verdict(error));
        }
        tracing::warn!(%error, server = %self.membership.server, "going back to the server that the key names");
        self.unreachable = Some(self.rest.server().clone());
        self.rest.move_to(&self.membership.server);
        Ok(())
    }

    /// Makes a call that needs authentication; a token that the server does not accept any more is renewed once.
    pub(super) async fn call<T>(
        &mut self,
        call: impl AsyncFn(&Rest) -> Result<T, RestError>,
    ) -> Result<T, MembershipError> {
        self.authenticate().await?;
        match call(&self.rest).await {
            Err(error) if error.advice() == Advice::Denied => {
                self.authenticated_at = None;
                self.authenticate().await?;
                call(&self.rest).await
            }
            other => other,
        }
        .map_err(|error| self.verdict(error))
    }

    /// Asks the server for the assignment; nothing is changed.
    pub(super) async fn pull(&mut self, freshness: Freshness) -> Result<Assignment, MembershipError> {
        let pulled = self.call(async |rest| rest.pull(freshness).await).await?;
        let assignment = control::assignment(&pulled, &self.membership.identity)
            .map_err(|source| MembershipError::Assignment { server: self.membership.server.clone(), source })?;
        self.server_facts = Some(control::server_facts(&pulled.server_config));
        Ok(self.with_known_relays(assignment))
    }

    /// Configures the interface as `assignment` says.
    pub(super) async fn apply(&mut self, assignment: &Assignment) -> Result<usize, MembershipError> {
        self.tunnel.apply(&self.membership, assignment, self.rest.remote()).await
    }

    /// Saves `assignment` as the one in force; a key on its way counts as redeemed.
    pub(super) fn keep(&mut self, assignment: Assignment) -> Result<(), MembershipError> {
        let next = self.imagine(assignment);
        self.hands.store.save(&next)?;
        self.membership = next;
        Ok(())
    }

    /// The membership as it is once `assignment` is in force.
    pub(super) fn imagine(&self, assignment: Assignment) -> Membership {
        let enrolled = self.membership.enrolled();
        let mut fingerprints = enrolled.map(|enrolled| enrolled.fingerprints.clone()).unwrap_or_default();
        let mut sent = self.membership.sent.clone();
        let on_its_way = self.membership.redeeming();
        if enrolled.is_none() || self.redeemed {
            fingerprints.extend(on_its_way.map(|redeeming| redeeming.fingerprint.clone()));
        }
        if enrolled.is_none() {
            // Whichever key it was that the server took, this host is enrolled now.
            fingerprints.append(&mut sent);
        }
        sent.retain(|fingerprint| !fingerprints.contains(fingerprint));
        let known = self.server_facts.clone().or_else(|| {
            enrolled.map(|enrolled| ServerFacts {
                api: Some(enrolled.api.clone()),
                name: enrolled.server_name.clone(),
                version: enrolled.server_version.clone(),
            })
        });
        let known = known.unwrap_or_default();
        let api = known.api.filter(|api| self.unreachable.as_ref() != Some(api));
        let redeeming = on_its_way.filter(|redeeming| !fingerprints.contains(&redeeming.fingerprint)).cloned();
        let phase = Phase::Enrolled(Box::new(Enrolled {
            api: api.unwrap_or_else(|| self.rest.server().clone()),
            assignment,
            fingerprints,
            redeeming,
            server_name: known.name,
            server_version: known.version,
        }));
        Membership { phase, sent, ..self.membership.clone() }
    }

    /// One round: authenticate if due, pull, apply what changed, save it, confirm what the server wants gone.
    pub async fn round(&mut self, freshness: Freshness) -> Result<Round, MembershipError> {
        let result = self.try_round(freshness).await;
        self.error = result.as_ref().err().map(describe);
        result
    }

    async fn try_round(&mut self, freshness: Freshness) -> Result<Round, MembershipError> {
        let before = self.assignment();
        let mut assignment = self.pull(freshness).await?;
        if news(&before, &assignment) == News::Networks && freshness == Freshness::Cached {
            // The server's cached peers are stale after memberships changed (protocol page, "Staleness").
            assignment = self.pull(Freshness::Recomputed).await?;
        } else if assignment.peers.is_empty() && !before.peers.is_empty() {
            // A server that did not hear of us for an hour forgets our peers (protocol page, "Peer list").
            self.check_in().await?;
            assignment = self.pull(Freshness::Recomputed).await?;
        }
        let news = news(&before, &assignment);
        let changes = self.apply(&assignment).await?;
        if news != News::Nothing {
            self.keep(assignment.clone())?;
        }
        self.tell_port(&assignment, changes).await?;
        self.confirm_leaving(&assignment).await?;
        if news != News::Nothing {
            self.name_relays().await;
        }
        Ok(Round { changes, news })
    }

    /// Tells the server after `changes` which port it really became: peers have to hear of it.
    pub(super) async fn tell_port(&mut self, assignment: &Assignment, changes: usize) -> Result<(), MembershipError> {
        if changes > 0 && self.tunnel.port() != assignment.listen_port {
            return self.check_in().await;
        }
        Ok(())
    }

    /// Redeems a further key while the membership is in use; returns whether it was redeemed here before.
    pub async fn redeem_further(&mut self, token: &Token) -> Result<Greeting, MembershipError> {
        join::further(self, token).await
    }

    /// Saves the membership as it stands.
    pub(super) fn save(&self) -> Result<(), MembershipError> {
        Ok(self.hands.store.save(&self.membership)?)
    }

    /// Tells the server that memberships it wants gone are gone.
    async fn confirm_leaving(&mut self, assignment: &Assignment) -> Result<(), MembershipError> {
        for (network, node_id) in &assignment.leaving {
            self.delete_node(network, *node_id).await?;
        }
        Ok(())
    }

    /// Checks in and does one round with peers computed afresh.
    pub async fn sync(&mut self) -> Result<Round, MembershipError> {
        self.check_in().await?;
        self.round(Freshness::Recomputed).await
    }

    /// Tells the server that this host is alive and where, and settings that it has not heard of.
    pub async fn check_in(&mut self) -> Result<(), MembershipError> {
        let have = self.tunnel.observe().await?;
        let port = tunnel::listen_port(&self.membership, have.as_ref())?;
        let facts = facts::gather(&[OWN_PREFIX]);
        if self.has_new_settings {
            // Name, MTU and a fixed port are not taken from a check-in.
            self.report(&control::update_host(&self.membership, &facts, port)).await?;
            self.has_new_settings = false;
        }
        self.report(&control::check_in(&self.membership, &facts, port)).await?;
        // A relay that the server could not name before may have a name by now.
        self.name_relays().await;
        Ok(())
    }

    async fn report(&mut self, update: &control::wire::HostUpdate) -> Result<(), MembershipError> {
        let host_id = self.membership.identity.host_id;
        self.call(async |rest| rest.update(host_id, update).await).await
    }

    /// Learns the names and keys of relays that are known by node id only; a failure leaves them unnamed.
    pub(super) async fn name_relays(&mut self) {
        let Phase::Enrolled(enrolled) = &mut self.membership.phase else { return };
        let unnamed = |relay: &crate::model::Relay| relay.public_key.is_none();
        if !enrolled.assignment.nodes.values().filter_map(|node| node.relay.as_ref()).any(unnamed) {
            return;
        }
        match self.rest.peer_info(self.membership.identity.host_id).await {
            Ok(peers) => {
                control::name_relays(&mut enrolled.assignment, &peers);
                if let Err(error) = self.hands.store.save(&self.membership) {
                    tracing::warn!(error = %error, "cannot save the relays' names");
                }
            }
            Err(error) => tracing::debug!(error = %error, "cannot ask for the relays' names"),
        }
    }

    /// Summarizes the membership and what the interface shows.
    pub async fn status(&mut self) -> Status {
        let have = self.tunnel.observe().await.unwrap_or_else(|error| {
            self.error = Some(describe(&error));
            None
        });
        plan::summarize(&self.membership, have.as_ref(), Some(self.tunnel.backend()), self.error.clone())
    }

    /// Removes the interface and gives up the work; the membership stays.
    pub async fn take_down(&mut self) -> Result<(), MembershipError> {
        self.tunnel.remove().await
    }

    /// Gives up a membership whose host the server deleted: the interface goes, the identity is kept aside.
    pub async fn set_aside(&mut self) -> Result<(), MembershipError> {
        self.take_down().await?;
        Ok(self.hands.store.set_aside(&self.membership.server)?)
    }

    pub(super) fn note_failure(&mut self, error: &MembershipError) {
        self.error = Some(describe(error));
    }

    /// A pull names relays by node id only; what was learnt about them before still holds.
    fn with_known_relays(&self, mut assignment: Assignment) -> Assignment {
        let Some(enrolled) = self.membership.enrolled() else { return assignment };
        for (name, node) in &mut assignment.nodes {
            let known = enrolled.assignment.nodes.get(name).and_then(|node| node.relay.as_ref());
            if let (Some(relay), Some(known)) = (&mut node.relay, known)
                && relay.node_id == known.node_id
            {
                *relay = known.clone();
            }
        }
        assignment
    }

    /// Says what an answer means for the membership.
    pub(super) fn verdict(&self, error: RestError) -> MembershipError {
        match error.advice() {
            Advice::Denied => MembershipError::Proof(self.membership.server.clone()),
            Advice::Gone => MembershipError::Deleted(self.membership.server.clone()),
            Advice::Broken | Advice::RetryAfter(_) => error.into(),
        }
    }
}

fn news(before: &Assignment, now: &Assignment) -> News {
    if before == now {
        News::Nothing
    } else if before.nodes == now.nodes && before.leaving == now.leaving {
        News::Details
    } else {
        News::Networks
    }
}

/// The server's tokens live for 15 minutes (protocol page, "Host authentication").
const RENEWAL: Duration = Duration::from_secs(13 * 60);
