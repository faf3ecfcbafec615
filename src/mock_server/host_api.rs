//! What devices call.

use std::net::SocketAddr;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue},
    response::Response,
    routing::{delete, get, post, put},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answers::{self, Caller, body, id, wrapped},
    documents::{api_host, server_status},
    refusal::Refusal,
    register::Registered,
    secrets::password_matches,
    server::Server,
};
use crate::control::wire::{AuthRequest, AuthToken, HostAction, HostUpdate, RegisterResponse, Signal};

/// The routes of devices.
pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/api/v1/host/register/{token}", post(register))
        .route("/api/hosts/adm/authenticate", post(authenticate))
        .route("/api/v1/host", get(pull))
        .route("/api/v1/fallback/host/{id}", put(fallback))
        .route("/api/v1/host/{id}/peer_info", get(peer_info))
        .route("/api/v1/host/{id}/signalpeer", post(signal_peer))
        .route("/api/nodes/{network}/{id}", get(node).merge(delete(leave_network)))
        .route("/api/hosts/{id}", delete(leave_server))
        .route("/api/server/status", get(async || answers::json(&server_status())))
        .route("/api/server/health", get(async || "Server is up and running!!"))
        .route("/health", get(async || "Server is up and running!!"))
        .route("/api/getip", get(caller_address))
        .route("/getip", get(caller_address))
}

async fn register(State(server): State<Server>, Path(token): Path<String>, bytes: Bytes) -> Result<Response, Refusal> {
    let delay = server.node_delay();
    let registered = server.write(|world, now| world.register(&token, &bytes, delay, now))?;
    let Registered { host, networks } = registered;
    tracing::info!(host = %host.id, name = %host.name, networks = %networks.join(","), "host registered");
    let mut response = answers::text(&RegisterResponse { server_config: server.config(), requested_host: host });
    if server.announces_networks()
        && let Ok(names) = HeaderValue::from_str(&networks.join(","))
    {
        response.headers_mut().insert(NETWORKS_HEADER, names);
    }
    Ok(response)
}

async fn authenticate(State(server): State<Server>, bytes: Bytes) -> Result<Response, Refusal> {
    let AuthRequest { mac_address, id, password } = body(&bytes)?;
    if id.is_empty() {
        return Err(Refusal::bad_request("W1R3: ID can't be empty"));
    }
    if password.is_empty() {
        return Err(Refusal::bad_request("W1R3: Password can't be empty"));
    }
    let host = answers::id(&id)?;
    let hash = server.read(|world, _| world.host(host).map(|host| host.password.clone()))??;
    if !password_matches(password.expose(), hash.expose()) {
        return Err(Refusal::unauthorized());
    }
    let token = AuthToken { id: host.to_string(), auth_token: server.open_session(host, mac_address) };
    let message = format!("W1R3: Host {host} Authorized");
    Ok(answers::text(&crate::control::wire::Success { code: 200, message, response: Some(token) }))
}

async fn pull(State(server): State<Server>, caller: Caller) -> Result<Response, Refusal> {
    // `reset_failovered` asks for a fresh computation, which every pull gets here.
    let host = match caller {
        Caller::Host(claims) => claims.id,
        Caller::Master => return Err(Refusal::bad_request("failed to parse host id: invalid UUID length: 0")),
    };
    let config = server.config();
    let pull = server.read(|world, now| world.pull(host, config, now))??;
    let document = serde_json::to_value(pull).map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(answers::json(&server.faults().edited(document)))
}

