//! From what the server said to what is believed: every value is checked, and the first wrong one is named.

mod access;
mod error;
mod gateways;
mod names;
mod nearby;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
};

use ipnet::IpNet;
use uuid::Uuid;

pub use self::{
    error::AssignmentError,
    gateways::{Candidate, candidates, name_relays},
    names::{peer_names, told_names},
    nearby::stun_servers,
};
use super::wire;
use crate::model::{
    Access, Assignment, Connection, Identity, Names, NetworkName, Node, Peer, PresharedKey, PrivateKey, PublicKey,
    Relay, RelayChoice, Remark, Server,
};

/// What the server says about itself, as far as it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Where it wants further calls; `None` if it says nothing usable.
    pub api: Option<Server>,
    /// Its own name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Picks what is used of the server's description of itself.
pub fn server_facts(config: &wire::ServerConfig) -> ServerFacts {
    let printable = |text: &str| text.chars().filter(|character| !character.is_control()).take(200).collect();
    ServerFacts { api: config.api.parse().ok(), name: printable(&config.server), version: printable(&config.version) }
}

/// Checks a pull for the host of `identity`.
///
/// # Errors
/// [`AssignmentError`] for the first value that cannot be used; no part of the answer is then.
pub fn assignment(pull: &wire::HostPull, identity: &Identity) -> Result<Assignment, AssignmentError> {
    refuse_foreign(pull.host.id, identity)?;
    let own = own_keys(identity);
    if !own.contains(&host_key(pull)) {
        return Err(AssignmentError::ForeignKey);
    }
    let mut assignment = Assignment {
        listen_port: listen_port(pull.host.listen_port)?,
        mtu: mtu(pull.host.mtu)?,
        name: pull.host.name.chars().filter(|character| !character.is_control()).take(253).collect(),
        stun: nearby::stun_servers(&pull.server_config),
        ..Assignment::default()
    };
    let mut remarks = BTreeSet::new();
    if pull.fw_update.as_ref().is_some_and(|update| update.is_egress_gateway) {
        remarks.insert(Remark::EgressGatewayUnsupported);
    }
    for wire in pull.nodes.iter().flatten() {
        let network: NetworkName = wire.network.parse()?;
        if is_leaving(wire) {
            assignment.leaving.insert(network, wire.id);
        } else {
            refuse_foreign(wire.host_id, identity)?;
            let node = node(wire, &network)?;
            if node.addresses.is_empty() && node.connection == Connection::Connected {
                remarks.insert(Remark::NetworkWithoutAddress(network.clone()));
            }
            if assignment.nodes.insert(network.clone(), node).is_some() {
                return Err(AssignmentError::Duplicate(network));
            }
        }
    }
    refuse_overlaps(&assignment.nodes)?;
    let PushedPeers { access, default_gateway, names, nearby, peers, remarks: about_peers, route_metrics } =
        about_peers(
            &Told {
                change_default_gateway: pull.change_default_gateway,
                default_gateway: pull.default_gateway,
                dns_nameservers: pull.dns_nameservers.as_deref(),
                egress_network_routes: pull.egress_network_routes.as_deref(),
                endpoint_detection: pull.endpoint_detection,
                fw_update: pull.fw_update.as_ref(),
                host_network_info: pull.host_network_info.as_ref(),
                peers: pull.peers.as_deref(),
                server_config: &pull.server_config,
            },
            &own,
        )?;
    remarks.extend(about_peers);
    Ok(Assignment { access, default_gateway, names, nearby, peers, remarks, route_metrics, ..assignment })
}

/// The WireGuard key that the server knows this host by.
pub fn host_key(pull: &wire::HostPull) -> PublicKey {
    pull.host.public_key.into()
}

/// A host's peers, what they may do and how they are used, without the rest of an assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushedPeers {
    /// See [`Assignment::access`].
    pub access: Access,
    /// See [`Assignment::default_gateway`].
    pub default_gateway: Option<IpAddr>,
    /// Whom to ask for which names.
    pub names: Names,
    /// See [`Assignment::nearby`].
    pub nearby: BTreeMap<PublicKey, BTreeSet<SocketAddr>>,
    /// All of them.
    pub peers: BTreeMap<PublicKey, Peer>,
    /// What was left out, and why.
    pub remarks: BTreeSet<Remark>,
    /// See [`Assignment::route_metrics`].
    pub route_metrics: BTreeMap<IpNet, NonZeroU32>,
}

/// Checks the peers that were pushed to the host of `identity`.
///
/// # Errors
/// [`AssignmentError`] for the first value that cannot be used; no part of the message is then.
pub fn pushed_peers(update: &wire::HostPeerUpdate, identity: &Identity) -> Result<PushedPeers, AssignmentError> {
    refuse_foreign(update.host.id, identity)?;
    let listed = update.host_peers.as_ref().or(update.peers_compat.as_ref());
    let told = Told {
        change_default_gateway: update.change_default_gateway,
        default_gateway: update.default_gateway,
        dns_nameservers: update.dns_nameservers.as_deref(),
        egress_network_routes: update.egress_network_routes.as_deref(),
        endpoint_detection: update.endpoint_detection_compat,
        fw_update: update.fw_update.as_ref(),
        host_network_info: update.host_network_info.as_ref(),
        peers: listed.map(Vec::as_slice),
        server_config: &update.server_config,
    };
    about_peers(&told, &own_keys(identity))
}

