//! Pending hosts for administrators.

use axum::{extract::State, response::Response};
use serde::Deserialize;

use super::{
    answers::{Admin, Path, Query, id, wrapped},
    calls::Call,
    refusal::Refusal,
    server::Server,
};

/// The calls about pending hosts.
pub(super) fn calls() -> Vec<Call> {
    vec![
        Call::get("/api/v1/pending_hosts", list, "List the hosts that wait to be let into a network")
            .query(&["network"]),
        Call::post("/api/v1/pending_hosts/approve/{pending}", approve, "Let a host into a network"),
        Call::post("/api/v1/pending_hosts/reject/{pending}", reject, "Forget that a host wants into a network"),
    ]
}

/// Whose.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Which {
    network: String,
}

async fn list(State(server): State<Server>, _: Admin, Query(which): Query<Which>) -> Result<Response, Refusal> {
    let Which { network } = which;
    if network.is_empty() {
        return Err(Refusal::bad_request("network id param is missing"));
    }
    // The real server lists those of all networks; nobody wants that.
    let waiting = server.read(|world, _| {
        let waiting = world.pending.values().filter(|pending| pending.network == network);
        waiting.map(|pending| world.shown_pending(pending)).collect::<Vec<_>>()
    })?;
    Ok(wrapped(format!("returned pending hosts in {network}"), Some(waiting)))
}

async fn approve(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(pending): Path<String>,
) -> Result<Response, Refusal> {
    let pending = id(&pending)?;
    let node = server.write_as(&actor, |world, now| {
        let node = world.approve(pending, now)?;
        let node = world.nodes.get(&node).ok_or_else(|| Refusal::internal("no result found"))?;
        Ok(world.api_node(node, now))
    })?;
    Ok(wrapped(format!("added pending host to {}", node.network), Some(node)))
}

async fn reject(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(pending): Path<String>,
) -> Result<Response, Refusal> {
    let pending = id(&pending)?;
    let gone = server.write_as(&actor, |world, _| world.reject(pending))?;
    Ok(wrapped(format!("deleted pending host from {}", gone.network), Some(gone)))
}
