//! Tells hosts what happened, as the real server does: at quality of service 0, and so that it stays on the topic.
//!
//! ```text
//!  events ─► at once: actions, nodes, peers after a deletion or an ACK
//!        └─► debounce (0.5 s quiet, 3 s at most) ─► peers of every host
//!  orders ─► what the HTTP side and administrators ask for
//!  incoming ─► upstream: opened, then handled by the same code as the fallback
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{
    sync::{broadcast, broadcast::error::RecvError, mpsc},
    time::interval,
};
use uuid::Uuid;

use super::{
    broker::{Delivery, Link, Running},
    debounce::{Audience, Broadcast, Debounce},
    egress,
    events::Event,
    faults::Mistake,
    messages::{Change, action, host_topic, node_topic},
    server::{Order, Server},
    world::World,
};
use crate::control::wire::{Host, HostAction, HostUpdate, Node, WgKey};

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
    /// Hosts that registered and are to ask for their nodes, once those exist.
    registered: BTreeSet<Uuid>,
    pub(super) debounce: Debounce,
    /// What hosts that do not listen will be told of their peers once they do.
    pub(super) owed: BTreeMap<Uuid, Change>,
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
            registered: BTreeSet::new(),
            debounce: Debounce::default(),
            owed: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        publisher.remember();
        // Once after every start hosts are told to replace what they have.
        publisher.debounce.ask(Broadcast::Replacing, Audience::everybody());
        publisher
    }

    /// Runs until the broker or the server is gone.
    pub(super) async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Delivery>,
        mut subscriptions: mpsc::UnboundedReceiver<String>,
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
                        self.debounce.ask(Broadcast::Replacing, Audience::everybody());
                    }
                    Err(RecvError::Closed) => return,
                },
                Some(order) = orders.recv() => self.order(order).await,
                Some(filter) = subscriptions.recv() => self.subscribed(&filter).await,
                Some(delivery) = incoming.recv() => self.received(delivery).await,
                () = self.debounce.ready() => {
                    let (kind, audience) = self.debounce.take();
                    let replace_peers = kind == Broadcast::Replacing;
                    self.tell_peers(&Change { replace_peers, gone: BTreeSet::new() }, &audience).await;
                }
                // Nodes that are due are made when somebody looks.
                _ = tick.tick() => self.answer_registrations().await,
            }
        }
    }

    /// Takes over the world as it is; who has not heard of all nodes is asked for an ACK again.
    fn remember(&mut self) {
        let copy = |world: &World| {
            let hosts: BTreeMap<_, _> = world.hosts.iter().map(|(id, host)| (*id, host.clone())).collect();
            let nodes: BTreeMap<_, _> = world.nodes.iter().map(|(id, node)| (*id, node.clone())).collect();
            (hosts, nodes, world.queues.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        };
        match self.server.read(|world, _| copy(world)) {
            Ok((hosts, nodes, waiting)) => {
                self.registered.extend(waiting);
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
        self.registered.extend(batch.iter().filter_map(registered));
        let mut at_once = AtOnce { dropped: self.dropped(&batch), ..AtOnce::default() };
        for event in batch {
            match event {
                Event::AclChanged { network } => self.debounce.ask(Broadcast::Replacing, Audience::network(network)),
                Event::EgressChanged { network, egress } => self.egress_changed(network, egress).await,
                Event::HostDeleted { host } => at_once.note(host, self.host_deleted(host).await),
                Event::HostUpdated { host } | Event::Registered { host } => self.host_changed(host),
                Event::Joined { host, node } => self.joined(host, node).await,
                Event::KeysRequested { host } => self.ask(host, HostAction::UpdateKeys).await,
                Event::NameServersChanged { network } => {
                    self.debounce.ask(Broadcast::Ordinary, Audience::network(network));
                }
                Event::NodeDeleted { host, network, node } => {
                    at_once.note(host, self.node_deleted(host, node).await);
                    at_once.audience.extend(Audience::network(network));
                    at_once.audience.hosts.insert(host);
                }
                Event::NodeUpdated { host: _, node } => at_once.audience.extend(self.node_updated(node).await),
                Event::PullRequested { host } => self.ask(host, HostAction::RequestPull).await,
                Event::UpgradeRequested { host } => self.ask(host, HostAction::Upgrade).await,
            }
        }
        self.answer_registrations().await;
        if !at_once.audience.is_empty() {
            self.tell_peers(&Change { replace_peers: false, gone: at_once.gone }, &at_once.audience).await;
        }
    }

    /// The deleted hosts that nobody is told about, which is a fault.
    fn dropped(&self, batch: &[Event]) -> BTreeSet<Uuid> {
        if !self.server.faults().makes(Mistake::DroppedDeletions) {
            return BTreeSet::new();
        }
        let is_deleted = |host: &&Uuid| batch.contains(&Event::HostDeleted { host: **host });
        self.hosts.keys().filter(is_deleted).copied().collect()
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::Edited(host) => self.ask(host, HostAction::UpdateHost).await,
            Order::Restarted => {
                self.remember();
                self.debounce.ask(Broadcast::Replacing, Audience::everybody());
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
        let waits = self.server.read(|world, _| world.queues.get(&host).is_some_and(|queue| queue.contains(&node)));
        if !waits.unwrap_or(false) {
            self.tell_join(host, node).await;
        }
        if let Some(node) = self.node(node) {
            self.tell_names(&node.network).await;
            self.debounce.ask(Broadcast::Ordinary, Audience::network(node.network));
        }
    }

    /// Sends the next node a host has not heard of; after the last one its record.
    pub(super) async fn acknowledged(&mut self, host: Uuid) {
        // The real server sends nodes that are gone as well; that is no use to anybody.
        match self.server.write(|world, _| Ok(world.next_in_queue(host))).ok().flatten() {
            Some(node) => {
                self.tell_join(host, node).await;
                self.tell_peers_of(host, &Change::default()).await;
            }
            None => {
                self.ask(host, HostAction::UpdateHost).await;
                self.tell_peers_of(host, &Change::default()).await;
                self.ask_to_choose(|node| node.host_id == host).await;
            }
        }
    }

    /// Returns the key that hosts must forget.
    async fn host_deleted(&mut self, id: Uuid) -> Option<WgKey> {
        self.registered.remove(&id);
        self.keys.remove(&id);
        self.owed.remove(&id);
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

    /// Tells a host about its node; returns whom else it concerns at once.
    async fn node_updated(&mut self, id: Uuid) -> Audience {
        let before = self.nodes.get(&id).cloned();
        let Some(node) = self.node(id) else { return Audience::default() };
        let Some(host) = self.host(node.host_id) else { return Audience::default() };
        self.send(&host, node_topic(&node), &node).await;
        let network = node.network.clone();
        self.debounce.ask(Broadcast::Ordinary, Audience::network(network.clone()));
        if before.is_none_or(|before| before.is_gateway != node.is_gateway) {
            self.ask_to_choose(|choosing| choosing.network == network).await;
        } else if !node.is_relayed {
            self.ask_to_choose(|choosing| choosing.id == id).await;
        }
        if node.pending_delete { Audience::network(network) } else { Audience::default() }
    }

    /// Asks the nodes in front of a domain to resolve it, and tells everybody in its network.
    async fn egress_changed(&mut self, network: String, id: String) {
        let egress = self.server.read(|world, _| world.egresses.get(&id).cloned()).ok().flatten();
        if let Some(egress) = egress.filter(|egress| !egress.domain.is_empty()) {
            for id in egress.nodes.iter().flatten().filter_map(|(id, _)| Uuid::parse_str(id).ok()) {
                let Some(node) = self.node(id) else { continue };
                let Some(host) = self.host(node.host_id) else { continue };
                let egress_domain = egress::domain(&egress, &host, &node);
                let update = HostUpdate { node, egress_domain, ..action(HostAction::EgressUpdate, &host) };
                self.send(&host, host_topic(host.id, &self.name), &update).await;
            }
        }
        self.debounce.ask(Broadcast::Ordinary, Audience::network(network));
    }

    /// Notes that everybody in a host's networks must hear of it; with another key than before, to replace it.
    fn host_changed(&mut self, id: Uuid) {
        let networks = self.server.read(|world, _| world.nodes_of(id).map(|node| node.network.clone()).collect());
        let kind = self.note_key(id);
        let (networks, hosts) = (networks.unwrap_or_default(), BTreeSet::from([id]));
        self.debounce.ask(kind, Audience { everybody: false, networks, hosts });
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

/// What everybody whom it concerns is told without delay.
#[derive(Default)]
struct AtOnce {
    audience: Audience,
    /// Keys that hosts must forget.
    gone: BTreeSet<WgKey>,
    /// Hosts whose keys nobody is told to forget.
    dropped: BTreeSet<Uuid>,
}

impl AtOnce {
    fn note(&mut self, host: Uuid, key: Option<WgKey>) {
        if !self.dropped.contains(&host) {
            self.gone.extend(key);
        }
    }
}

fn registered(event: &Event) -> Option<Uuid> {
    match event {
        Event::Registered { host } => Some(*host),
        Event::AclChanged { .. }
        | Event::EgressChanged { .. }
        | Event::HostDeleted { .. }
        | Event::HostUpdated { .. }
        | Event::Joined { .. }
        | Event::KeysRequested { .. }
        | Event::NameServersChanged { .. }
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
    let Running { link, incoming, subscriptions, task } = running;
    let events = server.events();
    [task, tokio::spawn(Publisher::new(server, link).run(incoming, subscriptions, events, orders))]
}

/// How often nodes that are made later are looked for.
const TICK: Duration = Duration::from_millis(100);
