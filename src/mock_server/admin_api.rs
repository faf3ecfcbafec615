//! Networks and the server itself, for administrators.

use std::str::FromStr;

use axum::{body::Bytes, extract::State, response::Response};
use serde::Serialize;
use serde_json::json;

use super::{
    answers::{self, Admin, Path, Query, body, wrapped},
    calls::Call,
    clock::go_time,
    host_api::Force,
    key_info::KeyInfo,
    networks::{NewNetwork, WithNodes},
    refusal::Refusal,
    server::Server,
};
use crate::control::wire::Network;

/// The calls about networks and the server.
pub(super) fn calls() -> Vec<Call> {
    let one = "/api/networks/{network}";
    vec![
        Call::get("/api/networks", networks, "List the networks"),
        Call::post("/api/networks", create_network, "Make a network with its default key").takes::<Network>(),
        Call::get(one, network, "Show a network"),
        Call::put(one, edit_network, "Change a network").takes::<Network>(),
        Call::delete(one, delete_network, "Delete a network with its default key").query(&["force"]),
        Call::get("/api/server/getserverinfo", server_info, "Tell what hosts are told about the server"),
        Call::get("/api/server/getconfig", server_config, "Tell how the server is set up"),
    ]
}

async fn networks(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    Ok(answers::text(&server.read(|world, _| world.networks.values().cloned().collect::<Vec<_>>())?))
}

async fn network(State(server): State<Server>, _: Admin, Path(name): Path<String>) -> Result<Response, Refusal> {
    let network = server.read(|world, _| world.networks.get(&name).cloned())?;
    Ok(answers::json(&network.ok_or_else(|| Refusal::not_found("record not found"))?))
}

/// A network that was made, and its default key while it can be shown, an extension of ours.
#[derive(Serialize)]
struct MadeNetwork {
    #[serde(flatten)]
    network: Network,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_key: Option<KeyInfo>,
}

async fn create_network(State(server): State<Server>, Admin(actor): Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let asked: Network = body(&bytes)?;
    let network = NewNetwork {
        name: asked.name.clone(),
        range4: range(&asked.address_range)?,
        range6: range(&asked.address_range6)?,
    };
    let (network, made) = server.write_as(&actor, |world, now| {
        world.create_network(&network, now)?;
        world.set_up_network(&network.name, &asked)?;
        let network = world.set_auto_join(&network.name, asked.auto_join)?;
        let made = world.default_key(&network.name);
        Ok((network, made))
    })?;
    let enrollment_key = made.map(|made| server.shown_once(made));
    Ok(answers::json(&MadeNetwork { network, enrollment_key }))
}

/// Changes a network's settings; its name and its ranges stay.
async fn edit_network(
    State(server): State<Server>,
    _: Admin,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let asked: Network = body(&bytes)?;
    let network = server.write(|world, now| {
        let network = world.networks.get_mut(&name).ok_or_else(|| Refusal::bad_request("record not found"))?;
        let is_other = |asked: &str, stored: &str| !asked.is_empty() && asked != stored;
        if is_other(&asked.name, &network.name)
            || is_other(&asked.address_range, &network.address_range)
            || is_other(&asked.address_range6, &network.address_range6)
        {
            return Err(Refusal::bad_request("name and ranges of a network cannot be changed"));
        }
        network.default_keepalive = asked.default_keepalive;
        network.default_mtu = asked.default_mtu;
        network.auto_remove = asked.auto_remove;
        network.auto_remove_tags = asked.auto_remove_tags;
        network.auto_remove_threshold = asked.auto_remove_threshold;
        network.updated_at = go_time(now);
        world.set_auto_join(&name, asked.auto_join)
    })?;
    Ok(answers::json(&network))
}

async fn delete_network(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(name): Path<String>,
    Query(force): Query<Force>,
) -> Result<Response, Refusal> {
    server.write_as(&actor, |world, _| {
        // The real server asks nobody for force, and deletes what is not there.
        if world.manners.netmaker_compat && !world.networks.contains(&name) {
            return Ok(());
        }
        let nodes = if force.is_set() || world.manners.netmaker_compat { WithNodes::Delete } else { WithNodes::Refuse };
        world.delete_network(&name, nodes)
    })?;
    Ok(wrapped::<()>("success", None))
}

async fn server_info(State(server): State<Server>, _: Admin) -> Response {
    answers::json(&server.config())
}

async fn server_config(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    let config = serde_json::to_value(server.config());
    let mut config = config.map_err(|error| Refusal::internal(error.to_string()))?;
    config["MQPassword"] = json!("");
    config["IsPro"] = json!("no");
    Ok(answers::json(&config))
}

/// Reads a range of one family; empty is none.
fn range<T: FromStr>(text: &str) -> Result<Option<T>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Refusal::bad_request(format!("invalid CIDR address: {text}")))
}
