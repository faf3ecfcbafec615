//! The mind: pure decisions from facts to changes. Time and randomness come in as arguments.

mod backoff;
mod diff;
mod gateway;
mod joining;
mod names;
mod reverse;
mod routes;
mod session;
mod spread;
mod summary;
mod target;

pub use backoff::{MAX_DELAY, backoff};
pub use diff::{Change, diff};
pub use gateway::choose_gateway;
pub use joining::{Joining, Verdict};
pub use names::{Answers, Found, LinkNames, link_names, own_names};
pub use session::{Action, Deadline, Event, Hint, Outcome, Peers, Session, Talk, Trouble, Why};
pub use spread::spread;
pub use summary::summarize;
pub use target::{DEFAULT_MTU, Surroundings, settle, target};
