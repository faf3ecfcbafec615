//! What a change is called when the system refuses it; the same words whoever carries the packets.

use crate::{
    model::{InterfaceName, LinkState},
    plan::Change,
};

/// Says what was tried, as "add route 10.9.0.0/16 to interface enroll0".
pub(super) fn describe(change: &Change, interface: &InterfaceName) -> String {
    let what = match change {
        Change::AddAddress(net) => format!("add address {net} to"),
        Change::AddPeer { peer: _, public_key } => format!("add peer {public_key} to"),
        Change::AddRoute(route) => format!("add route {} to", route.destination),
        Change::AddRule(_) => "add a routing rule for".to_owned(),
        Change::CreateInterface => "create".to_owned(),
        Change::RemoveAddress(net) => format!("remove address {net} from"),
        Change::RemovePeer(public_key) => format!("remove peer {public_key} from"),
        Change::RemoveRoute(route) => format!("remove route {} from", route.destination),
        Change::RemoveRule(_) => "remove a routing rule for".to_owned(),
        Change::SetFwmark(_) => "mark the packets of".to_owned(),
        Change::SetListenPort(None) => "choose a listen port for".to_owned(),
        Change::SetListenPort(Some(port)) => format!("set listen port {port} on"),
        Change::SetMtu(mtu) => format!("set MTU {mtu} on"),
        Change::SetPrivateKey(_) => "set the private key of".to_owned(),
        Change::SetState(LinkState::Down) => "take down".to_owned(),
        Change::SetState(LinkState::Up) => "bring up".to_owned(),
        Change::UpdatePeer { have: _, public_key, want: _ } => format!("change peer {public_key} of"),
    };
    format!("{what} interface {interface}")
}
