//! What the policies of a network come to: who may talk to whom, and who may reach which egress.

use std::collections::BTreeSet;

use super::{Edition, egress::is_routed_by, world::World};
use crate::control::wire::{Acl, Egress, Node};

/// The policies of a network that are switched on, for devices.
pub(super) struct Policies<'a> {
    acls: Vec<Policy<'a>>,
    allows_all: bool,
    edition: Edition,
}

/// A policy with what its sides name.
pub(super) struct Policy<'a> {
    pub(super) acl: &'a Acl,
    pub(super) sources: BTreeSet<String>,
    pub(super) destinations: BTreeSet<String>,
}

impl World {
    /// Reads the policies of a network.
    pub(super) fn policies(&self, network: &str) -> Policies<'_> {
        let place = network.to_owned();
        let acls = self.acls.find(&place).map(|(_, acl)| acl);
        let mut acls: Vec<_> = acls.filter(|acl| acl.enabled && acl.policy_type == DEVICES).collect();
        acls.sort_by(|one, other| one.id.cmp(&other.id));
        let acls: Vec<_> = acls.into_iter().map(|acl| self.policy(acl)).collect();
        let allows_all = acls.iter().any(|policy| policy.sources.contains(ALL) && policy.destinations.contains(ALL));
        Policies { acls, allows_all, edition: self.manners.edition }
    }

    /// An egress among the destinations stands for the nodes in front of it as well.
    fn policy<'a>(&self, acl: &'a Acl) -> Policy<'a> {
        let sources = acl.sources.iter().flatten().map(|tag| tag.value.clone()).collect();
        let mut destinations: BTreeSet<_> = acl.destinations.iter().flatten().map(|tag| tag.value.clone()).collect();
        for tag in acl.destinations.iter().flatten().filter(|tag| tag.id == EGRESS) {
            let egress = self.egresses.get(&tag.value).filter(|egress| egress.status);
            destinations
                .extend(egress.into_iter().flat_map(|egress| egress.nodes.iter().flatten()).map(|(id, _)| id.clone()));
        }
        Policy { acl, sources, destinations }
    }
}

impl<'a> Policies<'a> {
    /// Everybody may talk to everybody.
    pub(super) fn allow_all(&self) -> bool {
        self.allows_all
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Policy<'a>> {
        self.acls.iter()
    }

    /// Tells whether two nodes of the network may talk.
    pub(super) fn allow(&self, one: &Node, other: &Node) -> bool {
        if self.allows_all {
            return true;
        }
        let (one, other) = (self.names(one), self.names(other));
        let either = |names: &BTreeSet<String>, side: &BTreeSet<String>| side.iter().any(|name| names.contains(name));
        let leads = |from: &BTreeSet<String>, to: &BTreeSet<String>, policy: &Policy<'_>| {
            let Policy { acl: _, sources, destinations } = policy;
            let known = either(from, sources) || either(to, destinations);
            let from = sources.contains(ALL) || either(from, sources);
            known && from && (destinations.contains(ALL) || either(to, destinations))
        };
        self.acls.iter().any(|policy| leads(&one, &other, policy) || leads(&other, &one, policy))
    }

    /// Tells whether a node may reach an egress.
    pub(super) fn may_reach(&self, node: &Node, egress: &Egress) -> bool {
        if self.allows_all {
            return true;
        }
        let mut names: BTreeSet<_> = node.tags.iter().flat_map(|tags| tags.0.iter().cloned()).collect();
        names.extend([node.id.to_string(), ALL.to_owned()]);
        self.acls.iter().any(|Policy { acl, sources, destinations: _ }| {
            let leads = acl
                .destinations
                .iter()
                .flatten()
                .any(|tag| tag.id == EGRESS && tag.value == egress.id || tag.id == TAG && tag.value == ALL);
            leads && sources.iter().any(|name| names.contains(name))
        })
    }

    /// Tells whether a node may talk to everybody, whatever others may.
    pub(super) fn allow_everything_for(&self, node: &Node) -> bool {
        let mut names = self.names(node);
        names.insert(ALL.to_owned());
        let leads = |policy: &Policy<'_>| {
            let Policy { acl: _, sources, destinations } = policy;
            sources.contains(ALL) && destinations.iter().any(|name| names.contains(name))
                || destinations.contains(ALL) && sources.iter().any(|name| names.contains(name))
        };
        self.allows_all || !self.restrict(node) && self.acls.iter().any(leads)
    }

    /// Tells whether a policy says more about a node than whom it may talk to; only the paid edition has such.
    pub(super) fn restrict(&self, node: &Node) -> bool {
        if self.edition == Edition::Community {
            return false;
        }
        let mut names = self.names(node);
        names.insert(ALL.to_owned());
        self.acls.iter().any(|Policy { acl, sources, destinations }| {
            let is_partial = acl.protocol != "all" || acl.service != ANY;
            let concerns = sources.iter().chain(destinations).any(|name| names.contains(name));
            is_partial || acl.direction == ONE_WAY && concerns
        })
    }

    /// What a policy may call a node: its id, and its tags in the paid edition, that of gateways in both.
    pub(super) fn names(&self, node: &Node) -> BTreeSet<String> {
        let tags = node.tags.iter().flat_map(|tags| tags.0.iter().cloned());
        let mut names: BTreeSet<_> = match self.edition {
            Edition::Community => BTreeSet::new(),
            Edition::Pro => tags.collect(),
        };
        names.insert(node.id.to_string());
        if node.is_gateway {
            names.insert(gateways_tag(&node.network));
        }
        names
    }

    /// The nodes among `all` that a side of a policy names.
    pub(super) fn named<'n>(&self, side: &BTreeSet<String>, all: &[&'n Node]) -> Vec<&'n Node> {
        let is_named = |node: &&&Node| side.contains(ALL) || self.names(node).iter().any(|name| side.contains(name));
        all.iter().filter(is_named).copied().collect()
    }
}

/// Tells whether `node` is in front of an egress that a policy names; `*` names all.
pub(super) fn leads_to(acl: &Acl, egress: &Egress, node: &Node) -> bool {
    let named =
        acl.destinations.iter().flatten().any(|tag| tag.value == ALL || tag.id == EGRESS && tag.value == egress.id);
    named && egress.status && is_routed_by(egress, &node.id.to_string())
}

/// The tag that every gateway of a network has.
pub(super) fn gateways_tag(network: &str) -> String {
    format!("{network}.gateways")
}

/// Everybody.
pub(super) const ALL: &str = "*";

/// Every service.
pub(super) const ANY: &str = "Any";

/// A policy for devices.
pub(super) const DEVICES: &str = "device-policy";

/// A side that is an egress.
pub(super) const EGRESS: &str = "egress-id";

/// A side that is a node.
pub(super) const NODE: &str = "device";

/// A side that is a device tag.
pub(super) const TAG: &str = "tag";

/// Traffic from the sources to the destinations alone.
pub(super) const ONE_WAY: i64 = 0;

/// Traffic both ways.
pub(super) const BOTH_WAYS: i64 = 1;
