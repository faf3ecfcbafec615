//! The mind: pure decisions from facts to changes. Time and randomness come in as arguments.

mod backoff;
mod diff;
mod joining;
mod pace;
mod routes;
mod summary;
mod target;

pub use backoff::{MAX_DELAY, backoff};
pub use diff::{Change, diff};
pub use joining::{Joining, Verdict};
pub use pace::{Due, Pace};
pub use summary::summarize;
pub use target::{DEFAULT_MTU, Surroundings, settle, target};
