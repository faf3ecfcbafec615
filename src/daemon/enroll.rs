//! Memberships that are not there yet: keys from the configuration, keys somebody brings, state that cannot be read.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{board::Board, clock, keeper::random_byte};
use crate::{
    control::ClockProblem,
    membership::{self, Hands, HoldWatch, JoinRequest, MembershipError, Work, describe},
    model::{Backend, Chosen, Class, Enrolling, EnrollingState, Overrides, PassedOver, Server, Stage, Token},
    plan,
};

/// A membership that the configuration asks for.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// How to join.
    pub request: JoinRequest,
    /// The server that its key names.
    pub server: Server,
    /// Told when the server has taken a key of it; `None` if nobody wants to know.
    pub taken: Option<mpsc::UnboundedSender<()>>,
}

impl Enrollment {
    /// Tells that a key was taken if it turns out that this was so before: the end of the agent may have come between.
    pub(super) fn settle(&self, hands: &Hands) {
        let Some(taken) = &self.taken else { return };
        let membership = match hands.store.load(&self.server) {
            Ok(membership) => membership,
            Err(error) => {
                tracing::debug!(%error, "what a key was used for cannot be told");
                return;
            }
        };
        let enrolled = membership.as_ref().and_then(|membership| membership.enrolled());
        let mut keys = self.request.token.iter().chain(&self.request.spare).map(Token::fingerprint);
        if enrolled.is_some_and(|enrolled| keys.any(|key| enrolled.fingerprints.contains(&key))) {
            let _ = taken.send(());
        }
    }
}

/// Joins again and again until a server takes this host in; `None` if there is no key any more to do that with.
pub(super) async fn persist(
    hands: Hands,
    enrollment: Enrollment,
    first: Duration,
    backend: Option<Backend>,
    board: Board,
) -> Option<Box<Work>> {
    let Enrollment { request, server, taken: _ } = &enrollment;
    let mut shown = Enrolling {
        attempts: 0,
        key: request.token.as_ref().map(Token::fingerprint),
        last_error: None,
        next_at: None,
        server: server.to_string(),
        state: EnrollingState::Waiting,
    };
    let mut wait = first;
    let mut clock_problem = None;
    loop {
        shown.next_at = (!wait.is_zero()).then(|| clock::unix_seconds() + wait.as_secs());
        board.enroll(server, Some(shown.clone()));
        rest(wait, clock_problem).await;
        shown.next_at = None;
        shown.attempts += 1;
        shown.state = EnrollingState::Trying;
        board.enroll(server, Some(shown.clone()));
        let mut report = |stage| {
            let state = if stage == Stage::Clock { EnrollingState::Clock } else { EnrollingState::Trying };
            if std::mem::replace(&mut shown.state, state) != state {
                board.enroll(server, Some(shown.clone()));
            }
        };
        let error = match once(&hands, request, &mut report).await {
            Ok(joined) => {
                let Chosen { key, passed_over } = joined.chosen;
                let passed_over = PassedOver::list(&passed_over);
                tracing::info!(%server, key, passed_over, "enrolled");
                enrollment.settle(&hands);
                board.enroll(server, None);
                return Some(Box::new(joined.work));
            }
            Err(error) => error,
        };
        // Enrolled, if perhaps without a network yet: from here on it is served.
        if let Ok(work) = Work::resume(&hands, server, backend).await {
            enrollment.settle(&hands);
            board.enroll(server, None);
            return Some(Box::new(work));
        }
        if matches!(error, MembershipError::Inherited(_) | MembershipError::NotEnrolled) {
            board.enroll(server, None);
            return None;
        }
        wait = patience(&error, shown.attempts);
        if matches!(error, MembershipError::Unclear { .. }) {
            wait = UNCLEAR;
            if let Err(error) = membership::forgive(&hands, server) {
                tracing::warn!(%server, error = %describe(&error), "the key is not sent again");
            }
        }
        tracing::warn!(%server, error = %describe(&error), retry_in = ?wait, "not enrolled yet");
        clock_problem = error.clock();
        shown.state = if clock_problem.is_some() { EnrollingState::Clock } else { EnrollingState::Waiting };
        shown.last_error = Some(error.report(clock::unix_seconds()));
    }
}

