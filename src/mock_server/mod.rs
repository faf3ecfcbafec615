//! The bundled enrollment server: it answers the way Netmaker's server does, from one process and one file.
//!
//! ```text
//!  TLS (serve, tls) ─► faults ─► host_api  ─┐                    ┌─► store: one SQLite transaction
//!                            └─► *_api    ─┴─► server.write(rule)┤
//!                                               world, keys,      └─► kept in memory only if that succeeded
//!                                               register, relay, egress, policies, peers, documents: pure rules
//!
//!  many registrations ─► together: one transaction for those that wait at the same time
//!  what changed ─► publisher (debounce, tell, messages) ─► broker ─► hosts that listen
//!  hosts ─► broker ─► upstream ─► the same rules
//!  trouble ─► faults (requests, clock, nodes, mistakes), tls (certificates), broker
//! ```
//!
//! Answers and shapes are the real server's, its bookkeeping faults are not, unless they are switched on: uses are counted
//! exactly, per key and host, for as long as the host exists; a known host must prove itself to register again; every
//! pull is computed afresh, and what costs much only for hosts that ask.
//! It uses the agent's wire documents and seals, and nothing else of the agent.

mod access_tokens;
mod account_api;
mod acl_api;
mod acls;
mod admin_api;
mod announce;
mod answers;
mod audit;
mod audit_log;
mod broker;
mod calls;
mod clock;
mod debounce;
mod documents;
mod egress;
mod egress_api;
mod events;
mod faults;
mod firewall;
mod gateway_api;
mod handle;
mod handle_traffic;
mod host_admin_api;
mod host_api;
mod key_api;
mod key_changes;
mod key_info;
mod keys;
mod messages;
mod migrate;
mod name_server_api;
mod name_servers;
mod network_rules;
mod networks;
mod node_api;
mod nodes;
mod openapi;
mod parse;
mod peers;
mod pending;
mod pending_api;
mod policies;
mod publisher;
mod pulls;
mod redeem;
mod refusal;
mod register;
mod relay;
mod resettable;
pub mod scenario;
mod secrets;
mod serve;
mod server;
mod sessions;
mod spoil;
mod store;
mod table;
mod tell;
mod tls;
mod together;
mod trouble;
mod updates;
mod upstream;
mod user_api;
mod users;
mod world;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use tokio::sync::{mpsc, watch};

pub use self::{
    audit::{Action, AuditEntry, AuditFilter, AuditPage},
    broker::{Broker, BrokerError, Elsewhere, Inside, Login, Repeat, Scheme},
    clock::Clock,
    events::Event,
    faults::{Fault, Faults, Mistake, NodeCreation, Observed},
    handle::{Connection, Handle},
    key_changes::{GatewayChoice, KeyEdit},
    key_info::KeyInfo,
    keys::NewKey,
    networks::{NewNetwork, WithNodes},
    refusal::Refusal,
    secrets::fingerprint,
    store::{Store, StoreError},
    tls::{Flaw, Tls, TlsError},
    trouble::Trouble,
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
    /// Keys are checked and listed as the real server does: networks need not exist, fixed fields of a change are
    /// ignored, and values are stored and listed. Otherwise values are stored as hashes and shown once.
    pub netmaker_compat: bool,
    /// What time it is.
    pub clock: Clock,
    /// Where messages to hosts go; `None` sends none, and hosts are told of no broker.
    pub broker: Option<Broker>,
    /// Whether it also does what only the paid edition of the real server does.
    pub edition: Edition,
    /// Whether hosts are told the names of others.
    pub names: Names,
    /// How hosts are to find out where they are.
    pub discovery: Discovery,
    /// Names a key's networks in the answer to a registration, and what a key is good for to whoever asks about it, which
    /// the real server does not.
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
            netmaker_compat: false,
            clock: Clock::system(),
            broker: None,
            edition: Edition::default(),
            names: Names::default(),
            discovery: Discovery::default(),
            record_requests: true,
        }
    }
}

