//! The way for messages between server and hosts: a broker inside, or a client of one elsewhere.
//!
//! `rumqttd` would have been the broker. It keeps retained messages and knows `WebSocket`, but it cannot be stopped
//! (threads that loop for ever on listeners it binds itself), which a server that tests start and stop by the hundred
//! needs, and it would bring 75 crates, among them a second `axum`, an old `hyper` and a metrics exporter. A broker at
//! quality of service 0 is a map of topics; the hard part, the frames, is the client library's codec.

mod hub;
mod inside;
mod outside;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::inside::Gate;
pub(super) use self::{
    hub::{Delivery, Hub, Keep},
    inside::Admits,
};

use crate::control::wire::Secret;

/// Where messages to hosts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broker {
    /// To a broker elsewhere, which must be running.
    Elsewhere(Elsewhere),
    /// To a broker inside this server.
    Inside(Inside),
}

/// A broker inside the server: MQTT 3.1.1 on one port, over TCP and WebSocket, with and without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What the URL that hosts are told begins with; all four are served.
    pub scheme: Scheme,
    /// How hosts prove who they are.
    pub login: Login,
}

/// A broker elsewhere, such as Mosquitto or EMQX.
#[derive(Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// As `mqtts://broker.example.net:8883` or `wss://broker.example.net/mqtt`.
    pub url: String,
    /// The server's own user name; with [`Login::Shared`] hosts are told it too.
    pub user: String,
    /// The server's own password; with [`Login::Shared`] hosts are told it too.
    pub password: Secret,
    /// Authority of the broker's certificate, PEM; `None` is what the system trusts.
    pub ca_pem: Option<String>,
    /// How hosts prove who they are.
    pub login: Login,
    /// The URL that hosts are told; `None` is the server's own.
    pub announce: Option<String>,
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elsewhere").field("url", &self.url).field("login", &self.login).finish_non_exhaustive()
    }
}

/// How hosts prove to the broker who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// With their own id and password, as with EMQX; a broker elsewhere must know them.
    Host,
    /// With a name and a password that all share, as with Mosquitto.
    #[default]
    Shared,
}

/// What a host is sent again, on all its topics.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// The last messages: duplicates.
    Last,
    /// The messages before the last ones: they are stale, and stay.
    Stale,
}

/// What a broker's URL begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// `mqtt`: TCP.
    Mqtt,
    /// `mqtts`: TCP with TLS.
    Mqtts,
    /// `ws`: WebSocket.
    Ws,
    /// `wss`: WebSocket with TLS.
    #[default]
    Wss,
}

impl Scheme {
    /// The scheme as URLs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

/// Why there is no way for messages.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker's authority is not PEM, or the system trusts nobody.
    #[error("broker's certificate authority cannot be used")]
    Authority,
    /// The listener cannot be used.
    #[error("broker cannot listen")]
    Listen(#[source] io::Error),
    /// The URL has another scheme, or no host.
    #[error("broker URL {0:?} is none that hosts understand")]
    Url(String),
}

/// What hosts are told.
#[derive(Clone)]
pub(super) struct Announced {
    pub(super) url: String,
    pub(super) login: Login,
    /// Empty with [`Login::Host`].
    pub(super) user: String,
    pub(super) password: Secret,
}

/// A broker whose listener is bound, or whose URL is understood; nothing runs yet.
pub(super) enum Prepared {
    Elsewhere(Elsewhere),
    Inside(TcpListener),
}

/// Prepares a broker that hosts reach at `host`; `password` is for [`Login::Shared`] inside.
pub(super) fn prepare(broker: Broker, host: &str, password: &Secret) -> Result<(Prepared, Announced), BrokerError> {
    match broker {
        Broker::Elsewhere(broker) => {
            let url = broker.announce.clone().unwrap_or_else(|| broker.url.clone());
            let (user, password) = (broker.user.clone(), broker.password.clone());
            let announced = Announced { url, login: broker.login, user, password };
            Ok((Prepared::Elsewhere(broker), announced))
        }
        Broker::Inside(Inside { listen, scheme, login }) => {
            let listener = TcpListener::bind(listen).map_err(BrokerError::Listen)?;
            listener.set_nonblocking(true).map_err(BrokerError::Listen)?;
            let port = listener.local_addr().map_err(BrokerError::Listen)?.port();
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            let url = format!("{}://{host}:{port}", scheme.as_str());
            let announced = Announced { url, login, user: SHARED_USER.to_owned(), password: password.clone() };
            Ok((Prepared::Inside(listener), announced))
        }
    }
}

/// The way to the hosts.
#[derive(Clone)]
pub(super) enum Link {
    Elsewhere(outside::Client),
    Inside(Hub),
}

impl Link {
    /// Sends a message that stays until the next one on its topic.
    pub(super) async fn publish(&self, topic: String, payload: Vec<u8>) {
        match self {
            Self::Elsewhere(client) => client.publish(topic, payload).await,
            Self::Inside(hub) => {
                hub.publish(&topic, &payload.into(), Keep::Retained);
            }
        }
    }

