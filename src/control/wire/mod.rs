//! The server's JSON, exactly: every document as it is on the wire, before anything is believed.
//!
//! No other module knows a field name. The server is written in Go, so these types decode the way Go's `encoding/json`
//! does (a missing key and `null` are the zero value, an unknown key is ignored) with one difference: keys are matched
//! by case, because a peer update has both `server` and `Server`, `peers` and `Peers`. A slice or map that Go may leave
//! nil is an `Option`, so that re-encoding keeps `null` apart from `[]`.

mod admin;
mod announcement;
mod broker;
mod encoding;
pub mod essential;
mod firewall;
mod host;
mod keys;
mod node;
mod peers;
mod policy;
mod pull;
mod secret;
mod server;
mod time;
mod update;

use serde::{Deserialize, Serialize};

pub use crate::model::Secret;

pub use self::{
    admin::{AccessToken, ApiHost, ApiInterface, ApiNode, NamedPeers, Network, PeerInfo, PeerInfoEntry, PendingHost},
    announcement::KeyAnnouncement,
    broker::{BrokerAddress, BrokerAddressError},
    encoding::{GoBytes, GoIp, IpNet, NetError, UdpAddr, WgKey},
    firewall::{AclRule, EgressInfo, FirewallRule, FwUpdate, IngressInfo},
    host::{AuthRequest, AuthToken, Host, HostInterface, RegisterResponse},
    keys::{ApiEnrollmentKey, EnrollmentKey, KeyType},
    node::{EgressGatewayRequest, EgressRange, InetNodeReq, Node, StaticNode, TagSet},
    peers::{EgressNetworkRoutes, HostNetworkInfo, PeerConfig},
    policy::{Acl, AclTag, Egress, EgressRequest, NameserverDomain, NameserverSetting},
    pull::{AddressIdentity, DnsEntry, EgressDomain, HostPeerUpdate, HostPull, Nameserver},
    secret::PresharedWgKey,
    server::{ServerConfig, ServerStatus},
    time::GoTime,
    update::{HostAction, HostUpdate, Metrics, Signal},
};

/// An extension of ours in the answer to a registration: the names of the networks in which it gives the host a node,
/// with commas between them.
pub const NETWORKS_HEADER: &str = "enroll-agent-networks";

/// An extension of ours in the answer to a registration that is refused for its version alone: a [`KeyAnnouncement`].
pub const KEY_HEADER: &str = "enroll-agent-key";

/// A length of time as Go writes it: whole nanoseconds.
pub type Nanoseconds = i64;

/// Declares a document as a table of `field: Type = "wire name"`.
///
/// Every field takes its zero value when its key is missing or `null`, as in Go.
macro_rules! document {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty = $key:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, ::serde::Deserialize, ::serde::Serialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(rename = $key, deserialize_with = "crate::control::wire::encoding::or_default")]
                pub $field: $type,
            )*
        }
    };
}
use document;

/// The wrapper that some answers come in; most bodies are bare.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Success<T> {
    /// The HTTP status again.
    #[serde(rename = "Code", default)]
    pub code: u16,
    /// A sentence for people.
    #[serde(rename = "Message", default)]
    pub message: String,
    /// The document itself; `None` for `null` and for a missing key.
    #[serde(rename = "Response", default = "Option::default")]
    pub response: Option<T>,
}

document! {
    /// The body of every refusal that comes from the server itself (a proxy in front of it may send anything).
    pub struct ErrorResponse {
        /// The HTTP status again.
        code: u16 = "Code",
        /// The reason; the only thing that tells one refusal from another.
        message: String = "Message",
        /// Always `null`.
        response: Option<serde_json::Value> = "Response",
    }
}