/// How hosts are to find out where they and their neighbours are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Whether peers are to be tried at the addresses of their own networks.
    pub nearby: bool,
    /// STUN servers to ask, `host:port`; none tells hosts to ask nobody.
    pub stun_servers: Vec<String>,
}

/// Which edition of the real server this one is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edition {
    /// The free one.
    #[default]
    Community,
    /// The paid one, as far as enrolling and traffic are concerned: hosts choose their gateway, networks want their hosts
    /// approved, policies are about ports and tags.
    Pro,
}

/// Whether the server manages names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// It tells them through the broker, and hosts whose record says so take them over.
    Managed,
    /// It does not.
    #[default]
    Off,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no way for messages to hosts.
    #[error("cannot set up the broker")]
    Broker(#[from] BrokerError),
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
pub async fn start(listener: TcpListener, options: Options) -> Result<Handle, StartError> {
    let Options {
        server_name,
        api,
        store,
        tls,
        master_key,
        node_delay,
        announce_networks,
        netmaker_compat,
        clock,
        broker,
        edition,
        names,
        discovery,
        record_requests,
    } = options;
    refuse_name(&server_name)?;
    let (listener, addr) = take(listener).map_err(StartError::Listen)?;
    let api = api.unwrap_or_else(|| reachable(addr).to_string());
    let identity = tls::identity(&tls, host_of(&api))?;
    let master_key = if master_key.is_empty() { secrets::random_value().into() } else { master_key };
    let password = secrets::random_value().into();
    let broker = broker.map(|broker| broker::prepare(broker, host_of(&api), &password)).transpose()?;
    let login = broker.as_ref().map(|(_, announced)| announced.login).unwrap_or_default();
    let (broker, announced) = broker.unzip();
    let (orders, to_do) = mpsc::unbounded_channel();
    let parts = Parts {
        clock,
        server_name,
        api,
        master_key,
        node_delay: time::Duration::try_from(node_delay).unwrap_or(time::Duration::MAX),
        announce_networks,
        netmaker_compat,
        broker: announced,
        edition,
        names,
        discovery,
        orders,
        certificates: identity.certificates,
    };
    let server = Server::new(Database::open(&store)?, parts)?;
    if record_requests {
        server.faults().record();
    }
    let router = calls::router(all_calls(edition)).fallback(answers::no_page).with_state(server.clone());
    let (stop, stopped) = watch::channel(false);
    let mut broker_tasks = Vec::new();
    if let Some(broker) = broker {
        let admits = server.broker_admits(login);
        let topics = messages::own_topics(&server.config().server);
        let running = broker.start(topics, admits, identity.broker.clone(), stopped.clone())?;
        server.set_link(running.link.clone());
        broker_tasks.extend(publisher::spawn(server.clone(), running, to_do));
    }
    let task = tokio::spawn(serve::serve(listener, identity.config, router, server.clone(), stopped));
    Ok(Handle { addr, ca_pem: identity.ca_pem, server, stop, task, broker_tasks })
}

/// Takes a listener over into the current runtime.
fn take(listener: TcpListener) -> io::Result<(tokio::net::TcpListener, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    Ok((tokio::net::TcpListener::from_std(listener)?, addr))
}

/// Everything the API has.
fn all_calls(edition: Edition) -> Vec<calls::Call> {
    let choosing = match edition {
        Edition::Community => vec![],
        Edition::Pro => gateway_api::calls(),
    };
    let parts = [
        host_api::calls(),
        choosing,
        trouble::calls(),
        host_admin_api::calls(),
        node_api::calls(),
        admin_api::calls(),
        egress_api::calls(),
        acl_api::calls(),
        name_server_api::calls(),
        pending_api::calls(),
        key_api::calls(),
        account_api::calls(),
        user_api::calls(),
    ];
    let mut calls: Vec<_> = parts.into_iter().flatten().collect();
    calls.push(openapi::call(&calls));
    calls
}

/// Topics are made of the name.
fn refuse_name(name: &str) -> Result<(), StartError> {
    if name.is_empty() || name.contains('/') { Err(StartError::Name(name.to_owned())) } else { Ok(()) }
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
