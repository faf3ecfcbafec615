//! What devices call.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answers::{self, Caller, Path, Query, body, id, wrapped},
    audit::{Action, Actor, Attempt, KeyName},
    calls::{Call, Credential},
    documents::{api_host, server_status},
    faults::Mistake,
    parse,
    refusal::Refusal,
    register::Registered,
    secrets::password_matches,
    server::Server,
    world::World,
};
use crate::control::wire::{self, AuthRequest, AuthToken, Host, HostUpdate, Node, RegisterResponse, Signal};

/// The calls of devices.
pub(super) fn calls() -> Vec<Call> {
    let node = "/api/nodes/{network}/{node}";
    let open = [
        Call::post("/api/v1/host/register/{token}", register, "Redeem an enrollment key").takes::<Host>(),
        Call::post("/api/hosts/adm/authenticate", authenticate, "Open a host's session").takes::<AuthRequest>(),
        Call::get("/api/server/status", status, "Tell how the server is"),
        Call::get("/api/server/health", async || HEALTHY, "Tell that the server runs"),
        Call::get("/health", async || HEALTHY, "Tell that the server runs"),
        Call::get("/api/server/feature_flags", features, "Tell what the server can do"),
        Call::get("/api/getip", caller_address, "Tell the caller its address"),
        Call::get("/getip", caller_address, "Tell the caller its address"),
    ];
    let of_hosts = [
        Call::get("/api/v1/host", pull, "Tell a host everything it should be").query(&["reset_failovered"]),
        Call::put("/api/v1/fallback/host/{host}", fallback, "Take what a host says about itself").takes::<HostUpdate>(),
        Call::get("/api/v1/host/{host}/peer_info", peer_info, "Tell a host who its peers are"),
        Call::post("/api/v1/host/{host}/signalpeer", signal_peer, "Send a signal to a peer").takes::<Signal>(),
        Call::get(node, self::node, "Show a node"),
        Call::delete(node, leave_network, "Delete a node, or mark it").query(&["force"]),
        Call::delete("/api/hosts/{host}", leave_server, "Delete a host").query(&["force"]),
    ];
    let open = open.map(|call| call.by(Credential::None));
    open.into_iter().chain(of_hosts.map(|call| call.by(Credential::Host))).collect()
}

/// Who a device says it is.
#[derive(Deserialize)]
struct Identity {
    id: Uuid,
}

async fn register(State(server): State<Server>, Path(token): Path<String>, bytes: Bytes) -> Result<Response, Refusal> {
    let when = server.creation();
    let host = serde_json::from_slice::<Identity>(&bytes).ok().map(|identity| identity.id);
    let key = Some(KeyName::Token(token.clone()));
    let attempt = Attempt { actor: Actor::Device, action: Action::Redeem, key, host };
    let seen = uses_seen(&server, &token).await?;
    let shown = token.clone();
    let rule = move |world: &mut World, now| {
        world.forget_uses(&token, seen, now);
        world.register(&token, &bytes, when, now)
    };
    let registered = match server.attempt_together(attempt, rule).await {
        Ok(registered) => registered,
        Err(refusal) => return announce_key(&server, &shown, refusal),
    };
    let Registered { host, networks } = registered;
    tracing::info!(host = %host.id, name = %host.name, networks = %networks.join(","), "host registered");
    let mut response = answers::text(&RegisterResponse { server_config: server.config(), requested_host: host });
    if server.announces_networks()
        && let Ok(names) = HeaderValue::from_str(&networks.join(","))
    {
        response.headers_mut().insert(wire::NETWORKS_HEADER, names);
    }
    Ok(response)
}

/// An extension of ours: who is refused for its version alone is told what the key is good for.
fn announce_key(server: &Server, token: &str, refusal: Refusal) -> Result<Response, Refusal> {
    if !server.announces_networks() || !refusal.is_about_version() {
        return Err(refusal);
    }
    let told = server.read(|world, now| world.announcement(token, now))?;
    let told = told.and_then(|told| HeaderValue::from_bytes(&serde_json::to_vec(&told).ok()?).ok());
    let mut response = refusal.into_response();
    if let Some(told) = told {
        response.headers_mut().insert(wire::KEY_HEADER, told);
    }
    Ok(response)
}

