//! The server's broker: what it pushes to this host, opened and sorted.
//!
//! One task keeps the connection and passes on what comes. An action stays at the broker until somebody clears it, so it
//! is cleared before it is passed on; peers and nodes stay there, and come again with every connection.

use std::{collections::BTreeSet, sync::Arc};

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, PublishOptions, QoS, Transport};
use rustls::ClientConfig;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};
use uuid::Uuid;

use super::{
    seal::{self, PayloadKey, SealError},
    wire::{self, BrokerAddress, BrokerAddressError, HostAction},
};
use crate::{
    model::{Identity, NetworkName, Secret},
    plan::{self, Hint},
};

/// How to reach a server's broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    address: BrokerAddress,
    password: Secret,
    /// The server's public key for sealed messages.
    server_key: Option<[u8; 32]>,
    /// The server's own name, part of every topic.
    server_name: String,
    user: String,
}

/// Why a broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The server does not say where it is in words we know.
    #[error(transparent)]
    Address(#[from] BrokerAddressError),
    /// The server's name would make other topics of ours.
    #[error("the server's name {0:?} cannot be part of a topic")]
    Name(String),
}

/// Something from the broker.
#[derive(Debug)]
pub enum Pushed {
    /// It listens to us.
    Connected,
    /// The connection is gone, or was not to be had; it is tried again.
    Disconnected(String),
    /// The server asks for something.
    Hint(Hint),
    /// All peers, as they are now.
    Peers(Box<wire::HostPeerUpdate>),
}

/// A connection to the broker; it ends when this is dropped.
#[derive(Debug)]
pub struct Push {
    acknowledgement: Option<Acknowledgement>,
    client: AsyncClient,
    incoming: mpsc::Receiver<Pushed>,
    /// Topics of nodes that are listened to, shared with the task by what is subscribed at each connection.
    nodes: watch::Sender<BTreeSet<String>>,
    task: JoinHandle<()>,
}

/// What an acknowledgement is made of.
#[derive(Debug)]
struct Acknowledgement {
    message: Vec<u8>,
    secret: [u8; 32],
    server_key: [u8; 32],
    topic: String,
}

impl Access {
    /// Reads from the server's description of itself how the host of `identity` reaches its broker; `None` if it has
    /// none.
    pub fn new(config: &wire::ServerConfig, identity: &Identity) -> Result<Option<Self>, PushError> {
        if config.broker.is_empty() {
            return Ok(None);
        }
        let address = config.broker.parse()?;
        let server_name = config.server.clone();
        if server_name.is_empty() || server_name.contains(['/', '+', '#']) {
            return Err(PushError::Name(server_name.chars().take(80).collect()));
        }
        // With EMQX every host has an account of its own; the names in the document are placeholders.
        let (user, password) = match config.broker_type.as_str() {
            "emqx" => (identity.host_id.to_string(), identity.password.clone()),
            _ => (config.mq_user_name.clone(), config.mq_password.clone()),
        };
        let server_key = seal::gob::decode(config.traffic_key.as_slice()).ok();
        Ok(Some(Self { address, password, server_key, server_name, user }))
    }

    fn options(&self, tls: &Arc<ClientConfig>) -> Result<MqttOptions, BrokerAddressError> {
        let name = client_name();
        let tls = || {
            let mut config = ClientConfig::clone(tls);
            config.alpn_protocols = Vec::new();
            config
        };
        let mut options = match &self.address {
            BrokerAddress::Tcp { host, port } => MqttOptions::new(name, (host.clone(), *port)),
            BrokerAddress::Tls { host, port } => {
                let mut options = MqttOptions::new(name, (host.clone(), *port));
                options.set_transport(Transport::tls_with_config(tls().into()));
                options
            }
            BrokerAddress::WebSocket(url) => match rumqttc::Broker::websocket(url) {
                Ok(broker) => MqttOptions::new(name, broker),
                Err(_) => return Err(BrokerAddressError::of(url)),
            },
            BrokerAddress::WebSocketTls(url) => MqttOptions::websocket_with_tls_config(name, url, tls().into())
                .map_err(|_| BrokerAddressError::of(url))?,
        };
        options.set_credentials(&self.user, self.password.expose().to_owned());
        options.set_keep_alive(KEEPALIVE);
        options.set_max_packet_size(LARGEST, LARGEST);
        Ok(options)
    }
}

