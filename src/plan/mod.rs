//! The mind: pure decisions from facts to changes. Time and randomness come in as arguments.

mod diff;

pub use diff::{Change, diff};
