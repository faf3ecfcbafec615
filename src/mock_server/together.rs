//! Group commit: rules that wait at the same time are stored together, and each is answered once that is done.
//!
//! ```text
//!  register ─► job ─┐                     ┌─► answer
//!  register ─► job ─┼─► one thread: rules ┼─► answer
//!  register ─► job ─┘    one after another └─► answer
//!                        one transaction
//! ```
//!
//! A sync to disk takes about as long for many redemptions as for one, so those that come while it runs share the next.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::{audit::Attempt, refusal::Refusal, server::Server, world::World};

/// A rule that waits to be run; it says afterwards whom to tell what came of it.
pub(super) type Job = Box<dyn FnOnce(&mut World, OffsetDateTime) -> Answer + Send>;

/// Tells whoever waits, once it is known whether the batch is stored.
pub(super) type Answer = Box<dyn FnOnce(Result<(), Refusal>) + Send>;

/// Makes a job of a rule: what fails leaves nothing but its entry in the audit trail.
pub(super) fn job<T: Send + 'static>(
    attempt: Attempt,
    rule: impl FnOnce(&mut World, OffsetDateTime) -> Result<T, Refusal> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, Refusal>>) {
    let (answer, answered) = oneshot::channel();
    let job = move |world: &mut World, now: OffsetDateTime| -> Answer {
        world.actor.clone_from(&attempt.actor);
        let done = rule(world, now);
        if let Err(refusal) = &done {
            world.restore();
            world.audit_refusal(&attempt, refusal, now);
        }
        world.merge();
        // Whoever asked may be gone.
        Box::new(move |stored| drop(answer.send(stored.and(done))))
    };
    (Box::new(job), answered)
}

/// Runs jobs in a thread of their own until nobody can send any more; `server` is `None` once it is gone.
pub(super) fn spawn(jobs: mpsc::Receiver<Job>, server: impl Fn() -> Option<Server> + Send + 'static) {
    let run = move || {
        while let Ok(first) = jobs.recv() {
            let Some(server) = server() else { return };
            let batch: Vec<_> = [first].into_iter().chain(jobs.try_iter().take(LARGEST - 1)).collect();
            // The world is put back when it is locked next, and those who wait hear that it failed.
            if catch_unwind(AssertUnwindSafe(|| server.store_together(batch))).is_err() {
                tracing::error!("a rule panicked, its batch is not stored");
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("store".to_owned()).spawn(run) {
        tracing::error!(error = %error, "cannot start the thread that stores redemptions");
    }
}

/// Rules in a batch; they all wait until the last has run.
const LARGEST: usize = 256;
