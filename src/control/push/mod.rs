//! The server's broker: what it pushes to this host, opened and sorted.
//!
//! One task keeps the connection and passes on what comes. An action stays at the broker until somebody clears it, so it
//! is cleared before it is passed on; peers and nodes stay there, and come again with every connection.

mod access;
mod desk;

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use rumqttc::{AsyncClient, Event, EventLoop, Packet, PublishOptions, QoS, SubscribeFilter as Filter};
use rustls::ClientConfig;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};
use uuid::Uuid;

pub use self::access::{Access, PushError};
use self::desk::{Desk, Opener, Topics};
use super::{
    seal::{self, PayloadKey},
    wire::{self, HostAction},
};
use crate::{
    model::{Identity, NetworkName, PrivateKey, Secret},
    plan::{self, Hint},
};

/// Something from the broker.
#[derive(Debug)]
pub enum Pushed {
    /// It listens to us.
    Connected,
    /// The connection is gone, or was not to be had; it is tried again.
    Disconnected(String),
    /// The server asks for something.
    Hint(Hint),
    /// All names in a network, as they are now.
    Names(NetworkName, Vec<wire::DnsEntry>),
    /// All peers.
    Peers(Box<PeerSnapshot>),
    /// Peers that cannot be opened or read, or that were replaced already.
    Spoiled,
}

/// All peers, as they are now or were when they were last pushed.
#[derive(Debug)]
pub struct PeerSnapshot {
    /// Whether it was just pushed.
    pub age: SnapshotAge,
    /// The message.
    pub update: wire::HostPeerUpdate,
}

/// Whether a message was just published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotAge {
    /// Just now.
    Fresh,
    /// The broker kept it; there may be a newer state already that the server has not published yet.
    Kept,
}

/// A connection to the broker; it ends when this is dropped.
#[derive(Debug)]
pub struct Push {
    acknowledgement: Option<Acknowledgement>,
    client: AsyncClient,
    incoming: mpsc::Receiver<Pushed>,
    /// Topics of nodes that are listened to, shared with the task by what is subscribed at each connection.
    nodes: watch::Sender<BTreeSet<String>>,
    /// The server's own name.
    server: String,
    task: JoinHandle<()>,
}

/// What an acknowledgement is made of.
#[derive(Debug)]
struct Acknowledgement {
    message: Vec<u8>,
    secret: PrivateKey,
    server_key: [u8; 32],
    topic: String,
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
            identity.traffic.name.as_ref(),
        ))
        .ok();
        let secret = &identity.traffic.private_key;
        let opener = Opener { key, secret: secret.clone(), server_key: access.server_key };
        let topics = Topics {
            action: format!("host/update/{host_id}/{}", access.server_name),
            peers: format!("peers/host/{host_id}/{}", access.server_name),
            server: access.server_name.clone(),
        };
        let acknowledgement = access.server_key.and_then(|server_key| {
            let host = wire::Host { password: Secret::default(), ..host };
            let update = wire::HostUpdate { action: HostAction::Ack, host, ..wire::HostUpdate::default() };
            Some(Acknowledgement {
                message: serde_json::to_vec(&update).ok()?,
                secret: secret.clone(),
                server_key,
                topic: format!("host/serverupdate/{}/{host_id}", access.server_name),
            })
        });
        let desk = Desk::new(client.clone(), opener, sender, topics);
        let keeper = Keeper { desk, events, nodes: watched };
        let server = access.server_name.clone();
        Ok(Self { acknowledgement, client, incoming, nodes, server, task: tokio::spawn(keeper.run()) })
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
        let sealed = seal::seal_box(server_key, secret.as_bytes(), message, seal::random);
        if let Err(error) = self.client.try_publish(topic.as_str(), sealed, PublishOptions::at_least_once()) {
            tracing::debug!(%error, "the acknowledgement was not sent");
        }
    }

    /// Listens to what concerns these nodes and their networks, and to no other.
    pub fn follow<'a>(&self, nodes: impl Iterator<Item = (&'a NetworkName, Uuid)>) {
        let topics = nodes.flat_map(|(network, id)| {
            [format!("node/update/{network}/{id}"), format!("{NAMES}{network}/{}", self.server)]
        });
        let wanted: BTreeSet<_> = topics.collect();
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

/// The task behind a [`Push`].
struct Keeper {
    desk: Desk,
    events: EventLoop,
    nodes: watch::Receiver<BTreeSet<String>>,
}

impl Keeper {
    async fn run(mut self) {
        let mut failures = 0;
        let mut listened = BTreeSet::new();
        let mut is_connected = false;
        // A broker that lets us in and puts us out again is not asked as often as one that is well.
        let mut stood = pin!(sleep(Duration::ZERO));
        loop {
            tokio::select! {
                event = self.events.poll() => match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => listened = self.listen(),
                    Ok(Event::Incoming(Packet::SubAck(_))) if !is_connected => {
                        is_connected = true;
                        stood.set(sleep(WELL));
                        self.follow(&mut listened);
                        self.desk.pass(Pushed::Connected).await;
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => self.desk.take(publish).await,
                    Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
                    Err(error) => {
                        failures += 1;
                        if std::mem::take(&mut is_connected) {
                            failures = failures.min(LET_IN);
                        }
                        self.desk.pass(Pushed::Disconnected(error.to_string())).await;
                        sleep(plan::backoff(failures, seal::random::<1>()[0], None)).await;
                    }
                },
                changed = self.nodes.changed() => match changed {
                    Ok(()) if is_connected => self.follow(&mut listened),
                    Ok(()) => {}
                    Err(_) => return,
                },
                () = &mut stood, if is_connected && failures > 0 => failures = 0,
            }
        }
    }

    /// Subscribes to everything at the start of a connection.
    fn listen(&mut self) -> BTreeSet<String> {
        let nodes = self.nodes.borrow_and_update().clone();
        self.subscribe(nodes.iter().chain([&self.desk.topics.peers, &self.desk.topics.action]));
        nodes
    }

    /// Asks for topics, all in one message.
    fn subscribe<'a>(&self, topics: impl Iterator<Item = &'a String>) {
        let filters: Vec<_> = topics.map(|topic| Filter::new(topic.clone(), QoS::AtMostOnce)).collect();
        if filters.is_empty() {
            return;
        }
        if let Err(error) = self.desk.client.try_subscribe_many(filters) {
            tracing::warn!(%error, "cannot listen to the broker");
        }
    }

    fn follow(&mut self, listened: &mut BTreeSet<String>) {
        let wanted = self.nodes.borrow_and_update().clone();
        self.subscribe(wanted.difference(listened));
        for topic in listened.difference(&wanted) {
            if let Err(error) = self.desk.client.try_unsubscribe(topic.as_str()) {
                tracing::debug!(%error, topic, "cannot stop listening");
            }
        }
        *listened = wanted;
    }
}

/// Beginning of the topics with the names in a network.
const NAMES: &str = "host/dns/sync/";

/// A broker that lets us in before it puts us out is waited for as if it had failed no more often than this.
const LET_IN: u32 = 3;

/// A connection that stood this long is well.
const WELL: Duration = Duration::from_secs(30);

/// Bytes in a message, packed or not: peers are about 600 each.
const LARGEST: usize = 64 << 20;

/// Messages on their way in either direction.
const QUEUE: usize = 64;
