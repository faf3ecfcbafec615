//! Everything the server knows, and the rules that change it: pure, with the time and all randomness passed in or made
//! here, and without a word about HTTP or SQLite.
//!
//! A rule that fails leaves changes behind; the caller rolls the world back, see `store`.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    audit::{Actor, AuditEntry},
    clock::go_time,
    events::Event,
    keys::Key,
    refusal::Refusal,
    table::Table,
    users::User,
};
use crate::control::wire::{Host, Network, Node, Secret, TagSet};

/// The server's state.
#[derive(Debug)]
pub(super) struct World {
    /// By name.
    pub(super) networks: Table<String, Network>,
    pub(super) keys: Table<Uuid, Key>,
    pub(super) hosts: Table<Uuid, Host>,
    pub(super) nodes: Table<Uuid, Node>,
    /// Who has redeemed what: (key, host). Both must exist.
    pub(super) redemptions: Table<(Uuid, Uuid), Redemption>,
    /// Nodes that are promised but not made yet, by host.
    pub(super) joins: Table<Uuid, Join>,
    /// Administrators who log in, by name.
    pub(super) users: Table<String, User>,
    /// The server's own secrets, by name.
    pub(super) settings: Table<String, Secret>,
    /// What the running rule did, sent once it is stored.
    pub(super) events: Vec<Event>,
    /// What the running rule did to keys, stored with it.
    pub(super) audit: Vec<AuditEntry>,
    /// For whom the running rule runs.
    pub(super) actor: Actor,
    /// Values of default keys made while this server runs; never stored.
    pub(super) default_values: Table<Uuid, Secret>,
    /// Keys are checked and listed as the real server does.
    pub(super) netmaker_compat: bool,
}

/// One counted use of a key.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Redemption {
    /// Unix seconds.
    pub(super) at: i64,
}

/// Nodes to make at a later time, as the real server does after it has answered a registration.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Join {
    /// Unix nanoseconds.
    pub(super) due: i128,
    /// What the nodes get.
    pub(super) grants: Vec<Grant>,
}

/// What a key gives to each node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Grant {
    pub(super) networks: Vec<String>,
    pub(super) groups: Vec<String>,
    /// Nil for none.
    pub(super) relay: Uuid,
    pub(super) auto_assign_gateway: bool,
}

/// A network to create.
#[derive(Clone, Debug, Default)]
pub struct NewNetwork {
    /// Up to 32 of `a-z0-9-_`.
    pub name: String,
    /// IPv4 addresses for its nodes; at least one range must be given.
    pub range4: Option<Ipv4Net>,
    /// IPv6 addresses for its nodes.
    pub range6: Option<Ipv6Net>,
}

impl World {
    pub(super) fn create_network(&mut self, network: &NewNetwork, now: OffsetDateTime) -> Result<Network, Refusal> {
        self.refuse_network(network)?;
        let NewNetwork { name, range4, range6 } = network;
        let network = Network {
            id: Uuid::new_v4().to_string(),
            name: name.clone(),
            address_range: range4.map(|net| net.trunc().to_string()).unwrap_or_default(),
            address_range6: range6.map(|net| net.trunc().to_string()).unwrap_or_default(),
            default_keepalive: 20,
            default_mtu: 1280,
            auto_join: true,
            auto_remove_tags: Some(vec![]),
            nodes_updated_at: go_time(now),
            created_at: go_time(now),
            updated_at: go_time(now),
            ..Network::default()
        };
        if !self.netmaker_compat && self.has_key_named(name) {
            let reason = format!("an enrollment key is named {name:?}, which the network's default key would be");
            return Err(Refusal::bad_request(reason));
        }
        self.networks.insert(name.clone(), network.clone());
        self.create_default_key(name);
        Ok(network)
    }

