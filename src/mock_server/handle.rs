//! A running server, as tests and the program hold it.

use std::net::SocketAddr;

use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

use super::{
    faults::Faults,
    keys::NewKey,
    refusal::Refusal,
    server::Server,
    world::{NewNetwork, WithNodes},
};
use crate::control::wire::{EnrollmentKey, Host, Network, Node, Secret};

/// A running server; dropping it ends the server without waiting for busy connections.
pub struct Handle {
    pub(super) addr: SocketAddr,
    pub(super) ca_pem: String,
    pub(super) server: Server,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<()>,
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

    /// The certificate that clients must trust, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What administrators prove themselves with; the caller keeps it out of logs.
    pub fn master_key(&self) -> &str {
        self.server.master_key().expose()
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

    /// Creates an enrollment key; its `token` is what a device is given.
    ///
    /// # Errors
    /// If the key is not valid, its name is taken or its relay is none.
    pub fn create_key(&self, key: NewKey) -> Result<EnrollmentKey, Refusal> {
        self.server.write(|world, now| world.create_key(key.into(), now)).map(|key| self.server.with_token(key))
    }

    /// Deletes a key, named by value or fingerprint.
    ///
    /// # Errors
    /// If there is none, or it is a network's default key.
    pub fn delete_key(&self, id: &str) -> Result<(), Refusal> {
        self.server.write(|world, _| world.delete_key(id))
    }

    /// All keys with their tokens.
    ///
    /// # Errors
    /// If the store fails.
    pub fn keys(&self) -> Result<Vec<EnrollmentKey>, Refusal> {
        let keys: Vec<_> = self.server.read(|world, _| world.keys.values().cloned().collect())?;
        Ok(keys.into_iter().map(|key| self.server.with_token(key)).collect())
    }

    /// The token of a network's default key.
    ///
    /// # Errors
    /// If there is no such network.
    pub fn default_key(&self, network: &str) -> Result<Secret, Refusal> {
        let keys = self.keys()?;
        let of_network = |key: &&EnrollmentKey| key.names.iter().flatten().any(|name| name == network);
        let key = keys.iter().filter(|key| key.is_default).find(of_network);
        key.map(|key| key.token.clone()).ok_or_else(|| Refusal::not_found("no result found"))
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
        self.server.write(|world, _| world.make_gateway(network, node, clients))
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
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
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
