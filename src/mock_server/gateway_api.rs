//! How a host chooses its own gateway, which only the Pro edition of the real server lets it do.

use axum::{body::Bytes, extract::State, response::Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    answers::{Caller, Path, body, id, wrapped},
    calls::{Call, Credential},
    refusal::Refusal,
    server::Server,
    world::World,
};

/// The calls of hosts that choose; the Community edition has none of them.
pub(super) fn calls() -> Vec<Call> {
    let chosen = "/api/v1/node/{node}/auto_relay_me";
    let calls = [
        Call::get("/api/v1/node/{node}/auto_relay", gateways, "List the gateways a node may choose"),
        Call::put(chosen, choose, "Choose a node's gateway").takes::<Choice>(),
        Call::post(chosen, choose, "Choose a node's gateway").takes::<Choice>(),
    ];
    calls.map(|call| call.by(Credential::Host)).into()
}

/// What a host chose.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Choice {
    /// The gateway's node; empty goes without one.
    auto_relay_gw_id: String,
}

async fn choose(
    State(server): State<Server>,
    caller: Caller,
    Path(node): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let node = id(&node)?;
    let Choice { auto_relay_gw_id } = body(&bytes)?;
    let gateway = if auto_relay_gw_id.is_empty() { None } else { Some(id(&auto_relay_gw_id)?) };
    server.write(|world, _| {
        let stored = world.nodes.get(&node).ok_or_else(|| Refusal::bad_request("no result found"))?;
        caller.act_for(stored.host_id)?;
        world.choose_gateway(node, gateway)
    })?;
    Ok(wrapped::<()>("relayed successfully", None))
}

/// The gateways a node may choose from.
async fn gateways(State(server): State<Server>, caller: Caller, Path(node): Path<String>) -> Result<Response, Refusal> {
    let node = id(&node)?;
    let gateways = server.read(|world, _| {
        let own = world.nodes.get(&node).ok_or_else(|| Refusal::bad_request("no result found"))?;
        caller.act_for(own.host_id)?;
        Ok::<_, Refusal>(world.gateways_to_choose(own.host_id).remove(&own.network).unwrap_or_default())
    })??;
    Ok(wrapped("fetched auto relay nodes", Some(gateways)))
}

impl World {
    /// Puts a node behind the gateway it chose; what it was behind before does not matter.
    fn choose_gateway(&mut self, node: Uuid, gateway: Option<Uuid>) -> Result<(), Refusal> {
        let stored = self.nodes.get(&node).ok_or_else(|| Refusal::bad_request("no result found"))?;
        if !stored.auto_assign_gateway {
            return Err(Refusal::bad_request("node does not choose its gateway"));
        }
        let network = stored.network.clone();
        if stored.relayed_by == gateway.map(|gateway| gateway.to_string()).unwrap_or_default() {
            return Ok(());
        }
        self.unrelay(node);
        match gateway {
            Some(gateway) => self.assign_gateway(&network, node, gateway).map(drop),
            None => Ok(()),
        }
    }
}
