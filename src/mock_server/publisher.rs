//! Tells hosts what happened, as the real server does: at quality of service 0, and so that it stays on the topic.
//!
//! ```text
//!  events ─► at once: actions, nodes, peers after a deletion or an ACK
//!        └─► debounce (0.5 s quiet, 3 s at most) ─► peers of every host
//!  orders ─► what the HTTP side and administrators ask for
//!  incoming ─► upstream: opened, then handled by the same code as the fallback
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use tokio::{
    sync::{broadcast, broadcast::error::RecvError, mpsc},
    time::interval,
};
use uuid::Uuid;

use super::{
    broker::{Delivery, Link, Running},
    debounce::{Broadcast, Debounce},
    events::Event,
    messages::{Change, action, host_topic, node_topic},
    server::{Order, Server},
    world::World,
};
use crate::control::wire::{Host, HostAction, Node, WgKey};

/// The task that talks to the hosts.
pub(super) struct Publisher {
    pub(super) server: Server,
    pub(super) link: Link,
    /// The server's name.
    pub(super) name: String,
    /// Records as they were when hosts were last told something: what is gone can still be told about.
    pub(super) hosts: BTreeMap<Uuid, Host>,
    nodes: BTreeMap<Uuid, Node>,
    /// The keys that hosts know each other by.
    keys: BTreeMap<Uuid, WgKey>,
    /// New nodes that a host has not asked for yet.
    queues: BTreeMap<Uuid, VecDeque<Uuid>>,
    /// Hosts that registered and are to ask for their nodes, once those exist.
    registered: BTreeSet<Uuid>,
    pub(super) debounce: Debounce,
    /// The last messages of each host's topics and those before, while what happens is recorded.
    pub(super) sent: BTreeMap<(Uuid, String), Sent>,
}

#[derive(Default)]
pub(super) struct Sent {
    pub(super) last: Vec<u8>,
    pub(super) stale: Option<Vec<u8>>,
}

impl Publisher {
    pub(super) fn new(server: Server, link: Link) -> Self {
        let name = server.config().server;
        let mut publisher = Self {
            server,
            link,
            name,
            hosts: BTreeMap::new(),
            nodes: BTreeMap::new(),
            keys: BTreeMap::new(),
            queues: BTreeMap::new(),
            registered: BTreeSet::new(),
            debounce: Debounce::default(),
            sent: BTreeMap::new(),
        };
        publisher.remember();
        // Once after every start hosts are told to replace what they have.
        publisher.debounce.ask(Broadcast::Replacing);
        publisher
    }

