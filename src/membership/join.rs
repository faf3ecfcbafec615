//! From a key to a configured interface.
//!
//! ```text
//! prepare ─► redeem ─► authenticate ─► networks ⇄ interface ─► save
//! (nothing leaves)  (once per key)   (pull until it is complete)
//! ```

use std::{
    collections::BTreeSet,
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout_at};

use super::{
    Hands, MembershipError, Work,
    bond::Means,
    found::{choose_interface, found, lock_names},
    glance, leave,
    redeem::Redeemed,
    resume::{absent, admitted},
    spare::Spare,
    tunnel::{self, Look, listen_port},
    watch::Watch,
};
use crate::{
    control::{Advice, Freshness},
    daemon::clock,
    model::{
        Backend, Chosen, IdentityChoice, InterfaceName, Membership, NetworkName, Overrides, Phase, Redeeming, Server,
        Stage, Switch, Token,
    },
    plan::{self, Joining, Verdict},
};

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// `None` picks the kernel if it has WireGuard.
    pub backend: Option<Backend>,
    /// Whose the identity is, where that is in doubt; `None` leaves it to the agent.
    pub choice: Option<IdentityChoice>,
    /// `None` takes the saved one, else the first free `enrollN`.
    pub interface: Option<InterfaceName>,
    /// Settings given now.
    pub overrides: Overrides,
    /// The server to go on with when there is no key; `None` is the only one there is.
    pub server: Option<Server>,
    /// Keys to try in this order, each when the server refused the one before for good.
    pub spare: Vec<Token>,
    /// How long all of it may take with one key.
    pub timeout: Duration,
    /// The key; `None` goes on with a membership that is there.
    pub token: Option<Token>,
}

/// How the server took us in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Already enrolled with this key: nothing was spent.
    Again,
    /// Already enrolled; this further key was redeemed.
    Further,
    /// Enrolled now.
    New,
    /// Already enrolled, and the server did not confirm it: the saved assignment is in force.
    Offline,
}

impl Greeting {
    /// In one word, for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Again => "already-enrolled",
            Self::Further => "further-key-redeemed",
            Self::New => "enrolled",
            Self::Offline => "already-enrolled-offline",
        }
    }
}

/// A host in its networks.
#[derive(Debug)]
pub struct Joined {
    /// Which key the server took.
    pub chosen: Chosen,
    /// Why the server did not confirm it; always there for [`Greeting::Offline`], never otherwise.
    pub failure: Option<MembershipError>,
    /// How the server took us in.
    pub greeting: Greeting,
    /// Everything needed to stay in step.
    pub work: Work,
    /// How long each stage took, in order of their first appearance.
    pub timings: Vec<(Stage, Duration)>,
}

/// Joins: ends with a configured interface and a saved membership, or with an error and nothing half done.
///
/// `stop` ends it early; the next join goes on from there.
pub async fn join(
    hands: &Hands,
    request: &JoinRequest,
    report: &mut (dyn FnMut(Stage) + Send),
    stop: impl Future<Output = ()>,
) -> Result<Joined, MembershipError> {
    leave::settle_before_joining(hands, request).await?;
    let mut spare = Spare::of(hands, request)?;
    let mut stop = pin!(stop);
    loop {
        match join_once(hands, &spare.request(request), &mut *report, stop.as_mut()).await {
            Ok(joined) => return Ok(Joined { chosen: spare.chosen(), ..joined }),
            Err(error) => spare.pass_over(error)?,
        }
    }
}

async fn join_once(
    hands: &Hands,
    request: &JoinRequest,
    report: &mut (dyn FnMut(Stage) + Send),
    stop: impl Future<Output = ()>,
) -> Result<Joined, MembershipError> {
    let mut watch = Watch::new(report);
    watch.enter(Stage::Prepare);
    let (mut work, mut greeting) = prepare(hands, request).await?;
    let result = tokio::select! {
        result = story(&mut work, greeting, request.timeout, &mut watch) => result,
        () = stop => Err(MembershipError::Stopped),
    };
    let failure = match result {
        Ok(()) => None,
        // What was up before stays up, whatever the server says now.
        Err(error) if is_up(&work, greeting) && !matches!(error, MembershipError::Stopped) => {
            greeting = Greeting::Offline;
            work.note_failure(&error);
            Some(error)
        }
        Err(error) => {
            if work.membership.enrolled().is_none()
                && let Err(failure) = work.take_down().await
            {
                tracing::warn!(error = %failure, "an unfinished interface stays");
            }
            return Err(error);
        }
    };
    Ok(Joined { chosen: Chosen::default(), failure, greeting, work, timings: watch.finish() })
}

/// Whether the interface carries what was assigned before this join.
fn is_up(work: &Work, greeting: Greeting) -> bool {
    greeting == Greeting::Again
        && work.membership.enrolled().is_some_and(|enrolled| !enrolled.assignment.nodes.is_empty())
}

