//! Egress for administrators.

use axum::{body::Bytes, extract::State, response::Response};
use serde::Deserialize;

use super::{
    answers::{Admin, Query, body, wrapped},
    calls::Call,
    refusal::Refusal,
    server::Server,
};
use crate::control::wire::{Egress, EgressRequest};

/// The calls about egress.
pub(super) fn calls() -> Vec<Call> {
    let path = "/api/v1/egress";
    vec![
        Call::get(path, list, "List the ranges behind nodes of a network").query(&["network"]),
        Call::post(path, create, "Put a range behind a node").takes::<EgressRequest>(),
        Call::put(path, edit, "Change a range behind a node").takes::<EgressRequest>(),
        Call::delete(path, delete, "Forget a range behind a node").query(&["id"]),
    ]
}

/// Whose.
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
    let egresses: Vec<Egress> = server.read(|world, _| {
        let found = world.egresses.find(&which.network).map(|(_, egress)| egress.clone());
        found.collect()
    })?;
    Ok(wrapped("fetched egress resource list", Some(egresses)))
}

async fn create(State(server): State<Server>, Admin(actor): Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let asked: EgressRequest = body(&bytes)?;
    let by = actor.user_name();
    let egress = server.write_as(&actor, |world, now| world.create_egress(asked, &by, now))?;
    Ok(wrapped("created egress resource", Some(egress)))
}

async fn edit(State(server): State<Server>, Admin(actor): Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let asked: EgressRequest = body(&bytes)?;
    let egress = server.write_as(&actor, |world, now| world.edit_egress(asked, now))?;
    Ok(wrapped("updated egress resource", Some(egress)))
}

async fn delete(
    State(server): State<Server>,
    Admin(actor): Admin,
    Query(which): Query<Which>,
) -> Result<Response, Refusal> {
    if which.id.is_empty() {
        return Err(Refusal::bad_request("id is required"));
    }
    server.write_as(&actor, |world, _| world.delete_egress(&which.id))?;
    Ok(wrapped::<()>("deleted egress resource", None))
}
