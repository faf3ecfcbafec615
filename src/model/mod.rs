//! The words of the agent: parsed, valid, and printable without secrets.

mod access;
mod assignment;
mod backend;
mod binding;
mod check;
mod chosen;
mod device;
mod event;
mod facts;
mod firewall;
mod identity;
mod interface_name;
mod key;
mod key_facts;
mod leaving;
mod listed;
mod membership;
mod names;
mod network;
mod outside;
mod pin;
mod policy;
mod required;
mod routing;
mod secret;
mod server;
mod span;
mod stage;
mod status;
mod stun;
mod token;
mod withheld;

pub use access::{Access, AccessRule, PortRange, PortRangeError, Traffic, Verdict};
pub use assignment::{Assignment, Connection, Node, Relay, RelayChoice, Remark};
pub use backend::{Backend, BackendError};
pub use binding::{Binding, IdentityChoice, Machine, Trait};
pub use check::{Check, CheckVerdict};
pub use chosen::{Chosen, PassedOver};
pub use device::{Device, LinkState, Observation, Peer, PeerStats};
pub use event::{Event, EventKind, Part, PartGateway, Subject};
pub use facts::Facts;
pub use firewall::{FirewallSetting, FirewallSettingError, FirewallStatus};
pub use identity::{Identity, Mac, TrafficKey};
pub use interface_name::{InterfaceName, InterfaceNameError};
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use key_facts::{KeyFacts, KeyShape, KeyStanding};
pub use leaving::{Leaving, LeavingStatus, Listed};
pub use membership::{Enrolled, Membership, Phase, Redeeming, Switch};
pub use names::{
    DnsManager, DnsMode, DnsModeError, DnsStatus, DomainName, DomainNameError, DomainUse, HostNames, NameScope,
    NameServers, Names, is_reverse, lineage,
};
pub use network::{NetworkName, NetworkNameError};
pub use outside::{Nat, Outside, Seen};
pub use pin::{Pin, PinError, Pins};
pub use policy::{Overlap, Overrides, Policy};
pub use required::{OnPartial, OnPartialError, Required, Requirement};
pub use routing::{Family, Neighbour, Route, Rule, Surroundings, Table};
pub use secret::Secret;
pub use server::{Server, ServerError};
pub use span::{Patience, Span, SpanError, Wait};
pub use stage::Stage;
pub use status::{
    AgentStatus, Broken, Class, Contact, Enrolling, EnrollingState, ErrorReport, NetworkStatus, NextStep, PeerStatus,
    PublicEndpoint, PushState, REPORT_VERSION, Report, State, Status, SyncReport,
};
pub use stun::{StunChoice, StunServer, StunServerError};
pub use token::{Token, TokenError};
pub use withheld::{NoDefaultRoute, Obstacle, Withheld};
