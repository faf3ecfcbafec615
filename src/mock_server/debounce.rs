//! Makes one broadcast of many changes.

use std::{pin::Pin, time::Duration};

use tokio::time::{Sleep, sleep};

/// What a broadcast of peers is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Broadcast {
    /// Something changed.
    Ordinary,
    /// A key changed, or the server started: hosts must replace what they have.
    Replacing,
}

/// A broadcast that waits for its time.
#[derive(Default)]
pub(super) struct Debounce {
    waiting: Option<Waiting>,
}

struct Waiting {
    quiet: Pin<Box<Sleep>>,
    latest: Pin<Box<Sleep>>,
    kind: Broadcast,
}

impl Debounce {
    /// Asks for a broadcast, soon.
    pub(super) fn ask(&mut self, kind: Broadcast) {
        match &mut self.waiting {
            Some(waiting) => {
                waiting.quiet = Box::pin(sleep(QUIET));
                waiting.kind = waiting.kind.max(kind);
            }
            None => {
                let (quiet, latest) = (Box::pin(sleep(QUIET)), Box::pin(sleep(LATEST)));
                self.waiting = Some(Waiting { quiet, latest, kind });
            }
        }
    }

    /// Waits until it is time; for ever while nobody asks.
    pub(super) async fn ready(&mut self) {
        match &mut self.waiting {
            Some(Waiting { quiet, latest, kind: _ }) => {
                tokio::select! {
                    () = quiet => {}
                    () = latest => {}
                }
            }
            None => std::future::pending().await,
        }
    }

    /// Ends the wait.
    pub(super) fn take(&mut self) -> Broadcast {
        self.waiting.take().map_or(Broadcast::Ordinary, |waiting| waiting.kind)
    }
}

/// A broadcast waits for this much quiet.
const QUIET: Duration = Duration::from_millis(500);

/// And no longer than this.
const LATEST: Duration = Duration::from_secs(3);
