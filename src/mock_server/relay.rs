//! Gateways: nodes that relay for others.

use uuid::Uuid;

use super::{policies::gateways_tag, refusal::Refusal, world::World};
use crate::control::wire::Node;

/// A gateway to make.
#[derive(Clone, Debug, Default)]
pub(super) struct NewGateway {
    /// Nodes that it relays for.
    pub(super) clients: Vec<Uuid>,
    pub(super) is_internet_gateway: bool,
    /// Nodes whose whole traffic goes through it.
    pub(super) internet_clients: Vec<Uuid>,
    /// Name server for clients; empty is the usual one.
    pub(super) dns: String,
    /// A remark; empty is the usual one.
    pub(super) metadata: String,
    /// Seconds; 0 is the usual time.
    pub(super) keepalive: i64,
    /// 0 is the usual one.
    pub(super) mtu: i64,
}

impl World {
    /// Finds a node in a network.
    pub(super) fn node_in(&self, network: &str, id: Uuid) -> Result<&Node, Refusal> {
        let node = self.nodes.get(&id).filter(|node| node.network == network);
        node.ok_or_else(|| Refusal::bad_request("no result found"))
    }

    /// Makes a node a gateway, with those it relays for and those whose way to the internet it is.
    pub(super) fn make_gateway(&mut self, network: &str, id: Uuid, asked: &NewGateway) -> Result<Node, Refusal> {
        let node = self.node_in(network, id)?;
        if node.auto_assign_gateway {
            return Err(Refusal::bad_request("cannot set node as gateway while AutoAssignGateway is enabled"));
        }
        self.check_internet_clients(network, node, asked)?;
        if node.is_relayed {
            return Err(Refusal::internal("gateway cannot be created on a relayed node"));
        }
        let host_id = node.host_id;
        let host = self.hosts.get_mut(&host_id).ok_or_else(|| Refusal::internal("record not found"))?;
        if host.os != "linux" {
            return Err(Refusal::internal("gateway can only be created on linux based node"));
        }
        if self.nodes.get(&id).is_some_and(|node| node.is_relay) {
            return Err(Refusal::internal("node is already acting as a relay"));
        }
        host.is_static_port = true;
        if asked.is_internet_gateway {
            "yes".clone_into(&mut host.dns_status);
        }
        self.set_gateway(id, asked);
        for client in &asked.clients {
            self.assign_gateway(network, *client, id)?;
        }
        for client in &asked.internet_clients {
            self.send_through(*client, id);
        }
        self.node_updated(id);
        self.node_in(network, id).cloned()
    }

    fn set_gateway(&mut self, id: Uuid, asked: &NewGateway) {
        let NewGateway { clients: _, is_internet_gateway, internet_clients, dns, metadata, keepalive, mtu } = asked;
        let given = |number: i64, usual: i64| if number == 0 { usual } else { number };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.is_gateway = true;
        node.is_relay = true;
        node.is_ingress_gateway = true;
        node.is_internet_gateway = *is_internet_gateway || !internet_clients.is_empty();
        let usual = if node.is_internet_gateway { "1.1.1.1" } else { "" };
        node.ingress_dns = if dns.is_empty() { usual.to_owned() } else { dns.clone() };
        node.ingress_persistent_keepalive = given(*keepalive, 20);
        node.ingress_mtu = given(*mtu, 1420);
        let usual = "This host can be used for remote access";
        node.metadata = if metadata.is_empty() { usual.to_owned() } else { metadata.clone() };
        node.inet_node_req.client_ids =
            Some(internet_clients.iter().map(Uuid::to_string).collect()).filter(|ids: &Vec<_>| !ids.is_empty());
        let tag = gateways_tag(&node.network);
        node.tags.get_or_insert_default().0.insert(tag);
    }

    fn check_internet_clients(&self, network: &str, gateway: &Node, asked: &NewGateway) -> Result<(), Refusal> {
        let name = |node: &Node| self.hosts.get(&node.host_id).map(|host| host.name.clone()).unwrap_or_default();
        if !asked.internet_clients.is_empty() && !gateway.internet_gateway_node_id.is_empty() {
            let reason = format!("node {} is using a internet gateway already", name(gateway));
            return Err(Refusal::bad_request(reason));
        }
        for client in &asked.internet_clients {
            let client = self.node_in(network, *client)?;
            let reason = if client.is_internet_gateway {
                "acting as internet gateway cannot use another internet gateway"
            } else if !client.internet_gateway_node_id.is_empty() {
                "is already using a internet gateway"
            } else if client.is_relayed && client.relayed_by != gateway.id.to_string() {
                "is being relayed"
            } else {
                continue;
            };
            return Err(Refusal::bad_request(format!("node {} {reason}", name(client))));
        }
        Ok(())
    }

