//! From a key to a configured interface.
//!
//! ```text
//! prepare ─► redeem ─► authenticate ─► networks ⇄ interface ─► save
//! (nothing leaves)  (once per key)   (pull until it is complete)
//! ```

use std::{collections::BTreeSet, future::Future, pin::pin, time::Instant};

use tokio::time::timeout_at;

use super::{
    Greeting, Hands, JoinRequest, Joined, Limits, MembershipError, Work,
    arrival::{Horizon, await_clock, await_networks, persist, timed_out},
    bond::Means,
    found::{choose_interface, found, lock_names},
    glance, leave,
    redeem::Redeemed,
    resume::{absent, admitted},
    spare::Spare,
    tunnel::{self, listen_port},
    watch::Watch,
};
use crate::{
    daemon::clock,
    model::{Chosen, InterfaceName, Membership, NetworkName, Patience, Phase, Redeeming, Server, Stage, Switch, Token},
};

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
        result = story(&mut work, greeting, request.token.as_ref(), request.limits(), &mut watch) => result,
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
    token: Option<&Token>,
    limits: Limits,
    watch: &mut Watch<'_>,
) -> Result<(), MembershipError> {
    let deadline = clock::now() + limits.timeout;
    // A host with a saved assignment is up: nobody has to wait for a server in trouble.
    let patience = if greeting == Greeting::Again { clock::now() } else { deadline };
    let expected = match timeout_at(deadline.into(), enter(work, greeting, token, patience, watch)).await {
        Ok(entered) => entered?,
        Err(_) => return Err(timed_out(work, limits.timeout)),
    };
    let horizon = Horizon::new(limits, greeting, deadline);
    let complete = await_networks(work, greeting, expected, horizon, watch).await?;
    work.name_relays().await;
    if complete {
        return Ok(());
    }
    let waited = match limits.wait {
        Some(Patience::For(wait)) => wait,
        Some(Patience::Forever | Patience::Rest) | None => limits.timeout,
    };
    Err(MembershipError::NoNetworks { server: work.membership.server.clone(), waited })
}

/// Redeems and authenticates; returns the networks to wait for, as far as they are known.
async fn enter(
    work: &mut Work,
    greeting: Greeting,
    token: Option<&Token>,
    patience: Instant,
    watch: &mut Watch<'_>,
) -> Result<Option<BTreeSet<NetworkName>>, MembershipError> {
    let redeemed = match greeting {
        Greeting::Again | Greeting::Offline => Redeemed::Earlier,
        Greeting::Further | Greeting::New => {
            if let Some(token) = token {
                work.settle_half_sent(token).await?;
                work.take_up(token);
            }
            redeem(work, patience, watch).await?
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

/// Redeems the key once this machine's clock is right.
async fn redeem(work: &mut Work, patience: Instant, watch: &mut Watch<'_>) -> Result<Redeemed, MembershipError> {
    watch.enter(Stage::Redeem);
    let have = work.tunnel.recent().await?;
    let port = listen_port(&work.membership, have)?;
    work.look_out(port, &[]);
    loop {
        let before = work.membership.phase.clone();
        match work.redeem(port).await {
            Ok(redeemed) => return Ok(redeemed),
            Err(error) => await_clock(error, patience, watch).await?,
        }
        // Nothing was sent.
        work.membership.phase = before;
        watch.enter(Stage::Redeem);
    }
}

/// The server that is meant.
pub(super) fn server_of(hands: &Hands, request: &JoinRequest) -> Result<Server, MembershipError> {
    match (&request.token, &request.server) {
        (Some(token), _) => Ok(token.server().clone()),
        (None, Some(server)) => Ok(server.clone()),
        (None, None) => hands.only_server(),
    }
}

/// Makes everything ready that needs no server, so that whatever this machine lacks is found before a key is spent.
async fn prepare(hands: &Hands, request: &JoinRequest) -> Result<(Work, Greeting), MembershipError> {
    let (mut work, greeting, before) = open(hands, request).await?;
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
) -> Result<(Work, Greeting, Option<InterfaceName>), MembershipError> {
    let server = server_of(hands, request)?;
    let lock = hands.store.lock(&server)?;
    let saved = admitted(hands, &server, request.choice, Means::Act).await?;
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
pub(super) fn resume(mut membership: Membership, request: &JoinRequest) -> (Membership, Greeting) {
    membership.policy = request.overrides.over(membership.policy);
    membership.switch = Switch::On;
    if let Some(interface) = &request.interface {
        membership.interface = interface.clone();
    }
    let Membership { phase, sent, .. } = &mut membership;
    let greeting = match (phase, &request.token) {
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
        // One that was sent is settled before another.
        (Phase::Enrolled(enrolled), Some(_)) if enrolled.redeeming.as_ref().is_some_and(|key| is_sent(key, sent)) => {
            Greeting::Further
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

fn is_sent(redeeming: &Redeeming, sent: &BTreeSet<String>) -> bool {
    sent.contains(&redeeming.fingerprint)
}

impl Work {
    /// Redeems a further key, the first that is good of `tokens`, for a membership that is being served, or without one
    /// goes on with the key on its way, and waits a while for what it brings.
    ///
    /// # Errors
    /// Those of a join; the membership goes on as it was.
    pub async fn redeem_further(
        &mut self,
        tokens: &[Token],
        limits: Limits,
        report: &mut (dyn FnMut(Stage) + Send),
    ) -> Result<(Greeting, Chosen), MembershipError> {
        let (token, more) = tokens.split_first().map_or((None, tokens), |(token, more)| (Some(token), more));
        let mut spare = Spare::new(Some(&self.membership), token, more);
        loop {
            if !self.has_use_for(spare.token()) {
                return Ok((Greeting::Again, spare.chosen()));
            }
            let mut watch = Watch::new(&mut *report);
            match story(self, Greeting::Further, spare.token(), limits, &mut watch).await {
                Ok(()) => return Ok((Greeting::Further, spare.chosen())),
                Err(error) => spare.pass_over(error)?,
            }
        }
    }
}