    /// Deletes a network; its nodes go too where `with_nodes` says so.
    pub(super) fn delete_network(&mut self, name: &str, with_nodes: WithNodes) -> Result<(), Refusal> {
        if !self.networks.contains(&name.to_owned()) {
            return Err(Refusal::not_found("no result found"));
        }
        let nodes: Vec<_> = self.nodes.values().filter(|node| node.network == name).map(|node| node.id).collect();
        if !nodes.is_empty() && with_nodes == WithNodes::Refuse {
            return Err(Refusal::bad_request(format!("network {name} still has {} nodes", nodes.len())));
        }
        for node in nodes {
            self.delete_node(node);
        }
        self.networks.remove(&name.to_owned());
        self.unlink_network_from_keys(name);
        Ok(())
    }

    pub(super) fn host(&self, id: Uuid) -> Result<&Host, Refusal> {
        self.hosts.get(&id).ok_or_else(|| Refusal::bad_request("record not found"))
    }

    /// Ids of a host's nodes, oldest first.
    pub(super) fn node_ids(&self, host: Uuid) -> Vec<Uuid> {
        let ids = self.hosts.get(&host).and_then(|host| host.nodes.as_ref());
        ids.into_iter().flatten().filter_map(|id| Uuid::parse_str(id).ok()).collect()
    }

    /// A host's nodes, oldest first.
    pub(super) fn nodes_of(&self, host: Uuid) -> impl Iterator<Item = &Node> {
        self.node_ids(host).into_iter().filter_map(|id| self.nodes.get(&id))
    }

    /// Deletes a host with its nodes; its uses of keys are forgotten, so enrolling again costs a use again.
    pub(super) fn delete_host(&mut self, id: Uuid) -> Result<Host, Refusal> {
        for node in self.node_ids(id) {
            self.delete_node(node);
        }
        let redeemed: Vec<_> = self.redemptions.iter().map(|(ids, _)| *ids).filter(|ids| ids.1 == id).collect();
        for redemption in redeemed {
            self.redemptions.remove(&redemption);
        }
        self.joins.remove(&id);
        let host = self.hosts.remove(&id).ok_or_else(|| Refusal::bad_request("record not found"))?;
        self.events.push(Event::HostDeleted { host: id });
        Ok(host)
    }

    /// Deletes a node and everything that points at it.
    pub(super) fn delete_node(&mut self, id: Uuid) {
        self.remove_gateway(id);
        self.unrelay(id);
        let Some(node) = self.nodes.remove(&id) else { return };
        if let Some(host) = self.hosts.get_mut(&node.host_id) {
            let text = id.to_string();
            host.nodes.get_or_insert_default().retain(|node| *node != text);
        }
        self.events.push(Event::NodeDeleted { host: node.host_id, network: node.network, node: id });
    }

    /// Marks a node for deletion; it is gone when its host confirms.
    pub(super) fn mark_node_deleted(&mut self, id: Uuid) -> Result<(), Refusal> {
        let node = self.nodes.get_mut(&id).ok_or_else(|| Refusal::bad_request("no result found"))?;
        node.pending_delete = true;
        "delete".clone_into(&mut node.action);
        self.node_updated(id);
        Ok(())
    }

    /// Gives a host a node in a network; the one it has, if it has one.
    ///
    /// # Errors
    /// If the network does not exist or has no address left.
    pub(super) fn join(&mut self, host: Uuid, network: &str, now: OffsetDateTime) -> Result<Uuid, Refusal> {
        if let Some(node) = self.nodes_of(host).find(|node| node.network == network) {
            return Ok(node.id);
        }
        let mut node = self.blank_node(host, network, now)?;
        let id = Uuid::new_v4();
        node.id = id;
        self.nodes.insert(id, node);
        let record = self.hosts.get_mut(&host).ok_or_else(|| Refusal::internal("record not found"))?;
        record.nodes.get_or_insert_default().push(id.to_string());
        self.events.push(Event::Joined { host, node: id });
        if let Some(network) = self.networks.get_mut(&network.to_owned()) {
            network.nodes_updated_at = go_time(now);
        }
        Ok(id)
    }

