//! Policies: those that come with a network, those that administrators make, and what deletions do to them.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Edition,
    clock::go_time,
    events::Event,
    policies::{ALL, ANY, BOTH_WAYS, DEVICES, EGRESS, NODE, ONE_WAY, TAG, gateways_tag},
    refusal::Refusal,
    world::World,
};
use crate::control::wire::{Acl, AclTag, Egress, Node};

impl World {
    /// Makes the policies that come with a network: everybody may talk to everybody, and gateways too.
    pub(super) fn create_default_acls(&mut self, network: &str, now: OffsetDateTime) {
        let everybody = Some(vec![tag(ALL)]);
        let gateways = Some(vec![tag(&gateways_tag(network))]);
        let remark = "This Policy allows all nodes in the network to communicate with each other";
        let policies =
            [("all-nodes", "All Nodes", remark, everybody.clone()), ("all-gateways", "All Gateways", "", gateways)];
        for (id, name, metadata, sources) in policies {
            let acl = Acl {
                id: format!("{network}.{id}"),
                is_default: true,
                metadata: metadata.to_owned(),
                name: name.to_owned(),
                network: network.to_owned(),
                policy_type: DEVICES.to_owned(),
                sources,
                destinations: everybody.clone(),
                protocol: "all".to_owned(),
                service: ANY.to_owned(),
                ports: Some(vec![]),
                direction: BOTH_WAYS,
                enabled: true,
                created_by: "auto".to_owned(),
                created_at: go_time(now),
            };
            self.acls.insert(acl.id.clone(), acl);
        }
    }

