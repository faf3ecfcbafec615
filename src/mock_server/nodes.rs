//! Nodes: how a host gets into a network, and out of it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4AddrRange, Ipv6AddrRange};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    clock::go_time,
    events::Event,
    refusal::Refusal,
    relay::NewGateway,
    table::Row,
    world::{Family, SERVER_NAME, World},
};
use crate::control::wire::{GoIp, Node, Secret, TagSet};

/// Where a node is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NodePlace {
    /// In a network, at an address.
    Address(String, IpAddr),
    /// In a network.
    Network(String),
}

impl Row<Uuid> for Node {
    type Place = NodePlace;

    fn places(&self, _: &Uuid) -> Vec<NodePlace> {
        let addresses = [self.address.ip, self.address6.ip].into_iter().filter_map(|ip| ip.0);
        let places = addresses.map(|address| NodePlace::Address(self.network.clone(), address));
        places.chain([NodePlace::Network(self.network.clone())]).collect()
    }
}

impl World {
    /// Ids of a host's nodes, oldest first.
    pub(super) fn node_ids(&self, host: Uuid) -> Vec<Uuid> {
        let ids = self.hosts.get(&host).and_then(|host| host.nodes.as_ref());
        ids.into_iter().flatten().filter_map(|id| Uuid::parse_str(id).ok()).collect()
    }

    /// A host's nodes, oldest first.
    pub(super) fn nodes_of(&self, host: Uuid) -> impl Iterator<Item = &Node> {
        self.node_ids(host).into_iter().filter_map(|id| self.nodes.get(&id))
    }

    /// The nodes of a network, by address so that the order is stable.
    pub(super) fn nodes_in(&self, network: &str) -> impl Iterator<Item = &Node> {
        let place = NodePlace::Network(network.to_owned());
        let mut nodes: Vec<_> = self.nodes.find(&place).map(|(_, node)| node).collect();
        nodes.sort_by_key(|node| (node.address.ip, node.address6.ip));
        nodes.into_iter()
    }

