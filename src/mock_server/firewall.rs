//! What a host's packet filter should allow.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    policies::{BOTH_WAYS, ONE_WAY, Policies, Policy, leads_to},
    world::World,
};
use crate::control::wire::{
    AclRule, Egress, EgressGatewayRequest, EgressInfo, EgressRange, FwUpdate, GoBytes, GoIp, IpNet as WireNet, Node,
};

impl World {
    /// The rules for a host with these nodes: everything is allowed in their networks, unless a policy says otherwise.
    pub(super) fn firewall(&self, nodes: &[&Node]) -> FwUpdate {
        let mut update = FwUpdate { allow_all: true, ..FwUpdate::default() };
        let (mut networks, mut rules, mut egress) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for node in nodes {
            let policies = self.policies(&node.network);
            let forwards = self.forwards(node, |_| true);
            let is_free = policies.allow_all() || !policies.restrict(node) && forwards.is_empty();
            if is_free {
                networks.push(network_rule(node, policies.allow_all()));
            } else {
                update.allow_all = false;
                rules.extend(self.rules_for(node, &policies));
            }
            update.is_ingress_gateway |= node.is_ingress_gateway;
            if !forwards.is_empty() {
                let restrictions = if is_free { BTreeMap::new() } else { self.egress_rules(node, &policies) };
                egress.insert(node.id.to_string(), egress_info(node, forwards.request(node), restrictions));
            }
            if node.is_internet_gateway {
                let restrictions = if is_free { BTreeMap::new() } else { internet_rules(node) };
                egress.insert(format!("{}-inet", node.id), internet_info(node, restrictions));
            }
        }
        update.is_egress_gateway = !egress.is_empty();
        if !update.allow_all && !networks.is_empty() {
            let copied: BTreeMap<_, _> = networks.iter().map(|rule| (rule.id.clone(), rule.clone())).collect();
            rules.extend(copied.clone());
            let id = "allowed-network-rules".to_owned();
            egress.insert(id.clone(), EgressInfo { egress_id: id, rules: Some(copied), ..EgressInfo::default() });
        }
        update.networks = Some(networks);
        update.egress_info = Some(egress);
        update.ingress_info = Some(BTreeMap::new());
        update.acl_rules = Some(rules);
        update
    }

    /// The policies of a network as rules for one of its nodes.
    fn rules_for(&self, node: &Node, policies: &Policies<'_>) -> BTreeMap<String, AclRule> {
        if policies.allow_everything_for(node) {
            let id = format!("{}-all-allowed-node-rule", node.id);
            let ranges =
                self.ranges_in_front_of(node, |egress| super::egress::is_routed_by(egress, &node.id.to_string()));
            let rule = rule(id.clone(), ("all", None, BOTH_WAYS), node, &ranges);
            let (v4, v6) = (vec![node.network_range.clone()], vec![node.network_range6.clone()]);
            return BTreeMap::from([(id, AclRule { ip_list: Some(v4), ip6_list: Some(v6), ..rule })]);
        }
        let all: Vec<_> = self.nodes_in(&node.network).collect();
        let rules = policies.iter().filter_map(|policy| {
            let others = talking_with(node, policy, policies, &all);
            let (v4, v6) = (single(&others, |other| other.address.ip), single(&others, |other| other.address6.ip));
            if v4.is_empty() && v6.is_empty() {
                return None;
            }
            let acl = policy.acl;
            let ranges = self.ranges_in_front_of(node, |egress| leads_to(acl, egress, node));
            let kind = (acl.protocol.as_str(), acl.ports.clone(), acl.direction);
            let rule = rule(acl.id.clone(), kind, node, &ranges);
            Some((acl.id.clone(), AclRule { ip_list: Some(v4), ip6_list: Some(v6), ..rule }))
        });
        rules.collect()
    }

    /// The policies of a network as rules for what one of its nodes forwards.
    fn egress_rules(&self, node: &Node, policies: &Policies<'_>) -> BTreeMap<String, AclRule> {
        let all: Vec<_> = self.nodes_in(&node.network).filter(|other| other.id != node.id).collect();
        let rules = policies.iter().filter_map(|policy| {
            let acl = policy.acl;
            let ranges = self.ranges_in_front_of(node, |egress| leads_to(acl, egress, node));
            if ranges.is_empty() {
                return None;
            }
            let (v4, v6) = if policy.sources.contains(super::policies::ALL) {
                (present(&node.network_range), present(&node.network_range6))
            } else {
                let sources = policies.named(&policy.sources, &all);
                (single(&sources, |other| other.address.ip), single(&sources, |other| other.address6.ip))
            };
            let (destinations, destinations6) = by_family(&ranges);
            let rule = AclRule {
                id: acl.id.clone(),
                ip_list: Some(v4),
                ip6_list: Some(v6),
                allowed_protocol: acl.protocol.clone(),
                allowed_ports: acl.ports.clone(),
                direction: acl.direction,
                destinations: Some(destinations),
                destinations6: Some(destinations6),
                allowed: true,
            };
            Some((acl.id.clone(), rule))
        });
        rules.collect()
    }

    fn ranges_in_front_of(&self, node: &Node, which: impl Fn(&Egress) -> bool) -> Vec<IpNet> {
        let egresses = self.egresses.find(&node.network).map(|(_, egress)| egress);
        let egresses = egresses.filter(|egress| egress.status && which(egress));
        egresses.filter_map(|egress| egress.range.parse().ok()).collect()
    }
}

