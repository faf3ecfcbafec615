//! Sign-offs that wait for their servers: made while the agent runs, however long that takes.

use std::{rc::Rc, time::Duration};

use tokio::{sync::Notify, time::timeout};

use super::{board::Board, clock, keeper::random_byte};
use crate::{
    membership::{self, Hands, MembershipError, describe},
    model::LeavingStatus,
    plan,
};

/// Makes the sign-offs that wait, now and whenever `wake` is told, and again until each is done or dropped.
pub(super) async fn sign_off(hands: Hands, board: Board, wake: Rc<Notify>) {
    let mut failures = 0;
    loop {
        let shown = attempt(&hands, &board, failures + 1).await;
        if shown.is_empty() {
            failures = 0;
            wake.notified().await;
            continue;
        }
        failures += 1;
        let wait = plan::backoff(failures, random_byte(), None).max(SHORTEST_GAP);
        let next_at = Some(clock::unix_seconds() + wait.as_secs());
        board.leave(shown.into_iter().map(|shown| LeavingStatus { next_at, ..shown }).collect());
        if timeout(wait, wake.notified()).await.is_ok() {
            failures = 0;
        }
    }
}

/// Tries each once; returns those that still wait.
async fn attempt(hands: &Hands, board: &Board, attempts: u32) -> Vec<LeavingStatus> {
    let queued = match hands.store.queued() {
        Ok(queued) => queued,
        Err(error) => {
            tracing::error!(error = %describe(&error.into()), "sign-offs that wait cannot be read");
            Vec::new()
        }
    };
    board.leave(queued.iter().map(crate::model::Leaving::status).collect());
    let mut waiting = Vec::new();
    for leaving in queued {
        let error = match membership::sign_off(hands, &leaving, membership::PATIENCE).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        // It may have been dropped meanwhile.
        if hands.store.is_queued(leaving.host_id) {
            waiting.push(failed(leaving.status(), attempts, &error));
        }
    }
    board.leave(waiting.clone());
    waiting
}

fn failed(status: LeavingStatus, attempts: u32, error: &MembershipError) -> LeavingStatus {
    tracing::info!(
        server = status.server, host_id = %status.host_id, error = %describe(error), "the server is told later that this host was left"
    );
    LeavingStatus { attempts, last_error: Some(error.report(clock::unix_seconds())), ..status }
}

/// Nobody waits for it: it may take its time.
const SHORTEST_GAP: Duration = Duration::from_secs(1);