    /// Tells whether messages get through.
    pub(super) fn is_up(&self) -> bool {
        match self {
            Self::Elsewhere(client) => client.is_up(),
            Self::Inside(hub) => hub.is_up(),
        }
    }

    /// Waits until a broker elsewhere listens for us; not for long, since it may come much later.
    pub(super) async fn ready(&self) {
        match self {
            Self::Elsewhere(client) => {
                if timeout(FIRST_CONNECTION, client.connected()).await.is_err() {
                    tracing::warn!("the broker does not answer yet");
                }
            }
            Self::Inside(_) => {}
        }
    }

    /// The broker inside, if that is where the messages go.
    pub(super) fn hub(&self) -> Option<&Hub> {
        match self {
            Self::Elsewhere(_) => None,
            Self::Inside(hub) => Some(hub),
        }
    }
}

/// A broker that runs.
pub(super) struct Running {
    pub(super) link: Link,
    /// What hosts send.
    pub(super) incoming: mpsc::Receiver<Delivery>,
    /// The filters of those who subscribe; nothing is known of a broker elsewhere.
    pub(super) subscriptions: mpsc::UnboundedReceiver<String>,
    pub(super) task: JoinHandle<()>,
}

impl Prepared {
    /// Starts the broker and listens to `topics`.
    pub(super) fn start(
        self,
        topics: Vec<String>,
        admits: Admits,
        tls: Arc<rustls::ServerConfig>,
        stop: watch::Receiver<bool>,
    ) -> Result<Running, BrokerError> {
        match self {
            Self::Elsewhere(broker) => {
                let (client, connection) = outside::client(&broker, topics)?;
                let (sender, incoming) = mpsc::channel(INCOMING);
                let task = tokio::spawn(connection.run(sender));
                let (_, subscriptions) = mpsc::unbounded_channel();
                Ok(Running { link: Link::Elsewhere(client), incoming, subscriptions, task })
            }
            Self::Inside(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener).map_err(BrokerError::Listen)?;
                let hub = Hub::default();
                let (id, incoming) = hub.connect(hub::OWN_NAME);
                for topic in &topics {
                    hub.subscribe(id, topic);
                }
                let subscriptions = hub.subscriptions();
                let gate = Gate { hub: hub.clone(), admits, tls: TlsAcceptor::from(tls) };
                let task = tokio::spawn(inside::serve(listener, gate, stop));
                Ok(Running { link: Link::Inside(hub), incoming, subscriptions, task })
            }
        }
    }
}

/// The name that hosts share inside.
pub(super) const SHARED_USER: &str = "netmaker";

/// How long a broker elsewhere may take before messages are queued for it.
const FIRST_CONNECTION: Duration = Duration::from_secs(10);

/// Messages of hosts that may wait for the server.
const INCOMING: usize = 1024;
