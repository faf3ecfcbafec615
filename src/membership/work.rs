//! One membership in work: its saved state, the conversation with its server, and its interface.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    control::{self, Advice, AssignmentError, Freshness, Rest, RestError, ServerFacts, wire},
    daemon::clock,
    link::LinkError,
    model::{
        Assignment, Backend, Enrolled, ErrorReport, InterfaceName, Membership, NetworkName, Overrides, Phase, Policy,
        PublicKey, Server, Switch,
    },
    plan::{Peers, Talk},
    store::Lock,
};

use super::{
    Hands, MembershipError, Round, Tunnel,
    bond::CheckIns,
    names::Resolution,
    outside::Lookout,
    tell::Told,
    tunnel::{self, Look, Whereabouts},
};

/// The right and the means to work on one membership.
#[derive(Debug)]
pub struct Work {
    /// Networks that the server announced and that are not saved yet.
    pub(super) announced: BTreeSet<NetworkName>,
    pub(super) authenticated_at: Option<Instant>,
    /// Before the lock, under which it is saved in the end.
    pub(super) check_ins: CheckIns,
    /// When the server was last asked whether its cache or its pushes were right.
    pub(super) clarified_at: Option<Instant>,
    pub(super) error: Option<ErrorReport>,
    /// The gateways in use that this host chose and that answer probes.
    pub(super) gateways: BTreeSet<SocketAddr>,
    pub(super) hands: Hands,
    /// Where gateways were when they were peers.
    pub(super) known_gateways: BTreeMap<Uuid, SocketAddr>,
    _lock: Lock,
    /// What the server last said of this host's check-ins.
    pub(super) last_check_in: Option<u64>,
    pub(super) lookout: Lookout,
    pub(super) membership: Membership,
    /// Held until the name of a new interface is saved.
    pub(super) naming: Option<Lock>,
    /// Whether settings differ from those the server was told.
    pub(super) has_new_settings: bool,
    /// The WireGuard key that the last pull named.
    pub(super) key_on_server: Option<PublicKey>,
    /// Who resolves names for this membership.
    pub(super) resolution: Resolution,
    pub(super) rest: Rest,
    /// How the server described itself in the last pull.
    pub(super) server_config: Option<wire::ServerConfig>,
    pub(super) told: Told,
    pub(super) tunnel: Tunnel,
    /// An address that the server gave for further calls and that does not answer.
    unreachable: Option<Server>,
}

