//! Staying right: the loop that waits for the next event and carries out what it calls for.

pub mod clock;
mod serve;

pub use serve::{Ended, serve};
