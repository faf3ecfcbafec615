//! Trouble on purpose, and what was seen: how tests make the network, the proxy and the server misbehave.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use super::{trouble::Snapshot, world::Counting};

/// What goes wrong with one request. As data it is `kebab-case`, and times are whole milliseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Answers this status with `Retry-After`, without looking at the request.
    Busy {
        /// 429 or 503.
        status: u16,
        /// Seconds until the client may try again.
        retry_after: u32,
    },
    /// Handles the request and calls the answer this, as `text/html`.
    ContentType(String),
    /// Waits, then handles the request as usual.
    Delay(#[serde(with = "milliseconds")] Duration),
    /// Handles the request and stores the outcome, then closes the connection without an answer.
    DropAfterCommit,
    /// Closes the connection without looking at the request.
    DropBeforeCommit,
    /// Answers 200 with no body, without looking at the request.
    EmptyOk,
    /// Handles the request and sends an answer that is no JSON any more.
    Malformed,
    /// Answers 307 and this address to ask instead, without looking at the request.
    Redirect(String),
    /// Handles the request, and resets the connection after this many bytes of the answer's body.
    Reset(usize),
    /// Handles the request and sends the answer's body in pieces of 64 bytes with this much time between.
    SlowBody(#[serde(with = "milliseconds")] Duration),
    /// Answers this, without looking at the request; what a proxy does.
    Status {
        /// The HTTP status.
        status: u16,
        /// The body, sent as it is.
        body: String,
        /// As `text/html`.
        content_type: String,
    },
    /// Handles the request, announces the whole answer and closes the connection after this many bytes of its body.
    Truncate(usize),
    /// Handles the request twice and answers what came of it the second time; what a proxy that tries again does.
    Twice,
}

mod milliseconds {
    //! A length of time as whole milliseconds.

    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// When the nodes of a host that registers are made.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeCreation {
    /// Later; the real server takes milliseconds.
    Delayed {
        /// How much later.
        milliseconds: u64,
    },
    /// As the server was started with.
    #[default]
    Normal,
    /// Once somebody approves.
    Pending,
    /// Never, and nobody is told.
    Refused,
}

/// A mistake in the bookkeeping of the real server, which this one makes only when it is told to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mistake {
    /// Peers of a deleted host are told neither to remove it nor to replace what they have.
    DroppedDeletions,
    /// Hosts that register with a key at the same time may spend the same use.
    OverUse,
    /// A host that registers again spends another use.
    SpendAgain,
    /// A plain pull shows peers as of the last broadcast; deletions make none, and nor does anything without a broker.
    StalePull,
    /// A key that is `unlimited` beside a limit goes on after that.
    UnlimitedGoesOn,
}

/// Whether the server answers at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    Off,
    On,
}

/// A request as it arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Observed {
    /// As `POST`.
    pub method: String,
    /// Path and query; a token or a key in it is `…`.
    pub path: String,
    /// The body; may hold what no log may.
    pub body: Vec<u8>,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, body } = self;
        write!(f, "{method} {path} ({} bytes)", body.len())
    }
}

/// The trouble a server makes; shared by all its handles.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<Mutex<Inner>>,
    power: watch::Sender<Power>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { inner: Arc::default(), power: watch::Sender::new(Power::On) }
    }
}

#[derive(Default)]
struct Inner {
    planned: Vec<Planned>,
    observed: Option<Vec<Observed>>,
    edit_pull: Option<EditPull>,
    clock_skew: time::Duration,
    node_creation: NodeCreation,
    mistakes: BTreeSet<Mistake>,
    snapshots: BTreeMap<String, Snapshot>,
}

struct Planned {
    times: usize,
    path_prefix: String,
    fault: Fault,
}

/// Changes a pull before it is sent.
pub(super) type EditPull = Arc<dyn Fn(&mut Value) + Send + Sync>;

impl Faults {
    /// Makes the next `times` requests whose path begins with `path_prefix` go wrong; earlier plans go first.
    pub fn inject(&self, times: usize, path_prefix: &str, fault: Fault) {
        self.lock().planned.push(Planned { times, path_prefix: path_prefix.to_owned(), fault });
    }