    /// The hosts with a node in one of these networks.
    pub(super) fn hosts_in<'a>(&self, networks: impl IntoIterator<Item = &'a String>) -> BTreeSet<Uuid> {
        let places = networks.into_iter().map(|network| NodePlace::Network(network.clone()));
        let nodes = places.flat_map(|place| self.nodes.find(&place).map(|(_, node)| node.host_id).collect::<Vec<_>>());
        nodes.collect()
    }

    /// Deletes a node and everything that points at it.
    pub(super) fn delete_node(&mut self, id: Uuid) {
        self.detach(id);
        let Some(node) = self.nodes.remove(&id) else { return };
        let text = id.to_string();
        self.remove_node_from_egresses(&node);
        self.remove_node_from_acls(&node);
        if let Some(host) = self.hosts.get_mut(&node.host_id) {
            host.nodes.get_or_insert_default().retain(|node| *node != text);
        }
        for address in [node.address.ip, node.address6.ip] {
            self.free(&node.network, address);
        }
        self.events.push(Event::NodeDeleted { host: node.host_id, network: node.network, node: id });
    }

    /// Notes that an address may be free again.
    pub(super) fn free(&mut self, network: &str, address: GoIp) {
        let Some(address) = address.0 else { return };
        if let Some(lowest) = self.lowest.get_mut(&(network.to_owned(), family(address))) {
            *lowest = address.min(*lowest);
        }
    }

    /// Marks a node for deletion; it is gone when its host confirms.
    pub(super) fn mark_node_deleted(&mut self, id: Uuid) -> Result<(), Refusal> {
        let node = self.nodes.get_mut(&id).ok_or_else(|| Refusal::bad_request("no result found"))?;
        node.pending_delete = true;
        "delete".clone_into(&mut node.action);
        self.node_updated(id);
        Ok(())
    }

    /// Gives a host a node in a network; the one it has, if it has one. Nodes of a default host are gateways.
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
        let is_default = record.is_default;
        self.events.push(Event::Joined { host, node: id });
        if is_default && let Err(refusal) = self.make_gateway(network, id, &NewGateway::default()) {
            tracing::debug!(node = %id, error = %refusal, "a default host's node is no gateway");
        }
        if let Some(network) = self.networks.get_mut(&network.to_owned()) {
            network.nodes_updated_at = go_time(now);
        }
        Ok(id)
    }

    fn blank_node(&mut self, host: Uuid, network: &str, now: OffsetDateTime) -> Result<Node, Refusal> {
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
    fn free_address(&mut self, network: &str, range: IpNet) -> Result<IpNet, Refusal> {
        let key = (network.to_owned(), family(range.addr()));
        let is_free = |address: &IpAddr| {
            let place = NodePlace::Address(network.to_owned(), *address);
            *address != range.network() && self.nodes.find(&place).next().is_none()
        };
        let address = hosts_from(range, self.lowest.get(&key).copied()).find(is_free);
        let address = address.ok_or_else(|| Refusal::internal(format!("no address left in {range}")))?;
        self.lowest.insert(key, address);
        IpNet::new(address, range.prefix_len()).map_err(|error| Refusal::internal(error.to_string()))
    }

    /// Takes the next node that a host has not heard of; nodes that are gone are passed over.
    pub(super) fn next_in_queue(&mut self, host: Uuid) -> Option<Uuid> {
        let mut queue = self.queues.remove(&host)?.into_iter();
        let next = queue.find(|node| self.nodes.contains(node));
        let rest: Vec<_> = queue.collect();
        if !rest.is_empty() {
            self.queues.insert(host, rest);
        }
        next
    }

    /// Notes that a node changed.
    pub(super) fn node_updated(&mut self, id: Uuid) {
        if let Some(node) = self.nodes.get(&id) {
            self.events.push(Event::NodeUpdated { host: node.host_id, node: id });
        }
    }
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// The addresses for hosts in a range, from `lowest` on.
fn hosts_from(range: IpNet, lowest: Option<IpAddr>) -> Box<dyn Iterator<Item = IpAddr>> {
    match range {
        IpNet::V4(range) => {
            let lowest = if let Some(IpAddr::V4(lowest)) = lowest { lowest } else { Ipv4Addr::UNSPECIFIED };
            let (first, last) = (range.hosts().next(), range.hosts().next_back());
            let hosts = first.zip(last).map(|(first, last)| Ipv4AddrRange::new(first.max(lowest), last));
            Box::new(hosts.into_iter().flatten().map(IpAddr::V4))
        }
        IpNet::V6(range) => {
            let lowest = if let Some(IpAddr::V6(lowest)) = lowest { lowest } else { Ipv6Addr::UNSPECIFIED };
            let (first, last) = (range.hosts().next(), range.hosts().next_back());
            let hosts = first.zip(last).map(|(first, last)| Ipv6AddrRange::new(first.max(lowest), last));
            Box::new(hosts.into_iter().flatten().map(IpAddr::V6))
        }
    }
}

/// How long a membership lasts: a hundred years and a month.
const NODE_LIFETIME: time::Duration = time::Duration::days(36_525 + 30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_for_an_address_goes_on_where_the_last_one_ended() {
        let range: IpNet = "10.0.0.0/29".parse().expect("a range");
        let hosts = |lowest: Option<&str>| {
            let lowest = lowest.map(|text| text.parse().expect("an address"));
            hosts_from(range, lowest).map(|address| address.to_string()).collect::<Vec<_>>()
        };

        assert_eq!(hosts(None).len(), 6);
        assert_eq!(hosts(Some("10.0.0.5")), ["10.0.0.5", "10.0.0.6"]);
        assert_eq!(hosts(Some("10.0.0.7")), [""; 0]);
    }
}
