//! Hosts that somebody has to let into a network before they get a node there.

use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    clock::go_time,
    refusal::Refusal,
    table::Row,
    world::{Grant, World},
};
use crate::control::wire::{self, Host};

/// A request that waits for an administrator.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct PendingHost {
    pub(super) id: Uuid,
    pub(super) host: Uuid,
    pub(super) network: String,
    /// Unix seconds.
    pub(super) at: i64,
    /// What the host gets once it is let in.
    pub(super) grant: Grant,
}

impl Row<Uuid> for PendingHost {
    /// The host.
    type Place = Uuid;

    fn places(&self, _: &Uuid) -> Vec<Uuid> {
        vec![self.host]
    }
}

impl World {
    /// Makes a request, unless the host has a node in the network, or has asked before.
    pub(super) fn ask_for_approval(&mut self, host: Uuid, network: &str, grant: &Grant, now: OffsetDateTime) {
        let is_in = self.nodes_of(host).any(|node| node.network == network);
        let asked = self.pending.find(&host).any(|(_, pending)| pending.network == network);
        if is_in || asked || !self.networks.contains(&network.to_owned()) {
            return;
        }
        let grant = Grant { networks: vec![network.to_owned()], ..grant.clone() };
        let (id, network) = (Uuid::new_v4(), network.to_owned());
        self.pending.insert(id, PendingHost { id, host, network, at: now.unix_timestamp(), grant });
    }

    /// Lets a host into a network; returns its node.
    pub(super) fn approve(&mut self, id: Uuid, now: OffsetDateTime) -> Result<Uuid, Refusal> {
        let PendingHost { host, network, grant, .. } = self.pending.get(&id).cloned().ok_or_else(nobody)?;
        self.host(host)?;
        let node = self.join(host, &network, now).map_err(|refusal| Refusal { status: 400, ..refusal })?;
        self.give(node, &grant);
        self.pending.remove(&id);
        Ok(node)
    }

    /// Lets everybody in who waits.
    pub(super) fn approve_all(&mut self, now: OffsetDateTime) -> Result<(), Refusal> {
        for id in self.pending.iter().map(|(id, _)| *id).collect::<Vec<_>>() {
            self.approve(id, now)?;
        }
        Ok(())
    }

    /// Forgets a request.
    pub(super) fn reject(&mut self, id: Uuid) -> Result<wire::PendingHost, Refusal> {
        let shown = self.pending.get(&id).map(|pending| self.shown_pending(pending)).ok_or_else(nobody)?;
        self.pending.remove(&id);
        Ok(shown)
    }

    pub(super) fn forget_pending(&mut self, host: Uuid) {
        for id in self.pending.find(&host).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.pending.remove(&id);
        }
    }

    /// A request for people; the key's value is not in it.
    pub(super) fn shown_pending(&self, pending: &PendingHost) -> wire::PendingHost {
        let PendingHost { id, host, network, at, grant } = pending;
        let Grant { networks: _, groups, relay, auto_assign_gateway } = grant;
        let (host_id, record) = (host.to_string(), self.hosts.get(host).cloned().unwrap_or_default());
        let Host { name, public_key, os, version, location, .. } = record;
        let requested_at = OffsetDateTime::from_unix_timestamp(*at).map(go_time).unwrap_or_default();
        wire::PendingHost {
            id: id.to_string(),
            host_id,
            host_name: name,
            network: network.clone(),
            public_key: public_key.to_base64(),
            enrollment_key: Some(json!({
                "networks": [network], "groups": groups, "relay": relay, "auto_assign_gw": auto_assign_gateway,
            })),
            os,
            version,
            location,
            requested_at,
        }
    }
}

fn nobody() -> Refusal {
    Refusal::bad_request("record not found")
}
