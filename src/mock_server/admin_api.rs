//! What administrators call, with the master key.

use std::str::FromStr;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State},
    response::Response,
    routing::{delete, get, post, put},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    answers::{self, Admin, body, id, wrapped},
    documents::api_host,
    host_api::Force,
    refusal::Refusal,
    secrets::fingerprint,
    server::Server,
    world::{NewNetwork, WithNodes},
};
use crate::control::wire::{ApiEnrollmentKey, EnrollmentKey, Network};

/// The routes of administrators.
pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/api/networks", get(networks).post(create_network))
        .route("/api/networks/{name}", get(network).delete(delete_network))
        .route("/api/v1/enrollment-keys", get(keys).post(create_key))
        .route("/api/v1/enrollment-keys/{id}", put(update_key).delete(delete_key))
        .route("/api/hosts", get(hosts))
        .route("/api/hosts/{id}", get(host))
        .route("/api/v1/ui/hosts/{id}", delete(delete_host))
        .route("/api/hosts/{id}/networks/{network}", post(add_to_network).delete(remove_from_network))
        .route("/api/nodes", get(nodes))
        .route("/api/nodes/{network}", get(nodes_of_network))
        .route("/api/nodes/{network}/{id}/gateway", post(create_gateway).delete(delete_gateway))
        .route("/api/nodes/{network}/{id}/gateway/assign", post(assign_gateway))
        .route("/api/nodes/{network}/{id}/gateway/unassign", post(unassign_gateway))
}

async fn networks(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    Ok(answers::text(&server.read(|world, _| world.networks.values().cloned().collect::<Vec<_>>())?))
}

async fn network(State(server): State<Server>, _: Admin, Path(name): Path<String>) -> Result<Response, Refusal> {
    let network = server.read(|world, _| world.networks.get(&name).cloned())?;
    Ok(answers::json(&network.ok_or_else(|| Refusal::not_found("no result found"))?))
}

async fn create_network(State(server): State<Server>, _: Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let asked: Network = body(&bytes)?;
    let network =
        NewNetwork { name: asked.name, range4: range(&asked.address_range)?, range6: range(&asked.address_range6)? };
    Ok(answers::json(&server.write(|world, now| world.create_network(&network, now))?))
}

async fn delete_network(
    State(server): State<Server>,
    _: Admin,
    Path(name): Path<String>,
    Query(force): Query<Force>,
) -> Result<Response, Refusal> {
    let nodes = if force.is_set() { WithNodes::Delete } else { WithNodes::Refuse };
    server.write(|world, _| world.delete_network(&name, nodes))?;
    Ok(wrapped::<()>("success", None))
}

/// A key with the id that may be shown, an extension of ours.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    key: EnrollmentKey,
    id: String,
}

fn listed(server: &Server, key: EnrollmentKey) -> Listed {
    Listed { id: fingerprint(key.value.expose()), key: server.with_token(key) }
}

async fn keys(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    let keys: Vec<_> = server.read(|world, _| world.keys.values().cloned().collect())?;
    Ok(answers::text(&keys.into_iter().map(|key| listed(&server, key)).collect::<Vec<_>>()))
}

async fn create_key(State(server): State<Server>, _: Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let key: ApiEnrollmentKey = body(&bytes)?;
    let key = server.write(|world, now| world.create_key(key, now))?;
    Ok(answers::text(&listed(&server, key)))
}

async fn update_key(
    State(server): State<Server>,
    _: Admin,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let change: ApiEnrollmentKey = body(&bytes)?;
    let key = server.write(|world, _| world.update_key(&id, change))?;
    Ok(answers::text(&listed(&server, key)))
}

async fn delete_key(State(server): State<Server>, _: Admin, Path(id): Path<String>) -> Result<Response, Refusal> {
    server.write(|world, _| world.delete_key(&id))?;
    Ok(answers::empty())
}

async fn hosts(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    Ok(answers::json(&server.read(|world, _| world.hosts.values().map(api_host).collect::<Vec<_>>())?))
}

async fn host(State(server): State<Server>, _: Admin, Path(host): Path<String>) -> Result<Response, Refusal> {
    let host = id(&host)?;
    let host = server.read(|world, _| world.hosts.get(&host).map(api_host))?;
    Ok(wrapped("fetched host", Some(host.ok_or_else(|| Refusal::not_found("record not found"))?)))
}

