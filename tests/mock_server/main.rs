//! The bundled server over real TLS, as devices and administrators see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod administrators;
mod api;
mod approval;
mod bad_input;
mod bench;
mod broker;
mod devices;
mod internet;
mod keys;
mod mistakes;
mod mqtt;
mod names;
mod program;
mod requests;
mod store;
mod traffic;
mod trouble;