/// Waits for the next attempt, which comes at once when this machine's clock is not in the way of it any more.
async fn rest(wait: Duration, clock: Option<ClockProblem>) {
    match clock {
        None => sleep(wait).await,
        Some(ClockProblem { bound, now: _ }) => {
            // Either is good.
            let _ = timeout(wait, clock::reached(bound)).await;
        }
    }
}

/// One attempt to join, as far as it goes.
pub(super) async fn once(
    hands: &Hands,
    request: &JoinRequest,
    report: &mut (dyn FnMut(Stage) + Send),
) -> Result<membership::Joined, MembershipError> {
    membership::join(hands, request, report, std::future::pending()).await
}

/// Opens a saved membership again and again until it can be worked on; `None` if no key of it was redeemed yet, or it is
/// another machine's.
///
/// `overrides` are what the configuration says now. `begun` is told after the first attempt unless that went well; then it comes back.
pub(super) async fn open(
    hands: Hands,
    server: Server,
    backend: Option<Backend>,
    overrides: Overrides,
    board: Board,
    begun: oneshot::Sender<()>,
) -> (Option<Box<Work>>, Option<oneshot::Sender<()>>) {
    let mut begun = Some(begun);
    let mut failures = 0;
    let mut watch = HoldWatch::default();
    loop {
        let opened = Work::resume_watching(&hands, &server, backend, &mut watch).await;
        let opened = opened.and_then(|mut work| work.adopt(&overrides).map(|()| work));
        match opened {
            Ok(work) => return (Some(Box::new(work)), begun),
            Err(MembershipError::Inherited(_) | MembershipError::NotEnrolled) => return (None, begun),
            Err(error) => {
                failures += 1;
                let mut wait = plan::backoff(failures, random_byte(), None);
                if matches!(error, MembershipError::Held { source: None, .. }) {
                    // The server has spoken, and is asked for the next check-in.
                    wait = LOOK;
                }
                let then = if error.class() == Class::Held { HELD } else { "this membership is not served" };
                tracing::error!(%server, error = %describe(&error), retry_in = ?wait, "{then}");
                show(&hands, &server, &error, &board);
                // Nobody waits for what may never come.
                begun = None;
                sleep(wait).await;
            }
        }
    }
}

/// Shows why a membership is not served.
fn show(hands: &Hands, server: &Server, error: &MembershipError, board: &Board) {
    let why = error.report(clock::unix_seconds());
    match membership::held(&hands.store, server, why.clone()) {
        Ok(Some(status)) if error.class() == Class::Held => board.show(status),
        Ok(_) | Err(_) => board.break_down(server, why),
    }
}

/// A key that is refused may be accepted one day, when an administrator has changed something.
fn patience(error: &MembershipError, attempts: u32) -> Duration {
    let wait = plan::backoff(attempts, random_byte(), error.retry_after());
    match error.class() {
        Class::Refused => wait.max(REFUSED.min(wait.saturating_mul(5))),
        Class::Clock
        | Class::Configuration
        | Class::Denied
        | Class::Foreign
        | Class::Held
        | Class::NotEnrolled
        | Class::Other
        | Class::Partial
        | Class::Temporary
        | Class::Usage
        | Class::Waiting => wait,
    }
}

/// What to do about an identity that may be another machine's.
const HELD: &str = "nothing of this membership is used until it is clear whose it is: the server is asked, and \
                    `agent join --keep-identity` or `agent join --new-identity` decides";

/// Time between two looks at whether anybody else speaks with an identity.
const LOOK: Duration = Duration::from_secs(60);

/// How long a key rests that was sent as often as it may be without a clear answer.
const UNCLEAR: Duration = Duration::from_secs(3600);

/// Longest time between two attempts with a key that is refused.
const REFUSED: Duration = Duration::from_secs(600);
