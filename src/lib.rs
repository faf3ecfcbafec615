//! The enrollment agent: a device gets from one key to its WireGuard networks, and stays there.
//!
//! ```text
//!  key string                                                                         agent status
//!      │ parse                                                                              ▲ render
//!      ▼                                                                                    │
//!  Token {server, value}                                                                 Status
//!      │ make identity → save Pending → redeem (HTTPS)                                      ▲ summarize
//!      ▼                                                                                    │
//!  wire::RegisterResponse, then wire::HostPull ──check──► Assignment ──save──► state        │
//!                                                             │                             │
//!                                                             │ target(policy)              │
//!                                                             ▼                             │
//!                                                        Device (want)                      │
//!                                                             │ settle(have, stats)         │
//!                        observe                              ▼                             │
//!  kernel / userspace ─────────────────► diff(have, want) ──► [Change]                      │
//!         ▲                                                   │ apply                       │
//!         └───────────────────────────────────────────────────┘                             │
//!         └──────────── observe: Device (have) + peer statistics ───────────────────────────┘
//! ```
//!
//! Left of [`model::Assignment`] everything is doubt; from there on everything is parsed and valid. Between `target`
//! and the changes nothing touches the world. The loop closes because the host is looked at again before the next plan.
//! Only pushed peers are planned from what the last look and the plans since left: a look at thousands costs far more
//! than a change of one, and the kernel tells when others touch the interface.
//!
//! # Layers
//!
//! | Layer | Modules | May use | May not |
//! |---|---|---|---|
//! | 1 Words | [`model`] | std, serde, ipnet, keys | other modules, I/O, clock, async, logging |
//! | 2 Mind | [`plan`] | `model` | I/O, clock, randomness, async, logging |
//! | 3 Hands | [`control`], [`dns`], [`endpoint`], [`facts`], [`firewall`], [`hooks`], [`ipc`], [`link`], [`store`] | `model`, the values of `plan` | each other, printing, deciding |
//! | 4 Will | [`membership`], [`daemon`] | all above; the only place where two hands meet | printing, exiting |
//! | 5 Face | `main`, [`cli`], [`config`] | layer 4, stdout, exit codes, environment | WireGuard, the server's JSON |
//!
//! [`mock_server`] stands beside the layers: it uses `control::wire` and `control::seal` and nothing else of the agent.
//! `tests/layers.rs` keeps the arrows pointing inward; `.clippy.toml` bans the clock outside `daemon::clock`.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dns;
pub mod endpoint;
pub mod facts;
pub mod firewall;
pub mod hooks;
pub mod ipc;
pub mod link;
pub mod membership;
#[cfg(feature = "mock-server")]
pub mod mock_server;
pub mod model;
pub mod plan;
pub mod store;
