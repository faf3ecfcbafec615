//! Networks: named address ranges, each with a default key and default policies.

use ipnet::{Ipv4Net, Ipv6Net};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Edition, clock::go_time, refusal::Refusal, world::World};
use crate::control::wire::Network;

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

/// What deleting a container does about the nodes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithNodes {
    /// They are deleted too.
    Delete,
    /// Their presence is a reason not to.
    Refuse,
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
        if !self.manners.netmaker_compat && self.has_key_named(name) {
            let reason = format!("an enrollment key is named {name:?}, which the network's default key would be");
            return Err(Refusal::bad_request(reason));
        }
        self.networks.insert(name.clone(), network.clone());
        self.create_default_key(name);
        self.create_default_acls(name, now);
        self.create_default_name_servers(name, now);
        let everywhere = self.hosts.values().filter(|host| host.is_default).map(|host| host.id);
        for host in everywhere.collect::<Vec<_>>() {
            self.join(host, name, now)?;
        }
        Ok(network)
    }

    /// Says whether hosts need no approval; only the paid edition knows any.
    pub(super) fn set_auto_join(&mut self, name: &str, auto_join: bool) -> Result<Network, Refusal> {
        let is_free = self.manners.edition == Edition::Community;
        let network = self.networks.get_mut(&name.to_owned()).ok_or_else(|| Refusal::bad_request("no result found"))?;
        network.auto_join = auto_join || is_free;
        Ok(network.clone())
    }

    /// Deletes a network; its nodes go too where `with_nodes` says so.
    pub(super) fn delete_network(&mut self, name: &str, with_nodes: WithNodes) -> Result<(), Refusal> {
        if !self.networks.contains(&name.to_owned()) {
            return Err(Refusal::not_found("no result found"));
        }
        let nodes: Vec<_> = self.nodes_in(name).map(|node| node.id).collect();
        if !nodes.is_empty() && with_nodes == WithNodes::Refuse {
            return Err(Refusal::bad_request(format!("network {name} still has {} nodes", nodes.len())));
        }
        for node in nodes {
            self.delete_node(node);
        }
        self.networks.remove(&name.to_owned());
        self.unlink_network_from_keys(name);
        let place = name.to_owned();
        for id in self.egresses.find(&place).map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.egresses.remove(&id);
        }
        for id in self.acls.find(&place).map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.acls.remove(&id);
        }
        for id in self.name_servers.find(&place).map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.name_servers.remove(&id);
        }
        let waiting: Vec<_> = self.pending.values().filter(|host| host.network == name).map(|host| host.id).collect();
        for id in waiting {
            self.pending.remove(&id);
        }
        Ok(())
    }
}
