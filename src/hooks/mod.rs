//! Hooks: programs of this machine's owner that are told what happened.
//!
//! ```text
//! event ──► queue ──► one thread without the agent's rights: each program in order, one event at a time
//! ```
//!
//! A program gets the facts on standard input, its event as first argument, no environment but `PATH`, a process group
//! of its own and [`TIME_LIMIT`]. What becomes of it is logged and nothing else: nobody waits for hooks but the end of a
//! command.

mod document;
mod program;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use self::document::document;
pub use self::program::TIME_LIMIT;
use crate::model::Event;

/// The hooks in one folder; clones share the queue, and the last one that goes waits for its end.
#[derive(Clone, Debug)]
pub struct Hooks {
    folder: PathBuf,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Empty until the first event that there are hooks for.
    runner: OnceLock<Runner>,
}

#[derive(Debug)]
struct Runner {
    /// Told when nobody has the time to wait for hooks any more.
    give_up: watch::Sender<bool>,
    jobs: mpsc::Sender<Job>,
    thread: io::Result<JoinHandle<()>>,
}

#[derive(Debug)]
enum Job {
    Run {
        document: String,
        event: &'static str,
    },
    /// Everything before this one is done.
    Say(oneshot::Sender<()>),
}

impl Hooks {
    /// The hooks in `folder`, which need not exist.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, queue: Arc::default() }
    }

    /// Has the hooks told of `event`, which happened at `at`, in seconds since 1970; returns at once.
    pub fn call(&self, at: u64, event: &Event) {
        let Some(word) = event.kind.hook() else { return };
        // Looked for each time: hooks may come at any time.
        if !self.folder.is_dir() {
            return;
        }
        let job = Job::Run { document: document(at, word, event), event: word };
        let runner = self.queue.runner.get_or_init(|| start(self.folder.clone()));
        if runner.jobs.try_send(job).is_err() {
            tracing::warn!(event = word, "hooks are too slow, or cannot be run: they are not told");
        }
    }

    /// Waits for hooks that run or wait, no longer than `patience`.
    pub async fn finish(&self, patience: Duration) {
        let Some(runner) = self.queue.runner.get() else { return };
        let (say, said) = oneshot::channel();
        let told = async {
            if runner.jobs.send(Job::Say(say)).await.is_ok() {
                // A thread that has ended has nothing to do.
                let _ = said.await;
            }
        };
        if timeout(patience, told).await.is_err() {
            tracing::warn!("hooks still run at the end; they are killed");
            runner.give_up.send_replace(true);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let Some(Runner { give_up: _, jobs, thread }) = self.runner.take() else { return };
        drop(jobs);
        if let Ok(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("hooks ended badly");
        }
    }
}

/// Starts the thread that runs hooks.
///
/// Rights that a process hands down belong to its threads: this one gives them up, and the agent's others keep them.
fn start(folder: PathBuf) -> Runner {
    let (sender, jobs) = mpsc::channel(QUEUE);
    let (give_up, is_over) = watch::channel(false);
    let serve = move || {
        let served = give_up_rights().and_then(|()| serve(&folder, jobs, &is_over));
        if let Err(error) = served {
            tracing::error!(%error, "hooks are not run");
        }
    };
    let thread = std::thread::Builder::new().name("hooks".to_owned()).spawn(serve);
    if let Err(error) = &thread {
        tracing::error!(%error, "hooks are not run");
    }
    Runner { give_up, jobs: sender, thread }
}

fn serve(folder: &std::path::Path, mut jobs: mpsc::Receiver<Job>, is_over: &watch::Receiver<bool>) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Run { document, event } => {
                    for hook in program::list(folder) {
                        if !*is_over.borrow() {
                            program::run(&hook, event, &document, TIME_LIMIT, is_over.clone()).await;
                        }
                    }
                }
                Job::Say(done) => drop(done.send(())),
            }
        }
        Ok(())
    })
}

/// Leaves nothing that a program started here would inherit: neither capabilities nor a memory file with a key.
fn give_up_rights() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities};

    clear_ambient_capability_set()?;
    let CapabilitySets { effective, permitted, inheritable: _ } = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() })?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_key = std::fs::read_link(entry.path()).is_ok_and(|path| path.starts_with("/memfd:enrollment-key"));
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let (true, Some(number)) = (is_key, number) {
            nix::unistd::close(number)?;
        }
    }
    Ok(())
}

/// Events that wait at most; a flapping interface must not fill the memory.
const QUEUE: usize = 64;

#[cfg(test)]
mod tests;
