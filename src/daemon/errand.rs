//! Pieces of work on a membership: what a session wants, what somebody orders.

use futures_util::future::LocalBoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::{
    control::{PeerSnapshot, wire},
    ipc::{Answer, Failure},
    membership::{Farewell, Greeting, Limits, MembershipError, News, Round, SignOff, Work, describe},
    model::{Chosen, Listed, NetworkName, Outside, Overrides, Stage, Switch, SyncReport, Token},
    plan::{Action, Outcome, Peers, Talk, Trouble},
};

use super::clock;

/// Something to do with a membership's work.
#[derive(Debug)]
pub(super) enum Errand {
    /// What the session wants.
    Act(Action, Option<Box<PeerSnapshot>>),
    /// Take over names in a network that were told to everybody.
    Names(NetworkName, Vec<wire::DnsEntry>),
    /// What somebody wants.
    Obey(Order),
    /// Take in where this host is seen from outside.
    Relocate(Outside),
    /// Put the interface in order from what is saved, before anything else.
    Restore,
}

/// Something that somebody outside wants, and where the answer goes.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// What can be ordered.
#[derive(Debug)]
pub(super) enum Command {
    /// Take over settings.
    Adopt(Box<Overrides>),
    /// Take the interface down until further notice.
    Down,
    /// Take over settings and redeem a further key, or go on with the one on its way.
    Further {
        limits: Limits,
        overrides: Box<Overrides>,
        progress: mpsc::UnboundedSender<Stage>,
        /// The first that is good is redeemed.
        tokens: Vec<Token>,
    },
    /// Leave the server, or one network of it.
    Leave(Option<NetworkName>, SignOff),
    /// Make a new WireGuard key.
    RotateKey,
    /// Look again.
    Status,
    /// Do one round now.
    Sync,
    /// Take the interface up again.
    Up,
}

/// How an order was carried out.
pub(super) type Reply = Result<Obeyed, MembershipError>;

/// What came of an order.
#[derive(Debug, Default)]
pub(super) struct Obeyed {
    /// Which key the server took.
    pub(super) chosen: Chosen,
    /// What did not work on the way.
    pub(super) failures: Vec<Failure>,
    /// How the server took a further key.
    pub(super) greeting: Option<Greeting>,
    /// Hosts that were left and that their servers still list.
    pub(super) listed: Vec<Listed>,
}

/// Work that came back.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) after: After,
    /// What to say to whoever ordered it, once everybody can see it.
    pub(super) answer: Option<(oneshot::Sender<Reply>, Reply)>,
    pub(super) outcome: Outcome,
    /// What a round did.
    pub(super) sync: Option<SyncReport>,
}

/// How a keeper goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// As before.
    GoOn,
    /// The membership was left.
    Left,
    /// The server deleted this host.
    SetAside,
    /// The owner switched the interface.
    Switched,
}

/// Carries an errand out; the work comes back with the result.
///
/// What the session wants is given up when `interrupted`, and comes again; what somebody ordered is not.
pub(super) fn carry_out(
    mut work: Box<Work>,
    errand: Errand,
    interrupted: oneshot::Receiver<()>,
) -> LocalBoxFuture<'static, (Box<Work>, Done)> {
    Box::pin(async move {
        let done = match errand {
            Errand::Act(action @ Action::Round(_), pushed) => tokio::select! {
                done = act(&mut work, action, pushed) => done,
                Ok(()) = interrupted => done(Ok(Outcome::InOrder)),
            },
            Errand::Act(action, pushed) => act(&mut work, action, pushed).await,
            Errand::Names(network, entries) => match work.take_names(&network, &entries).await {
                Ok(round) => Done { sync: report(round), ..done(Ok(Outcome::InOrder)) },
                Err(error) => done(Err(error)),
            },
            Errand::Obey(Order { command, reply }) => {
                let (done, answer) = obey(&mut work, command).await;
                Done { answer: Some((reply, answer)), ..done }
            }
            Errand::Relocate(found) => {
                done(work.relocate(found).map(|news| if news { Outcome::Untold } else { Outcome::InOrder }))
            }
            Errand::Restore => done(work.restore().await.map(|_| Outcome::InOrder)),
        };
        (work, done)
    })
}