    /// Makes default policies for the networks of an older store, which have none.
    pub(super) fn add_missing_acls(&mut self, now: OffsetDateTime) {
        let bare = self.networks.iter().filter(|(name, _)| self.acls.find(name).next().is_none());
        for network in bare.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.create_default_acls(&network, now);
        }
    }

    pub(super) fn create_acl(&mut self, asked: Acl, by: &str, now: OffsetDateTime) -> Result<Acl, Refusal> {
        if !self.networks.contains(&asked.network) {
            return Err(Refusal::bad_request(format!("failed to get network details for {}", asked.network)));
        }
        self.check_acl(&asked)?;
        let acl = with_any_service(Acl {
            id: Uuid::new_v4().to_string(),
            is_default: false,
            created_by: by.to_owned(),
            created_at: go_time(now),
            ..asked
        });
        self.acls.insert(acl.id.clone(), acl.clone());
        self.events.push(Event::AclChanged { network: acl.network.clone() });
        Ok(acl)
    }

    /// Changes a policy; of a default one only whether it is switched on.
    pub(super) fn edit_acl(&mut self, asked: Acl, new_name: &str) -> Result<Acl, Refusal> {
        let stored = self.acls.get(&asked.id).cloned().ok_or_else(no_acl)?;
        self.check_acl(&asked)?;
        if asked.network != stored.network {
            return Err(Refusal::bad_request("invalid policy, network id mismatch"));
        }
        let name = if new_name.is_empty() { asked.name.clone() } else { new_name.to_owned() };
        let acl = if stored.is_default {
            Acl { enabled: asked.enabled, ..stored }
        } else {
            let Acl { id, is_default, metadata, network, policy_type, created_by, created_at, .. } = stored;
            let decided = Acl { id, is_default, metadata, network, policy_type, created_by, created_at, ..asked };
            with_any_service(Acl { name, ..decided })
        };
        self.acls.insert(acl.id.clone(), acl.clone());
        self.events.push(Event::AclChanged { network: acl.network.clone() });
        Ok(acl)
    }

    /// Returns the name of the policy that is gone.
    pub(super) fn delete_acl(&mut self, id: &str) -> Result<String, Refusal> {
        let id = id.to_owned();
        if self.acls.get(&id).ok_or_else(no_acl)?.is_default {
            return Err(Refusal::bad_request("cannot delete default policy"));
        }
        let acl = self.acls.remove(&id).ok_or_else(no_acl)?;
        self.events.push(Event::AclChanged { network: acl.network });
        Ok(acl.name)
    }

    /// The policies of a network by name, with the names of what they are about.
    pub(super) fn listed_acls(&self, network: &str, which: impl Fn(&Acl) -> bool) -> Vec<Acl> {
        let place = network.to_owned();
        let acls = self.acls.find(&place).map(|(_, acl)| acl).filter(|acl| which(acl));
        let mut acls: Vec<_> = acls.map(|acl| self.with_names(acl.clone())).collect();
        acls.sort_by(|one, other| one.name.cmp(&other.name));
        acls
    }

    pub(super) fn with_names(&self, mut acl: Acl) -> Acl {
        for tag in acl.sources.iter_mut().chain(&mut acl.destinations).flatten() {
            tag.name = self.name_of(tag).unwrap_or_else(|| tag.value.clone());
        }
        acl
    }

    fn name_of(&self, tag: &AclTag) -> Option<String> {
        match tag.id.as_str() {
            NODE => {
                let node = self.nodes.get(&Uuid::parse_str(&tag.value).ok()?)?;
                self.hosts.get(&node.host_id).map(|host| host.name.clone())
            }
            EGRESS => self.egresses.get(&tag.value).map(|egress| egress.name.clone()),
            _ => None,
        }
    }

    fn check_acl(&self, acl: &Acl) -> Result<(), Refusal> {
        let is_pro = self.manners.edition == Edition::Pro;
        match acl.direction {
            ONE_WAY if !is_pro => return Err(Refusal::bad_request("uni traffic flow not allowed on CE")),
            ONE_WAY | BOTH_WAYS => {}
            _ => return Err(Refusal::bad_request("invalid traffic direction")),
        }
        if acl.policy_type != DEVICES {
            return Err(Refusal::bad_request(format!("unknown acl policy type {}", acl.policy_type)));
        }
        let sides = acl.sources.iter().chain(&acl.destinations).flatten();
        for AclTag { id, name: _, value } in sides.filter(|tag| tag.value != ALL) {
            match id.as_str() {
                TAG if is_pro || *value == gateways_tag(&acl.network) => {}
                NODE if Uuid::parse_str(value).is_ok_and(|id| self.nodes.contains(&id)) => {}
                NODE => return Err(Refusal::bad_request(format!("invalid node {value}"))),
                EGRESS | "egress-range" if self.egresses.contains(value) => {}
                EGRESS | "egress-range" => return Err(Refusal::bad_request("invalid egress")),
                _ => return Err(Refusal::bad_request("invalid policy")),
            }
        }
        Ok(())
    }

    /// Takes a node out of all policies; one that has no side left goes too.
    pub(super) fn remove_node_from_acls(&mut self, node: &Node) {
        let text = node.id.to_string();
        self.remove_from_acls(&node.network, |tag| tag.id == NODE && tag.value == text);
    }

    pub(super) fn remove_egress_from_acls(&mut self, egress: &Egress) {
        self.remove_from_acls(&egress.network, |tag| tag.id == EGRESS && tag.value == egress.id);
    }

    fn remove_from_acls(&mut self, network: &str, is_it: impl Fn(&AclTag) -> bool) {
        let place = network.to_owned();
        let names_it = |acl: &Acl| acl.sources.iter().chain(&acl.destinations).flatten().any(&is_it);
        let named: Vec<_> = self.acls.find(&place).filter(|(_, acl)| names_it(acl)).map(|(id, _)| id.clone()).collect();
        for id in named {
            let Some(acl) = self.acls.get_mut(&id) else { continue };
            for side in [&mut acl.sources, &mut acl.destinations] {
                side.get_or_insert_default().retain(|tag| !is_it(tag));
            }
            if [&acl.sources, &acl.destinations].into_iter().any(|side| side.as_ref().is_none_or(Vec::is_empty)) {
                self.acls.remove(&id);
            }
        }
    }
}

/// A policy for every service has no ports and all protocols.
fn with_any_service(acl: Acl) -> Acl {
    if acl.service == ANY { Acl { ports: Some(vec![]), protocol: "all".to_owned(), ..acl } } else { acl }
}

fn tag(value: &str) -> AclTag {
    AclTag { id: TAG.to_owned(), name: String::new(), value: value.to_owned() }
}

fn no_acl() -> Refusal {
    Refusal::bad_request("no result found")
}
