//! Name servers for administrators.

use axum::{body::Bytes, extract::State, response::Response};
use serde::Deserialize;

use super::{
    answers::{Admin, Query, body, wrapped},
    calls::Call,
    refusal::Refusal,
    server::Server,
};
use crate::control::wire::NameserverSetting;

/// The calls about name servers.
pub(super) fn calls() -> Vec<Call> {
    let path = "/api/v1/nameserver";
    vec![
        Call::get(path, list, "List the name servers of a network").query(&["network"]),
        Call::post(path, create, "Add name servers to a network").takes::<NameserverSetting>(),
        Call::put(path, edit, "Change name servers").takes::<NameserverSetting>(),
        Call::delete(path, delete, "Forget name servers").query(&["id"]),
    ]
}

/// Whose, or which.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Which {
    network: String,
    id: String,
}

async fn list(State(server): State<Server>, _: Admin, Query(which): Query<Which>) -> Result<Response, Refusal> {
    if which.network.is_empty() {
        return Err(Refusal::bad_request("network is required"));
    }
    let settings = server.read(|world, _| {
        let settings = world.name_servers.find(&which.network).map(|(_, setting)| setting.clone());
        settings.collect::<Vec<_>>()
    })?;
    Ok(wrapped("fetched nameservers", Some(settings)))
}

async fn create(State(server): State<Server>, Admin(actor): Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let asked: NameserverSetting = body(&bytes)?;
    let by = actor.user_name();
    let setting = server.write_as(&actor, |world, now| world.create_name_servers(asked, &by, now))?;
    Ok(wrapped("created nameserver", Some(setting)))
}

async fn edit(State(server): State<Server>, Admin(actor): Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let asked: NameserverSetting = body(&bytes)?;
    let setting = server.write_as(&actor, |world, now| world.edit_name_servers(asked, now))?;
    Ok(wrapped("updated nameserver", Some(setting)))
}

async fn delete(
    State(server): State<Server>,
    Admin(actor): Admin,
    Query(which): Query<Which>,
) -> Result<Response, Refusal> {
    if which.id.is_empty() {
        return Err(Refusal::bad_request("id is required"));
    }
    server.write_as(&actor, |world, _| world.delete_name_servers(&which.id))?;
    Ok(wrapped::<()>("deleted nameserver resource", None))
}
