//! A running server, as tests and the program hold it.

use std::{net::SocketAddr, time::Duration};

use time::OffsetDateTime;
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
};
use uuid::Uuid;

use super::{
    audit::{Action, Actor, Attempt, AuditFilter, AuditPage, KeyName},
    events::Event,
    faults::Faults,
    key_changes::KeyEdit,
    key_info::KeyInfo,
    keys::{Key, NewKey},
    networks::{NewNetwork, WithNodes},
    refusal::Refusal,
    relay::NewGateway,
    server::Server,
    trouble::Trouble,
    world::World,
};
use crate::control::wire::{Host, Network, Node, Secret};

/// A running server; dropping it ends the server without waiting for busy connections.
pub struct Handle {
    pub(super) addr: SocketAddr,
    pub(super) ca_pem: String,
    pub(super) server: Server,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<()>,
    /// The broker and the publisher, if there is a broker.
    pub(super) broker_tasks: Vec<JoinHandle<()>>,
}

impl Handle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What tokens and documents call it, `host:port`.
    pub fn api(&self) -> String {
        self.server.config().api
    }

    /// The broker's URL, as hosts are told; `None` without a broker.
    pub fn broker_url(&self) -> Option<String> {
        self.server.link().map(|_| self.server.config().broker)
    }

    /// Makes trouble, as the extension API does; `restart` takes as long as it says.
    ///
    /// # Errors
    /// If there is no such snapshot, or the store fails.
    pub async fn make(&self, trouble: Trouble) -> Result<(), Refusal> {
        self.server.make(trouble).await
    }

    /// The certificate that clients must trust, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What administrators prove themselves with; the caller keeps it out of logs.
    pub fn master_key(&self) -> &str {
        self.server.master_key().expose()
    }

    /// What happens from now on, once it is stored; a listener that is far behind loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.server.events()
    }

    /// The trouble this server makes, and the requests it saw.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// Creates a network with its default key.
    ///
    /// # Errors
    /// If the name is taken or not admissible, or there is no range.
    pub fn create_network(&self, network: &NewNetwork) -> Result<Network, Refusal> {
        self.server.write(|world, now| world.create_network(network, now))
    }

    /// Deletes a network with its default key.
    ///
    /// # Errors
    /// If there is none of that name, or it has nodes and they may not go.
    pub fn delete_network(&self, name: &str, nodes: WithNodes) -> Result<(), Refusal> {
        self.server.write(|world, _| world.delete_network(name, nodes))
    }

    /// The networks, by name.
    ///
    /// # Errors
    /// If the store fails.
    pub fn networks(&self) -> Result<Vec<Network>, Refusal> {
        self.server.read(|world, _| world.networks.values().cloned().collect())
    }

    /// Creates an enrollment key; its `token` is what a device is given, and is shown this once.
    ///
    /// # Errors
    /// If the key is not valid, its name is taken, or its relay or a network is none.
    pub fn create_key(&self, key: NewKey) -> Result<KeyInfo, Refusal> {
        let made = self.attempt(Action::Create, None, |world, now| world.create_key(key.into(), now))?;
        Ok(self.server.shown_once(made).with_hints())
    }

    /// Changes a key's note, tags and gateway choice.
    ///
    /// # Errors
    /// If there is no such key, or its new relay is none.
    pub fn edit_key(&self, id: &str, edit: KeyEdit) -> Result<KeyInfo, Refusal> {
        self.attempt(Action::Edit, Some(id), |world, _| world.edit_key(id, edit)).map(|key| self.server.shown(key))
    }

    /// Gives a key a new value, shown this once; the one it had is good for `grace` more.
    ///
    /// # Errors
    /// If there is no such key, or `grace` is longer than a year.
    pub fn rotate_key(&self, id: &str, grace: Duration) -> Result<KeyInfo, Refusal> {
        let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let made = self.attempt(Action::Rotate, Some(id), |world, now| world.rotate_key(id, grace, now))?;
        Ok(self.server.shown_once(made))
    }

    /// Refuses every redemption of a key until it is enabled; hosts that are enrolled stay so.
    ///
    /// # Errors
    /// If there is no such key.
    pub fn disable_key(&self, id: &str) -> Result<KeyInfo, Refusal> {
        self.attempt(Action::Disable, Some(id), |world, _| world.disable_key(id)).map(|key| self.server.shown(key))
    }

    /// Ends what [`Handle::disable_key`] began.
    ///
    /// # Errors
    /// If there is no such key.
    pub fn enable_key(&self, id: &str) -> Result<KeyInfo, Refusal> {
        self.attempt(Action::Enable, Some(id), |world, _| world.enable_key(id)).map(|key| self.server.shown(key))
    }

    /// Deletes a key, named by its id or value.
    ///
    /// # Errors
    /// If there is none, or it is a network's default key.
    pub fn delete_key(&self, id: &str) -> Result<(), Refusal> {
        self.attempt(Action::Delete, Some(id), |world, _| world.delete_key(id))
    }

    /// All keys; values and tokens are masked unless the server lists them as the real one does.
    ///
    /// # Errors
    /// If the store fails.
    pub fn keys(&self) -> Result<Vec<KeyInfo>, Refusal> {
        let keys: Vec<_> = self.server.read(|world, _| world.keys.values().cloned().collect())?;
        Ok(keys.into_iter().map(|key| self.server.shown(key)).collect())
    }

    /// The token of a network's default key.
    ///
    /// # Errors
    /// If there is no such network, or its key was made before this server started, whose value only a rotation shows.
    pub fn default_key(&self, network: &str) -> Result<Secret, Refusal> {
        let (key, made) = self.server.read(|world, _| {
            let of_network = |key: &&Key| key.document.is_default && key.name() == network;
            (world.keys.values().find(of_network).cloned(), world.default_key(network))
        })?;
        let key = key.ok_or_else(|| Refusal::not_found("no result found"))?;
        let info = made.map_or_else(|| self.server.shown(key), |made| self.server.shown_once(made));
        if info.token.is_empty() {
            let reason = "the default key was made before this server started: rotate it to see a token";
            return Err(Refusal { status: 410, message: reason.to_owned() });
        }
        Ok(info.document.token)
    }

    /// What was done with keys, oldest first.
    ///
    /// # Errors
    /// If the store fails.
    pub fn audit(&self, filter: &AuditFilter) -> Result<AuditPage, Refusal> {
        self.server.audit(filter)
    }

    fn attempt<T>(
        &self,
        action: Action,
        id: Option<&str>,
        rule: impl FnOnce(&mut World, OffsetDateTime) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let key = id.map(|id| KeyName::Id(id.to_owned()));
        self.server.attempt(&Attempt { actor: Actor::Library, action, key, host: None }, rule)
    }

    /// Gives a host a node in a network, as an administrator would; its agent learns of it with its next pull.
    ///
    /// # Errors
    /// If there is no such host or network, or no address is left.
    pub fn add_to_network(&self, host: Uuid, network: &str) -> Result<Uuid, Refusal> {
        self.server.write(|world, now| world.join(host, network, now))
    }

    /// Makes a node a gateway that relays for `clients`.
    ///
    /// # Errors
    /// If the node is not in that network, or its host cannot be a gateway.
    pub fn make_gateway(&self, network: &str, node: Uuid, clients: &[Uuid]) -> Result<Node, Refusal> {
        let asked = NewGateway { clients: clients.to_vec(), ..NewGateway::default() };
        self.server.write(|world, _| world.make_gateway(network, node, &asked))
    }

    /// Makes a node a gateway to the internet for all traffic of `clients`.
    ///
    /// # Errors
    /// If the node is not in that network, or its host cannot be a gateway.
    pub fn make_internet_gateway(&self, network: &str, node: Uuid, clients: &[Uuid]) -> Result<Node, Refusal> {
        let (is_internet_gateway, internet_clients) = (true, clients.to_vec());
        let asked = NewGateway { is_internet_gateway, internet_clients, ..NewGateway::default() };
        self.server.write(|world, _| world.make_gateway(network, node, &asked))
    }

    /// Puts a node behind a gateway of its network.
    ///
    /// # Errors
    /// If it already is behind one, or the other node is no gateway.
    pub fn assign_gateway(&self, network: &str, node: Uuid, gateway: Uuid) -> Result<Node, Refusal> {
        self.server.write(|world, _| world.assign_gateway(network, node, gateway))
    }

    /// Takes a node out from behind its gateway.
    ///
    /// # Errors
    /// If the node is not in that network.
    pub fn unassign_gateway(&self, network: &str, node: Uuid) -> Result<Node, Refusal> {
        self.server.write(|world, _| world.unassign_gateway(network, node))
    }

    /// The hosts; passwords are hashes.
    ///
    /// # Errors
    /// If the store fails.
    pub fn hosts(&self) -> Result<Vec<Host>, Refusal> {
        self.server.read(|world, _| world.hosts.values().cloned().collect())
    }

    /// The nodes of all networks.
    ///
    /// # Errors
    /// If the store fails.
    pub fn nodes(&self) -> Result<Vec<Node>, Refusal> {
        self.server.read(|world, _| world.nodes.values().cloned().collect())
    }

    /// Deletes a host with its nodes, as an administrator would.
    ///
    /// # Errors
    /// If there is none.
    pub fn delete_host(&self, id: Uuid) -> Result<(), Refusal> {
        self.server.write(|world, _| world.delete_host(id).map(drop))
    }

    /// Deletes a node at once.
    ///
    /// # Errors
    /// If the store fails.
    pub fn delete_node(&self, id: Uuid) -> Result<(), Refusal> {
        self.server.write(|world, _| {
            world.delete_node(id);
            Ok(())
        })
    }

    /// Marks a node for deletion; its host has to confirm.
    ///
    /// # Errors
    /// If there is none.
    pub fn mark_node_deleted(&self, id: Uuid) -> Result<(), Refusal> {
        self.server.write(|world, _| world.mark_node_deleted(id))
    }

    /// Connects or disconnects a node, as an administrator would.
    ///
    /// # Errors
    /// If there is none.
    pub fn set_connection(&self, id: Uuid, connection: Connection) -> Result<(), Refusal> {
        self.server.write(|world, _| {
            let node = world.nodes.get_mut(&id).ok_or_else(|| Refusal::bad_request("no result found"))?;
            node.connected = connection == Connection::Up;
            world.node_updated(id);
            Ok(())
        })
    }

    /// Ends the server: no new connections, busy ones get two seconds.
    pub async fn shutdown(mut self) {
        // Nobody listens any more when the task has ended by itself.
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.task).await {
            tracing::error!(error = %error, "the server's task failed");
        }
        for task in self.broker_tasks.drain(..) {
            task.abort();
            // It was ended on purpose; the store is free when it is gone.
            drop(task.await);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
        for task in &self.broker_tasks {
            task.abort();
        }
    }
}

/// Whether a node takes part in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It keeps its membership and loses its addresses.
    Down,
    /// It takes part.
    Up,
}
