//! Conversations over the control socket that need no new membership.

use std::{rc::Rc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    board::Board,
    errand::{self, Command, Obeyed, Order, Reply},
    keeper::Message,
};
use crate::{
    ipc::{Answer, Call, Failure},
    membership::{self, Farewell, Greeting, Hands, MembershipError, SignOff},
    model::{Backend, NetworkName, Server, Stage},
    store::StoreError,
};

/// A keeper that can be ordered about.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) inbox: mpsc::UnboundedSender<Message>,
    pub(super) server: Server,
}

/// An order for every membership that is meant.
#[derive(Clone, Debug)]
pub(super) enum Plain {
    Down,
    Leave(Option<NetworkName>, SignOff),
    RotateKey,
    Sync,
    Up,
}

/// Has `plain` carried out by all of `kept` at once, and answers.
pub(super) async fn order(mut call: Call, kept: Vec<Kept>, plain: Plain) {
    let several = kept.len() > 1;
    let orders = kept.iter().map(|kept| command(kept, plain.clone().into()));
    let replies = futures_util::future::join_all(orders).await;
    let mut all = Obeyed::default();
    let mut failed = None;
    for (kept, reply) in kept.iter().zip(replies) {
        match reply {
            Ok(Obeyed { chosen: _, failures, greeting: _, listed }) => {
                all.failures.extend(failures);
                all.listed.extend(listed);
            }
            Err(error) if several => {
                let Failure { class, message } = errand::failure(&error);
                all.failures.push(Failure { class, message: format!("{}: {message}", kept.server) });
            }
            Err(error) => failed = Some(error),
        }
    }
    say(&mut call, &errand::answer(failed.map_or(Ok(all), Err))).await;
}

/// Asks all of `kept` to look again, and answers with the report.
pub(super) async fn status(mut call: Call, kept: Vec<Kept>, board: Board) {
    look(&kept).await;
    say(&mut call, &Answer::Report(Box::new(board.report()))).await;
}

/// Answers with the report now and at every change, until the other side hangs up.
pub(super) async fn watch(mut call: Call, kept: Vec<Kept>, board: Board) {
    look(&kept).await;
    let mut changes = board.watch();
    loop {
        let report = changes.borrow_and_update().clone();
        if call.answer(&Answer::Report(Box::new(report))).await.is_err() {
            return;
        }
        tokio::select! {
            news = changes.changed() => match news {
                // A burst of changes is one.
                Ok(()) => sleep(BURST).await,
                Err(_) => return,
            },
            () = call.hung_up() => return,
        }
    }
}

/// Has a further key redeemed by a keeper, and answers.
pub(super) async fn further(
    mut call: Call,
    kept: Kept,
    board: Board,
    further: impl FnOnce(mpsc::UnboundedSender<Stage>) -> Command,
) {
    let (progress, mut stages) = mpsc::unbounded_channel();
    let asked = command(&kept, further(progress));
    tokio::pin!(asked);
    let reply = loop {
        tokio::select! {
            reply = &mut asked => break reply,
            Some(stage) = stages.recv() => say(&mut call, &Answer::Progress { stage }).await,
        }
    };
    let answer = match reply {
        Ok(Obeyed { chosen, failures: _, greeting, listed: _ }) => {
            look(std::slice::from_ref(&kept)).await;
            let report = board.report();
            let status = report.memberships.into_iter().find(|status| status.server == kept.server.to_string());
            match status {
                Some(status) => Answer::Joined {
                    chosen,
                    failure: None,
                    greeting: greeting.unwrap_or(Greeting::Again).word().to_owned(),
                    status: Box::new(status),
                    timings: std::collections::BTreeMap::new(),
                },
                None => Answer::Failed(errand::failure(&MembershipError::NotEnrolled)),
            }
        }
        Err(error) => Answer::Failed(errand::failure(&error)),
    };
    say(&mut call, &answer).await;
}

/// Leaves a server that has not taken this host in yet, as far as can be told.
pub(super) async fn give_up(
    mut call: Call,
    hands: Hands,
    server: Server,
    backend: Option<Backend>,
    sign_off: SignOff,
    wake: Rc<Notify>,
) {
    let mut left = membership::leave(&hands, &server, None, backend, sign_off).await;
    for _ in 0..20 {
        // The attempt that was given up lets go of the membership within moments.
        let Err(MembershipError::Store(StoreError::Busy { .. })) = left else { break };
        sleep(BURST).await;
        left = membership::leave(&hands, &server, None, backend, sign_off).await;
    }
    let answer = match left {
        Ok(farewell) => goodbye(farewell),
        // No key was ever shown: there is nothing to leave.
        Err(MembershipError::NotEnrolled) => Answer::Done { failures: Vec::new(), listed: Vec::new() },
        Err(error) => Answer::Failed(errand::failure(&error)),
    };
    wake.notify_one();
    say(&mut call, &answer).await;
}

/// Makes or drops the sign-offs that wait for a server.
pub(super) async fn settle(mut call: Call, hands: Hands, server: Server, sign_off: SignOff, wake: Rc<Notify>) {
    let answer = match membership::settle(&hands, &server, sign_off).await {
        Ok(farewell) => goodbye(farewell),
        Err(error) => Answer::Failed(errand::failure(&error)),
    };
    wake.notify_one();
    say(&mut call, &answer).await;
}

fn goodbye(Farewell { failures, listed }: Farewell) -> Answer {
    Answer::Done { failures: failures.iter().map(|(_, error)| errand::failure(error)).collect(), listed }
}

/// Has every keeper look at its interface, those that are busy as they are.
async fn look(kept: &[Kept]) {
    let looks = kept.iter().map(|kept| command(kept, Command::Status));
    if timeout(LOOK, futures_util::future::join_all(looks)).await.is_err() {
        tracing::debug!("a membership is told as it was last seen");
    }
}

async fn command(kept: &Kept, command: Command) -> Reply {
    let (reply, answer) = oneshot::channel();
    let gone = || MembershipError::NotServing(kept.server.clone());
    kept.inbox.send(Message::Order(Box::new(Order { command, reply }))).map_err(|_| gone())?;
    answer.await.unwrap_or_else(|_| Err(gone()))
}

/// Says something to somebody who may have hung up.
pub(super) async fn say(call: &mut Call, answer: &Answer) {
    if let Err(error) = call.answer(answer).await {
        tracing::debug!(%error, "whoever asked did not wait for the answer");
    }
}

impl From<Plain> for Command {
    fn from(plain: Plain) -> Self {
        match plain {
            Plain::Down => Self::Down,
            Plain::Leave(network, sign_off) => Self::Leave(network, sign_off),
            Plain::RotateKey => Self::RotateKey,
            Plain::Sync => Self::Sync,
            Plain::Up => Self::Up,
        }
    }
}

/// How long changes of the report are gathered for those who watch.
const BURST: Duration = Duration::from_millis(50);

/// How long a look at an interface may hold up a status.
const LOOK: Duration = Duration::from_secs(2);