async fn fallback(
    State(server): State<Server>,
    caller: Caller,
    Path(host): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    caller.act_for(host)?;
    server.read(|world, _| world.host(host).map(drop))??;
    let HostUpdate { action, host: mut sent, node, signal: _, egress_domain: _, new_metrics: _ } = body(&bytes)?;
    // The path says who it is; what the body says about that is not believed.
    sent.id = host;
    server.write(|world, now| match action {
        HostAction::CheckIn => world.check_in(&sent, now),
        HostAction::DeleteHost => world.delete_host(host).map(drop),
        HostAction::UpdateHost => world.update_host(&sent, now),
        HostAction::UpdateNode => {
            let own = world.node_ids(host).contains(&node.id);
            let stored = own.then(|| world.nodes.get_mut(&node.id)).flatten();
            stored.ok_or_else(|| Refusal::bad_request("no result found"))?.connected = node.connected;
            Ok(())
        }
        HostAction::Ack
        | HostAction::CheckAutoAssignGateway
        | HostAction::EgressUpdate
        | HostAction::ForceUpgrade
        | HostAction::JoinHostToNetwork
        | HostAction::Other(_)
        | HostAction::RequestAck
        | HostAction::RequestPull
        | HostAction::SignalHost
        | HostAction::SignalPull
        | HostAction::UpdateKeys
        | HostAction::UpdateMetrics
        | HostAction::Upgrade => Ok(()),
    })?;
    Ok(wrapped::<()>("updated host data", None))
}

async fn peer_info(
    State(server): State<Server>,
    caller: Caller,
    Path(host): Path<String>,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    caller.act_for(host)?;
    let info = server.read(|world, _| world.host(host).map(|_| world.peer_info(host)))??;
    Ok(wrapped("fetched host peer info", Some(info)))
}

/// Checks a signal and echoes it; without a broker nobody receives it.
async fn signal_peer(
    State(server): State<Server>,
    caller: Caller,
    Path(host): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    caller.act_for(host)?;
    server.read(|world, _| world.host(host).map(drop))??;
    let signal: Signal = body(&bytes)?;
    if signal.to_host_public_key.is_empty() && signal.to_host_id.is_empty() {
        return Err(Refusal::bad_request("insufficient data to signal peer"));
    }
    let peer = id(&signal.to_host_id)?;
    let missing = Refusal::bad_request("failed to signal, peer not found");
    server.read(|world, _| world.host(peer).map(drop))?.map_err(|_| missing)?;
    Ok(answers::json(&signal))
}

async fn node(
    State(server): State<Server>,
    caller: Caller,
    Path((network, node)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let config = server.config();
    let document = server.read(|world, now| {
        let node = world.node_in(&network, id(&node)?)?;
        caller.act_for(node.host_id)?;
        let host = world.host(node.host_id)?;
        let (peers, _) = world.peers(host, now);
        let document: Value = json!({
            "node": node, "host": host, "peers": peers, "host_peers": peers, "serverconfig": config, "peerids": {},
        });
        Ok::<_, Refusal>(document)
    })??;
    Ok(answers::json(&document))
}

/// Options of deletions.
#[derive(Deserialize)]
pub(super) struct Force {
    /// `true` deletes at once, and what is inside as well.
    force: Option<String>,
}

impl Force {
    pub(super) fn is_set(&self) -> bool {
        self.force.as_deref() == Some("true")
    }
}

async fn leave_network(
    State(server): State<Server>,
    caller: Caller,
    Path((network, node)): Path<(String, String)>,
    Query(force): Query<Force>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let from_node = headers.get("requestfrom").is_some_and(|value| value == "node");
    let node: Uuid = id(&node)?;
    server.write(|world, _| {
        caller.act_for(world.node_in(&network, node)?.host_id)?;
        if from_node || force.is_set() {
            world.delete_node(node);
            return Ok(());
        }
        world.mark_node_deleted(node)
    })?;
    Ok(wrapped::<()>(format!("{node} deleted."), None))
}

async fn leave_server(
    State(server): State<Server>,
    caller: Caller,
    Path(host): Path<String>,
    Query(force): Query<Force>,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    caller.act_for(host)?;
    let gone = server.write(|world, _| {
        if !force.is_set() && world.nodes_of(host).next().is_some() {
            return Err(Refusal::internal("host still has associated nodes"));
        }
        world.delete_host(host)
    })?;
    tracing::info!(host = %gone.id, name = %gone.name, "host left");
    Ok(wrapped(format!("deleted host {}", gone.name), Some(api_host(&gone))))
}

async fn caller_address(Extension(address): Extension<SocketAddr>) -> String {
    address.ip().to_canonical().to_string()
}

/// An extension of ours: the names of the networks in which a registration gave, or will give, the host a node.
pub(super) const NETWORKS_HEADER: &str = "enroll-agent-networks";