/// The nodes that a policy lets talk with one.
fn talking_with<'a>(node: &Node, policy: &Policy<'_>, policies: &Policies<'_>, all: &[&'a Node]) -> Vec<&'a Node> {
    let is_in = |side: &BTreeSet<String>| !policies.named(side, &[node]).is_empty();
    let mut others = Vec::new();
    if policy.acl.direction != ONE_WAY && is_in(&policy.sources) {
        others.extend(policies.named(&policy.destinations, all));
    }
    if is_in(&policy.destinations) {
        others.extend(policies.named(&policy.sources, all));
    }
    others.retain(|other| other.id != node.id);
    others
}

fn rule(id: String, kind: (&str, Option<Vec<String>>, i64), node: &Node, ranges: &[IpNet]) -> AclRule {
    let (protocol, allowed_ports, direction) = kind;
    let (v4, v6) = by_family(ranges);
    AclRule {
        id,
        allowed_protocol: protocol.to_owned(),
        allowed_ports,
        direction,
        destinations: Some([vec![alone(node.address.ip, 4)], v4].concat()),
        destinations6: Some([vec![alone(node.address6.ip, 16)], v6].concat()),
        allowed: true,
        ..AclRule::default()
    }
}

/// Everything in the node's network; where not everybody may talk, to everything in it.
fn network_rule(node: &Node, allows_all: bool) -> AclRule {
    let (range, range6) = (vec![node.network_range.clone()], vec![node.network_range6.clone()]);
    AclRule {
        id: format!("{}-allowed-network-rules", node.id),
        ip_list: Some(range.clone()),
        ip6_list: Some(range6.clone()),
        allowed_protocol: "all".to_owned(),
        direction: BOTH_WAYS,
        destinations: (!allows_all).then_some(range),
        destinations6: (!allows_all).then_some(range6),
        allowed: true,
        ..AclRule::default()
    }
}

fn egress_info(node: &Node, gateway: EgressGatewayRequest, rules: BTreeMap<String, AclRule>) -> EgressInfo {
    let (address, address6) = (node.address.ip, node.address6.ip);
    let primary = if address.0.is_some() { address } else { address6 };
    EgressInfo {
        egress_id: node.id.to_string(),
        network: if address.0.is_some() { node.network_range.clone() } else { node.network_range6.clone() },
        gateway_address: alone(primary, 4),
        network6: node.network_range6.clone(),
        // Without an address Go's mask is that of the other family.
        gateway_address6: alone(address6, 4),
        gateway,
        rules: Some(rules),
    }
}

fn internet_info(node: &Node, rules: BTreeMap<String, AclRule>) -> EgressInfo {
    let id = format!("{}-inet", node.id);
    let mut ranges = vec!["0.0.0.0/0".to_owned()];
    ranges.extend(node.address6.ip.0.map(|_| "::/0".to_owned()));
    let with_metric = ranges.iter().map(|range| EgressRange {
        network: range.clone(),
        route_metric: 256,
        nat: true,
        nat_mode: "direct_nat".to_owned(),
        ..EgressRange::default()
    });
    let gateway = EgressGatewayRequest {
        node_id: id.clone(),
        network: node.network.clone(),
        nat_enabled: "yes".to_owned(),
        ranges_with_metric: Some(with_metric.collect()),
        ranges: Some(ranges),
    };
    let network = if node.address.ip.0.is_some() { node.address.clone() } else { node.address6.clone() };
    EgressInfo { egress_id: id, network, ..egress_info(node, gateway, rules) }
}

fn internet_rules(node: &Node) -> BTreeMap<String, AclRule> {
    let id = format!("{}-inet-gw-internal-rule", node.id);
    let everything = |range: &WireNet, all: &str| {
        let all = all.parse::<IpNet>().ok().filter(|_| range.ip.0.is_some());
        all.map(WireNet::from).into_iter().collect::<Vec<_>>()
    };
    let rule = AclRule {
        id: id.clone(),
        ip_list: Some(present(&node.network_range)),
        ip6_list: Some(present(&node.network_range6)),
        allowed_protocol: "all".to_owned(),
        allowed_ports: Some(vec![]),
        direction: BOTH_WAYS,
        destinations: Some(everything(&node.network_range, "0.0.0.0/0")),
        destinations6: Some(everything(&node.network_range6, "::/0")),
        allowed: true,
    };
    BTreeMap::from([(id, rule)])
}

/// The addresses of some nodes, each alone, sorted and once.
fn single(nodes: &[&Node], address: impl Fn(&Node) -> GoIp) -> Vec<WireNet> {
    let addresses: BTreeSet<_> = nodes.iter().filter_map(|node| address(node).0).collect();
    addresses.into_iter().map(|address| IpNet::from(address).into()).collect()
}

fn present(range: &WireNet) -> Vec<WireNet> {
    Some(range.clone()).filter(|range| range.ip.0.is_some()).into_iter().collect()
}

fn by_family(ranges: &[IpNet]) -> (Vec<WireNet>, Vec<WireNet>) {
    let of = |is_v4: bool| {
        let ranges = ranges.iter().copied().filter(|range| range.addr().is_ipv4() == is_v4);
        ranges.map(WireNet::from).collect()
    };
    (of(true), of(false))
}

/// An address with a mask of ones; without an address such a mask alone, `bytes` long, as Go writes it.
fn alone(address: GoIp, bytes: usize) -> WireNet {
    match address.0 {
        Some(address) => IpNet::from(address).into(),
        None => WireNet { ip: address, mask: GoBytes(Some(vec![0xff; bytes])) },
    }
}