/// The uses that a key has left before others that came at the same time are counted, if that is not to be waited for.
async fn uses_seen(server: &Server, token: &str) -> Result<Option<i64>, Refusal> {
    if !server.faults().makes(Mistake::OverUse) {
        return Ok(None);
    }
    let seen = server.read(|world, now| world.key_of_token(token, now).ok().map(|key| key.document.uses_remaining))?;
    tokio::time::sleep(RACE).await;
    Ok(seen)
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

/// How to pull.
#[derive(Deserialize)]
struct Reset {
    /// `true` asks for a fresh computation, which every pull gets here, unless the server is to make a mistake.
    reset_failovered: Option<String>,
}

async fn pull(State(server): State<Server>, caller: Caller, Query(reset): Query<Reset>) -> Result<Response, Refusal> {
    let host = match caller {
        Caller::Host(claims) => claims.id,
        Caller::Master => return Err(Refusal::bad_request("failed to parse host id: invalid UUID length: 0")),
    };
    let config = server.config();
    let mut pull = server.read(|world, now| world.pull(host, config, now))??;
    if server.faults().makes(Mistake::StalePull) {
        if reset.reset_failovered.as_deref() == Some("true") {
            if server.link().is_some() {
                server.pulls().outdate();
            }
            server.pulls().keep(&pull);
        } else {
            pull = server.pulls().stale(pull);
        }
    }
    let Some(edit) = server.faults().pull_edit() else { return Ok(answers::json(&pull)) };
    let mut document = serde_json::to_value(pull).map_err(|error| Refusal::internal(error.to_string()))?;
    edit(&mut document);
    Ok(answers::json(&document))
}

async fn fallback(
    State(server): State<Server>,
    caller: Caller,
    Path(host): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let host = caller.host(&host)?;
    server.read(|world, _| world.host(host).map(drop))??;
    let update: HostUpdate = parse::object(&bytes).map_err(Refusal::internal)?;
    server.host_update(&caller.actor(), host, update)?;
    Ok(wrapped::<()>("updated host data", None))
}

async fn peer_info(
    State(server): State<Server>,
    caller: Caller,
    Path(host): Path<String>,
) -> Result<Response, Refusal> {
    let host = caller.host(&host)?;
    let info = server.read(|world, _| world.host(host).map(|_| world.peer_info(host)))??;
    Ok(wrapped("fetched host peer info", Some(info)))
}

/// Passes a signal on and echoes it; without a broker nobody receives it.
async fn signal_peer(
    State(server): State<Server>,
    caller: Caller,
    Path(host): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let host = caller.host(&host)?;
    server.read(|world, _| world.host(host).map(drop))??;
    let signal: Signal = body(&bytes)?;
    if signal.to_host_public_key.is_empty() {
        return Err(Refusal::bad_request("insufficient data to signal peer"));
    }
    let peer = id(&signal.to_host_id)?;
    let missing = Refusal::bad_request("failed to signal, peer not found");
    server.read(|world, _| world.host(peer).map(drop))?.map_err(|_| missing)?;
    server.signal(&signal);
    Ok(answers::json(&signal))
}

async fn node(
    State(server): State<Server>,
    caller: Caller,
    Path((network, node)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let config = server.config();
    let document = server.read(|world, now| {
        let node = named_node(world, &caller, &network, &node)?;
        let host = world.host(node.host_id)?;
        let peers = world.sight(host, now).peers;
        let document: Value = json!({
            "node": node, "host": host, "peers": peers, "host_peers": peers, "serverconfig": config, "peerids": {},
        });
        Ok::<_, Refusal>(document)
    })??;
    Ok(answers::json(&document))
}

/// The node that a path names, if the caller may act for it.
fn named_node<'a>(world: &'a World, caller: &Caller, network: &str, node: &str) -> Result<&'a Node, Refusal> {
    let found = Uuid::parse_str(node).ok().and_then(|id| world.nodes.get(&id));
    let node = found.ok_or_else(|| match caller {
        Caller::Host(_) => Refusal::bad_request("no result found"),
        Caller::Master => Refusal::bad_request("error fetching node during parameter validation: no result found"),
    })?;
    caller.act_for(node.host_id)?;
    if node.network != network {
        return Err(Refusal::bad_request("network url param does not match node network"));
    }
    Ok(node)
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
    server.write_as(&caller.actor(), |world, _| {
        let node = named_node(world, &caller, &network, &node)?.id;
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
    let host = caller.host(&host)?;
    let gone = server.write_as(&caller.actor(), |world, _| {
        if matches!(caller, Caller::Master) && !world.hosts.contains(&host) {
            return Err(Refusal::internal("record not found"));
        }
        if !force.is_set() && world.nodes_of(host).next().is_some() {
            return Err(Refusal::internal("host still has associated nodes"));
        }
        world.delete_host(host)
    })?;
    tracing::info!(host = %gone.id, name = %gone.name, "host left");
    Ok(wrapped(format!("deleted host {}", gone.name), Some(api_host(&gone))))
}

async fn status(State(server): State<Server>) -> Response {
    answers::json(&server_status(server.broker_is_up()))
}

async fn features(State(server): State<Server>) -> Response {
    let is_pro = server.config().is_ee;
    answers::json(&json!({
        "enable_egress_ha": is_pro, "enable_network_activity": false, "enable_oauth": false,
        "enable_idp_integration": false, "allow_multi_server_license": false, "enable_gws_ha": false,
        "enable_device_approval": is_pro, "enable_flow_logs": false, "enable_posture_checks": false,
        "enable_jit": false, "enable_overlapping_egress_ranges": false,
    }))
}

async fn caller_address(Extension(address): Extension<SocketAddr>) -> String {
    address.ip().to_canonical().to_string()
}

/// How long the real server may take between reading and writing a key.
const RACE: Duration = Duration::from_millis(200);

const HEALTHY: &str = "Server is up and running!!";
