//! The mind: pure decisions from facts to changes. Time and randomness come in as arguments.

mod backoff;
mod binding;
pub mod checkup;
mod diff;
mod events;
mod firewall;
mod gateway;
mod joining;
mod names;
mod outside;
mod reverse;
mod routes;
mod secrets;
mod session;
mod spread;
mod summary;
mod target;
mod trials;
mod vigil;

pub use backoff::{MAX_DELAY, backoff};
pub use binding::{Bond, KNOWN_WITHIN, Word, bind, bond, unbound, word};
pub use diff::{Change, diff};
pub use events::events;
pub use firewall::{Line, Ruleset, Wall, wall};
pub use gateway::{Probed, Standing, choose_gateway, is_silent};
pub use joining::{Joining, Verdict};
pub use names::{Answers, Found, LinkNames, link_names, own_names};
pub use outside::look_again;
pub use secrets::{FoundSecret, SecretKind, SecretScanner};
pub use session::{Action, Deadline, Event, Hint, Outcome, Peers, Session, Talk, Trouble, Why};
pub use spread::spread;
pub use summary::summarize;
pub use target::{DEFAULT_MTU, Overlaps, Target, settle, target};
pub use trials::{Trials, Vicinity};
pub use vigil::{Vigil, Watch};
