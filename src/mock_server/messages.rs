//! Messages between server and hosts: topics, what is in them, and how they are sealed.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{peers::is_active, refusal::Refusal, world::World};
use crate::control::{
    seal::{PayloadKey, SealError, gob, open_box, random, seal_box, seal_payload},
    wire::{Host, HostPeerUpdate, HostPull, HostUpdate, Node, PeerConfig, ServerConfig, WgKey},
};

/// Tells a host its peers.
pub(super) fn peers_topic(host: Uuid, server: &str) -> String {
    format!("peers/host/{host}/{server}")
}

/// The host that a topic of [`peers_topic`] is for; `None` for every other topic.
pub(super) fn host_of_peers_topic(topic: &str, server: &str) -> Option<Uuid> {
    let host = topic.strip_prefix("peers/host/")?.strip_suffix(server)?.strip_suffix('/')?;
    Uuid::parse_str(host).ok()
}

/// Asks a host to do something.
pub(super) fn host_topic(host: Uuid, server: &str) -> String {
    format!("host/update/{host}/{server}")
}

/// Tells a host about one of its nodes.
pub(super) fn node_topic(node: &Node) -> String {
    format!("node/update/{}/{}", node.network, node.id)
}

/// Tells everybody the names in a network; old hosts listen to the second one.
pub(super) fn dns_topics(network: &str, server: &str) -> [String; 2] {
    [format!("host/dns/sync/{network}/{server}"), format!("host/dns/sync/{network}")]
}

/// What the server listens to.
pub(super) fn own_topics(server: &str) -> Vec<String> {
    vec![format!("host/serverupdate/{server}/+"), format!("signal/{server}/+")]
}

/// Where a message from a host came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A [`HostUpdate`] of a host.
    Host(Uuid),
    /// A single byte about a node.
    Node(Uuid),
}

impl Origin {
    /// Reads a topic; `None` if it is none of [`own_topics`].
    pub(super) fn of(topic: &str, server: &str) -> Option<Self> {
        let (kind, id) = topic.rsplit_once('/')?;
        let id = Uuid::parse_str(id).ok()?;
        match kind.split_once('/')? {
            ("signal", name) if name == server => Some(Self::Node(id)),
            ("host", rest) if rest.strip_prefix("serverupdate/") == Some(server) => Some(Self::Host(id)),
            _ => None,
        }
    }
}

