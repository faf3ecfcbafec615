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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            audit::{Action, Actor},
            store::{Database, Store},
        },
        *,
    };

    #[test]
    fn a_job_that_fails_leaves_the_others_alone() {
        let mut world = world();
        let (good, mut done) = job(attempt(), note("good"));
        let (bad, mut failed) = job(attempt(), |world, now| {
            note("bad")(world, now)?;
            Err::<(), _>(Refusal::forbidden())
        });
        let (late, mut also_done) = job(attempt(), note("late"));

        let answers = [good, bad, late].map(|job| job(&mut world, OffsetDateTime::UNIX_EPOCH));

        assert!(done.try_recv().is_err(), "nobody is told before it is stored");
        for answer in answers {
            answer(Ok(()));
        }
        assert_eq!((done.try_recv(), also_done.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
        assert_eq!(failed.try_recv(), Ok(Err(Refusal::forbidden())));
        let names: Vec<_> = world.settings.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["good", "late"]);
        assert_eq!(world.audit.iter().map(|entry| entry.action).collect::<Vec<_>>(), [Action::Refuse]);
    }

    #[test]
    fn a_batch_that_is_not_stored_has_not_happened() {
        let mut world = world();
        let (job, mut done) = job(attempt(), note("good"));
        let answer = job(&mut world, OffsetDateTime::UNIX_EPOCH);

        world.restore_batch();
        answer(Err(Refusal::internal("database is not available")));

        assert_eq!(done.try_recv(), Ok(Err(Refusal::internal("database is not available"))));
        assert_eq!(world.settings.iter().count(), 0);
    }

    #[test]
    fn the_thread_ends_with_the_server() {
        let (sender, jobs) = mpsc::channel();
        let (asked, seen) = mpsc::channel();
        spawn(jobs, move || {
            asked.send(()).expect("the test waits");
            None
        });
        let (job, mut unanswered) = job(attempt(), |_, _| Ok(()));

        sender.send(job).expect("the thread runs");

        seen.recv().expect("it looks for the server");
        while sender.send(self::job(attempt(), |_, _| Ok(())).0).is_ok() {
            thread::yield_now();
        }
        assert!(unanswered.try_recv().is_err(), "without a server nobody is answered");
    }

    fn world() -> World {
        Database::open(&Store::Memory).and_then(|store| store.load()).expect("an empty store")
    }

    /// A rule that leaves a setting of this name.
    fn note(name: &'static str) -> impl FnOnce(&mut World, OffsetDateTime) -> Result<(), Refusal> {
        move |world, _| {
            world.settings.insert(name.to_owned(), "1".into());
            Ok(())
        }
    }

    fn attempt() -> Attempt {
        Attempt { actor: Actor::Device, action: Action::Redeem, key: None, host: None }
    }
}