/// What the server has its part in.
async fn story(
    work: &mut Work,
    greeting: Greeting,
    timeout: Duration,
    watch: &mut Watch<'_>,
) -> Result<(), MembershipError> {
    let deadline = clock::now() + timeout;
    // A host with a saved assignment is up: nobody has to wait for a server in trouble.
    let patience = if greeting == Greeting::Again { clock::now() } else { deadline };
    let expected = match timeout_at(deadline.into(), enter(work, greeting, patience, watch)).await {
        Ok(entered) => entered?,
        Err(_) => return Err(timed_out(work, timeout)),
    };
    let complete = await_networks(work, greeting, expected, deadline, patience, watch).await?;
    work.name_relays().await;
    if complete {
        return Ok(());
    }
    Err(MembershipError::NoNetworks { server: work.membership.server.clone(), waited: timeout })
}

/// Redeems and authenticates; returns the networks to wait for, as far as they are known.
async fn enter(
    work: &mut Work,
    greeting: Greeting,
    patience: Instant,
    watch: &mut Watch<'_>,
) -> Result<Option<BTreeSet<NetworkName>>, MembershipError> {
    let redeemed = match greeting {
        Greeting::Again | Greeting::Offline => Redeemed::Earlier,
        Greeting::Further | Greeting::New => {
            watch.enter(Stage::Redeem);
            let have = work.tunnel.recent().await?;
            let port = listen_port(&work.membership, have)?;
            work.look_out(port, &[]);
            work.redeem(port).await?
        }
    };
    watch.enter(Stage::Authenticate);
    persist(patience, async || work.authenticate().await).await?;
    let known: BTreeSet<_> = work.assignment().nodes.into_keys().collect();
    match redeemed {
        Redeemed::Just { networks } => return Ok(networks),
        Redeemed::Earlier => {}
    }
    // A server that did not hear of us for an hour forgets our peers (protocol page, "Peer list").
    persist(patience, async || work.check_in().await).await?;
    // Of a key that spends nothing nothing new is awaited.
    Ok(Some(known).filter(|known| greeting == Greeting::Again && !known.is_empty()))
}

/// Tries until something else than temporary trouble comes of it, or the next try would be past the deadline.
async fn persist<T>(
    deadline: Instant,
    mut attempt: impl AsyncFnMut() -> Result<T, MembershipError>,
) -> Result<T, MembershipError> {
    let mut failures = 0;
    loop {
        let error = match attempt().await {
            Err(MembershipError::Rest(error)) => error,
            other => return other,
        };
        let Advice::RetryAfter(after) = error.advice() else { return Err(error.into()) };
        failures += 1;
        let wait = plan::backoff(failures, 128, after);
        if clock::now() + wait >= deadline {
            return Err(error.into());
        }
        tracing::info!(%error, retry_in = ?wait, "trying again");
        sleep(wait).await;
    }
}

fn timed_out(work: &Work, waited: Duration) -> MembershipError {
    MembershipError::TimedOut { attempts: work.attempts(), server: work.membership.server.clone(), waited }
}

/// Opens the membership for a rehearsal; returns it and whether the host is enrolled with the key at hand.
pub(super) async fn ready(hands: &Hands, request: &JoinRequest) -> Result<(Work, bool), MembershipError> {
    let (work, greeting, _) = open(hands, request, Means::Look).await?;
    Ok((work, greeting == Greeting::Again))
}

/// Makes everything ready that needs no server, so that whatever this machine lacks is found before a key is spent.
async fn prepare(hands: &Hands, request: &JoinRequest) -> Result<(Work, Greeting), MembershipError> {
    let (mut work, greeting, before) = open(hands, request, Means::Act).await?;
    let have = work.tunnel.recent().await?;
    tunnel::refuse_taken_port(&work.membership, have)?;
    if work.has_new_settings && work.membership.enrolled().is_some() {
        work.save()?;
    }
    if let Some(before) = before.filter(|before| *before != work.membership.interface) {
        work.abandon(before).await?;
    }
    work.bring_up().await?;
    Ok((work, greeting))
}

/// Opens what a join works on: membership, backend and interface, and the name the interface had before.
async fn open(
    hands: &Hands,
    request: &JoinRequest,
    means: Means,
) -> Result<(Work, Greeting, Option<InterfaceName>), MembershipError> {
    let server = match (&request.token, &request.server) {
        (Some(token), _) => token.server().clone(),
        (None, Some(server)) => server.clone(),
        (None, None) => hands.only_server()?,
    };
    let lock = hands.store.lock(&server)?;
    let saved = admitted(hands, &server, request.choice, means).await?;
    let mut naming = None;
    let (membership, greeting) = match saved.clone() {
        Some(membership) => resume(membership, request),
        None if hands.store.is_set_aside(&server) => return Err(MembershipError::Deleted(server)),
        None => {
            let none = || absent(hands, &server);
            let token = request.token.as_ref().ok_or_else(none)?;
            naming = Some(lock_names(hands).await?);
            let interface = choose_interface(hands, request, &server).await?;
            (found(hands, token, interface, request)?, Greeting::New)
        }
    };
    let backend = glance::choose(request.backend, &membership).await?;
    let before = saved.as_ref().map(|membership| membership.interface.clone());
    let has_new_settings = saved.is_some_and(|saved| {
        saved.policy != membership.policy
            || saved.interface != membership.interface
            || saved.switch != membership.switch
    });
    let mut work = Work::new(hands.clone(), lock, membership, backend)?;
    work.naming = naming;
    work.has_new_settings = has_new_settings;
    // An interface of somebody else is found here.
    work.tunnel.observe().await?;
    Ok((work, greeting, before))
}