/// Why a message for a host, or from one, is dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error("host has no traffic key that can be used")]
    NoTrafficKey(#[source] gob::GobError),
    #[error("message is not the expected document")]
    NotJson(#[from] serde_json::Error),
    #[error("message cannot be sealed or opened")]
    Seal(#[from] SealError),
    #[error("host version {0:?} is not MAJOR.MINOR.PATCH, so nothing is ever sent to it")]
    Version(String),
}

/// How messages to a host are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Boxed,
    Payload,
    Plain,
}

/// Seals a document for a host as its version and system want it; `private` is the server's traffic key.
pub(super) fn seal(host: &Host, private: &[u8; 32], document: &impl Serialize) -> Result<Vec<u8>, MessageError> {
    let text = serde_json::to_vec(document)?;
    match format(host)? {
        Format::Boxed => Ok(seal_box(&traffic_key(host)?, private, &text, random)),
        Format::Payload => {
            let key = PayloadKey::from_traffic_key(host.traffic_key_public.as_slice())?;
            Ok(seal_payload(&key, random(), &text))
        }
        Format::Plain => Ok(text),
    }
}

/// Opens what a host sent; `iot` hosts may send it plain.
pub(super) fn open(host: &Host, private: &[u8; 32], payload: &[u8]) -> Result<Vec<u8>, MessageError> {
    if host.os == "iot" && payload.first() == Some(&b'{') {
        return Ok(payload.to_vec());
    }
    Ok(open_box(&traffic_key(host)?, private, payload)?)
}

fn traffic_key(host: &Host) -> Result<[u8; 32], MessageError> {
    gob::decode(host.traffic_key_public.as_slice()).map_err(MessageError::NoTrafficKey)
}

fn format(host: &Host) -> Result<Format, MessageError> {
    let version = || MessageError::Version(host.version.clone());
    if host.version == "dev" {
        return Ok(Format::Payload);
    }
    let number = host.version.strip_prefix('v').unwrap_or(&host.version);
    let number = number.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<u64> = number.split('.').map(strict).collect::<Option<_>>().ok_or_else(version)?;
    let parts: [u64; 3] = parts.try_into().map_err(|_| version())?;
    Ok(match host.os.as_str() {
        _ if parts >= [0, 30, 0] => Format::Payload,
        "iot" => Format::Plain,
        _ => Format::Boxed,
    })
}

/// A number without leading zeros.
fn strict(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl World {
    /// The push twin of a pull.
    pub(super) fn peer_update(
        &self,
        host: Uuid,
        config: ServerConfig,
        change: &Change,
        now: OffsetDateTime,
    ) -> Result<HostPeerUpdate, Refusal> {
        let Change { replace_peers, gone } = change;
        let mut pull = self.pull(host, config, now)?;
        let mut peers = pull.peers.take().unwrap_or_default();
        let known: BTreeSet<_> = peers.iter().map(|peer| peer.public_key).collect();
        let removed = gone.difference(&known);
        peers.extend(removed.map(|key| PeerConfig { public_key: *key, remove: true, ..PeerConfig::default() }));
        // A client of an internet gateway would lose its way to the broker.
        let replace_peers = *replace_peers && !pull.change_default_gateway;
        Ok(HostPeerUpdate { replace_peers, ..pushed(pull, peers) })
    }

    /// The names in a network, as everybody in it is told.
    pub(super) fn names(&self, network: &str, domain: &str) -> Vec<Value> {
        let nodes = self.nodes_in(network).filter(|node| is_active(node));
        let text = |address: Option<std::net::IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
        let names = nodes.filter_map(|node| {
            let host = self.hosts.get(&node.host_id)?;
            Some(json!({
                "address": text(node.address.ip.0),
                "address6": text(node.address6.ip.0),
                "name": format!("{}.{network}.{domain}", host.name),
                "network": network,
            }))
        });
        names.collect()
    }
}

/// What a pull says in the words of a push.
fn pushed(pull: HostPull, peers: Vec<PeerConfig>) -> HostPeerUpdate {
    let config = pull.server_config;
    HostPeerUpdate {
        host: pull.host,
        nodes: pull.nodes.map(|nodes| nodes.into_iter().filter(is_active).collect()),
        change_default_gateway: pull.change_default_gateway,
        default_gateway: pull.default_gateway,
        is_internet_gateway: pull.is_internet_gateway,
        nodes_addrs: None,
        server: config.server.clone(),
        server_version: config.version.clone(),
        server_addresses: Some(vec![]),
        node_peers: Some(vec![]),
        host_peers: Some(peers.clone()),
        peer_ids: Some(json!({})),
        host_network_info: Some(pull.host_network_info.unwrap_or_default()),
        egress_network_routes: pull.egress_network_routes,
        fw_update: pull.fw_update,
        replace_peers: false,
        name_servers: pull.name_servers,
        dns_nameservers: pull.dns_nameservers,
        egress_with_domains: pull.egress_with_domains,
        auto_relay_nodes: pull.auto_relay_nodes,
        gateway_nodes: pull.gateway_nodes,
        address_identity_map: pull.address_identity_map,
        endpoint_detection_compat: config.endpoint_detection,
        server_config: config,
        peers: Some(vec![]),
        peers_compat: Some(peers),
    }
}

/// What is special about a peer update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// A host has another key than before.
    pub(super) replace_peers: bool,
    /// Keys of peers that were taken away.
    pub(super) gone: BTreeSet<WgKey>,
}

impl Change {
    pub(super) fn extend(&mut self, other: Self) {
        let Self { replace_peers, gone } = other;
        self.replace_peers |= replace_peers;
        self.gone.extend(gone);
    }
}

/// An action with the host's record, and nothing else.
pub(super) fn action(action: crate::control::wire::HostAction, host: &Host) -> HostUpdate {
    HostUpdate { action, host: host.clone(), ..HostUpdate::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_system_choose_the_format() {
        let host = |version: &str, os: &str| Host { version: version.into(), os: os.into(), ..Host::default() };
        let cases = [
            ("v1.5.1", "linux", Some(Format::Payload)),
            ("v0.30.0", "iot", Some(Format::Payload)),
            ("v0.29.9", "linux", Some(Format::Boxed)),
            ("0.17.0-beta", "linux", Some(Format::Boxed)),
            ("v0.29.9", "iot", Some(Format::Plain)),
            ("dev", "linux", Some(Format::Payload)),
            ("v1.5", "linux", None),
            ("1", "linux", None),
            ("v1.5.1.2", "linux", None),
            ("v1.05.1", "linux", None),
        ];
        for (version, os, expected) in cases {
            assert_eq!(format(&host(version, os)).ok(), expected, "{version} {os}");
        }
    }

    #[test]
    fn a_host_that_is_too_old_gets_boxes_it_can_open() {
        use x25519_dalek::{PublicKey, StaticSecret};
        let (own, server) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
        let key = gob::encode(PublicKey::from(&own).as_bytes(), None);
        let host = Host { version: "v0.29.0".into(), traffic_key_public: key[..].into(), ..Host::default() };

        let sealed = seal(&host, server.as_bytes(), &json!({"a": 1})).expect("the host has a key");

        let opened = open_box(PublicKey::from(&server).as_bytes(), own.as_bytes(), &sealed).expect("the host opens it");
        assert_eq!(opened, br#"{"a":1}"#);
        let answer = seal_box(PublicKey::from(&server).as_bytes(), own.as_bytes(), b"{}", random);
        assert_eq!(open(&host, server.as_bytes(), &answer).expect("the server opens it"), b"{}");
    }

    #[test]
    fn only_our_own_topics_have_an_origin() {
        let id = Uuid::from_u128(7);

        assert_eq!(Origin::of(&format!("host/serverupdate/nm.test/{id}"), "nm.test"), Some(Origin::Host(id)));
        assert_eq!(Origin::of(&format!("signal/nm.test/{id}"), "nm.test"), Some(Origin::Node(id)));
        for topic in
            [format!("host/serverupdate/other/{id}"), "signal/nm.test/x".into(), format!("update/nm.test/{id}")]
        {
            assert_eq!(Origin::of(&topic, "nm.test"), None, "{topic}");
        }
    }
}
