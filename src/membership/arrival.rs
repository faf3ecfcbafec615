//! The waits of a join: for a server in trouble, for the clock, for networks.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout, timeout_at};

use super::{Greeting, Limits, MembershipError, Work, tunnel::Look, watch::Watch};
use crate::{
    control::{Advice, Freshness},
    daemon::clock,
    model::{NetworkName, Patience, Stage},
    plan::{self, Joining, Verdict},
};

/// Until when networks are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Horizon {
    /// Whether the networks that the owner requires are waited for.
    is_for_required: bool,
    /// Until when a pull that is under way may take.
    longest: Instant,
    /// Until when the server may be in trouble.
    trouble: Instant,
    /// Until when there may be too few networks.
    until: Instant,
}

impl Horizon {
    /// `deadline` is the end of the time that the join may take; a host that is up waits for no server in trouble.
    pub(super) fn new(limits: Limits, greeting: Greeting, deadline: Instant) -> Self {
        let until = match limits.wait {
            Some(Patience::For(wait)) => clock::now() + wait.min(FOREVER),
            Some(Patience::Forever) => clock::now() + FOREVER,
            Some(Patience::Rest) | None => deadline,
        };
        let trouble = if greeting == Greeting::Again { clock::now() } else { until.max(deadline) };
        Self { is_for_required: limits.wait.is_some(), longest: until.max(deadline), trouble, until }
    }
}

/// Tries until something else than temporary trouble comes of it, or the next try would be past the deadline.
pub(super) async fn persist<T>(
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
        let mut wait = plan::backoff(failures, 128, after);
        if let Some(clock) = error.clock() {
            // Nothing was asked yet, and the clock may be set at any time.
            let left = Duration::from_secs(clock.bound.saturating_sub(clock::unix_seconds()));
            wait = wait.min(left.max(TICK)).min(GLANCE);
        }
        if clock::now() + wait >= deadline {
            return Err(error.into());
        }
        tracing::info!(%error, retry_in = ?wait, "trying again");
        sleep(wait).await;
    }
}

/// Waits until this machine's clock has come to the server's certificate, if `error` says that it is before that.
///
/// # Errors
/// `error` itself if it says something else, or if it still holds at the deadline.
pub(super) async fn await_clock(
    error: MembershipError,
    deadline: Instant,
    watch: &mut Watch<'_>,
) -> Result<(), MembershipError> {
    let MembershipError::Rest(rest) = &error else { return Err(error) };
    let Some(clock) = rest.clock() else { return Err(error) };
    watch.enter(Stage::Clock);
    tracing::warn!(%error, "nothing is sent before this machine's clock is right");
    // Whatever is wrong, it is not asked more often than this.
    let reached = async { tokio::join!(sleep(TICK), clock::reached(clock.bound)) };
    // Before the join as a whole is out of time, which would tell less.
    let left = deadline.saturating_duration_since(clock::now()).saturating_sub(TICK);
    match timeout(left, reached).await {
        Ok(_) => Ok(()),
        Err(_) => Err(error),
    }
}

pub(super) fn timed_out(work: &Work, waited: Duration) -> MembershipError {
    MembershipError::TimedOut { attempts: work.attempts(), server: work.membership.server.clone(), waited }
}

/// Pulls until the assignment is complete, configuring and saving what is there on the way.
///
/// Returns whether any network was assigned in time.
pub(super) async fn await_networks(
    work: &mut Work,
    greeting: Greeting,
    expected: Option<BTreeSet<NetworkName>>,
    horizon: Horizon,
    watch: &mut Watch<'_>,
) -> Result<bool, MembershipError> {
    let Horizon { is_for_required, longest, trouble, until } = horizon;
    let before = match greeting {
        Greeting::Further => work.assignment().nodes.into_keys().collect(),
        Greeting::Again | Greeting::New | Greeting::Offline => BTreeSet::new(),
    };
    let required = if is_for_required { work.membership.policy.require.names().clone() } else { BTreeSet::new() };
    let mut joining = Joining::new(expected, before).requiring(required);
    let mut freshness = Freshness::Recomputed;
    let started = clock::now();
    let mut told = started;
    loop {
        watch.enter(Stage::Networks);
        let round = async {
            if clock::now().saturating_duration_since(told) >= CHECK_IN {
                persist(trouble, async || work.check_in().await).await?;
                told = clock::now();
            }
            persist(trouble, async || work.pull(freshness).await).await
        };
        let Ok(pulled) = timeout_at(longest.into(), round).await else {
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
            Verdict::Await(wait) => {
                freshness = Freshness::Cached;
                if work.assignment() != assignment {
                    // What is here is in force, however long the rest takes.
                    work.keep(assignment.clone())?;
                }
                Some(wait)
            }
            Verdict::Done => None,
        };
        let Some(wait) = wait.filter(|wait| clock::now() + *wait < until) else {
            watch.enter(Stage::Save);
            let complete = !assignment.nodes.is_empty();
            work.keep(assignment)?;
            return Ok(complete);
        };
        watch.enter(Stage::Networks);
        sleep(wait).await;
    }
}

/// Time between two tries that a wrong clock stops, at least.
const TICK: Duration = Duration::from_secs(1);

/// The same at most.
const GLANCE: Duration = Duration::from_secs(5);

/// A server that did not hear of us for an hour forgets our peers (protocol page, "Peer list").
const CHECK_IN: Duration = Duration::from_secs(120);

/// Longer than anybody waits.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
