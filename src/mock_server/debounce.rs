//! Makes one broadcast of many changes, to those whom they concern.

use std::{collections::BTreeSet, pin::Pin, time::Duration};

use tokio::time::{Sleep, sleep};
use uuid::Uuid;

/// What a broadcast of peers is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Broadcast {
    /// Something changed.
    Ordinary,
    /// A key changed, or the server started: hosts must replace what they have.
    Replacing,
}

/// Whom a broadcast concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Audience {
    /// Everybody; the rest is of no interest then.
    pub(super) everybody: bool,
    /// All who have a node in one of these.
    pub(super) networks: BTreeSet<String>,
    pub(super) hosts: BTreeSet<Uuid>,
}

impl Audience {
    pub(super) fn everybody() -> Self {
        Self { everybody: true, ..Self::default() }
    }

    pub(super) fn network(name: String) -> Self {
        Self { networks: BTreeSet::from([name]), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.everybody |= other.everybody;
        self.networks.extend(other.networks);
        self.hosts.extend(other.hosts);
    }
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
    audience: Audience,
}

impl Debounce {
    /// Asks for a broadcast, soon.
    pub(super) fn ask(&mut self, kind: Broadcast, audience: Audience) {
        match &mut self.waiting {
            Some(waiting) => {
                waiting.quiet = Box::pin(sleep(QUIET));
                waiting.kind = waiting.kind.max(kind);
                waiting.audience.extend(audience);
            }
            None => {
                let (quiet, latest) = (Box::pin(sleep(QUIET)), Box::pin(sleep(LATEST)));
                self.waiting = Some(Waiting { quiet, latest, kind, audience });
            }
        }
    }

    /// Waits until it is time; for ever while nobody asks.
    pub(super) async fn ready(&mut self) {
        match &mut self.waiting {
            Some(Waiting { quiet, latest, kind: _, audience: _ }) => {
                tokio::select! {
                    () = quiet => {}
                    () = latest => {}
                }
            }
            None => std::future::pending().await,
        }
    }

    /// Ends the wait.
    pub(super) fn take(&mut self) -> (Broadcast, Audience) {
        let waiting = self.waiting.take();
        waiting.map_or((Broadcast::Ordinary, Audience::default()), |waiting| (waiting.kind, waiting.audience))
    }
}

/// A broadcast waits for this much quiet.
const QUIET: Duration = Duration::from_millis(500);

/// And no longer than this.
const LATEST: Duration = Duration::from_secs(3);
