//! Egress: ranges behind nodes, who learns of them, and what the nodes in front of them forward.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Edition, clock::go_time, events::Event, policies::Policies, refusal::Refusal, world::World};
use crate::control::wire::{
    Egress, EgressDomain, EgressGatewayRequest, EgressNetworkRoutes, EgressRange, EgressRequest, Host, Nameserver, Node,
};

/// What a node forwards to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Forwards {
    /// CIDR texts.
    pub(super) ranges: Vec<String>,
    pub(super) with_metric: Vec<EgressRange>,
}

impl Forwards {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// What of it goes into allowed IPs: no range that the gateway's own endpoint is in, and none of `own`.
    pub(super) fn allowed_ips(&self, gateway: &Host, own: &Self) -> Vec<IpNet> {
        let own: BTreeSet<_> = own.ranges.iter().collect();
        let ranges = self.ranges.iter().filter(|range| !own.contains(range));
        let ranges = ranges.filter_map(|range| range.parse::<IpNet>().ok());
        ranges.filter(|range| gateway.endpoint_ip.0.is_none_or(|endpoint| !range.contains(&endpoint))).collect()
    }

    /// The routes of `own` to it, by the peer with this key.
    pub(super) fn routes(&self, peer_key: String, own: (&Node, &Self), gateway: &Node) -> EgressNetworkRoutes {
        let (own, taken) = own;
        let is_free = |range: &String| !taken.ranges.contains(range);
        let effective = |range: &EgressRange| {
            let translated = range.nat && !range.virtual_network.is_empty();
            if translated { range.virtual_network.clone() } else { range.network.clone() }
        };
        EgressNetworkRoutes {
            peer_key,
            gateway_address: gateway.address.clone(),
            gateway_address6: gateway.address6.clone(),
            node_address: own.address.clone(),
            node_address6: own.address6.clone(),
            ranges: Some(self.ranges.iter().filter(|range| is_free(range)).cloned().collect()),
            ranges_with_metric: Some(
                self.with_metric.iter().filter(|range| is_free(&effective(range))).cloned().collect(),
            ),
            network: gateway.network.clone(),
        }
    }

    /// The same as a gateway's own configuration.
    pub(super) fn request(&self, node: &Node) -> EgressGatewayRequest {
        EgressGatewayRequest {
            node_id: node.id.to_string(),
            network: node.network.clone(),
            nat_enabled: "yes".to_owned(),
            ranges: Some(self.ranges.clone()),
            ranges_with_metric: Some(self.with_metric.clone()),
        }
    }

    fn add(&mut self, egress: &Egress, metric: i64) {
        let Egress { range, domain, virtual_range, nat, mode, .. } = egress;
        let answers = egress.domain_answers.iter().flatten().filter(|_| !domain.is_empty());
        let networks = Some(range).filter(|range| !range.is_empty()).into_iter().chain(answers);
        for network in networks {
            let is_translated = *nat && !virtual_range.is_empty() && network == range;
            let effective = if is_translated { virtual_range } else { network };
            if !self.ranges.contains(effective) {
                self.ranges.push(effective.clone());
            }
            self.with_metric.push(EgressRange {
                network: network.clone(),
                virtual_network: virtual_range.clone(),
                route_metric: u32::try_from(metric).unwrap_or(USUAL_METRIC),
                nat: *nat,
                nat_mode: mode.clone(),
            });
        }
    }
}

/// Merges routes through the same peer in the same network.
pub(super) fn merged(routes: Vec<EgressNetworkRoutes>) -> Vec<EgressNetworkRoutes> {
    let mut merged: Vec<EgressNetworkRoutes> = Vec::new();
    for route in routes {
        let same =
            |other: &&mut EgressNetworkRoutes| other.peer_key == route.peer_key && other.network == route.network;
        let Some(found) = merged.iter_mut().find(same) else {
            merged.push(route);
            continue;
        };
        let ranges = found.ranges.get_or_insert_default();
        ranges.extend(route.ranges.into_iter().flatten().filter(|range| !ranges.contains(range)).collect::<Vec<_>>());
        let metrics = found.ranges_with_metric.get_or_insert_default();
        let new = route.ranges_with_metric.into_iter().flatten().filter(|range| !metrics.contains(range));
        metrics.extend(new.collect::<Vec<_>>());
    }
    merged
}

impl World {
    /// What a node forwards to, as far as `may_reach` says so.
    pub(super) fn forwards(&self, node: &Node, may_reach: impl Fn(&Egress) -> bool) -> Forwards {
        let mut forwards = Forwards::default();
        for (_, egress) in self.egresses.find(&node.network).filter(|(_, egress)| egress.status && may_reach(egress)) {
            if let Some(metric) = metric_of(egress, node) {
                forwards.add(egress, metric);
            }
        }
        forwards
    }

