//! What happened to the world, for whoever must tell the hosts: rules note it, and it is sent once it is stored.

use uuid::Uuid;

/// One thing that happened; everything about it can be read from the world, except what is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A policy of a network was made, changed or deleted.
    AclChanged {
        /// The network.
        network: String,
    },
    /// A range behind nodes of a network was made, changed or deleted, or a domain was resolved.
    EgressChanged {
        /// The network.
        network: String,
        /// Id of the egress.
        egress: String,
    },
    /// An administrator took a host away; its topic is its id.
    HostDeleted {
        /// The host.
        host: Uuid,
    },
    /// A host's record changed; its peers need to know.
    HostUpdated {
        /// The host.
        host: Uuid,
    },
    /// A host got a node in a network.
    Joined {
        /// The host.
        host: Uuid,
        /// Its new node.
        node: Uuid,
    },
    /// A host should make itself new WireGuard keys.
    KeysRequested {
        /// The host.
        host: Uuid,
    },
    /// Name servers of a network were added, changed or forgotten.
    NameServersChanged {
        /// The network.
        network: String,
    },
    /// A node is gone.
    NodeDeleted {
        /// Its host.
        host: Uuid,
        /// Its network.
        network: String,
        /// The node.
        node: Uuid,
    },
    /// A node changed: its gateway, its tags, its connection, or it is marked for deletion.
    NodeUpdated {
        /// Its host.
        host: Uuid,
        /// The node.
        node: Uuid,
    },
    /// A host should pull.
    PullRequested {
        /// The host.
        host: Uuid,
    },
    /// A host redeemed a key, perhaps again; its nodes may follow later.
    Registered {
        /// The host.
        host: Uuid,
    },
    /// A host should upgrade itself.
    UpgradeRequested {
        /// The host.
        host: Uuid,
    },
}

/// How many events a slow listener may be behind before it loses the oldest.
pub(super) const BACKLOG: usize = 16_384;
