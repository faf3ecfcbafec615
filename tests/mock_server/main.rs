//! The bundled server over real TLS, as devices and administrators see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod administrators;
mod bench;
mod devices;
mod program;
