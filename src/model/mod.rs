//! The words of the agent: parsed, valid, and printable without secrets.

mod device;
mod interface_name;
mod key;

pub use device::{Device, LinkState, Observation, Peer, PeerStats};
pub use interface_name::{InterfaceName, InterfaceNameError};
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
