//! What a host cannot do without in an answer: a server may be newer than this crate, or of another edition, and a
//! change in a part that nobody here uses must not keep a host out of its networks.

use std::collections::BTreeMap;

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;

use super::{EgressNetworkRoutes, GoIp, HostNetworkInfo};

/// Counts before anything is decoded: whether a pull has no more nodes and peers than any host can have.
pub fn is_plausible(body: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Counts {
        nodes: Option<Vec<IgnoredAny>>,
        peers: Option<Vec<IgnoredAny>>,
    }

    let Ok(Counts { nodes, peers }) = serde_json::from_slice(body) else { return true };
    nodes.is_none_or(|nodes| nodes.len() <= MAX_NODES) && peers.is_none_or(|peers| peers.len() <= MAX_PEERS)
}

/// Leaves of a pull what an assignment is made of.
pub fn pull(mut document: Value) -> Value {
    if !document.is_object() {
        return document;
    }
    keep(&mut document, PULL);
    if let Some(update) = document.get_mut("fw_update") {
        keep(update, FW_UPDATE);
    }
    spare::<bool>(&mut document, "change_default_gw");
    spare::<GoIp>(&mut document, "default_gw_ip");
    spare::<Vec<EgressNetworkRoutes>>(&mut document, "egress_network_routes");
    spare::<bool>(&mut document, "endpoint_detection");
    spare::<BTreeMap<String, HostNetworkInfo>>(&mut document, "host_network_info");
    keep(&mut document["host"], HOST);
    server_config(&mut document["server_config"]);
    for node in document["nodes"].as_array_mut().into_iter().flatten() {
        keep(node, NODE);
    }
    document
}

/// Leaves of the answer to a registration where to go on.
pub fn registration(mut document: Value) -> Value {
    if !document.is_object() {
        return document;
    }
    keep(&mut document, &["server_config"]);
    server_config(&mut document["server_config"]);
    document
}

fn server_config(config: &mut Value) {
    keep(config, SERVER_CONFIG);
    spare::<bool>(config, "Stun");
    spare::<String>(config, "StunServers");
}

/// Takes away what can be done without, unless it is what it should be.
fn spare<T: DeserializeOwned>(document: &mut Value, key: &str) {
    if let Some(fields) = document.as_object_mut()
        && let Some(value) = fields.remove(key)
        && Option::<T>::deserialize(&value).is_ok()
    {
        fields.insert(key.to_owned(), value);
    }
}

/// Takes all fields but `keys` from an object; anything else stays to be refused.
fn keep(document: &mut Value, keys: &[&str]) {
    if let Some(fields) = document.as_object_mut() {
        fields.retain(|key, _| keys.contains(&key.as_str()));
    }
}

const PULL: &[&str] = &[
    "change_default_gw",
    "default_gw_ip",
    "egress_network_routes",
    "endpoint_detection",
    "fw_update",
    "host",
    "host_network_info",
    "nodes",
    "peers",
    "server_config",
];

const FW_UPDATE: &[&str] = &["acl_rules", "allow_all", "is_egress_gw"];

const HOST: &[&str] = &["id", "listenport", "mtu", "name", "publickey"];

const NODE: &[&str] = &[
    "action",
    "address",
    "address6",
    "auto_assign_gw",
    "connected",
    "hostid",
    "id",
    "isrelayed",
    "network",
    "pendingdelete",
    "relayedby",
    "tags",
];

const SERVER_CONFIG: &[&str] = &["API", "Server", "Stun", "StunServers", "Version"];

/// Networks of one host.
const MAX_NODES: usize = 1000;

/// Peers of one host over all networks.
const MAX_PEERS: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_nodes_than_any_host_has_are_noticed_before_they_take_memory() {
        let with = |count: usize| format!("{{\"nodes\":[{}]}}", vec!["{}"; count].join(","));

        assert!(is_plausible(with(MAX_NODES).as_bytes()));
        assert!(!is_plausible(with(MAX_NODES + 1).as_bytes()));
        assert!(is_plausible(b"not JSON: for others to judge"));
    }
}
