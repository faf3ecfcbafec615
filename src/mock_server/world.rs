//! Everything the server knows, and the rules that change it: pure, with the time and all randomness passed in or made
//! here, and without a word about HTTP or SQLite.
//!
//! A rule that fails leaves changes behind; the caller takes them back, see `table`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Edition, Names,
    access_tokens::AccessToken,
    audit::{Actor, AuditEntry},
    events::Event,
    keys::Key,
    pending::PendingHost,
    refusal::Refusal,
    table::{Row, Table, Undo, nowhere},
    users::User,
};
use crate::control::wire::{Acl, Egress, Host, NameserverSetting, Network, Node, Secret};

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
    /// Hosts that somebody has to approve for a network.
    pub(super) pending: Table<Uuid, PendingHost>,
    /// New nodes that a host has not asked for yet, by host; oldest first.
    pub(super) queues: Table<Uuid, Vec<Uuid>>,
    /// Ranges behind nodes, by id.
    pub(super) egresses: Table<String, Egress>,
    /// Policies, by id.
    pub(super) acls: Table<String, Acl>,
    /// Whom to ask for names, by id.
    pub(super) name_servers: Table<String, NameserverSetting>,
    /// Administrators who log in, by name.
    pub(super) users: Table<String, User>,
    /// What users gave to programs.
    pub(super) access_tokens: Table<Uuid, AccessToken>,
    /// The server's own secrets, by name.
    pub(super) settings: Table<String, Secret>,
    /// No address of a network and family below this one is free; never stored.
    pub(super) lowest: Table<(String, Family), IpAddr>,
    /// Values of default keys made while this server runs; never stored.
    pub(super) default_values: Table<Uuid, Secret>,
    /// What the rules of the batch did, sent once it is stored.
    pub(super) events: Vec<Event>,
    /// What the rules of the batch did to keys, stored with it.
    pub(super) audit: Vec<AuditEntry>,
    /// How many events and entries there were when the running rule began.
    pub(super) mark: (usize, usize),
    /// For whom the running rule runs.
    pub(super) actor: Actor,
    /// What the server is like; never stored.
    pub(super) manners: Manners,
}

/// What a server is like, beside what it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manners {
    /// Keys are checked and listed as the real server does.
    pub(super) netmaker_compat: bool,
    pub(super) edition: Edition,
    pub(super) names: Names,
    /// The real server's mistakes in counting uses, while they are switched on.
    pub(super) counting: Counting,
}

/// The real server's mistakes in counting uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counting {
    /// A host that has spent a use spends another one when it comes again.
    pub(super) spends_again: bool,
    /// A key that is `unlimited` beside its limit goes on after that.
    pub(super) unlimited_goes_on: bool,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
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

impl World {
    pub(super) fn host(&self, id: Uuid) -> Result<&Host, Refusal> {
        self.hosts.get(&id).ok_or_else(|| Refusal::bad_request("record not found"))
    }

    /// Deletes a host with its nodes; its uses of keys are forgotten, so enrolling again costs a use again.
    pub(super) fn delete_host(&mut self, id: Uuid) -> Result<Host, Refusal> {
        for node in self.node_ids(id) {
            self.delete_node(node);
        }
        let redeemed: Vec<_> = self.redemptions.find(&id).map(|(ids, _)| *ids).collect();
        for redemption in redeemed {
            self.redemptions.remove(&redemption);
        }
        self.joins.remove(&id);
        self.queues.remove(&id);
        self.forget_pending(id);
        let host = self.hosts.remove(&id).ok_or_else(|| Refusal::bad_request("record not found"))?;
        self.events.push(Event::HostDeleted { host: id });
        Ok(host)
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

    /// Makes what the running rule did part of the batch.
    pub(super) fn merge(&mut self) {
        self.tables().into_iter().for_each(Undo::merge);
        self.mark = (self.events.len(), self.audit.len());
    }

    /// Takes back what the running rule did.
    pub(super) fn restore(&mut self) {
        self.tables().into_iter().for_each(Undo::restore);
        self.events.truncate(self.mark.0);
        self.audit.truncate(self.mark.1);
    }

    /// Forgets how things were, after they were stored; returns what happened.
    pub(super) fn keep(&mut self) -> Vec<Event> {
        self.tables().into_iter().for_each(Undo::keep);
        self.mark = (0, 0);
        self.audit.clear();
        std::mem::take(&mut self.events)
    }

    /// Puts everything back as it was when it was last stored.
    pub(super) fn restore_batch(&mut self) {
        self.tables().into_iter().for_each(Undo::restore_batch);
        self.mark = (0, 0);
        self.events.clear();
        self.audit.clear();
    }

    /// Everything that can be taken back.
    fn tables(&mut self) -> [&mut dyn Undo; 16] {
        let Self {
            networks,
            keys,
            hosts,
            nodes,
            redemptions,
            joins,
            pending,
            queues,
            egresses,
            acls,
            name_servers,
            users,
            access_tokens,
            settings,
            lowest,
            default_values,
            events: _,
            audit: _,
            mark: _,
            actor: _,
            manners: _,
        } = self;
        [
            networks,
            keys,
            hosts,
            nodes,
            redemptions,
            joins,
            pending,
            queues,
            egresses,
            acls,
            name_servers,
            users,
            access_tokens,
            settings,
            lowest,
            default_values,
        ]
    }
}

nowhere!(Network, Join, User, Secret, Vec<Uuid>, IpAddr);

impl Row<(Uuid, Uuid)> for Redemption {
    /// The key or the host.
    type Place = Uuid;

    fn places(&self, (key, host): &(Uuid, Uuid)) -> Vec<Uuid> {
        vec![*key, *host]
    }
}

impl Row<Uuid> for Host {
    /// Public address and port.
    type Place = (IpAddr, i64);

    fn places(&self, _: &Uuid) -> Vec<(IpAddr, i64)> {
        self.endpoint_ip.0.map(|address| (address, self.listen_port)).into_iter().collect()
    }
}

impl Row<String> for Egress {
    /// Name of the network.
    type Place = String;

    fn places(&self, _: &String) -> Vec<String> {
        vec![self.network.clone()]
    }
}

impl Row<String> for Acl {
    /// Name of the network.
    type Place = String;

    fn places(&self, _: &String) -> Vec<String> {
        vec![self.network.clone()]
    }
}

/// Setting: the server's name.
pub(super) const SERVER_NAME: &str = "server-name";