async fn act(work: &mut Work, action: Action, pushed: Option<Box<PeerSnapshot>>) -> Done {
    match action {
        // Connections are the keeper's.
        Action::Acknowledge | Action::Reconnect => done(Ok(Outcome::InOrder)),
        Action::Observe => done(work.restore().await.map(|_| Outcome::InOrder)),
        Action::Rotate => done(work.rotate_key().await.map(|()| synced(true, true))),
        Action::Round(talk) => round(work, talk).await,
        Action::SelectGateway => match work.select_gateways().await {
            Ok(Some(round)) => Done { sync: Some(written(round)), ..done(Ok(synced(false, true))) },
            Ok(None) => done(Ok(Outcome::InOrder)),
            Err(error) => done(Err(error)),
        },
        Action::SetAside => {
            if let Err(error) = work.set_aside().await {
                tracing::error!(error = %describe(&error), "a deleted membership is not quite gone");
            }
            Done { after: After::SetAside, ..done(Ok(Outcome::InOrder)) }
        }
        Action::TakeIn => match pushed {
            Some(snapshot) => take_in(work, &snapshot).await,
            None => done(Ok(Outcome::InOrder)),
        },
    }
}

async fn take_in(work: &mut Work, snapshot: &PeerSnapshot) -> Done {
    match work.take_in(snapshot).await {
        Ok(round) => Done { sync: report(round), ..done(Ok(Outcome::InOrder)) },
        Err(error @ MembershipError::Assignment { .. }) => {
            tracing::warn!(error = %describe(&error), "pushed peers are not applied");
            done(Ok(Outcome::Unusable))
        }
        Err(error) => done(Err(error)),
    }
}

async fn round(work: &mut Work, talk: Talk) -> Done {
    match work.talk(talk).await {
        Ok(round) => {
            if round.changes > 0 {
                tracing::info!(changes = round.changes, "in step with the server again");
            }
            let outcome = synced(talk.check_in, talk.peers == Peers::Recomputed);
            Done { sync: Some(written(round)), ..done(Ok(outcome)) }
        }
        Err(error) => done(Err(error)),
    }
}

async fn obey(work: &mut Work, command: Command) -> (Done, Reply) {
    match command {
        Command::Down => switch(work, Switch::Off).await,
        Command::Adopt(overrides) => {
            let adopted = match work.adopt(&overrides) {
                Ok(()) => work.restore().await.map(|_| ()),
                Err(error) => Err(error),
            };
            answered(adopted, Outcome::InOrder)
        }
        Command::Further { limits, overrides, progress, tokens } => {
            let taken = further(work, &overrides, progress, limits, &tokens).await;
            let obeyed = |(greeting, chosen)| Obeyed { chosen, greeting: Some(greeting), ..Obeyed::default() };
            (done(Ok(Outcome::InOrder)), taken.map(obeyed))
        }
        Command::Leave(None, sign_off) => {
            let Farewell { failures, listed } = work.leave_server(sign_off).await;
            let failures = failures.iter().map(|(step, error)| Failure {
                class: error.class(),
                message: format!("could not {step}: {}", describe(error)),
            });
            (
                Done { after: After::Left, ..done(Ok(Outcome::InOrder)) },
                Ok(Obeyed { failures: failures.collect(), listed, ..Obeyed::default() }),
            )
        }
        Command::Leave(Some(network), _) => {
            let left = work.leave_network(&network).await;
            answered(left, synced(false, true))
        }
        Command::RotateKey => answered(work.rotate_key().await, synced(true, true)),
        Command::Status => {
            // A failure is part of the status.
            work.status().await;
            (done(Ok(Outcome::InOrder)), Ok(Obeyed::default()))
        }
        Command::Sync => {
            let talk = Talk { check_in: true, peers: Peers::Recomputed, prove: false };
            match work.talk(talk).await {
                Ok(round) => {
                    let done = Done { sync: Some(written(round)), ..done(Ok(synced(true, true))) };
                    (done, Ok(Obeyed::default()))
                }
                Err(error) => (Done { outcome: outcome_of(&error), ..done(Ok(Outcome::InOrder)) }, Err(error)),
            }
        }
        Command::Up => switch(work, Switch::On).await,
    }
}

