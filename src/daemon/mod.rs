//! Staying right: one agent serves every membership of this device.
//!
//! ```text
//!  agent.sock ──requests──► service ──orders──► keeper (one per membership): one select! over orders, pushes,
//!                              ▲                   │     events of the host, the work under way, the next deadline
//!                              │ ended             ▼
//!                           board ◄──status── plan::Session decides, membership::Work does
//! ```
//!
//! Work moves into the future that does it and comes back with the result, so a keeper never waits inside its loop: a
//! status, a push or the end of the process are taken up while a request to the server is still under way.

mod board;
pub mod clock;
mod enroll;
mod errand;
mod gateways;
mod hand;
mod host;
mod keeper;
mod leaving;
mod lookout;
mod notify;
mod requests;
mod service;

pub use enroll::Enrollment;
pub use service::{Ended, Settings, Start, run};