impl Work {
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
            announced: BTreeSet::new(),
            authenticated_at: None,
            check_ins: CheckIns::new(hands.store.clone(), membership.server.clone()),
            clarified_at: None,
            error: None,
            gateways: BTreeSet::new(),
            known_gateways: BTreeMap::new(),
            hands,
            has_new_settings: false,
            _lock: lock,
            key_on_server: None,
            last_check_in: None,
            lookout: Lookout::default(),
            told: Told::of(&membership),
            membership,
            naming: None,
            resolution: Resolution::new(),
            rest,
            server_config: None,
            tunnel,
            unreachable: None,
        })
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

    /// The membership as it is saved.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Brings the interface up from the saved assignment, without the server.
    pub async fn bring_up(&mut self) -> Result<usize, MembershipError> {
        match (self.membership.enrolled(), self.membership.switch) {
            (Some(enrolled), Switch::On) => {
                let assignment = enrolled.assignment.clone();
                self.apply(&assignment, Look::Afresh).await
            }
            // A crash may have come between the switch and the interface's end.
            (Some(_), Switch::Off) => self.take_down().await.map(|()| 0),
            (None, _) => Ok(0),
        }
    }

    /// Looks at the interface and puts it in order; a failure is seen in the status.
    pub async fn restore(&mut self) -> Result<usize, MembershipError> {
        self.tunnel.insist();
        let result = self.bring_up().await;
        if let Err(error) = &result {
            self.note_failure(error);
        }
        result
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

    /// Where the server is.
    pub(super) fn whereabouts(&self) -> Whereabouts {
        Whereabouts { confirmed: self.rest.confirmed(), looked_for: self.rest.addresses() }
    }

    /// Goes back to the server that the key named when the address it gave for further calls cannot be reached, and the
    /// other way round when that one cannot be either.
    fn retreat(&mut self, error: RestError) -> Result<(), MembershipError> {
        if !error.is_unreachable() {
            return Err(self.verdict(error));
        }
        if *self.rest.server() == self.membership.server {
            let api = self.membership.enrolled().map(|enrolled| enrolled.api.clone());
            return match api.filter(|api| *api != self.membership.server) {
                Some(api) => Ok(self.rest.move_to(&api)?),
                None => Err(self.verdict(error)),
            };
        }
        tracing::warn!(%error, server = %self.membership.server, "going back to the server that the key names");
        self.unreachable = Some(self.rest.server().clone());
        Ok(self.rest.move_to(&self.membership.server)?)
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
        let assignment =
            control::assignment(&pulled, &self.membership.identity).map_err(|error| self.unusable(error))?;
        self.key_on_server = Some(control::host_key(&pulled));
        self.last_check_in = pulled.last_check_in();
        self.server_config = Some(pulled.server_config);
        Ok(self.with_known_names(self.with_known_relays(assignment)))
    }

    /// Configures the interface as `assignment` says.
    pub(super) async fn apply(&mut self, assignment: &Assignment, look: Look) -> Result<usize, MembershipError> {
        self.end_look_out().await;
        self.note_interface().await;
        let public = self.public_addresses();
        let changes = self.tunnel.apply(&self.membership, assignment, self.whereabouts(), &public, look).await?;
        self.tell_interface(assignment);
        self.put_names_in_order(assignment).await;
        Ok(changes)
    }

    /// Saves `assignment` as the one in force; a key on its way counts as redeemed.
    pub(super) fn keep(&mut self, assignment: Assignment) -> Result<(), MembershipError> {
        self.check_ins.note(self.last_check_in);
        let next = self.imagine(assignment);
        self.commit(next)?;
        let assignment = self.assignment();
        self.tell_interface(&assignment);
        Ok(())
    }

    /// The membership as it is once `assignment` is in force.
    pub(super) fn imagine(&self, assignment: Assignment) -> Membership {
        let enrolled = self.membership.enrolled();
        let mut fingerprints = enrolled.map(|enrolled| enrolled.fingerprints.clone()).unwrap_or_default();
        let mut sent = self.membership.sent.clone();
        let on_its_way = self.membership.redeeming();
        if enrolled.is_none() {
            fingerprints.extend(on_its_way.map(|redeeming| redeeming.fingerprint.clone()));
            // Whichever key it was that the server took, this host is enrolled now.
            fingerprints.append(&mut sent);
        }
        sent.retain(|fingerprint| !fingerprints.contains(fingerprint));
        let known = self.server_config.as_ref().map(control::server_facts).or_else(|| {
            enrolled.map(|enrolled| ServerFacts {
                api: Some(enrolled.api.clone()),
                name: enrolled.server_name.clone(),
                version: enrolled.server_version.clone(),
            })
        });
        let known = known.unwrap_or_default();
        let api = known.api.filter(|api| self.unreachable.as_ref() != Some(api));
        let redeeming = on_its_way.filter(|redeeming| !fingerprints.contains(&redeeming.fingerprint)).cloned();
        let mut announced = enrolled.map(|enrolled| enrolled.announced.clone()).unwrap_or_default();
        announced.extend(self.announced.iter().cloned());
        let phase = Phase::Enrolled(Box::new(Enrolled {
            announced,
            api: api.unwrap_or_else(|| self.rest.server().clone()),
            assignment,
            fingerprints,
            redeeming,
            server_addresses: self.rest.confirmed(),
            server_name: known.name,
            server_version: known.version,
        }));
        let last_check_in = self.last_check_in.or(self.membership.last_check_in);
        Membership { last_check_in, phase, sent, ..self.membership.clone() }
    }

    pub(super) fn unusable(&self, source: AssignmentError) -> MembershipError {
        MembershipError::Assignment { server: self.membership.server.clone(), source }
    }

    /// Takes over settings that were given now; the server is told with the next check-in.
    ///
    /// # Errors
    /// [`MembershipError::Store`] if they cannot be saved; they hold until then.
    pub fn adopt(&mut self, overrides: &Overrides) -> Result<(), MembershipError> {
        let policy = overrides.over(self.membership.policy.clone());
        if policy == self.membership.policy {
            return Ok(());
        }
        let trust = |policy: &Policy| (policy.allow_http, policy.ca_file.clone(), policy.pins.clone());
        if trust(&policy) != trust(&self.membership.policy) {
            self.rest = self.hands.rest(&Membership { policy: policy.clone(), ..self.membership.clone() })?;
            self.authenticated_at = None;
        }
        self.membership.policy = policy;
        self.has_new_settings = true;
        self.save()
    }

    /// Gives up connections that may be dead since this machine moved.
    pub fn reconnect(&mut self) -> Result<(), MembershipError> {
        Ok(self.rest.reconnect()?)
    }

    /// Saves the membership as it stands.
    pub(super) fn save(&mut self) -> Result<(), MembershipError> {
        self.commit(self.membership.clone())
    }

    /// Tells the server that memberships it wants gone are gone.
    pub(super) async fn confirm_leaving(&mut self, assignment: &Assignment) -> Result<(), MembershipError> {
        for (network, node_id) in &assignment.leaving {
            self.delete_node(network, *node_id).await?;
        }
        Ok(())
    }

    /// Refuses what needs an interface while the owner wants none.
    pub(super) fn refuse_switched_off(&self) -> Result<(), MembershipError> {
        match self.membership.switch {
            Switch::Off => Err(MembershipError::SwitchedOff(self.membership.server.clone())),
            Switch::On => Ok(()),
        }
    }

    /// Checks in and does one round with peers computed afresh.
    pub async fn sync(&mut self) -> Result<Round, MembershipError> {
        self.refuse_switched_off()?;
        self.talk(Talk { check_in: true, peers: Peers::Recomputed, prove: false }).await
    }

    /// Tells the server that this host is alive and where, and settings that it has not heard of.
    pub async fn check_in(&mut self) -> Result<(), MembershipError> {
        self.end_look_out().await;
        let have = self.tunnel.recent().await?;
        let port = tunnel::listen_port(&self.membership, have)?;
        let facts = self.facts();
        if self.has_new_settings {
            // Name, MTU and a fixed port are not taken from a check-in.
            self.report(&control::update_host(&self.membership, &facts, port)).await?;
            self.has_new_settings = false;
        }
        self.report(&control::check_in(&self.membership, &facts, port)).await?;
        self.note_told();
        // A relay that the server could not name before may have a name by now.
        self.name_relays().await;
        Ok(())
    }

    pub(super) async fn report(&mut self, update: &control::wire::HostUpdate) -> Result<(), MembershipError> {
        let host_id = self.membership.identity.host_id;
        self.call(async |rest| rest.update(host_id, update).await).await
    }

    /// Switches the interface on or off and remembers it.
    pub async fn switch(&mut self, switch: Switch) -> Result<(), MembershipError> {
        if self.membership.switch != switch {
            self.membership.switch = switch;
            self.save()?;
        }
        match switch {
            Switch::Off => self.take_down().await,
            Switch::On => self.bring_up().await.map(|_| ()),
        }
    }

    /// Removes the interface and gives up the work; the membership stays.
    pub async fn take_down(&mut self) -> Result<(), MembershipError> {
        self.note_interface().await;
        self.resolution.end().await;
        self.tunnel.remove().await?;
        self.tell_interface(&Assignment::default());
        Ok(())
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

/// The server's tokens live for 15 minutes (protocol page, "Host authentication").
const RENEWAL: Duration = Duration::from_secs(13 * 60);
