//! Policies for administrators.

use axum::{body::Bytes, extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    answers::{Admin, Query, body, wrapped},
    calls::Call,
    policies::EGRESS,
    refusal::Refusal,
    server::Server,
};
use crate::control::wire::Acl;

/// The calls about policies.
pub(super) fn calls() -> Vec<Call> {
    let path = "/api/v1/acls";
    vec![
        Call::get(path, list, "List the policies of a network").query(&["network"]),
        Call::get("/api/v1/acls/egress", list_of_egress, "List the policies about an egress").query(&["egress_id"]),
        Call::get("/api/v1/acls/policy_types", types, "Tell what policies can be about"),
        Call::post(path, create, "Make a policy").takes::<Acl>(),
        Call::put(path, edit, "Change a policy").takes::<Acl>().takes::<NewName>(),
        Call::delete(path, delete, "Delete a policy").query(&["acl_id"]),
    ]
}

/// Which policies.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Which {
    network: String,
    egress_id: String,
    acl_id: String,
}

async fn list(State(server): State<Server>, _: Admin, Query(which): Query<Which>) -> Result<Response, Refusal> {
    let Which { network, .. } = which;
    if network.is_empty() {
        return Err(Refusal::bad_request("network id param is missing"));
    }
    let acls =
        server.read(|world, _| world.networks.contains(&network).then(|| world.listed_acls(&network, |_| true)))?;
    let acls = acls.ok_or_else(|| Refusal::bad_request("record not found"))?;
    Ok(wrapped(format!("fetched all acls in the network {network}"), Some(acls)))
}

async fn list_of_egress(
    State(server): State<Server>,
    _: Admin,
    Query(which): Query<Which>,
) -> Result<Response, Refusal> {
    let Which { egress_id, .. } = which;
    if egress_id.is_empty() {
        return Err(Refusal::bad_request("egress id param is missing"));
    }
    let (name, acls) = server.read(|world, _| {
        let egress = world.egresses.get(&egress_id).ok_or_else(|| Refusal::bad_request("record not found"))?;
        let is_about =
            |acl: &Acl| acl.destinations.iter().flatten().any(|tag| tag.id == EGRESS && tag.value == egress_id);
        Ok::<_, Refusal>((egress.name.clone(), world.listed_acls(&egress.network, is_about)))
    })??;
    Ok(wrapped(format!("fetched acls for egress{name}"), Some(acls)))
}

async fn types(_: Admin) -> Response {
    let services = [
        ("Any", &["all"][..], "All ports", false),
        ("HTTP", &["tcp"], "80", false),
        ("HTTPS", &["tcp"], "443", false),
        ("All TCP", &["tcp"], "All ports", false),
        ("All UDP", &["udp"], "All ports", false),
        ("ICMP", &["icmp"], "", false),
        ("SSH", &["tcp"], "22", false),
        ("Custom", &["udp", "tcp"], "All ports", true),
    ];
    let services = services.map(|(name, protocols, ports, settable)| {
        json!({"name": name, "allowed_protocols": protocols, "port_range": ports, "allow_port_setting": settable})
    });
    let types = json!({
        "ProtocolTypes": services,
        "policy_types": ["device-policy", "user-policy"],
        "src_grp_types": ["user", "user-group", "tag", "device"],
        "dst_grp_types": ["tag", "device", "egress-id"],
    });
    wrapped("fetched acls types", Some(types))
}

async fn create(State(server): State<Server>, Admin(actor): Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let asked: Acl = body(&bytes)?;
    let by = actor.user_name();
    let acl = server.write_as(&actor, |world, now| {
        let acl = world.create_acl(asked, &by, now)?;
        Ok(world.with_names(acl))
    })?;
    Ok(wrapped("created acl successfully", Some(acl)))
}

/// The part of a change that is not a policy.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct NewName {
    new_name: Option<String>,
}

async fn edit(State(server): State<Server>, Admin(actor): Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let asked: Acl = body(&bytes)?;
    let new_name = body::<NewName>(&bytes)?.new_name.unwrap_or_default();
    let acl = server.write_as(&actor, |world, _| {
        let acl = world.edit_acl(asked, &new_name)?;
        Ok(world.with_names(acl))
    })?;
    Ok(wrapped(format!("updated acl {}", acl.name), Some(acl)))
}

async fn delete(
    State(server): State<Server>,
    Admin(actor): Admin,
    Query(which): Query<Which>,
) -> Result<Response, Refusal> {
    if which.acl_id.is_empty() {
        return Err(Refusal::bad_request("acl id is required"));
    }
    let name = server.write_as(&actor, |world, _| world.delete_acl(&which.acl_id))?;
    Ok(wrapped::<()>(format!("deleted acl {name}"), None))
}