impl Push {
    /// Begins to keep a connection for the host that sends `host` as its document; must be called within a runtime.
    pub fn open(
        access: &Access,
        identity: &Identity,
        host: wire::Host,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, PushError> {
        let options = access.options(tls)?;
        let (client, events) = AsyncClient::builder(options).capacity(QUEUE).build();
        let (sender, incoming) = mpsc::channel(QUEUE);
        let (nodes, watched) = watch::channel(BTreeSet::new());
        let host_id = identity.host_id;
        let key = PayloadKey::from_traffic_key(&seal::gob::encode(
            &identity.traffic.private_key.public_key().0,
            Some(&identity.traffic.name),
        ))
        .ok();
        let opener = Opener { key, secret: *identity.traffic.private_key.as_bytes(), server_key: access.server_key };
        let topics = Topics {
            action: format!("host/update/{host_id}/{}", access.server_name),
            peers: format!("peers/host/{host_id}/{}", access.server_name),
        };
        let acknowledgement = access.server_key.and_then(|server_key| {
            let host = wire::Host { password: Secret::default(), ..host };
            let update = wire::HostUpdate { action: HostAction::Ack, host, ..wire::HostUpdate::default() };
            Some(Acknowledgement {
                message: serde_json::to_vec(&update).ok()?,
                secret: opener.secret,
                server_key,
                topic: format!("host/serverupdate/{}/{host_id}", access.server_name),
            })
        });
        let desk = Desk { client: client.clone(), opener, sender, topics };
        let keeper = Keeper { desk, events, nodes: watched };
        Ok(Self { acknowledgement, client, incoming, nodes, task: tokio::spawn(keeper.run()) })
    }

    /// The next thing from the broker; may be given up and asked for again.
    pub async fn next(&mut self) -> Pushed {
        match self.incoming.recv().await {
            Some(pushed) => pushed,
            // The task ends only with this value, or by a fault of its own.
            None => std::future::pending().await,
        }
    }

    /// Tells the server that we are there, for what waits there (protocol page, "ACK flow").
    pub fn acknowledge(&self) {
        let Some(Acknowledgement { message, secret, server_key, topic }) = &self.acknowledgement else {
            tracing::warn!("the server has no usable traffic key: nothing can be acknowledged");
            return;
        };
        let sealed = seal::seal_box(server_key, secret, message, seal::random);
        if let Err(error) = self.client.try_publish(topic.as_str(), sealed, PublishOptions::at_least_once()) {
            tracing::debug!(%error, "the acknowledgement was not sent");
        }
    }

    /// Listens to what concerns these nodes, and to no other.
    pub fn follow<'a>(&self, nodes: impl Iterator<Item = (&'a NetworkName, Uuid)>) {
        let wanted: BTreeSet<_> = nodes.map(|(network, id)| format!("node/update/{network}/{id}")).collect();
        self.nodes.send_if_modified(|known| {
            let changed = *known != wanted;
            *known = wanted;
            changed
        });
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The topics that are always listened to.
struct Topics {
    action: String,
    peers: String,
}

/// The task behind a [`Push`].
struct Keeper {
    desk: Desk,
    events: EventLoop,
    nodes: watch::Receiver<BTreeSet<String>>,
}

/// Where messages are opened and sorted.
struct Desk {
    client: AsyncClient,
    opener: Opener,
    sender: mpsc::Sender<Pushed>,
    topics: Topics,
}

impl Keeper {
    async fn run(mut self) {
        let mut failures = 0;
        let mut listened = BTreeSet::new();
        loop {
            tokio::select! {
                event = self.events.poll() => match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => listened = self.listen(),
                    Ok(Event::Incoming(Packet::SubAck(_))) if failures != CONNECTED => {
                        failures = CONNECTED;
                        self.desk.pass(Pushed::Connected).await;
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => self.desk.take(publish).await,
                    Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
                    Err(error) => {
                        failures = if failures == CONNECTED { 1 } else { (failures + 1).min(CONNECTED - 1) };
                        self.desk.pass(Pushed::Disconnected(error.to_string())).await;
                        sleep(plan::backoff(failures, seal::random::<1>()[0], None)).await;
                    }
                },
                changed = self.nodes.changed() => match changed {
                    Ok(()) if failures == CONNECTED => self.follow(&mut listened),
                    Ok(()) => {}
                    Err(_) => return,
                },
            }
        }
    }

    /// Subscribes to everything at the start of a connection.
    fn listen(&mut self) -> BTreeSet<String> {
        let nodes = self.nodes.borrow_and_update().clone();
        for topic in nodes.iter().chain([&self.desk.topics.peers, &self.desk.topics.action]) {
            if let Err(error) = self.desk.client.try_subscribe(topic.as_str(), QoS::AtMostOnce) {
                tracing::warn!(%error, topic, "cannot listen to the broker");
            }
        }
        nodes
    }

    fn follow(&mut self, listened: &mut BTreeSet<String>) {
        let wanted = self.nodes.borrow_and_update().clone();
        for topic in wanted.difference(listened) {
            if let Err(error) = self.desk.client.try_subscribe(topic.as_str(), QoS::AtMostOnce) {
                tracing::warn!(%error, topic, "cannot listen to the broker");
            }
        }
        for topic in listened.difference(&wanted) {
            if let Err(error) = self.desk.client.try_unsubscribe(topic.as_str()) {
                tracing::debug!(%error, topic, "cannot stop listening");
            }
        }
        *listened = wanted;
    }
}

impl Desk {
    async fn take(&self, publish: Publish) {
        let Ok(topic) = std::str::from_utf8(&publish.topic) else { return };
        if publish.payload.is_empty() {
            return;
        }
        let text = match self.opener.open(&publish.payload) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, topic, "a message cannot be opened");
                return;
            }
        };
        if topic == self.topics.peers {
            match serde_json::from_slice(&text) {
                Ok(update) => self.pass(Pushed::Peers(Box::new(update))).await,
                Err(error) => {
                    tracing::warn!(%error, "pushed peers cannot be read");
                    // A pull is read with more patience.
                    self.pass(Pushed::Hint(Hint::Look)).await;
                }
            }
        } else if topic == self.topics.action {
            self.clear(topic);
            match serde_json::from_slice::<Action>(&text) {
                Ok(Action { action }) => self.act(&action).await,
                Err(error) => tracing::warn!(%error, "a pushed action cannot be read"),
            }
        } else {
            self.pass(Pushed::Hint(Hint::Look)).await;
        }
    }

    /// Takes an action off the broker: it would come again with every connection.
    fn clear(&self, topic: &str) {
        let options = PublishOptions::at_most_once().retained();
        if let Err(error) = self.client.try_publish(topic, Vec::new(), options) {
            tracing::warn!(%error, "an action stays at the broker");
        }
    }

    async fn act(&self, action: &HostAction) {
        tracing::debug!(action = action.as_str(), "the server asks for something");
        if let Some(hint) = hint(action) {
            self.pass(Pushed::Hint(hint)).await;
        }
    }

    async fn pass(&self, pushed: Pushed) {
        if self.sender.send(pushed).await.is_err() {
            tracing::debug!("nobody takes what is pushed any more");
        }
    }
}