async fn delete_host(
    State(server): State<Server>,
    _: Admin,
    Path(host): Path<String>,
    Query(force): Query<Force>,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    let gone = server.write(|world, _| {
        if !force.is_set() && world.nodes_of(host).next().is_some() {
            return Err(Refusal::internal("host still has associated nodes"));
        }
        world.delete_host(host)
    })?;
    Ok(wrapped(format!("deleted host {}", gone.name), Some(api_host(&gone))))
}

async fn add_to_network(
    State(server): State<Server>,
    _: Admin,
    Path((host, network)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    server.write(|world, now| {
        if !world.hosts.contains(&host) {
            return Err(Refusal::internal("record not found"));
        }
        if world.nodes_of(host).any(|node| node.network == network) {
            return Err(Refusal::internal("host already part of network"));
        }
        world.join(host, &network, now)
    })?;
    Ok(answers::empty())
}

async fn remove_from_network(
    State(server): State<Server>,
    _: Admin,
    Path((host, network)): Path<(String, String)>,
    Query(force): Query<Force>,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    server.write(|world, _| {
        let node = world.nodes_of(host).find(|node| node.network == network).map(|node| node.id);
        let node = node.ok_or_else(|| Refusal::internal("no result found"))?;
        if force.is_set() {
            world.delete_node(node);
            return Ok(());
        }
        world.mark_node_deleted(node)
    })?;
    Ok(answers::empty())
}

async fn nodes(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    Ok(answers::json(&server.read(|world, now| world.api_nodes(None, now))?))
}

async fn nodes_of_network(
    State(server): State<Server>,
    _: Admin,
    Path(network): Path<String>,
) -> Result<Response, Refusal> {
    Ok(answers::json(&server.read(|world, now| world.api_nodes(Some(&network), now))?))
}

/// The part of a gateway request that has an effect here.
#[derive(Default, Deserialize)]
struct GatewayRequest {
    /// Node ids to put behind the gateway.
    #[serde(default)]
    relayaddrs: Option<Vec<Uuid>>,
}

async fn create_gateway(
    State(server): State<Server>,
    _: Admin,
    Path((network, node)): Path<(String, String)>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let node = id(&node)?;
    let request: GatewayRequest = if bytes.is_empty() { GatewayRequest::default() } else { body(&bytes)? };
    let clients = request.relayaddrs.unwrap_or_default();
    let made = server.write(|world, now| {
        let node = world.make_gateway(&network, node, &clients)?;
        Ok(world.api_node(&node, now))
    })?;
    Ok(answers::json(&made))
}

async fn delete_gateway(
    State(server): State<Server>,
    _: Admin,
    Path((network, node)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let node = id(&node)?;
    let node = server.write(|world, now| {
        world.node_in(&network, node)?;
        world.remove_gateway(node);
        Ok(world.api_node(world.node_in(&network, node)?, now))
    })?;
    Ok(answers::json(&node))
}

/// Which gateway.
#[derive(Deserialize)]
struct Assignment {
    #[serde(default)]
    gw_id: String,
    #[serde(default)]
    auto_assign_gw: bool,
}

async fn assign_gateway(
    State(server): State<Server>,
    _: Admin,
    Path((network, node)): Path<(String, String)>,
    Query(assignment): Query<Assignment>,
) -> Result<Response, Refusal> {
    let node = id(&node)?;
    let node = server.write(|world, now| {
        if assignment.auto_assign_gw {
            world.node_in(&network, node)?;
            let stored = world.nodes.get_mut(&node).ok_or_else(|| Refusal::bad_request("no result found"))?;
            stored.auto_assign_gateway = true;
            return Ok(world.api_node(world.node_in(&network, node)?, now));
        }
        let node = world.assign_gateway(&network, node, id(&assignment.gw_id)?)?;
        Ok(world.api_node(&node, now))
    })?;
    Ok(wrapped("assigned gateway", Some(node)))
}

async fn unassign_gateway(
    State(server): State<Server>,
    _: Admin,
    Path((network, node)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let node = id(&node)?;
    let node = server.write(|world, now| {
        let node = world.unassign_gateway(&network, node)?;
        Ok(world.api_node(&node, now))
    })?;
    Ok(wrapped("unassigned gateway", Some(node)))
}

/// Reads a range of one family; empty is none.
fn range<T: FromStr>(text: &str) -> Result<Option<T>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Refusal::bad_request(format!("invalid CIDR address: {text}")))
}