/// What pulls and pushes both tell of peers.
struct Told<'a> {
    change_default_gateway: bool,
    default_gateway: wire::GoIp,
    dns_nameservers: Option<&'a [wire::Nameserver]>,
    egress_network_routes: Option<&'a [wire::EgressNetworkRoutes]>,
    endpoint_detection: bool,
    fw_update: Option<&'a wire::FwUpdate>,
    host_network_info: Option<&'a BTreeMap<String, wire::HostNetworkInfo>>,
    peers: Option<&'a [wire::PeerConfig]>,
    server_config: &'a wire::ServerConfig,
}

fn about_peers(told: &Told<'_>, own: &[PublicKey]) -> Result<PushedPeers, AssignmentError> {
    let (peers, mut remarks) = peers(told.peers.unwrap_or_default(), own)?;
    Ok(PushedPeers {
        access: access::access(told.fw_update, &mut remarks)?,
        default_gateway: told.default_gateway.0.filter(|_| told.change_default_gateway),
        names: names::names(told.server_config, told.dns_nameservers, &mut remarks),
        nearby: nearby::nearby(told.endpoint_detection, told.host_network_info, &peers),
        peers,
        remarks,
        route_metrics: route_metrics(told.egress_network_routes.unwrap_or_default()),
    })
}

/// Peers, and what was left out of them.
type Peers = (BTreeMap<PublicKey, Peer>, BTreeSet<Remark>);

fn peers(listed: &[wire::PeerConfig], own: &[PublicKey]) -> Result<Peers, AssignmentError> {
    let (mut peers, mut remarks) = (BTreeMap::new(), BTreeSet::new());
    for wire in listed.iter().filter(|wire| !wire.remove) {
        let public_key = PublicKey::from(wire.public_key);
        if own.contains(&public_key) {
            remarks.insert(Remark::OwnKeyAmongPeers);
            continue;
        }
        let peer = peer(wire, public_key, &mut remarks)?;
        merge(peers.entry(public_key).or_default(), peer);
    }
    refuse_shared_allowed_ips(&peers)?;
    Ok((peers, remarks))
}

/// Reads the metrics of routes; behind a gateway that translates addresses it is the virtual range that is routed.
fn route_metrics(routes: &[wire::EgressNetworkRoutes]) -> BTreeMap<IpNet, NonZeroU32> {
    let mut metrics = BTreeMap::new();
    for range in routes.iter().flat_map(|routes| routes.ranges_with_metric.iter().flatten()) {
        let Some(metric) = NonZeroU32::new(range.route_metric) else { continue };
        for text in [&range.network, &range.virtual_network].into_iter().filter(|text| !text.is_empty()) {
            let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            // Servers write "*" for everything; what is routed is told by the peers' allowed IPs.
            let Ok(net) = net else { continue };
            // Of two gateways to one range the server gives us the one with the lowest metric.
            let lowest = metrics.entry(net.trunc()).or_insert(metric);
            *lowest = metric.min(*lowest);
        }
    }
    metrics
}

/// The key in force, the one that is being announced, and the one before, which a server may fall back to.
fn own_keys(identity: &Identity) -> Vec<PublicKey> {
    let private = [Some(&identity.private_key), identity.next_key.as_ref()];
    private.into_iter().flatten().map(PrivateKey::public_key).chain(identity.former_key).collect()
}

fn refuse_foreign(host_id: Uuid, identity: &Identity) -> Result<(), AssignmentError> {
    if host_id == identity.host_id { Ok(()) } else { Err(AssignmentError::ForeignHost(host_id)) }
}

/// The server wants it gone and waits for our word.
fn is_leaving(node: &wire::Node) -> bool {
    node.pending_delete || node.action == "delete"
}

fn listen_port(port: i64) -> Result<Option<NonZeroU16>, AssignmentError> {
    u16::try_from(port).map(NonZeroU16::new).map_err(|_| AssignmentError::ListenPort(port))
}

fn mtu(mtu: i64) -> Result<Option<u16>, AssignmentError> {
    match u16::try_from(mtu) {
        Ok(0) => Ok(None),
        Ok(mtu) if mtu >= 1280 => Ok(Some(mtu)),
        Ok(_) | Err(_) => Err(AssignmentError::Mtu(mtu)),
    }
}