    /// Changes every pull before it is sent, until the next [`Faults::clear`].
    pub fn edit_pull(&self, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.lock().edit_pull = Some(Arc::new(edit));
    }

    /// Forgets all plans, makes no mistakes, and puts the clock and the making of nodes right; what was observed stays.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.planned.clear();
        inner.edit_pull = None;
        inner.clock_skew = time::Duration::ZERO;
        inner.node_creation = NodeCreation::Normal;
        inner.mistakes.clear();
    }

    /// Puts the server's clock this far ahead; behind, if it is negative.
    pub fn set_clock_skew(&self, skew: time::Duration) {
        self.lock().clock_skew = skew;
    }

    /// Says when the nodes of hosts that register from now on are made.
    pub fn set_node_creation(&self, when: NodeCreation) {
        self.lock().node_creation = when;
    }

    /// Makes these mistakes from now on, and no others.
    pub fn set_mistakes(&self, mistakes: impl IntoIterator<Item = Mistake>) {
        self.lock().mistakes = mistakes.into_iter().collect();
    }

    pub(super) fn makes(&self, mistake: Mistake) -> bool {
        self.lock().mistakes.contains(&mistake)
    }

    /// The mistakes in counting uses.
    pub(super) fn counting(&self) -> Counting {
        let mistakes = &self.lock().mistakes;
        let is_made = |mistake| mistakes.contains(&mistake);
        Counting { spends_again: is_made(Mistake::SpendAgain), unlimited_goes_on: is_made(Mistake::UnlimitedGoesOn) }
    }

    pub(super) fn clock_skew(&self) -> time::Duration {
        self.lock().clock_skew
    }

    pub(super) fn node_creation(&self) -> NodeCreation {
        self.lock().node_creation
    }

    pub(super) fn note(&self, name: String, snapshot: Snapshot) {
        self.lock().snapshots.insert(name, snapshot);
    }

    pub(super) fn snapshot(&self, name: &str) -> Option<Snapshot> {
        self.lock().snapshots.get(name).cloned()
    }

    pub(super) fn set_power(&self, power: Power) {
        self.power.send_replace(power);
    }

    pub(super) fn power(&self) -> watch::Receiver<Power> {
        self.power.subscribe()
    }

    /// The requests so far, oldest first; none unless the server records them.
    pub fn observed(&self) -> Vec<Observed> {
        self.lock().observed.clone().unwrap_or_default()
    }

    pub(super) fn record(&self) {
        self.lock().observed.get_or_insert_default();
    }

    pub(super) fn is_recording(&self) -> bool {
        self.lock().observed.is_some()
    }

    pub(super) fn observe(&self, method: &str, path: &str, body: &[u8]) {
        if let Some(observed) = &mut self.lock().observed {
            observed.push(Observed { method: method.to_owned(), path: redact(path), body: body.to_vec() });
        }
    }

    /// Takes what is planned for a request to `path`.
    pub(super) fn take(&self, path: &str) -> Option<Fault> {
        let planned = &mut self.lock().planned;
        let index = planned.iter().position(|plan| path.starts_with(&plan.path_prefix))?;
        let plan = &mut planned[index];
        plan.times = plan.times.saturating_sub(1);
        let fault = plan.fault.clone();
        if plan.times == 0 {
            planned.remove(index);
        }
        Some(fault)
    }

    /// What to change about every pull, if anything.
    pub(super) fn pull_edit(&self) -> Option<EditPull> {
        self.lock().edit_pull.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes tokens and key values out of a path.
pub(super) fn redact(path: &str) -> String {
    let secret = SECRET_PATHS.iter().find(|prefix| path.starts_with(**prefix));
    secret.map_or_else(|| path.to_owned(), |prefix| format!("{prefix}…"))
}

/// What follows these is secret.
const SECRET_PATHS: [&str; 3] = ["/api/v1/host/register/", "/api/v1/enrollment-keys/", "/api/ext/v1/enrollment-keys/"];
