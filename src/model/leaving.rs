//! A membership that was left here, of which its server does not know yet.

use std::{collections::BTreeSet, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ErrorReport, InterfaceName, Mac, Membership, Policy, PublicKey, Secret, Server};

/// What it takes to sign off, and no more: the WireGuard key is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Where the server wants calls.
    pub api: Server,
    /// This host's id on the server.
    pub host_id: Uuid,
    /// The interface that it had.
    pub interface: InterfaceName,
    /// The hardware address that goes with the id.
    pub mac: Mac,
    /// The password that proves who we were.
    pub password: Secret,
    /// What the owner of the machine decided: whom to trust is part of it.
    pub policy: Policy,
    /// The WireGuard key that it had.
    pub public_key: PublicKey,
    /// The server as its key names it.
    pub server: Server,
    /// Where `api` was when it was last talked to.
    pub server_addresses: BTreeSet<IpAddr>,
    /// When it was left, in seconds since 1970.
    pub since: u64,
}

/// A sign-off that waits for its server, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeavingStatus {
    /// How often this agent tried to sign off.
    pub attempts: u32,
    /// The host's id on the server, by which an administrator can remove it.
    pub host_id: Uuid,
    /// Why the last attempt failed; `None` before the first one of this agent has ended.
    pub last_error: Option<ErrorReport>,
    /// When it is tried again, in seconds since 1970; `None` during an attempt, and when no agent serves.
    pub next_at: Option<u64>,
    /// The server.
    pub server: String,
    /// When the membership was left, in seconds since 1970.
    pub since: u64,
}

/// A host that its server still lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its id there.
    pub host_id: Uuid,
    /// The server.
    pub server: Server,
}

impl Leaving {
    /// What stays of `membership` when it is left at `since`, in seconds since 1970.
    pub fn of(membership: &Membership, since: u64) -> Self {
        let enrolled = membership.enrolled();
        Self {
            api: enrolled.map_or(&membership.server, |enrolled| &enrolled.api).clone(),
            host_id: membership.identity.host_id,
            interface: membership.interface.clone(),
            mac: membership.identity.mac,
            password: membership.identity.password.clone(),
            policy: membership.policy.clone(),
            public_key: membership.identity.private_key.public_key(),
            server: membership.server.clone(),
            server_addresses: enrolled.map(|enrolled| enrolled.server_addresses.clone()).unwrap_or_default(),
            since,
        }
    }

    /// Which host the server still lists.
    pub fn listed(&self) -> Listed {
        Listed { host_id: self.host_id, server: self.server.clone() }
    }

    /// How it is told before anything was tried.
    pub fn status(&self) -> LeavingStatus {
        LeavingStatus {
            attempts: 0,
            host_id: self.host_id,
            last_error: None,
            next_at: None,
            server: self.server.to_string(),
            since: self.since,
        }
    }
}
