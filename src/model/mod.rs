//! The words of the agent: parsed, valid, and printable without secrets.

mod assignment;
mod backend;
mod device;
mod facts;
mod identity;
mod interface_name;
mod key;
mod membership;
mod names;
mod network;
mod policy;
mod secret;
mod server;
mod stage;
mod status;
mod token;

pub use assignment::{Assignment, Connection, Node, Relay, RelayChoice, Remark};
pub use backend::{Backend, BackendError};
pub use device::{Device, LinkState, Observation, Peer, PeerStats};
pub use facts::Facts;
pub use identity::{Identity, Mac, TrafficKey};
pub use interface_name::{InterfaceName, InterfaceNameError};
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use membership::{Enrolled, Membership, Phase, Redeeming, Switch};
pub use names::{
    DnsManager, DnsMode, DnsModeError, DnsStatus, DomainName, DomainNameError, DomainUse, HostNames, NameScope,
    NameServers, Names, is_reverse, lineage,
};
pub use network::{NetworkName, NetworkNameError};
pub use policy::{Overrides, Policy};
pub use secret::Secret;
pub use server::{Server, ServerError};
pub use stage::Stage;
pub use status::{
    AgentStatus, Broken, Class, Contact, Enrolling, ErrorReport, NetworkStatus, NextStep, PeerStatus, PushState,
    REPORT_VERSION, Report, State, Status, SyncReport,
};
pub use token::{Token, TokenError};