    fn blank_node(&self, host: Uuid, network: &str, now: OffsetDateTime) -> Result<Node, Refusal> {
        let record = self.networks.get(&network.to_owned()).ok_or_else(|| Refusal::internal("no result found"))?;
        let range = record.address_range.parse::<IpNet>().ok();
        let range6 = record.address_range6.parse::<IpNet>().ok();
        let server = self.settings.get(&SERVER_NAME.to_owned()).map_or("", Secret::expose).to_owned();
        Ok(Node {
            host_id: host,
            network: network.to_owned(),
            network_range: range.into(),
            network_range6: range6.into(),
            server,
            connected: true,
            address: range.map(|range| self.free_address(network, range)).transpose()?.into(),
            address6: range6.map(|range| self.free_address(network, range)).transpose()?.into(),
            last_modified: go_time(now),
            last_check_in: go_time(now),
            expiration: go_time(now + NODE_LIFETIME),
            fail_over_peers: Some(TagSet::default()),
            tags: Some(TagSet::default()),
            ..Node::default()
        })
    }

    /// Finds the lowest address nobody has, never the range's own nor its broadcast address.
    fn free_address(&self, network: &str, range: IpNet) -> Result<IpNet, Refusal> {
        let nodes = self.nodes.values().filter(|node| node.network == network);
        let taken: BTreeSet<_> = nodes.flat_map(|node| [node.address.ip.0, node.address6.ip.0]).flatten().collect();
        let address = range.hosts().find(|address| *address != range.network() && !taken.contains(address));
        let address = address.ok_or_else(|| Refusal::internal(format!("no address left in {range}")))?;
        IpNet::new(address, range.prefix_len()).map_err(|error| Refusal::internal(error.to_string()))
    }

    /// Makes the nodes that are due by `now`.
    pub(super) fn settle(&mut self, now: OffsetDateTime) {
        let due = self.joins.iter().filter(|(_, join)| join.due <= now.unix_timestamp_nanos());
        for host in due.map(|(host, _)| *host).collect::<Vec<_>>() {
            let grants = self.joins.remove(&host).map(|join| join.grants).unwrap_or_default();
            for grant in grants {
                self.grant(host, &grant, now);
            }
        }
    }

    /// Tells whether [`World::settle`] has something to do.
    pub(super) fn is_due(&self, now: OffsetDateTime) -> bool {
        self.joins.values().any(|join| join.due <= now.unix_timestamp_nanos())
    }

    /// Notes that a node changed.
    pub(super) fn node_updated(&mut self, id: Uuid) {
        if let Some(node) = self.nodes.get(&id) {
            self.events.push(Event::NodeUpdated { host: node.host_id, node: id });
        }
    }

    /// Forgets how things were, after they were stored; returns what happened.
    pub(super) fn keep(&mut self) -> Vec<Event> {
        let Self {
            networks,
            keys,
            hosts,
            nodes,
            redemptions,
            joins,
            users,
            settings,
            default_values,
            events,
            audit,
            actor: _,
            netmaker_compat: _,
        } = self;
        networks.keep();
        keys.keep();
        hosts.keep();
        nodes.keep();
        redemptions.keep();
        joins.keep();
        users.keep();
        settings.keep();
        default_values.keep();
        audit.clear();
        std::mem::take(events)
    }

    /// Puts everything back as it was when it was last stored.
    pub(super) fn restore(&mut self) {
        let Self {
            networks,
            keys,
            hosts,
            nodes,
            redemptions,
            joins,
            users,
            settings,
            default_values,
            events,
            audit,
            actor: _,
            netmaker_compat: _,
        } = self;
        networks.restore();
        keys.restore();
        hosts.restore();
        nodes.restore();
        redemptions.restore();
        joins.restore();
        users.restore();
        settings.restore();
        default_values.restore();
        events.clear();
        audit.clear();
    }
}

/// What deleting a container does about the nodes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithNodes {
    /// They are deleted too.
    Delete,
    /// Their presence is a reason not to.
    Refuse,
}

/// How long a membership lasts: a hundred years and a month.
const NODE_LIFETIME: time::Duration = time::Duration::days(36_525 + 30);

/// Setting: the server's name.
pub(super) const SERVER_NAME: &str = "server-name";
