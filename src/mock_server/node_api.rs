//! Nodes and gateways for administrators.

use axum::{body::Bytes, extract::State, response::Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    answers::{self, Admin, Path, Query, accepted, body, id, wrapped},
    calls::Call,
    events::Event,
    refusal::Refusal,
    relay::NewGateway,
    server::Server,
    world::World,
};
use crate::control::wire::ApiNode;

/// The calls about nodes.
pub(super) fn calls() -> Vec<Call> {
    let assign = "/api/nodes/{network}/{node}/gateway/assign";
    let mut calls = vec![
        Call::get("/api/nodes", nodes, "List the nodes of all networks"),
        Call::get("/api/nodes/{network}", nodes_of_network, "List the nodes of a network"),
        Call::put("/api/nodes/{network}/{node}", edit, "Change a node").takes::<ApiNode>(),
        Call::delete("/api/v1/nodes/{network}/bulk", delete_many, "Delete nodes").takes::<Bulk>(),
        Call::put("/api/v1/nodes/{network}/bulk/status", connect_many, "Connect or disconnect nodes")
            .takes::<BulkStatus>(),
        Call::post(assign, assign_gateway, "Put a node behind a gateway").query(&["gw_id", "auto_assign_gw"]),
        Call::post("/api/nodes/{network}/{node}/gateway/unassign", unassign_gateway, "Take a node from its gateway"),
    ];
    for path in ["/api/nodes/{network}/{node}/gateway", CREATE_RELAY, CREATE_INGRESS] {
        calls.push(Call::post(path, create_gateway, "Make a node a gateway").takes::<GatewayRequest>());
    }
    for path in ["/api/nodes/{network}/{node}/gateway", DELETE_RELAY, DELETE_INGRESS] {
        calls.push(Call::delete(path, delete_gateway, "Make a gateway an ordinary node"));
    }
    calls
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

async fn edit(
    State(server): State<Server>,
    _: Admin,
    Path((network, node)): Path<(String, String)>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let node = named(&server, &network, &node)?;
    let asked: ApiNode = body(&bytes)?;
    let node = server.write(|world, now| {
        let moved = world.readdress(node, &asked)?;
        let stored = world.nodes.get_mut(&node).ok_or_else(|| Refusal::bad_request("no result found"))?;
        stored.connected = asked.connected;
        stored.metadata = asked.metadata;
        stored.tags = asked.tags.or(stored.tags.take());
        let host = stored.host_id;
        world.node_updated(node);
        if moved {
            world.events.push(Event::PullRequested { host });
        }
        Ok(world.api_node(world.node_in(&network, node)?, now))
    })?;
    Ok(answers::json(&node))
}

/// Which nodes.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Bulk {
    ids: Vec<String>,
}

/// Which nodes, and what to make of them.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct BulkStatus {
    ids: Vec<String>,
    connected: bool,
}

async fn delete_many(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(network): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let Bulk { ids } = body(&bytes)?;
    server.write_as(&actor, |world, _| {
        for node in listed(world, &network, &ids)? {
            world.delete_node(node);
        }
        Ok(())
    })?;
    Ok(accepted(format!("bulk delete of {} node(s) accepted", ids.len())))
}

async fn connect_many(
    State(server): State<Server>,
    _: Admin,
    Path(network): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let BulkStatus { ids, connected } = body(&bytes)?;
    server.write(|world, _| {
        for node in listed(world, &network, &ids)? {
            if let Some(node) = world.nodes.get_mut(&node) {
                node.connected = connected;
            }
            world.node_updated(node);
        }
        Ok(())
    })?;
    let action = if connected { "CONNECT" } else { "DISCONNECT" };
    Ok(accepted(format!("bulk {action} of {} node(s) accepted", ids.len())))
}

/// The node that a path names.
fn named(server: &Server, network: &str, node: &str) -> Result<Uuid, Refusal> {
    let id = Uuid::parse_str(node).unwrap_or_default();
    let found = server.read(|world, _| world.nodes.get(&id).map(|node| node.network == network))?;
    match found {
        None => Err(no_node()),
        Some(false) => Err(Refusal::bad_request("network url param does not match node network")),
        Some(true) => Ok(id),
    }
}

