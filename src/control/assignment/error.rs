//! What can be wrong with an assignment.

use ipnet::IpNet;
use uuid::Uuid;

use crate::model::{NetworkName, NetworkNameError, PublicKey};

/// Why an assignment cannot be used; nothing of it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// An access rule has a malformed address.
    #[error("access rule {rule}: address {address} is malformed")]
    AccessAddress {
        /// What was sent.
        address: String,
        /// The rule's id.
        rule: String,
    },
    /// An access rule has a port that does not exist, or a range that runs backwards.
    #[error("access rule {rule}: port {port:?} is neither a port nor a range of ports")]
    AccessPort {
        /// What was sent.
        port: String,
        /// The rule's id.
        rule: String,
    },
    /// An address that no host can have, or a mask that is no prefix.
    #[error("network {network}: address {address} is malformed")]
    Address {
        /// What was sent.
        address: String,
        /// In which network.
        network: NetworkName,
    },
    /// A peer's allowed IP is malformed.
    #[error("peer {peer}: allowed IP {address} is malformed")]
    AllowedIp {
        /// What was sent.
        address: String,
        /// Whose.
        peer: PublicKey,
    },
    /// The same network twice.
    #[error("network {0} is assigned twice")]
    Duplicate(NetworkName),
    /// A peer's endpoint has an impossible port.
    #[error("peer {peer}: port {port} of its endpoint is outside 0 to 65535")]
    Endpoint {
        /// Whose.
        peer: PublicKey,
        /// What was sent.
        port: i64,
    },
    /// The server holds another WireGuard key for this host.
    #[error("the server knows this host by another WireGuard key")]
    ForeignKey,
    /// The answer is about another host.
    #[error("the answer is for host {0}, not for this one")]
    ForeignHost(Uuid),
    /// A keepalive interval out of range.
    #[error("peer {peer}: keepalive of {nanoseconds} ns is outside 0 to 65535 s")]
    Keepalive {
        /// What was sent.
        nanoseconds: i64,
        /// Whose.
        peer: PublicKey,
    },
    /// A port that does not exist.
    #[error("listen port {0} is outside 0 to 65535")]
    ListenPort(i64),
    /// An MTU below IPv6's minimum or above any link's.
    #[error("MTU {0} is outside 1280 to 65535")]
    Mtu(i64),
    /// A network name with other characters than names have.
    #[error("a network has an unusable name")]
    Network(#[from] NetworkNameError),
    /// Two networks claim the same addresses.
    #[error("networks {first} ({first_range}) and {second} ({second_range}) overlap")]
    Overlap {
        /// One.
        first: NetworkName,
        /// Its range.
        first_range: IpNet,
        /// The other.
        second: NetworkName,
        /// Its range.
        second_range: IpNet,
    },
    /// Two peers claim the same allowed IP.
    #[error("peers {first} and {second} both claim {net}")]
    SharedAllowedIp {
        /// One.
        first: PublicKey,
        /// The contested network.
        net: IpNet,
        /// The other.
        second: PublicKey,
    },
    /// A tag with control characters.
    #[error("network {0} has a tag with control characters")]
    Tag(NetworkName),
    /// A peer without a key.
    #[error("a peer has no key")]
    ZeroKey,
}
