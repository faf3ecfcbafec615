//! Enrollment keys and their audit trail: the real server's calls, and below `/api/ext/v1` those it does not have.

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    answers::{self, Admin, Path, Query, body},
    audit::{Action, Actor, Attempt, AuditFilter, KeyName},
    audit_log::GREATEST_LIMIT,
    calls::Call,
    key_changes::{KeyChange, refuse_changes},
    key_info::KeyInfo,
    keys::{AskedKey, no_key},
    refusal::Refusal,
    server::Server,
};
use crate::control::wire::ApiEnrollmentKey;

/// The calls about keys.
pub(super) fn calls() -> Vec<Call> {
    let (all, one) = ("/api/v1/enrollment-keys", "/api/v1/enrollment-keys/{key}");
    let extended = "/api/ext/v1/enrollment-keys/{key}";
    vec![
        Call::get(all, list, "List the enrollment keys"),
        Call::post(all, create, "Make an enrollment key").takes::<ApiEnrollmentKey>().takes::<Note>(),
        Call::put(one, overwrite, "Overwrite tags and gateway choice of a key").takes::<KeyChange>(),
        Call::delete(one, delete, "Delete a key"),
        Call::get(extended, show, "Show a key"),
        Call::patch(extended, edit, "Change note, tags or gateway choice of a key").takes::<KeyChange>(),
        Call::post("/api/ext/v1/enrollment-keys/{key}/rotate", rotate, "Give a key a new value").takes::<Rotation>(),
        Call::post("/api/ext/v1/enrollment-keys/{key}/disable", disable, "Refuse redemptions of a key"),
        Call::post("/api/ext/v1/enrollment-keys/{key}/enable", enable, "Allow redemptions of a key"),
        Call::get("/api/ext/v1/audit", audit, "List the audit trail").query(&FILTERS),
        Call::get("/api/ext/v1/audit/export", export, "Export the audit trail as JSON lines").query(&FILTERS),
    ]
}

async fn list(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    let keys: Vec<_> = server.read(|world, _| world.keys.values().cloned().collect())?;
    Ok(answers::text(&keys.into_iter().map(|key| server.shown(key)).collect::<Vec<_>>()))
}

/// The part of a new key that is ours.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Note {
    note: Option<String>,
}

async fn create(State(server): State<Server>, Admin(actor): Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let made = server.attempt(&attempt(actor, Action::Create, None), |world, now| {
        let key: ApiEnrollmentKey = body(&bytes)?;
        let note = body::<Note>(&bytes)?.note.unwrap_or_default();
        world.create_key(AskedKey { key, note }, now)
    })?;
    let info = server.shown_once(made);
    log("enrollment key created", &info);
    Ok(answers::text(&info.with_hints()))
}

async fn overwrite(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let key = server.attempt(&attempt(actor, Action::Edit, Some(&id)), |world, _| {
        if world.manners.netmaker_compat {
            body::<ApiEnrollmentKey>(&bytes)?;
        } else if let Some(key) = world.find_key(&id) {
            refuse_changes(&body(&bytes)?, &document(&server.shown(key.clone()))?)?;
        }
        world.put_key(&id, body::<KeyChange>(&bytes)?)
    })?;
    let info = server.shown(key);
    log("enrollment key changed", &info);
    Ok(answers::text(&info))
}

async fn delete(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    server.attempt(&attempt(actor, Action::Delete, Some(&id)), |world, _| world.delete_key(&id))?;
    tracing::info!("enrollment key deleted");
    Ok(answers::empty())
}

async fn show(State(server): State<Server>, _: Admin, Path(id): Path<String>) -> Result<Response, Refusal> {
    let key = server.read(|world, _| world.find_key(&id).cloned())?;
    let key = key.ok_or_else(|| Refusal::not_found(no_key().message))?;
    Ok(answers::json(&server.shown(key)))
}

async fn edit(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let key = server.attempt(&attempt(actor, Action::Edit, Some(&id)), |world, _| {
        let key = world.find_key(&id).ok_or_else(no_key)?;
        refuse_changes(&body(&bytes)?, &document(&server.shown(key.clone()))?)?;
        world.patch_key(&id, body(&bytes)?)
    })?;
    let info = server.shown(key);
    log("enrollment key changed", &info);
    Ok(answers::json(&info))
}

/// How to rotate a key.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Rotation {
    /// How long the value it has stays good.
    grace_seconds: i64,
}

async fn rotate(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let made = server.attempt(&attempt(actor, Action::Rotate, Some(&id)), |world, now| {
        let Rotation { grace_seconds } = if bytes.is_empty() { Rotation::default() } else { body(&bytes)? };
        world.rotate_key(&id, grace_seconds, now)
    })?;
    let info = server.shown_once(made);
    log("enrollment key rotated", &info);
    Ok(answers::json(&info))
}

async fn disable(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let key = server.attempt(&attempt(actor, Action::Disable, Some(&id)), |world, _| world.disable_key(&id))?;
    let info = server.shown(key);
    log("enrollment key disabled", &info);
    Ok(answers::json(&info))
}

async fn enable(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let key = server.attempt(&attempt(actor, Action::Enable, Some(&id)), |world, _| world.enable_key(&id))?;
    let info = server.shown(key);
    log("enrollment key enabled", &info);
    Ok(answers::json(&info))
}

async fn audit(State(server): State<Server>, _: Admin, Query(filter): Query<AuditFilter>) -> Result<Response, Refusal> {
    Ok(answers::json(&server.audit(&filter)?))
}

/// Sends the entries of a filter as JSON lines, a page at a time.
async fn export(
    State(server): State<Server>,
    _: Admin,
    Query(filter): Query<AuditFilter>,
) -> Result<Response, Refusal> {
    let pages = stream::unfold(Some(AuditFilter { limit: Some(GREATEST_LIMIT), ..filter }), move |filter| {
        let server = server.clone();
        async move {
            let filter = filter?;
            let page = match server.audit(&filter) {
                Ok(page) => page,
                // A body that breaks off is how a client learns that the rest is missing.
                Err(refusal) => return Some((Err(refusal), None)),
            };
            let lines: String = page
                .entries
                .iter()
                .filter_map(|entry| serde_json::to_string(entry).ok())
                .fold(String::new(), |lines, line| lines + &line + "\n");
            Some((Ok(lines), page.next.map(|cursor| AuditFilter { cursor: Some(cursor), ..filter })))
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pages)).into_response())
}

fn attempt(actor: Actor, action: Action, id: Option<&str>) -> Attempt {
    Attempt { actor, action, key: id.map(|id| KeyName::Id(id.to_owned())), host: None }
}

fn document(info: &KeyInfo) -> Result<Value, Refusal> {
    serde_json::to_value(info).map_err(|error| Refusal::internal(error.to_string()))
}

fn log(what: &str, info: &KeyInfo) {
    let name = info.names.iter().flatten().next().map_or("", String::as_str);
    tracing::info!(id = %info.id, name, "{what}");
}

const FILTERS: [&str; 7] = ["key", "host", "action", "since", "until", "limit", "cursor"];