    /// What of a gateway's ranges another node of its network learns.
    pub(super) fn forwards_for(&self, own: &Node, gateway: &Node, policies: &Policies<'_>) -> Forwards {
        let behind_it = own.is_relayed && own.relayed_by == gateway.id.to_string();
        self.forwards(gateway, |egress| {
            policies.may_reach(own, egress) || behind_it && policies.may_reach(gateway, egress)
        })
    }

    /// The domains that a node must resolve.
    pub(super) fn domains_of(&self, host: &Host, node: &Node) -> Vec<EgressDomain> {
        let egresses = self.egresses.find(&node.network).map(|(_, egress)| egress);
        let own = egresses
            .filter(|egress| egress.status && !egress.domain.is_empty() && is_routed_by(egress, &node.id.to_string()));
        own.map(|egress| domain(egress, host, node)).collect()
    }

    /// Who knows the names below the domains that `own` may reach.
    pub(super) fn domain_servers(&self, own: &Node, policies: &Policies<'_>) -> Vec<Nameserver> {
        let resolved = |egress: &&Egress| {
            let answers = egress.domain_answers.as_ref().is_some_and(|answers| !answers.is_empty());
            egress.status && !egress.domain.is_empty() && answers && policies.may_reach(own, egress)
        };
        let egresses = self.egresses.find(&own.network).map(|(_, egress)| egress).filter(resolved);
        let servers = egresses.map(|egress| {
            let ids = egress.nodes.iter().flatten().filter_map(|(id, _)| Uuid::parse_str(id).ok());
            let nodes = ids.filter(|id| *id != own.id).filter_map(|id| self.nodes.get(&id));
            let addresses = nodes.flat_map(|node| [node.address.ip.0, node.address6.ip.0]).flatten();
            Nameserver {
                ips: Some(addresses.map(|address| address.to_string()).collect()),
                match_domain: base_domain(&egress.domain).to_owned(),
                ..Nameserver::default()
            }
        });
        servers.collect()
    }

    pub(super) fn create_egress(
        &mut self,
        asked: EgressRequest,
        by: &str,
        now: OffsetDateTime,
    ) -> Result<Egress, Refusal> {
        let egress = Egress {
            id: Uuid::new_v4().to_string(),
            domain_answers: Some(vec![]),
            status: true,
            created_by: by.to_owned(),
            created_at: go_time(now),
            network: asked.network.clone(),
            ..Egress::default()
        };
        let status = true;
        self.store_egress(egress, EgressRequest { status, ..asked })
    }

    pub(super) fn edit_egress(&mut self, asked: EgressRequest, now: OffsetDateTime) -> Result<Egress, Refusal> {
        let egress = self.egresses.get(&asked.id).cloned().ok_or_else(no_egress)?;
        self.store_egress(Egress { updated_at: go_time(now), ..egress }, asked)
    }

    fn store_egress(&mut self, mut egress: Egress, asked: EgressRequest) -> Result<Egress, Refusal> {
        let (range, domain) = destination(&asked)?;
        if !self.networks.contains(&asked.network) {
            return Err(Refusal::bad_request("record not found"));
        }
        let tags = asked.tags.unwrap_or_default();
        let nodes = if tags.is_empty() { asked.nodes.unwrap_or_default() } else { BTreeMap::new() };
        self.check_routing_nodes(&nodes)?;
        if egress.domain != domain {
            egress.domain_answers = Some(vec![]);
        }
        egress.name = asked.name;
        egress.description = asked.description;
        egress.range = range;
        egress.domain = domain;
        egress.nat = asked.nat;
        // The community edition translates directly, or not at all.
        egress.mode = if asked.nat { "direct_nat".to_owned() } else { String::new() };
        egress.nodes = Some(nodes);
        egress.tags = Some(tags);
        egress.status = asked.status;
        self.egresses.insert(egress.id.clone(), egress.clone());
        self.events.push(Event::EgressChanged { network: egress.network.clone(), egress: egress.id.clone() });
        Ok(egress)
    }

    fn check_routing_nodes(&self, nodes: &BTreeMap<String, i64>) -> Result<(), Refusal> {
        if self.manners.edition == Edition::Community && nodes.len() > 1 {
            return Err(Refusal::bad_request("can only set one routing node on CE"));
        }
        let is_missing = |id: &String| Uuid::parse_str(id).ok().is_none_or(|id| !self.nodes.contains(&id));
        if nodes.keys().any(is_missing) {
            return Err(Refusal::bad_request("invalid routing node no result found"));
        }
        Ok(())
    }

