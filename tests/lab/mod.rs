//! A small internet made of network namespaces: a hub, and nodes that reach each other through it.
//!
//! ```text
//!              hub: 10.213.0.1, fd00:213::1 on lo, forwards
//!              /            |             \
//!     10.213.1.1/30   10.213.2.1/30   10.213.3.1/30       node N also has fd00:213:0:N::2/126
//!             │             │              │
//!     10.213.1.2/30   10.213.2.2/30   10.213.3.2/30
//!           node 1        node 2         node 3           eth0, default route through the hub, forwards
//! ```
//!
//! Nothing outside the test program is needed: it starts itself again for every part it has to play, because a thread
//! that has entered a namespace taints the whole process. [`Role`] tells the parts.
//!
//! ```text
//!  cargo test ─► runner ─► hub, one per trial ─► helper, one per node ─► program (becomes what the test asked for)
//! ```
//!
//! Each part asks the kernel to be killed when the one before it dies, and namespaces go with their last process, so
//! nothing is left behind however a test ends.

#![expect(clippy::disallowed_methods, reason = "the lab waits for real processes and plays parts told by environment")]
#![expect(clippy::allow_attributes, reason = "an expectation would be unmet in the one program that uses everything")]
#![allow(dead_code, reason = "each test program uses its own part of the lab")]

mod enter;
mod helper;
mod hub;
mod netlink;
mod node;
mod ping;
mod protocol;
mod role;
mod snapshot;
mod trials;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

#[allow(unused_imports, reason = "each test program uses its own part of the lab")]
pub(crate) use self::{
    enter::{Missing, enter},
    hub::{Cable, Forwarding, Lab},
    node::{Node, Process},
    ping::Pings,
    protocol::{Exit, Interface, Output, Program, Reached},
    role::Role,
    trials::{Case, trials},
};

/// Asks `probe` until it has a value, for at most `deadline`; says `what` was waited for when it never has one.
pub(crate) fn eventually<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} in vain for {what}");
        }
        thread::sleep(POLL);
    }
}

/// Between two looks; short against anything a person would notice, long against the cost of looking.
const POLL: Duration = Duration::from_millis(10);