/// Goes on with a saved membership: the identity stays whatever key is shown.
fn resume(mut membership: Membership, request: &JoinRequest) -> (Membership, Greeting) {
    membership.policy = request.overrides.over(membership.policy);
    membership.switch = Switch::On;
    if let Some(interface) = &request.interface {
        membership.interface = interface.clone();
    }
    let greeting = match (&mut membership.phase, &request.token) {
        (Phase::Pending { redeeming }, Some(token)) => {
            if redeeming.fingerprint != token.fingerprint() {
                // When a key was last sent with this identity matters whichever it was.
                *redeeming = Redeeming { sent_at: redeeming.sent_at, ..Redeeming::new(token) };
            }
            Greeting::New
        }
        (Phase::Pending { .. }, None) => Greeting::New,
        (Phase::Enrolled(enrolled), Some(token)) if enrolled.fingerprints.contains(&token.fingerprint()) => {
            Greeting::Again
        }
        (Phase::Enrolled(enrolled), Some(token)) => {
            let redeeming = enrolled.redeeming.take().filter(|redeeming| redeeming.fingerprint == token.fingerprint());
            enrolled.redeeming = redeeming.or_else(|| Some(Redeeming::new(token)));
            Greeting::Further
        }
        (Phase::Enrolled(enrolled), None) if enrolled.redeeming.is_some() => Greeting::Further,
        (Phase::Enrolled(_), None) => Greeting::Again,
    };
    (membership, greeting)
}

/// Redeems a further key, the first that is good of `tokens`, for a membership that is being served, or without one goes on with the key on its way, and
/// waits a while for what it brings.
///
/// # Errors
/// Those of a join; the membership goes on as it was.
pub(super) async fn further(
    work: &mut Work,
    tokens: &[Token],
    timeout: Duration,
    report: &mut (dyn FnMut(Stage) + Send),
) -> Result<(Greeting, Chosen), MembershipError> {
    let (token, more) = tokens.split_first().map_or((None, tokens), |(token, more)| (Some(token), more));
    let mut spare = Spare::new(Some(&work.membership), token, more);
    loop {
        if !work.take_up(spare.token()) {
            return Ok((Greeting::Again, spare.chosen()));
        }
        let mut watch = Watch::new(&mut *report);
        match story(work, Greeting::Further, timeout, &mut watch).await {
            Ok(()) => return Ok((Greeting::Further, spare.chosen())),
            Err(error) => spare.pass_over(error)?,
        }
    }
}

/// Pulls until the assignment is complete, configuring what is there on the way; saves it once.
///
/// Returns whether any network was assigned by the deadline.
async fn await_networks(
    work: &mut Work,
    greeting: Greeting,
    expected: Option<BTreeSet<NetworkName>>,
    deadline: Instant,
    patience: Instant,
    watch: &mut Watch<'_>,
) -> Result<bool, MembershipError> {
    let before = match greeting {
        Greeting::Further => work.assignment().nodes.into_keys().collect(),
        Greeting::Again | Greeting::New | Greeting::Offline => BTreeSet::new(),
    };
    let mut joining = Joining::new(expected, before);
    let mut freshness = Freshness::Recomputed;
    let started = clock::now();
    loop {
        watch.enter(Stage::Networks);
        let pulled = timeout_at(deadline.into(), persist(patience, async || work.pull(freshness).await)).await;
        let Ok(pulled) = pulled else {
            return Err(timed_out(work, clock::now().saturating_duration_since(started)));
        };
        let assignment = pulled?;
        work.promote_key().await?;
        if !assignment.nodes.is_empty() {
            watch.enter(Stage::Interface);
            let changes = work.apply(&assignment, Look::Afresh).await?;
            work.tell_port(&assignment, changes).await?;
        }
        let wait = match joining.judge(&assignment, clock::now()) {
            Verdict::Again(wait) => {
                freshness = Freshness::Cached;
                Some(wait)
            }
            Verdict::AgainFresh(wait) => {
                freshness = Freshness::Recomputed;
                Some(wait)
            }
            Verdict::Done => None,
        };
        let Some(wait) = wait.filter(|wait| clock::now() + *wait < deadline) else {
            watch.enter(Stage::Save);
            let complete = !assignment.nodes.is_empty();
            work.keep(assignment)?;
            return Ok(complete);
        };
        watch.enter(Stage::Networks);
        sleep(wait).await;
    }
}
