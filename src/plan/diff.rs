//! The shortest list of changes that turns the device we have into the one we want.

use std::num::{NonZeroU16, NonZeroU32};

use ipnet::IpNet;

use crate::model::{Device, LinkState, Peer, PrivateKey, PublicKey, Route, Rule};

/// One step on an interface. A list of them is carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds an overlay address with its prefix.
    AddAddress(IpNet),
    /// Adds a peer that is not there.
    AddPeer {
        /// Its key.
        public_key: PublicKey,
        /// All its settings.
        peer: Peer,
    },
    /// Routes a destination to the interface.
    AddRoute(Route),
    /// Sends packets to a routing table.
    AddRule(Rule),
    /// Makes the interface, as [`Device::blank`].
    CreateInterface,
    /// Removes an overlay address.
    RemoveAddress(IpNet),
    /// Removes a peer and its session.
    RemovePeer(PublicKey),
    /// Removes a route of ours.
    RemoveRoute(Route),
    /// Removes a rule of ours.
    RemoveRule(Rule),
    /// Marks the packets that WireGuard itself sends; `None` leaves them unmarked.
    SetFwmark(Option<NonZeroU32>),
    /// Moves the UDP socket; `None` to any free port.
    SetListenPort(Option<NonZeroU16>),
    /// Sets the largest packet, in bytes.
    SetMtu(u16),
    /// Replaces our own key.
    SetPrivateKey(PrivateKey),
    /// Takes the interface up or down.
    SetState(LinkState),
    /// Changes a peer in place, keeping its session. Never takes an endpoint away: WireGuard has no way to say so.
    UpdatePeer {
        /// The settings it has.
        have: Peer,
        /// Its key.
        public_key: PublicKey,
        /// The settings it should have.
        want: Peer,
    },
}

/// Returns the changes from `have` to `want`, removals first, empty when equal; `None` means no interface yet.
///
/// A moved allowed IP is taken from its old peer before it is given to the new one.
pub fn diff(have: Option<&Device>, want: &Device) -> Vec<Change> {
    let blank = Device::blank();
    let mut changes = Vec::new();
    if have.is_none() {
        changes.push(Change::CreateInterface);
    }
    let Device { addresses, fwmark, listen_port, mtu, peers, private_key, routes, rules, state } =
        have.unwrap_or(&blank);

    // The rule that catches everything goes first and comes last: without the rest it would catch too much.
    let surplus = rules.iter().rev().filter(|rule| !want.rules.contains(rule));
    changes.extend(surplus.copied().map(Change::RemoveRule));
    changes.extend(routes.difference(&want.routes).copied().map(Change::RemoveRoute));
    changes.extend(addresses.difference(&want.addresses).copied().map(Change::RemoveAddress));
    let mut kept = Vec::new();
    let mut added = Vec::new();
    for (&public_key, peer) in peers {
        match want.peers.get(&public_key) {
            None => changes.push(Change::RemovePeer(public_key)),
            Some(wanted) if wanted == peer => {}
            Some(wanted) if peer.endpoint.is_some() && wanted.endpoint.is_none() => {
                changes.push(Change::RemovePeer(public_key));
                added.push(Change::AddPeer { public_key, peer: wanted.clone() });
            }
            Some(wanted) => {
                let gains_only = peer.allowed_ips.is_subset(&wanted.allowed_ips);
                kept.push((gains_only, Change::UpdatePeer { have: peer.clone(), public_key, want: wanted.clone() }));
            }
        }
    }
    if *private_key != want.private_key {
        changes.push(Change::SetPrivateKey(want.private_key.clone()));
    }
    if *fwmark != want.fwmark {
        changes.push(Change::SetFwmark(want.fwmark));
    }
    if *listen_port != want.listen_port {
        changes.push(Change::SetListenPort(want.listen_port));
    }
    if *mtu != want.mtu {
        changes.push(Change::SetMtu(want.mtu));
    }
    // Peers that lose allowed IPs come before peers that gain them.
    kept.sort_by_key(|(gains_only, _)| *gains_only);
    changes.extend(kept.into_iter().map(|(_, change)| change));
    changes.append(&mut added);
    let missing = want.peers.iter().filter(|(public_key, _)| !peers.contains_key(public_key));
    changes.extend(missing.map(|(&public_key, peer)| Change::AddPeer { public_key, peer: peer.clone() }));
    changes.extend(want.addresses.difference(addresses).copied().map(Change::AddAddress));
    if *state != want.state {
        changes.push(Change::SetState(want.state));
    }
    changes.extend(want.routes.difference(routes).copied().map(Change::AddRoute));
    changes.extend(want.rules.difference(rules).copied().map(Change::AddRule));
    changes
}
