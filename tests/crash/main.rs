//! Exactly-once redemption: a join that is killed at any system call, whatever goes wrong beside, and one start after it
//! end with one host, one use of the key, one identity, and nothing left behind.
//!
//! ```text
//!  cargo test --test crash                     a sample of each trouble, other calls each time
//!  .ci/crash-matrix [--every K] [--trouble NAME] [--verb join|run] [--loss none|bytes|all]
//!  cargo test --test crash -- --at N [--trouble NAME] [--verb join|run] [--loss none|bytes|all]
//! ```
//!
//! | Trouble | beside | Loss |
//! |---|---|---|
//! | the answer to the key lost, late, twice, cut, garbled, no answer at all | × | the process alone (`kill -9`) |
//! | the same with the proof and the pull | × | power, and names of files that were not synced |
//! | a server that counts every registration it hears | × | power, and names that are there with bytes that are not |
//!
//! A call is counted over all threads from the program's first instruction on. Which call it is varies a little from run
//! to run, as threads do; the sample's seed and each failure's number are printed.

#![expect(clippy::disallowed_methods, reason = "a test plays parts told by environment and measures time")]

#[path = "../lab/mod.rs"]
mod lab;

mod attempt;
mod disk;
mod matrix;
mod process;
mod tracer;
mod troubles;

use std::process::ExitCode;

fn main() -> ExitCode {
    tracer::become_traced();
    matrix::worker().unwrap_or_else(|| match matrix::Wanted::from_arguments() {
        Some(wanted) => matrix::run(&wanted),
        None => lab::trials(matrix::cases()),
    })
}
