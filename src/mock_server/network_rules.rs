//! Which networks and addresses administrators may give, in the real server's order and words.

use ipnet::IpNet;
use uuid::Uuid;

use super::{networks::NewNetwork, nodes::NodePlace, refusal::Refusal, world::World};
use crate::control::wire::{ApiNode, Network};

impl World {
    /// Refuses a network with a bad name, without a range, or with one that overlaps another network's.
    pub(super) fn refuse_network(&self, network: &NewNetwork) -> Result<(), Refusal> {
        let NewNetwork { name, range4, range6 } = network;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        let ranges = || range4.map(IpNet::V4).into_iter().chain(range6.map(IpNet::V6));
        let reason = if name.len() > LONGEST_NAME {
            "network name shouldn't exceed 32 characters"
        } else if ranges().next().is_none() {
            "IPv4 or IPv6 CIDR required"
        } else if range4.is_some_and(|range| range.prefix_len() >= 31) {
            "cannot create network with /31 or /32 cidr"
        } else if range6.is_some_and(|range| range.prefix_len() >= 127) {
            "cannot create network with /127 or /128 cidr"
        } else if self.networks.values().any(|other| ranges().any(|range| overlaps(other, range))) {
            "network cidr already in use"
        } else if name.is_empty() {
            "network name cannot be empty"
        } else if !name.chars().all(allowed) {
            "invalid character(s) in network name"
        } else if self.networks.contains(name) {
            "invalid network name"
        } else {
            return Ok(());
        };
        Err(Refusal::bad_request(reason))
    }

    /// Takes over the settings of a new network that were given; the others stay as they are for all.
    pub(super) fn set_up_network(&mut self, name: &str, asked: &Network) -> Result<Network, Refusal> {
        if asked.default_keepalive > LONGEST_KEEPALIVE {
            return Err(Refusal::bad_request("default keep alive must be less than 1000"));
        }
        let network = self.networks.get_mut(&name.to_owned()).ok_or_else(|| Refusal::internal("record not found"))?;
        if asked.default_keepalive != 0 {
            network.default_keepalive = asked.default_keepalive;
        }
        if asked.default_mtu != 0 {
            network.default_mtu = asked.default_mtu;
        }
        network.auto_remove = asked.auto_remove;
        network.auto_remove_tags = Some(asked.auto_remove_tags.clone().unwrap_or_default());
        network.auto_remove_threshold = match asked.auto_remove_threshold {
            0 if asked.auto_remove => ABSENCE,
            threshold => threshold,
        };
        Ok(network.clone())
    }

    /// Gives a node the addresses asked for and returns whether they are others; what is not an address changes nothing,
    /// where the real server takes the address away.
    pub(super) fn readdress(&mut self, id: Uuid, asked: &ApiNode) -> Result<bool, Refusal> {
        let node = self.nodes.get(&id).ok_or_else(|| Refusal::bad_request("no result found"))?;
        let stored = [&node.address, &node.address6].map(|net| net.to_net().ok().flatten());
        let wanted = [(&asked.address, stored[0]), (&asked.address6, stored[1])].map(|(text, stored)| {
            let wanted = text.parse::<IpNet>().ok();
            wanted.filter(|wanted| stored.is_some_and(|stored| stored != *wanted && same_family(stored, *wanted)))
        });
        for net in wanted.into_iter().flatten() {
            let place = NodePlace::Address(node.network.clone(), net.addr());
            if self.nodes.find(&place).any(|(other, _)| *other != id) {
                return Err(Refusal::bad_request(format!("ip specified is already allocated:  {net}")));
            }
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(false) };
        let (network, before) = (node.network.clone(), [node.address.ip, node.address6.ip]);
        if let Some(net) = wanted[0] {
            node.address = Some(net).into();
        }
        if let Some(net) = wanted[1] {
            node.address6 = Some(net).into();
        }
        for address in before {
            self.free(&network, address);
        }
        Ok(wanted.iter().any(Option::is_some))
    }
}

fn overlaps(network: &Network, range: IpNet) -> bool {
    let ranges = [&network.address_range, &network.address_range6];
    let mut ranges = ranges.into_iter().filter_map(|text| text.parse::<IpNet>().ok());
    ranges.any(|other| other.contains(&range.network()) || range.contains(&other.network()))
}

fn same_family(one: IpNet, other: IpNet) -> bool {
    one.addr().is_ipv4() == other.addr().is_ipv4()
}

/// Characters.
const LONGEST_NAME: usize = 32;

/// Seconds.
const LONGEST_KEEPALIVE: i64 = 1000;

/// Minutes after which an absent host is removed where that is wanted.
const ABSENCE: i64 = 60;