fn node(wire: &wire::Node, network: &NetworkName) -> Result<Node, AssignmentError> {
    let mut addresses = BTreeSet::new();
    for address in [&wire.address, &wire.address6] {
        let malformed = || AssignmentError::Address { address: shown(address), network: network.clone() };
        if let Some(net) = address.to_net().map_err(|_| malformed())? {
            if !is_host_address(net) {
                return Err(malformed());
            }
            addresses.insert(net);
        }
    }
    let tags: BTreeSet<String> = wire.tags.iter().flat_map(|tags| tags.0.iter().cloned()).collect();
    if tags.iter().any(|tag| tag.chars().any(char::is_control)) {
        return Err(AssignmentError::Tag(network.clone()));
    }
    let relay = if wire.is_relayed { wire.relayed_by.parse().ok() } else { None };
    Ok(Node {
        addresses,
        connection: if wire.connected { Connection::Connected } else { Connection::Disconnected },
        id: wire.id,
        relay: relay.map(|node_id| Relay { address: None, name: None, node_id, public_key: None }),
        relay_choice: if wire.auto_assign_gateway { RelayChoice::Automatic } else { RelayChoice::Fixed },
        tags,
    })
}

/// An address that one interface can have, in a network that leaves room for others.
fn is_host_address(net: IpNet) -> bool {
    let usable = match net.addr() {
        IpAddr::V4(ip) => !ip.is_broadcast() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    usable
        && net.prefix_len() >= WIDEST_NETWORK
        && !net.addr().is_unspecified()
        && !net.addr().is_loopback()
        && !net.addr().is_multicast()
}

fn refuse_overlaps(nodes: &BTreeMap<NetworkName, Node>) -> Result<(), AssignmentError> {
    let connected = nodes.iter().filter(|(_, node)| node.connection == Connection::Connected);
    let ranges: Vec<_> =
        connected.flat_map(|(name, node)| node.addresses.iter().map(move |net| (name, net.trunc()))).collect();
    for (index, (first, first_range)) in ranges.iter().enumerate() {
        for (second, second_range) in &ranges[index + 1..] {
            if first_range.contains(second_range) || second_range.contains(first_range) {
                return Err(AssignmentError::Overlap {
                    first: NetworkName::clone(first),
                    first_range: *first_range,
                    second: NetworkName::clone(second),
                    second_range: *second_range,
                });
            }
        }
    }
    Ok(())
}

fn peer(
    wire: &wire::PeerConfig,
    public_key: PublicKey,
    remarks: &mut BTreeSet<Remark>,
) -> Result<Peer, AssignmentError> {
    if wire.public_key.is_zero() {
        return Err(AssignmentError::ZeroKey);
    }
    let mut allowed_ips = BTreeSet::new();
    for address in wire.allowed_ips.iter().flatten() {
        let malformed = || AssignmentError::AllowedIp { address: shown(address), peer: public_key };
        allowed_ips.extend(address.to_net().map_err(|_| malformed())?.map(|net| net.trunc()));
    }
    let endpoint = match &wire.endpoint {
        Some(endpoint) => {
            endpoint.to_socket().map_err(|_| AssignmentError::Endpoint { peer: public_key, port: endpoint.port })?
        }
        None => None,
    };
    if endpoint.is_some_and(|endpoint| endpoint.port() == 0) {
        remarks.insert(Remark::EndpointWithoutPort(public_key));
    }
    let nanoseconds = wire.persistent_keepalive.unwrap_or(0);
    let seconds = nanoseconds / NANOSECONDS + i64::from(nanoseconds % NANOSECONDS != 0);
    let seconds = u16::try_from(seconds).map_err(|_| AssignmentError::Keepalive { nanoseconds, peer: public_key })?;
    Ok(Peer {
        allowed_ips,
        endpoint: endpoint.filter(|endpoint| endpoint.port() != 0),
        persistent_keepalive: NonZeroU16::new(seconds),
        preshared_key: wire.preshared_key.as_ref().map(|key| PresharedKey(*key.as_bytes())),
    })
}

/// Servers list a peer once; should one list it twice, both entries hold.
fn merge(known: &mut Peer, peer: Peer) {
    let Peer { allowed_ips, endpoint, persistent_keepalive, preshared_key } = peer;
    known.allowed_ips.extend(allowed_ips);
    known.endpoint = known.endpoint.or(endpoint);
    known.persistent_keepalive = known.persistent_keepalive.or(persistent_keepalive);
    known.preshared_key = known.preshared_key.take().or(preshared_key);
}

fn refuse_shared_allowed_ips(peers: &BTreeMap<PublicKey, Peer>) -> Result<(), AssignmentError> {
    let mut owners: BTreeMap<IpNet, PublicKey> = BTreeMap::new();
    for (&second, peer) in peers {
        for &net in &peer.allowed_ips {
            if let Some(first) = owners.insert(net, second) {
                return Err(AssignmentError::SharedAllowedIp { first, net, second });
            }
        }
    }
    Ok(())
}

fn shown(net: &wire::IpNet) -> String {
    let address = net.ip.0.map_or_else(|| "(none)".to_owned(), |ip| ip.to_string());
    format!("{address} with mask {}", data_encoding::HEXLOWER.encode(net.mask.as_slice()))
}

/// An overlay network that claims more of the internet than this is a mistake, or worse.
const WIDEST_NETWORK: u8 = 8;

const NANOSECONDS: i64 = 1_000_000_000;

#[cfg(test)]
mod tests;
