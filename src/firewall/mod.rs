//! Our hand on this machine's packet filter: one nftables table for each interface, and nothing besides it.
//!
//! ```text
//! table inet enroll-agent-enroll0 { chain input { type filter hook input; policy accept;
//!     iifname != "enroll0" accept            everything else is none of ours
//!     ct state established,related accept    answers, and what was let in before
//!     …                                      the lines of the ruleset
//!     drop } }
//! ```
//!
//! A packet that is accepted here still has to pass the tables of others. The kernel takes a table whole or not at all.

mod document;
mod program;

use std::{error::Error, io};

use self::{document::Document, program::Program};
use crate::{model::InterfaceName, plan::Ruleset};

/// The packet filter of one interface.
#[derive(Debug)]
pub struct Firewall {
    interface: InterfaceName,
    seen: Seen,
}

/// What is known of our table.
#[derive(Debug)]
enum Seen {
    /// There is none.
    Absent,
    /// It was made from these rules and looked like this then.
    Present { listing: String, ruleset: Ruleset },
    /// An earlier process may have left one.
    Unknown,
}

/// What a hand found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The table was made, replaced or removed.
    Changed,
    /// Everything was as it should be.
    Nothing,
}

/// Why the packet filter is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// This machine has no `nft`.
    #[error("the program nft is not installed")]
    Absent,
    /// `nft` could not be run.
    #[error("cannot run {program}")]
    Run {
        /// Its path.
        program: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// `nft` did not do it.
    #[error("{program} refused: {said}")]
    Refused {
        /// Its path.
        program: &'static str,
        /// Its first words, without what no terminal should show.
        said: String,
    },
    /// `nft` did not come to an end.
    #[error("{0} takes too long")]
    Slow(&'static str),
}

impl FirewallError {
    /// Says it with its cause.
    pub fn reason(&self) -> String {
        self.source().map_or_else(|| self.to_string(), |cause| format!("{self}: {cause}"))
    }
}

impl Firewall {
    /// Takes charge of the table for `interface`; nothing is looked at yet.
    pub fn new(interface: InterfaceName) -> Self {
        Self { interface, seen: Seen::Unknown }
    }

    /// Whether `ruleset` was in force when the table was last looked at.
    pub fn has(&self, ruleset: &Ruleset) -> bool {
        matches!(&self.seen, Seen::Present { ruleset: before, .. } if before == ruleset)
    }

    /// Has `ruleset` in force when it returns, whatever somebody did to the table meanwhile.
    ///
    /// # Errors
    /// [`FirewallError`]; what was in force before is still.
    pub async fn enforce(&mut self, ruleset: &Ruleset) -> Result<Done, FirewallError> {
        let program = Program::find().ok_or(FirewallError::Absent)?;
        let document = Document::of(&self.interface);
        if let Seen::Present { listing, ruleset: before } = &self.seen
            && before == ruleset
            && program.answer(&document.list()).await.is_ok_and(|now| now == *listing)
        {
            return Ok(Done::Nothing);
        }
        program.answer(&document.replace(ruleset)).await?;
        // What cannot be told now is made anew next time.
        let listing = program.answer(&document.list()).await.unwrap_or_default();
        self.seen = Seen::Present { listing, ruleset: ruleset.clone() };
        Ok(Done::Changed)
    }

    /// Removes the table; none there is success.
    ///
    /// # Errors
    /// [`FirewallError`] if there is one and it stays.
    pub async fn clear(&mut self) -> Result<Done, FirewallError> {
        let document = Document::of(&self.interface);
        let program = match (Program::find(), &self.seen) {
            // Whoever left a table had the program.
            (_, Seen::Absent) | (None, Seen::Unknown) => return Ok(Done::Nothing),
            (Some(program), Seen::Present { .. } | Seen::Unknown) => program,
            (None, Seen::Present { .. }) => return Err(FirewallError::Absent),
        };
        let is_there = match &self.seen {
            Seen::Absent | Seen::Present { .. } => true,
            Seen::Unknown => document.is_among(&program.tables().await?),
        };
        if is_there {
            program.answer(&document.remove()).await?;
        }
        self.seen = Seen::Absent;
        Ok(if is_there { Done::Changed } else { Done::Nothing })
    }
}

/// Whether this machine has the program that packet filters take.
pub fn is_installed() -> bool {
    Program::find().is_some()
}

/// Returns the interfaces that tables of ours are for, also those that another process made.
///
/// # Errors
/// [`FirewallError`] if they cannot be listed; without `nft` there are none.
pub async fn interfaces() -> Result<Vec<InterfaceName>, FirewallError> {
    match Program::find() {
        Some(program) => Ok(document::interfaces(&program.tables().await?)),
        None => Ok(Vec::new()),
    }
}