/// How the server took a further key.
async fn further(
    work: &mut Work,
    overrides: &Overrides,
    progress: mpsc::UnboundedSender<Stage>,
    limits: Limits,
    tokens: &[Token],
) -> Result<(Greeting, Chosen), MembershipError> {
    work.adopt(overrides)?;
    let mut report = |stage| {
        let _ = progress.send(stage);
    };
    work.redeem_further(tokens, limits, &mut report).await
}

async fn switch(work: &mut Work, switch: Switch) -> (Done, Reply) {
    let switched = work.switch(switch).await;
    let outcome = switched.as_ref().err().map_or(Outcome::InOrder, outcome_of);
    (Done { after: After::Switched, ..done(Ok(outcome)) }, switched.map(|()| Obeyed::default()))
}

/// An order that talks to the server tells the session how that went.
fn answered(result: Result<(), MembershipError>, good: Outcome) -> (Done, Reply) {
    let outcome = match &result {
        Ok(()) => good,
        // Something that was not there to begin with says nothing of the server.
        Err(MembershipError::NotInNetwork(_)) => Outcome::InOrder,
        Err(error) => outcome_of(error),
    };
    (done(Ok(outcome)), result.map(|()| Obeyed::default()))
}

fn done(result: Result<Outcome, MembershipError>) -> Done {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(error = %describe(&error), "this did not work, and is tried again");
            outcome_of(&error)
        }
    };
    Done { after: After::GoOn, answer: None, outcome, sync: None }
}

fn outcome_of(error: &MembershipError) -> Outcome {
    match error {
        MembershipError::Link(_) | MembershipError::Overlap { .. } | MembershipError::PortTaken(_) => Outcome::Stuck,
        MembershipError::Deleted(_) => Outcome::Failed { trouble: Trouble::Gone, retry_after: None },
        MembershipError::Assignment { .. }
        | MembershipError::Firewall(_)
        | MembershipError::Held { .. }
        | MembershipError::Host { .. }
        | MembershipError::Import(_)
        | MembershipError::Inherited(_)
        | MembershipError::NoNetworks { .. }
        | MembershipError::NoneTaken { .. }
        | MembershipError::NotEnrolled
        | MembershipError::NotInNetwork(_)
        | MembershipError::NotServing(_)
        | MembershipError::Proof(_)
        | MembershipError::Push(_)
        | MembershipError::Refused { .. }
        | MembershipError::Rest(_)
        | MembershipError::Several
        | MembershipError::Stopped
        | MembershipError::Store(_)
        | MembershipError::SwitchedOff(_)
        | MembershipError::TimedOut { .. }
        | MembershipError::Trust(_)
        | MembershipError::Unclear { .. }
        | MembershipError::Unconfirmed(_) => {
            Outcome::Failed { trouble: Trouble::Any, retry_after: error.retry_after() }
        }
    }
}

fn synced(checked_in: bool, recomputed: bool) -> Outcome {
    Outcome::Synced { checked_in, recomputed }
}

/// A push is worth mentioning only if it brought something.
fn report(round: Round) -> Option<SyncReport> {
    (round.news != News::Nothing).then(|| written(round))
}

fn written(round: Round) -> SyncReport {
    SyncReport { at: clock::unix_seconds(), changes: round.changes, news: round.news != News::Nothing }
}

/// How an order's end is told to somebody at the socket.
pub(super) fn answer(reply: Reply) -> Answer {
    match reply {
        Ok(Obeyed { chosen: _, failures, greeting: _, listed }) => Answer::Done { failures, listed },
        Err(error) => Answer::Failed(failure(&error)),
    }
}

pub(super) fn failure(error: &MembershipError) -> Failure {
    Failure { class: error.class(), message: describe(error) }
}