/// The only part of an action that is used: a pull tells the rest.
#[derive(serde::Deserialize)]
struct Action {
    #[serde(rename = "Action", default)]
    action: HostAction,
}

fn hint(action: &HostAction) -> Option<Hint> {
    match action {
        HostAction::DeleteHost => Some(Hint::Delete),
        HostAction::ForceUpgrade | HostAction::Upgrade => Some(Hint::Upgrade),
        HostAction::JoinHostToNetwork => Some(Hint::Join),
        HostAction::RequestAck => Some(Hint::Acknowledge),
        HostAction::RequestPull => Some(Hint::Pull),
        HostAction::CheckAutoAssignGateway | HostAction::SignalPull | HostAction::UpdateHost => Some(Hint::Look),
        HostAction::UpdateKeys => Some(Hint::RotateKeys),
        HostAction::Ack
        | HostAction::CheckIn
        | HostAction::EgressUpdate
        | HostAction::SignalHost
        | HostAction::UpdateMetrics
        | HostAction::UpdateNode
        | HostAction::Other(_) => None,
    }
}

/// Opens messages in whichever of the two formats they come.
struct Opener {
    key: Option<PayloadKey>,
    secret: [u8; 32],
    server_key: Option<[u8; 32]>,
}

impl Opener {
    fn open(&self, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        let first =
            self.key.as_ref().ok_or(SealError::Broken).and_then(|key| seal::open_payload(key, payload, LARGEST));
        match (first, &self.server_key) {
            (Err(SealError::Broken | SealError::TooShort(_)), Some(server_key)) => {
                seal::open_box(server_key, &self.secret, payload)
            }
            (first, _) => first,
        }
    }
}

fn client_name() -> String {
    let mut name = data_encoding::BASE32_NOPAD.encode(&seal::random::<15>());
    name.truncate(23);
    name
}

/// More than any number of failures: the connection stands.
const CONNECTED: u32 = u32::MAX;

/// Seconds; what the real client uses.
const KEEPALIVE: u16 = 15;

/// Bytes in a message, packed or not: peers are about 600 each.
const LARGEST: usize = 64 << 20;

/// Messages on their way in either direction.
const QUEUE: usize = 64;