    /// Runs until the broker or the server is gone.
    pub(super) async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Delivery>,
        mut events: broadcast::Receiver<Event>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        self.link.ready().await;
        let mut tick = interval(TICK);
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(event) => self.happened(event, &mut events).await,
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "hosts are told everything, because events were missed");
                        self.remember();
                        self.debounce.ask(Broadcast::Replacing);
                    }
                    Err(RecvError::Closed) => return,
                },
                Some(order) = orders.recv() => self.order(order).await,
                Some(delivery) = incoming.recv() => self.received(delivery).await,
                () = self.debounce.ready() => {
                    let replace_peers = self.debounce.take() == Broadcast::Replacing;
                    self.tell_peers(&Change { replace_peers, gone: BTreeSet::new() }).await;
                }
                // Nodes that are due are made when somebody looks.
                _ = tick.tick() => self.answer_registrations().await,
            }
        }
    }

    /// Takes over the world as it is.
    fn remember(&mut self) {
        let copy = |world: &World| {
            let hosts: BTreeMap<_, _> = world.hosts.iter().map(|(id, host)| (*id, host.clone())).collect();
            let nodes: BTreeMap<_, _> = world.nodes.iter().map(|(id, node)| (*id, node.clone())).collect();
            (hosts, nodes)
        };
        match self.server.read(|world, _| copy(world)) {
            Ok((hosts, nodes)) => {
                self.keys = hosts.iter().map(|(id, host)| (*id, host.public_key)).collect();
                (self.hosts, self.nodes) = (hosts, nodes);
            }
            Err(refusal) => tracing::warn!(error = %refusal, "cannot read the world"),
        }
    }

    /// Handles an event with those that are already behind it.
    async fn happened(&mut self, first: Event, events: &mut broadcast::Receiver<Event>) {
        let mut batch = vec![first];
        while let Ok(event) = events.try_recv() {
            batch.push(event);
        }
        let mut gone = BTreeSet::new();
        let mut at_once = false;
        self.registered.extend(batch.iter().filter_map(registered));
        for event in batch {
            match event {
                Event::HostDeleted { host } => {
                    gone.extend(self.host_deleted(host).await);
                    at_once = true;
                }
                Event::HostUpdated { host } => {
                    let kind = self.note_key(host);
                    self.debounce.ask(kind);
                }
                Event::Joined { host, node } => self.joined(host, node).await,
                Event::KeysRequested { host } => self.ask(host, HostAction::UpdateKeys).await,
                Event::NodeDeleted { host, network: _, node } => {
                    gone.extend(self.node_deleted(host, node).await);
                    at_once = true;
                }
                Event::NodeUpdated { host: _, node } => at_once |= self.node_updated(node).await,
                Event::PullRequested { host } => self.ask(host, HostAction::RequestPull).await,
                Event::Registered { host } => {
                    self.note_key(host);
                    self.debounce.ask(Broadcast::Ordinary);
                }
                Event::UpgradeRequested { host } => self.ask(host, HostAction::Upgrade).await,
            }
        }
        self.answer_registrations().await;
        if at_once {
            self.tell_peers(&Change { replace_peers: false, gone }).await;
        }
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::Edited(host) => self.ask(host, HostAction::UpdateHost).await,
            Order::Restarted => {
                self.queues.clear();
                self.remember();
                self.debounce.ask(Broadcast::Replacing);
            }
            Order::Repeat { to, which } => self.repeat(to, which).await,
            Order::Signal { to, signal } => self.signal(to, *signal).await,
        }
    }

    /// Asks hosts that registered for an ACK, once their nodes are there.
    async fn answer_registrations(&mut self) {
        let waiting = &self.registered;
        let ready = self
            .server
            .read(|world, _| waiting.iter().filter(|host| !world.joins.contains(host)).copied().collect::<Vec<_>>());
        for host in ready.unwrap_or_default() {
            self.registered.remove(&host);
            self.ask(host, HostAction::RequestAck).await;
        }
    }

    async fn joined(&mut self, host: Uuid, node: Uuid) {
        self.debounce.ask(Broadcast::Ordinary);
        if self.registered.contains(&host) {
            self.queues.entry(host).or_default().push_back(node);
        } else {
            self.tell_join(host, node).await;
        }
        if let Some(node) = self.node(node) {
            self.tell_names(&node.network).await;
        }
    }

    /// Sends the next node a host has not heard of; after the last one its record.
    pub(super) async fn acknowledged(&mut self, host: Uuid) {
        let queue = self.queues.entry(host).or_default();
        let next = loop {
            match queue.pop_front() {
                Some(node) if self.server.read(|world, _| world.nodes.contains(&node)).unwrap_or(false) => {
                    break Some(node);
                }
                // The real server sends nodes that are gone as well; that is no use to anybody.
                Some(_) => {}
                None => break None,
            }
        };
        match next {
            Some(node) => self.tell_join(host, node).await,
            None => self.ask(host, HostAction::UpdateHost).await,
        }
        self.tell_peers_of(host, &Change::default()).await;
        if next.is_none() {
            self.ask_to_choose(|node| node.host_id == host).await;
        }
    }

    /// Returns the key that hosts must forget.
    async fn host_deleted(&mut self, id: Uuid) -> Option<WgKey> {
        self.queues.remove(&id);
        self.registered.remove(&id);
        self.keys.remove(&id);
        let host = self.hosts.remove(&id)?;
        let update = action(HostAction::DeleteHost, &host);
        self.send(&host, host_topic(id, &self.name), &update).await;
        Some(host.public_key)
    }

    /// Returns the key that hosts must forget, unless they know it from another network.
    async fn node_deleted(&mut self, host: Uuid, id: Uuid) -> Option<WgKey> {
        let node = self.nodes.remove(&id)?;
        let host = self.hosts.get(&host)?.clone();
        let deleted = Node { action: "delete".to_owned(), pending_delete: true, ..node };
        self.send(&host, node_topic(&deleted), &deleted).await;
        self.tell_names(&deleted.network).await;
        if deleted.is_gateway {
            self.ask_to_choose(|node| node.network == deleted.network).await;
        }
        Some(host.public_key)
    }

    /// Tells a host about its node; true if all others must hear of it at once.
    async fn node_updated(&mut self, id: Uuid) -> bool {
        let before = self.nodes.get(&id).cloned();
        let Some(node) = self.node(id) else { return false };
        let Some(host) = self.host(node.host_id) else { return false };
        self.send(&host, node_topic(&node), &node).await;
        self.debounce.ask(Broadcast::Ordinary);
        let network = node.network.clone();
        if before.is_none_or(|before| before.is_gateway != node.is_gateway) {
            self.ask_to_choose(|choosing| choosing.network == network).await;
        } else if !node.is_relayed {
            self.ask_to_choose(|choosing| choosing.id == id).await;
        }
        node.pending_delete
    }

    /// Reads a host's record, and remembers it.
    pub(super) fn host(&mut self, id: Uuid) -> Option<Host> {
        let host = self.server.read(|world, _| world.hosts.get(&id).cloned()).ok().flatten()?;
        self.hosts.insert(id, host.clone());
        Some(host)
    }

    /// Takes over a host's key; another one than before must replace it everywhere.
    fn note_key(&mut self, id: Uuid) -> Broadcast {
        let Some(key) = self.host(id).map(|host| host.public_key) else { return Broadcast::Ordinary };
        match self.keys.insert(id, key) {
            Some(before) if before != key => Broadcast::Replacing,
            Some(_) | None => Broadcast::Ordinary,
        }
    }

    pub(super) fn node(&mut self, id: Uuid) -> Option<Node> {
        let node = self.server.read(|world, _| world.nodes.get(&id).cloned()).ok().flatten()?;
        self.nodes.insert(id, node.clone());
        Some(node)
    }
}

fn registered(event: &Event) -> Option<Uuid> {
    match event {
        Event::Registered { host } => Some(*host),
        Event::HostDeleted { .. }
        | Event::HostUpdated { .. }
        | Event::Joined { .. }
        | Event::KeysRequested { .. }
        | Event::NodeDeleted { .. }
        | Event::NodeUpdated { .. }
        | Event::PullRequested { .. }
        | Event::UpgradeRequested { .. } => None,
    }
}

/// Starts the publisher of a broker that runs.
pub(super) fn spawn(
    server: Server,
    running: Running,
    orders: mpsc::UnboundedReceiver<Order>,
) -> [tokio::task::JoinHandle<()>; 2] {
    let Running { link, incoming, task } = running;
    let events = server.events();
    [task, tokio::spawn(Publisher::new(server, link).run(incoming, events, orders))]
}

/// How often nodes that are made later are looked for.
const TICK: Duration = Duration::from_millis(100);
