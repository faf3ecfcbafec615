//! Gateways: nodes that relay for others.

use uuid::Uuid;

use super::{refusal::Refusal, world::World};
use crate::control::wire::Node;

impl World {
    /// Finds a node in a network.
    pub(super) fn node_in(&self, network: &str, id: Uuid) -> Result<&Node, Refusal> {
        let node = self.nodes.get(&id).filter(|node| node.network == network);
        node.ok_or_else(|| Refusal::bad_request("no result found"))
    }

    /// Makes a node a gateway, and puts `clients` behind it.
    pub(super) fn make_gateway(&mut self, network: &str, id: Uuid, clients: &[Uuid]) -> Result<Node, Refusal> {
        let host_id = self.node_in(network, id)?.host_id;
        let host = self.hosts.get_mut(&host_id).ok_or_else(|| Refusal::internal("record not found"))?;
        if host.os != "linux" {
            return Err(Refusal::internal(format!("{} is unsupported for ingress gateways", host.os)));
        }
        host.is_static_port = true;
        self.unrelay(id);
        let node = self.nodes.get_mut(&id).ok_or_else(|| Refusal::bad_request("no result found"))?;
        node.is_gateway = true;
        node.is_relay = true;
        node.is_ingress_gateway = true;
        node.ingress_persistent_keepalive = 20;
        node.ingress_mtu = 1420;
        "This host can be used for remote access".clone_into(&mut node.metadata);
        node.tags.get_or_insert_default().0.insert(format!("{network}.gateways"));
        for client in clients {
            self.assign_gateway(network, *client, id)?;
        }
        self.node_updated(id);
        self.node_in(network, id).cloned()
    }

    /// Makes a gateway an ordinary node again; its clients go direct, and keys forget it.
    pub(super) fn remove_gateway(&mut self, id: Uuid) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_gateway || node.is_relay) else { return };
        node.is_gateway = false;
        node.is_relay = false;
        node.is_ingress_gateway = false;
        node.metadata.clear();
        let tag = format!("{}.gateways", node.network);
        node.tags.get_or_insert_default().0.remove(&tag);
        for client in node.relay_nodes.take().into_iter().flatten() {
            let Ok(client) = Uuid::parse_str(&client) else { continue };
            if let Some(client) = self.nodes.get_mut(&client) {
                client.is_relayed = false;
                client.relayed_by.clear();
            }
            self.node_updated(client);
        }
        self.unlink_relay_from_keys(id);
        self.node_updated(id);
    }

    /// Puts a node behind a gateway of its network.
    pub(super) fn assign_gateway(&mut self, network: &str, id: Uuid, gateway: Uuid) -> Result<Node, Refusal> {
        let node = self.node_in(network, id)?;
        if node.is_relayed {
            return Err(Refusal::bad_request("node is already using a gw"));
        }
        if node.is_gateway || id == gateway {
            return Err(Refusal::bad_request("cannot relay an ingress gateway"));
        }
        if !self.node_in(network, gateway)?.is_gateway {
            return Err(Refusal::bad_request("node is not a gateway"));
        }
        self.relay(id, gateway);
        self.node_in(network, id).cloned()
    }

    /// Takes a node out from behind its gateway.
    pub(super) fn unassign_gateway(&mut self, network: &str, id: Uuid) -> Result<Node, Refusal> {
        self.node_in(network, id)?;
        self.unrelay(id);
        self.node_in(network, id).cloned()
    }

    pub(super) fn relay(&mut self, id: Uuid, gateway: Uuid) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.is_relayed = true;
            node.relayed_by = gateway.to_string();
        }
        self.node_updated(id);
        if let Some(gateway) = self.nodes.get_mut(&gateway) {
            gateway.relay_nodes.get_or_insert_default().push(id.to_string());
        }
    }

    pub(super) fn unrelay(&mut self, id: Uuid) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_relayed) else { return };
        node.is_relayed = false;
        let gateway = Uuid::parse_str(&std::mem::take(&mut node.relayed_by)).ok();
        if let Some(gateway) = gateway.and_then(|gateway| self.nodes.get_mut(&gateway)) {
            let text = id.to_string();
            gateway.relay_nodes.get_or_insert_default().retain(|client| *client != text);
        }
        self.node_updated(id);
    }
}