    pub(super) fn delete_egress(&mut self, id: &str) -> Result<(), Refusal> {
        let egress = self.egresses.remove(&id.to_owned()).ok_or_else(no_egress)?;
        self.remove_egress_from_acls(&egress);
        self.events.push(Event::EgressChanged { network: egress.network, egress: egress.id });
        Ok(())
    }

    /// Takes over what a host has resolved a domain to.
    pub(super) fn resolve_egress(&mut self, host: Uuid, id: &str, answers: Vec<String>) -> Result<(), Refusal> {
        let is_range = |answer: &String| answer.parse::<IpNet>().is_ok();
        if answers.len() > MOST_ANSWERS || !answers.iter().all(is_range) {
            return Err(Refusal::bad_request("egressgatewayranges must be up to 256 ranges"));
        }
        let own: Vec<_> = self.node_ids(host).iter().map(Uuid::to_string).collect();
        let egress = self.egresses.get_mut(&id.to_owned()).ok_or_else(no_egress)?;
        if !own.iter().any(|node| is_routed_by(egress, node)) {
            return Err(Refusal::forbidden());
        }
        egress.domain_answers = Some(answers);
        let (network, egress) = (egress.network.clone(), egress.id.clone());
        self.events.push(Event::EgressChanged { network, egress });
        Ok(())
    }

    pub(super) fn remove_node_from_egresses(&mut self, node: &Node) {
        let text = node.id.to_string();
        let routed = self.egresses.find(&node.network).filter(|(_, egress)| is_routed_by(egress, &text));
        for id in routed.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            if let Some(egress) = self.egresses.get_mut(&id) {
                egress.nodes.get_or_insert_default().remove(&text);
            }
        }
    }
}

/// A domain for the host that must resolve it.
pub(super) fn domain(egress: &Egress, host: &Host, node: &Node) -> EgressDomain {
    let (id, domain) = (egress.id.clone(), egress.domain.clone());
    EgressDomain { id, node: node.clone(), host: host.clone(), domain }
}

/// Tells whether a node is one of those in front of an egress.
pub(super) fn is_routed_by(egress: &Egress, node: &str) -> bool {
    egress.nodes.as_ref().is_some_and(|nodes| nodes.contains_key(node))
}

fn metric_of(egress: &Egress, node: &Node) -> Option<i64> {
    let by_id = egress.nodes.iter().flatten().find(|(id, _)| **id == node.id.to_string());
    let tags = node.tags.as_ref().map(|tags| &tags.0);
    let has = |tag: &String| tags.is_some_and(|tags| tags.contains(tag));
    by_id.or_else(|| egress.tags.iter().flatten().find(|(tag, _)| has(tag))).map(|(_, metric)| *metric)
}

/// Reads range and domain of a request; one of them may be empty.
fn destination(asked: &EgressRequest) -> Result<(String, String), Refusal> {
    if asked.is_internet_gateway {
        return Ok(("*".to_owned(), String::new()));
    }
    let invalid = || Refusal::bad_request(format!("invalid CIDR address: {}", asked.range));
    let range = match asked.range.as_str() {
        "" => String::new(),
        range => range.parse::<IpNet>().map_err(|_| invalid())?.trunc().to_string(),
    };
    match asked.domain.as_str() {
        "" => Ok((range, String::new())),
        domain if is_domain(domain) => Ok((String::new(), domain.to_owned())),
        _ => Err(Refusal::bad_request("bad domain name")),
    }
}

/// Tells whether a text can be a part of a domain, between two dots.
pub(super) fn is_label(text: &str) -> bool {
    let allowed = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (1..=63).contains(&text.len()) && allowed && !text.starts_with('-') && !text.ends_with('-')
}

fn is_domain(text: &str) -> bool {
    text.len() <= 253 && text.contains('.') && text.split('.').all(is_label)
}

/// The last two labels.
fn base_domain(domain: &str) -> &str {
    let dots: Vec<_> = domain.match_indices('.').map(|(at, _)| at).collect();
    match dots.len() {
        0 | 1 => domain,
        count => &domain[dots[count - 2] + 1..],
    }
}

fn no_egress() -> Refusal {
    Refusal::bad_request("record not found")
}

/// Everybody in the network gets a route for each.
const MOST_ANSWERS: usize = 256;

/// Of a route whose own is none.
const USUAL_METRIC: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_served_by_its_last_two_labels() {
        assert_eq!(base_domain("a.b.example.net"), "example.net");
        assert_eq!(base_domain("example.net"), "example.net");
        assert_eq!(base_domain("local"), "local");
    }

    #[test]
    fn names_that_are_no_domains_are_refused() {
        for name in ["example.net", "a-b.example.net"] {
            assert!(is_domain(name), "{name}");
        }
        for name in ["", "net", "-a.net", "a..net", "a.net.", "a b.net"] {
            assert!(!is_domain(name), "{name}");
        }
    }
}
