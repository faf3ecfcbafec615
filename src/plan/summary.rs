//! What a membership looks like from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use super::{
    names::{link_domains, own_names},
    target::SESSION_LIFETIME,
};
use crate::model::{
    Backend, Connection, ErrorReport, LinkState, Membership, NetworkName, NetworkStatus, Observation, PeerStats,
    PeerStatus, Phase, PublicEndpoint, Relay, Requirement, State, Status, Switch, Withheld,
};

/// Summarizes a saved membership and what the host shows of it; `backend` is who carries `have`, `withheld` what of the
/// assignment is not carried out.
pub fn summarize(
    membership: &Membership,
    have: Option<&Observation>,
    backend: Option<Backend>,
    withheld: &BTreeSet<Withheld>,
    error: Option<ErrorReport>,
) -> Status {
    let enrolled = membership.enrolled();
    let assignment = enrolled.map(|enrolled| &enrolled.assignment);
    let up = have.is_some_and(|have| have.device.state == LinkState::Up);
    let state = match (&membership.phase, assignment) {
        (Phase::Pending { .. }, _) | (_, None) => State::Pending,
        (_, Some(_)) if membership.switch == Switch::Off => State::Off,
        (_, Some(assignment)) if assignment.nodes.is_empty() => State::Waiting,
        (_, Some(_)) if up => State::Up,
        (_, Some(_)) => State::Down,
    };
    let refused = assignment.map(|assignment| link_domains(assignment, membership.policy.dns, &own_names(membership)));
    let refused = refused.into_iter().flat_map(|names| names.remarks);
    let remarks = assignment.into_iter().flat_map(|assignment| assignment.remarks.iter().cloned()).chain(refused);
    let nodes = assignment.into_iter().flat_map(|assignment| &assignment.nodes);
    Status {
        backend: backend.filter(|_| have.is_some()),
        contact: None,
        dns: None,
        firewall: None,
        host_id: membership.identity.host_id,
        interface: membership.interface.clone(),
        keys: enrolled.map(|enrolled| enrolled.fingerprints.clone()).unwrap_or_default(),
        last_error: error,
        listen_port: have.and_then(|have| have.device.listen_port).map(u16::from),
        name: assignment.map(|assignment| assignment.name.clone()),
        networks: nodes
            .map(|(name, node)| {
                let status = NetworkStatus {
                    addresses: node.addresses.clone(),
                    connection: node.connection,
                    node_id: node.id,
                    relay: node.relay.clone(),
                    relay_choice: node.relay_choice,
                    relay_effective: node.relay.as_ref().is_some_and(|relay| is_effective(relay, have)),
                    tags: node.tags.clone(),
                };
                (name.clone(), status)
            })
            .collect(),
        peers: have.map(peers).unwrap_or_default(),
        public_endpoints: public_endpoints(membership, have.and_then(|have| have.device.listen_port)),
        public_key: membership.identity.private_key.public_key(),
        required: required(membership, withheld),
        remarks: remarks.map(|remark| remark.to_string()).chain(withheld.iter().map(ToString::to_string)).collect(),
        server: membership.server.to_string(),
        since: None,
        state,
    }
}

/// What became of the networks that the owner requires.
fn required(membership: &Membership, withheld: &BTreeSet<Withheld>) -> BTreeMap<NetworkName, Requirement> {
    let enrolled = membership.enrolled();
    let found = |name: &NetworkName| {
        let is_announced = enrolled.is_some_and(|enrolled| enrolled.announced.contains(name));
        let is_left_out = |withheld: &Withheld| match withheld {
            Withheld::Network { name: left_out, .. } => left_out == name,
            Withheld::DefaultRoute(_)
            | Withheld::ListenPort { .. }
            | Withheld::Mtu { .. }
            | Withheld::Range { .. }
            | Withheld::TooWide(_) => false,
        };
        match enrolled.and_then(|enrolled| enrolled.assignment.nodes.get(name)).map(|node| node.connection) {
            Some(Connection::Disconnected) => Requirement::Disconnected,
            Some(Connection::Connected) if withheld.iter().any(is_left_out) => Requirement::LeftOut,
            Some(Connection::Connected) => Requirement::Joined,
            None if is_announced => Requirement::Waiting,
            None => Requirement::Missing,
        }
    };
    membership.policy.require.names().iter().map(|name| (name.clone(), found(name))).collect()
}

/// What the owner gave goes before what was found.
fn public_endpoints(membership: &Membership, listen_port: Option<NonZeroU16>) -> Vec<PublicEndpoint> {
    if let Some(endpoint) = membership.policy.endpoint {
        let port = Some(endpoint.port()).filter(|port| *port != 0);
        return vec![PublicEndpoint { address: endpoint.ip(), nat: None, port }];
    }
    let found = membership.seen().all().map(|seen| PublicEndpoint {
        address: seen.address.ip(),
        nat: Some(seen.nat),
        port: listen_port.and_then(|port| seen.port_of(port)),
    });
    found.collect()
}

/// A relay is in effect while it carries routes and its session lives.
fn is_effective(relay: &Relay, have: Option<&Observation>) -> bool {
    let (Some(have), Some(key)) = (have, relay.public_key) else { return false };
    let carries = have.device.peers.get(&key).is_some_and(|peer| !peer.allowed_ips.is_empty());
    let age = have.stats.get(&key).and_then(|stats| stats.handshake_age);
    carries && age.is_some_and(|age| age < SESSION_LIFETIME)
}

fn peers(have: &Observation) -> Vec<PeerStatus> {
    let peers = have.device.peers.iter().map(|(public_key, peer)| {
        let PeerStats { handshake_age, rx_bytes, tx_bytes } = have.stats.get(public_key).copied().unwrap_or_default();
        PeerStatus {
            allowed_ips: peer.allowed_ips.clone(),
            endpoint: peer.endpoint,
            handshake_age: handshake_age.map(|age| age.as_secs()),
            public_key: *public_key,
            rx_bytes,
            tx_bytes,
        }
    });
    peers.collect()
}
