//! Our hand on the enrollment server: its documents, its sealed messages, its HTTP calls.

#[expect(clippy::doc_markdown, reason = "the protocol's names are words of its own")]
#[doc = include_str!("PROTOCOL.md")]
pub mod protocol {}

mod assignment;
mod certificate;
mod document;
mod failure;
mod key;
mod knock;
mod netclient;
mod pinned;
mod push;
mod resolver;
mod rest;
pub mod seal;
mod trust;
pub mod wire;

pub use assignment::{
    AssignmentError, Candidate, PushedPeers, ServerFacts, assignment, candidates, host_key, name_relays, peer_names,
    pushed_peers, server_facts, stun_servers, told_names,
};
pub use certificate::{CertificateProblem, ClockProblem};
pub use document::{check_in, host, inadmissible_host, told_of_host, update_host};
pub use failure::{Advice, Garbled, Refusal, RestError};
pub use knock::{Answer, Certificate, Knock, knock};
pub use netclient::{NetclientError, Takeover, takeover};
pub use push::{Access, PeerSnapshot, Push, PushError, Pushed, SnapshotAge};
pub use rest::{Freshness, Registered, Rest};
pub use trust::{Trust, TrustError};