fn no_node() -> Refusal {
    Refusal::bad_request("error fetching node during parameter validation: no result found")
}

/// The nodes of a list that are in a network; others are left out, as the real server does later.
fn listed(world: &World, network: &str, ids: &[String]) -> Result<Vec<Uuid>, Refusal> {
    if !world.networks.contains(&network.to_owned()) {
        return Err(Refusal::bad_request(format!("network {network} not found")));
    }
    if ids.is_empty() {
        return Err(Refusal::bad_request("no node IDs provided"));
    }
    let nodes = ids.iter().filter_map(|id| Uuid::parse_str(id).ok());
    Ok(nodes.filter(|node| world.node_in(network, *node).is_ok()).collect())
}

/// The part of a gateway request that has an effect here.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct GatewayRequest {
    /// Name server for clients.
    extclientdns: Option<String>,
    is_internet_gw: Option<bool>,
    metadata: Option<String>,
    /// Seconds.
    persistentkeepalive: Option<i64>,
    mtu: Option<i64>,
    /// Node ids to put behind the gateway.
    relayaddrs: Option<Vec<Uuid>>,
    /// Node ids whose whole traffic goes through it.
    inet_node_client_ids: Option<Vec<Uuid>>,
}

impl From<GatewayRequest> for NewGateway {
    fn from(request: GatewayRequest) -> Self {
        Self {
            clients: request.relayaddrs.unwrap_or_default(),
            is_internet_gateway: request.is_internet_gw.unwrap_or_default(),
            internet_clients: request.inet_node_client_ids.unwrap_or_default(),
            dns: request.extclientdns.unwrap_or_default(),
            metadata: request.metadata.unwrap_or_default(),
            keepalive: request.persistentkeepalive.unwrap_or_default(),
            mtu: request.mtu.unwrap_or_default(),
        }
    }
}

async fn create_gateway(
    State(server): State<Server>,
    _: Admin,
    Path((network, node)): Path<(String, String)>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let node = named(&server, &network, &node)?;
    let request: GatewayRequest = if bytes.is_empty() { GatewayRequest::default() } else { body(&bytes)? };
    let asked = request.into();
    let made = server.write(|world, now| {
        let node = world.make_gateway(&network, node, &asked)?;
        Ok(world.api_node(&node, now))
    })?;
    Ok(answers::json(&made))
}

async fn delete_gateway(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path((network, node)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let node = named(&server, &network, &node)?;
    let node = server.write_as(&actor, |world, now| {
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
    let node = named(&server, &network, &node)?;
    // Only the paid edition lets nodes choose.
    let chooses = assignment.auto_assign_gw && server.config().is_ee;
    let node = server.write(|world, now| {
        let node = if chooses {
            world.let_choose(&network, node)?
        } else {
            world.assign_gateway(&network, node, id(&assignment.gw_id)?)?
        };
        Ok(world.api_node(&node, now))
    })?;
    Ok(wrapped(if chooses { "auto assigned gateway" } else { "assigned gateway" }, Some(node)))
}

async fn unassign_gateway(
    State(server): State<Server>,
    _: Admin,
    Path((network, node)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let node = named(&server, &network, &node)?;
    let node = server.write(|world, now| {
        let node = world.unassign_gateway(&network, node)?;
        Ok(world.api_node(&node, now))
    })?;
    Ok(wrapped("unassigned gateway", Some(node)))
}

/// Older names of the same calls.
const CREATE_RELAY: &str = "/api/nodes/{network}/{node}/createrelay";
const DELETE_RELAY: &str = "/api/nodes/{network}/{node}/deleterelay";
const CREATE_INGRESS: &str = "/api/nodes/{network}/{node}/createingress";
const DELETE_INGRESS: &str = "/api/nodes/{network}/{node}/deleteingress";