    /// Sends all traffic of a node through an internet gateway.
    fn send_through(&mut self, client: Uuid, gateway: Uuid) {
        if let Some(node) = self.nodes.get_mut(&client) {
            node.auto_assign_gateway = false;
            node.internet_gateway_node_id = gateway.to_string();
        }
        self.node_updated(client);
    }

    /// Takes a node away from its internet gateway.
    fn free_from_internet_gateway(&mut self, id: Uuid) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.internet_gateway_node_id.is_empty()) else {
            return;
        };
        let gateway = Uuid::parse_str(&std::mem::take(&mut node.internet_gateway_node_id)).ok();
        if let Some(gateway) = gateway.and_then(|gateway| self.nodes.get_mut(&gateway)) {
            let text = id.to_string();
            gateway.inet_node_req.client_ids.get_or_insert_default().retain(|client| *client != text);
        }
        self.node_updated(id);
    }

    /// Makes a gateway an ordinary node again; its clients go direct, and keys forget it.
    pub(super) fn remove_gateway(&mut self, id: Uuid) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_gateway || node.is_relay) else { return };
        node.is_gateway = false;
        node.is_relay = false;
        node.is_ingress_gateway = false;
        node.is_internet_gateway = false;
        node.metadata.clear();
        let tag = gateways_tag(&node.network);
        let internet_clients = std::mem::take(&mut node.inet_node_req).client_ids;
        node.tags.get_or_insert_default().0.remove(&tag);
        for client in node.relay_nodes.take().into_iter().flatten() {
            let Ok(client) = Uuid::parse_str(&client) else { continue };
            if let Some(client) = self.nodes.get_mut(&client) {
                client.is_relayed = false;
                client.relayed_by.clear();
            }
            self.node_updated(client);
        }
        for client in internet_clients.iter().flatten().filter_map(|client| Uuid::parse_str(client).ok()) {
            self.free_from_internet_gateway(client);
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
        let other_way =
            !node.internet_gateway_node_id.is_empty() && node.internet_gateway_node_id != gateway.to_string();
        if other_way {
            return Err(Refusal::bad_request(format!("cannot relay an internet client ({id})")));
        }
        if node.is_gateway || id == gateway {
            return Err(Refusal::bad_request("cannot relay an ingress gateway"));
        }
        if !self.node_in(network, gateway)?.is_gateway {
            return Err(Refusal::bad_request(format!("node {id} is not a gateway")));
        }
        self.relay(id, gateway);
        self.node_in(network, id).cloned()
    }

    /// Lets a node choose its gateway itself.
    pub(super) fn let_choose(&mut self, network: &str, id: Uuid) -> Result<Node, Refusal> {
        let node = self.node_in(network, id)?;
        if !node.internet_gateway_node_id.is_empty() {
            let reason = "node is configured to route all traffic via an internet gateway; auto-assign gateway is not \
                          allowed";
            return Err(Refusal::bad_request(reason));
        }
        self.unrelay(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.auto_assign_gateway = true;
        }
        self.node_updated(id);
        self.node_in(network, id).cloned()
    }

    /// Takes a node out from behind its gateway; it does not choose another one.
    pub(super) fn unassign_gateway(&mut self, network: &str, id: Uuid) -> Result<Node, Refusal> {
        let node = self.node_in(network, id)?;
        if !node.is_relayed && !node.auto_assign_gateway {
            return Err(Refusal::bad_request("error fetching node during parameter validation: no result found"));
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.auto_assign_gateway = false;
        }
        self.free_from_internet_gateway(id);
        self.unrelay(id);
        self.node_updated(id);
        self.node_in(network, id).cloned()
    }

    /// Takes a node that goes out of everything that points at it.
    pub(super) fn detach(&mut self, id: Uuid) {
        self.remove_gateway(id);
        self.free_from_internet_gateway(id);
        self.unrelay(id);
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
