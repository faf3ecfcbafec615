//! Trouble on purpose, and what was seen: how tests make the network, the proxy and the server misbehave.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Waits, then handles the request as usual.
    Delay(Duration),
    /// Handles the request and stores the outcome, then closes the connection without an answer.
    DropAfterCommit,
    /// Closes the connection without looking at the request.
    DropBeforeCommit,
    /// Answers 200 with no body, without looking at the request.
    EmptyOk,
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
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    planned: Vec<Planned>,
    observed: Option<Vec<Observed>>,
    edit_pull: Option<EditPull>,
}

struct Planned {
    times: usize,
    path_prefix: String,
    fault: Fault,
}

type EditPull = Arc<dyn Fn(&mut Value) + Send + Sync>;

impl Faults {
    /// Makes the next `times` requests whose path begins with `path_prefix` go wrong; earlier plans go first.
    pub fn inject(&self, times: usize, path_prefix: &str, fault: Fault) {
        self.lock().planned.push(Planned { times, path_prefix: path_prefix.to_owned(), fault });
    }

    /// Changes every pull before it is sent, until the next [`Faults::clear`].
    pub fn edit_pull(&self, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.lock().edit_pull = Some(Arc::new(edit));
    }

    /// Forgets all plans; what was observed stays.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.planned.clear();
        inner.edit_pull = None;
    }

    /// The requests so far, oldest first; none unless the server records them.
    pub fn observed(&self) -> Vec<Observed> {
        self.lock().observed.clone().unwrap_or_default()
    }

    pub(super) fn record(&self) {
        self.lock().observed.get_or_insert_default();
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

    pub(super) fn edited(&self, mut pull: Value) -> Value {
        let edit = self.lock().edit_pull.clone();
        if let Some(edit) = edit {
            edit(&mut pull);
        }
        pull
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes tokens and key values out of a path.
pub(super) fn redact(path: &str) -> String {
    let secret = SECRET_PATHS.iter().find(|prefix| path.starts_with(**prefix));
    secret.map_or_else(|| path.to_owned(), |prefix| format!("{prefix}…"))
}

/// What follows these is secret.
const SECRET_PATHS: [&str; 2] = ["/api/v1/host/register/", "/api/v1/enrollment-keys/"];
