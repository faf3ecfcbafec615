//! The bundled enrollment server: it answers the way Netmaker's server does, from one process and one file.
//!
//! ```text
//!  TLS (serve, tls) ─► faults ─► host_api  ─┐                    ┌─► store: one SQLite transaction
//!                            └─► admin_api ─┴─► server.write(rule)┤
//!                                               world, keys,      └─► kept in memory only if that succeeded
//!                                               register, relay, peers, documents: pure rules
//! ```
//!
//! Answers and shapes are the real server's, its bookkeeping faults are not: uses are counted exactly, per key and host,
//! for as long as the host exists; a known host must prove itself to register again; every pull is computed afresh.
//! It uses the agent's wire documents and seals, and nothing else of the agent.

mod admin_api;
mod answers;
mod clock;
mod documents;
mod faults;
mod handle;
mod host_api;
mod keys;
mod peers;
mod refusal;
mod register;
mod relay;
mod secrets;
mod serve;
mod server;
mod store;
mod table;
mod tls;
mod world;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use tokio::sync::watch;

pub use self::{
    clock::Clock,
    faults::{Fault, Faults, Observed},
    handle::{Connection, Handle},
    keys::NewKey,
    refusal::Refusal,
    secrets::fingerprint,
    store::{Store, StoreError},
    tls::{Flaw, Tls, TlsError},
    world::{NewNetwork, WithNodes},
};
use self::{
    server::{Parts, Server},
    store::Database,
};
use crate::control::wire::Secret;

/// How to run a server.
#[derive(Clone)]
pub struct Options {
    /// The server's name, part of MQTT topics; without `/`.
    pub server_name: String,
    /// What tokens and documents call this server, `host:port`; `None` is the listener's address.
    pub api: Option<String>,
    /// Where the state is kept.
    pub store: Store,
    /// How the server proves who it is.
    pub tls: Tls,
    /// What administrators prove themselves with; an empty one is made up.
    pub master_key: Secret,
    /// How long after its registration a host's nodes appear; the real server takes milliseconds, zero is at once.
    pub node_delay: Duration,
    /// What time it is.
    pub clock: Clock,
    /// Names a key's networks in the answer to a registration, which the real server does not.
    pub announce_networks: bool,
    /// Keeps every request with its body in memory, see [`Faults::observed`].
    pub record_requests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server_name: "mock.test".to_owned(),
            api: None,
            store: Store::default(),
            tls: Tls::default(),
            master_key: Secret::default(),
            node_delay: Duration::ZERO,
            announce_networks: true,
            clock: Clock::system(),
            record_requests: true,
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener cannot be used.
    #[error("cannot listen")]
    Listen(#[source] io::Error),
    /// The name would break topics.
    #[error("server name {0:?} is empty or has a slash in it")]
    Name(String),
    /// The state cannot be used.
    #[error("cannot open the state")]
    Store(#[from] StoreError),
    /// There is no certificate.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
}

/// Starts a server on a bound listener; it runs until the handle is shut down or dropped.
///
/// # Errors
/// [`StartError`] if the listener, the store or the certificate cannot be used.
#[expect(clippy::unused_async, reason = "it must be called inside a runtime, which this makes plain")]
pub async fn start(listener: TcpListener, options: Options) -> Result<Handle, StartError> {
    let Options { server_name, api, store, tls, master_key, node_delay, announce_networks, clock, record_requests } =
        options;
    if server_name.is_empty() || server_name.contains('/') {
        return Err(StartError::Name(server_name));
    }
    listener.set_nonblocking(true).map_err(StartError::Listen)?;
    let addr = listener.local_addr().map_err(StartError::Listen)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(StartError::Listen)?;
    let api = api.unwrap_or_else(|| reachable(addr).to_string());
    let identity = tls::identity(&tls, host_of(&api), clock::system_now())?;
    let master_key = if master_key.is_empty() { secrets::random_value().into() } else { master_key };
    let node_delay = time::Duration::try_from(node_delay).unwrap_or(time::Duration::MAX);
    let parts = Parts { clock, server_name, api, master_key, announce_networks, node_delay };
    let server = Server::new(Database::open(&store)?, parts)?;
    if record_requests {
        server.faults().record();
    }
    let router = host_api::routes().merge(admin_api::routes()).fallback(answers::no_page).with_state(server.clone());
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve::serve(listener, identity.config, router, server.clone(), stopped));
    Ok(Handle { addr, ca_pem: identity.ca_pem, server, stop, task })
}

/// A wildcard address is reached through loopback.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    addr
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host_of(api: &str) -> &str {
    let host = match api.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.chars().all(|c| c.is_ascii_digit()) => host,
        Some(_) | None => api,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}
