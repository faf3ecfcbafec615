//! Serving one membership in the foreground: pull, check in, apply, answer the control socket.

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::pin,
    time::Duration,
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
    time::{sleep_until, timeout},
};

use super::clock;
use crate::{
    control::{Advice, Freshness},
    ipc::{self, Answer, Failure, Request},
    membership::{Farewell, Greeting, MembershipError, Session, describe},
    model::{Secret, Status},
    plan::{self, Pace},
};

/// How serving ended.
#[derive(Debug)]
pub enum Ended {
    /// The server deleted this host; the interface is gone and the identity set aside.
    Deleted,
    /// Somebody left through the socket; the membership is gone.
    Left,
    /// Asked to stop; the membership stays, a userspace interface does not.
    Stopped,
}

/// Serves until `stop` completes, the membership is left or the server deletes the host.
///
/// `code` gives the exit code of a failure, for those who ask over the socket.
///
/// # Errors
/// Only what makes serving impossible; failures of single rounds are logged and tried again.
pub async fn serve(
    mut session: Session,
    listener: UnixListener,
    code: fn(&MembershipError) -> u8,
    stop: impl Future<Output = ()>,
) -> Result<Ended, MembershipError> {
    let mut stop = pin!(stop);
    let (asked, mut requests) = mpsc::channel(16);
    let _listening = AbortOnDrop(tokio::spawn(listen(listener, asked)));
    let mut pace = Pace::new(clock::now());
    if session.last_error().is_some() {
        pace.failed(clock::now(), clock::now(), false);
    }
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            () = &mut stop => return Ok(Ended::Stopped),
            Some(asked) = requests.recv() => waiting.push(asked),
            () = sleep_until(pace.next().into()) => {
                let status = session.status().await;
                let stepped = tokio::select! {
                    () = &mut stop => return Ok(Ended::Stopped),
                    after = step(&mut session, &mut pace) => after?,
                    never = answer_meanwhile(&mut requests, &status, &mut waiting) => match never {},
                };
                if stepped == After::End {
                    return Ok(Ended::Deleted);
                }
            }
        }
        for (request, stream) in waiting {
            if answer(&mut session, request, stream, code).await == After::End {
                return Ok(Ended::Left);
            }
        }
    }
}

/// Ends a task with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether serving goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    End,
    GoOn,
}

/// A request and the connection its answer goes to.
type Asked = (Request, UnixStream);

/// Reads requests off the socket until nobody wants them; slow and unusable ones hold up nothing.
async fn listen(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket failed");
                return;
            }
        };
        let asked = asked.clone();
        tokio::spawn(async move {
            match ipc::receive(&mut stream).await {
                // Nobody there to answer means that serving has ended.
                Ok(request) => drop(asked.send((request, stream)).await),
                Err(error) => tracing::debug!(%error, "unusable request on the control socket"),
            }
        });
    }
}

/// While a round waits for the server, a status is answered at once as it was before it; the rest has to wait.
async fn answer_meanwhile(
    requests: &mut mpsc::Receiver<Asked>,
    status: &Status,
    waiting: &mut Vec<Asked>,
) -> Infallible {
    loop {
        let Some((request, stream)) = requests.recv().await else { pending().await };
        if request == Request::Status {
            send(stream, Answer::Status(Box::new(status.clone())));
        } else {
            waiting.push((request, stream));
        }
    }
}

/// Does what is due: a check-in, a pull, or both.
async fn step(session: &mut Session, pace: &mut Pace) -> Result<After, MembershipError> {
    let due = pace.due(clock::now());
    let result = async {
        if due.check_in {
            session.check_in().await?;
            pace.checked_in(clock::now());
        }
        session.round(if due.recompute { Freshness::Recomputed } else { Freshness::Cached }).await
    };
    let error = match result.await {
        Ok(round) => {
            if round.changes > 0 {
                tracing::info!(changes = round.changes, "in step with the server again");
            }
            pace.succeeded(clock::now());
            return Ok(After::GoOn);
        }
        Err(error) => error,
    };
    let (now, gone) = (clock::now(), matches!(error, MembershipError::Deleted(_)));
    let delay = plan::backoff(pace.failures() + 1, random_byte(), retry_after(&error));
    tracing::warn!(error = %describe(&error), retry_in = ?delay, "the round failed");
    if pace.failed(now, now + delay, gone) {
        session.set_aside().await?;
        return Ok(After::End);
    }
    Ok(After::GoOn)
}

async fn answer(
    session: &mut Session,
    request: Request,
    stream: UnixStream,
    code: fn(&MembershipError) -> u8,
) -> After {
    let failure = |error: &MembershipError| Failure { code: code(error), message: describe(error) };
    let outcome = |result: Result<(), MembershipError>| match result {
        Ok(()) => Answer::Done { failures: Vec::new() },
        Err(error) => Answer::Failed(failure(&error)),
    };
    let (answer, after) = match request {
        Request::Join { token } => {
            (further(session, &token).await.unwrap_or_else(|error| Answer::Failed(failure(&error))), After::GoOn)
        }
        Request::Leave { network: None } => {
            let Farewell { failures } = session.leave_server().await;
            let failures = failures.iter().map(|(step, error)| {
                let Failure { code, message } = failure(error);
                Failure { code, message: format!("could not {step}: {message}") }
            });
            (Answer::Done { failures: failures.collect() }, After::End)
        }
        Request::Leave { network: Some(network) } => (outcome(session.leave_network(&network).await), After::GoOn),
        Request::Status => (Answer::Status(Box::new(session.status().await)), After::GoOn),
        Request::Sync => (outcome(session.sync().await.map(|_| ())), After::GoOn),
    };
    let sending = send(stream, answer);
    if after == After::End {
        // The runtime ends with the process, and the answer would with it.
        drop(sending.await);
    }
    after
}

/// Redeems a further key for somebody at the socket.
async fn further(session: &mut Session, token: &Secret) -> Result<Answer, MembershipError> {
    // The other side has parsed it already; one that is not a key is an unknown one.
    let Ok(token) = token.expose().parse() else { return Err(MembershipError::NotEnrolled) };
    let redeemed = session.redeem_further(&token).await? == Greeting::Further;
    Ok(Answer::Joined { redeemed, status: Box::new(session.status().await) })
}

/// Sends an answer without waiting for whoever reads it, and gives up on those who do not.
fn send(mut stream: UnixStream, answer: Answer) -> JoinHandle<()> {
    tokio::spawn(async move {
        match timeout(ANSWER_PATIENCE, ipc::reply(&mut stream, &answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "whoever asked did not wait for the answer"),
            Err(_) => tracing::debug!("whoever asked does not read the answer"),
        }
    })
}

fn retry_after(error: &MembershipError) -> Option<Duration> {
    let MembershipError::Rest(error) = error else { return None };
    match error.advice() {
        Advice::RetryAfter(after) => after,
        Advice::Broken | Advice::Denied | Advice::Gone => None,
    }
}

/// Jitter only: a failing generator costs nothing but the jitter.
fn random_byte() -> u8 {
    let mut byte = [u8::MAX];
    SystemRandom::new().fill(&mut byte).map_or(u8::MAX, |()| byte[0])
}

/// How long an answer waits to be read.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
