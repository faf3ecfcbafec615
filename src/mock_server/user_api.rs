//! Logging in.

use axum::{body::Bytes, extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    account_api::shown,
    answers::{self, body, wrapped},
    calls::{Call, Credential},
    refusal::Refusal,
    server::Server,
    users::PasswordHash,
};
use crate::control::wire::Secret;

/// The calls about users.
pub(super) fn calls() -> Vec<Call> {
    vec![
        Call::get("/api/users/adm/hassuperadmin", has_first, "Tell whether there is a user").by(Credential::None),
        Call::post("/api/users/adm/createsuperadmin", create_first, "Make the first user")
            .by(Credential::None)
            .takes::<Login>(),
        Call::post("/api/users/adm/authenticate", log_in, "Log a user in").by(Credential::None).takes::<Login>(),
    ]
}

/// Who, and proof of it.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Login {
    username: String,
    password: Secret,
}

async fn has_first(State(server): State<Server>) -> Result<Response, Refusal> {
    Ok(answers::json(&server.read(|world, _| world.users.values().next().is_some())?))
}

async fn create_first(State(server): State<Server>, bytes: Bytes) -> Result<Response, Refusal> {
    let Login { username, password } = body(&bytes)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if !(3..=LONGEST_NAME).contains(&username.len()) || !username.chars().all(allowed) {
        return Err(Refusal::bad_request("username must have 3 to 40 letters, digits or any of -_.@"));
    }
    if password.expose().chars().count() < SHORTEST_PASSWORD {
        return Err(Refusal::bad_request("password must have at least 5 characters"));
    }
    let password = PasswordHash::new(&password);
    let user = server.write(|world, now| world.create_first_user(&username, password, now))?;
    tracing::info!(user = %user.name, "first user created");
    Ok(answers::json(&shown(&user)))
}

async fn log_in(State(server): State<Server>, bytes: Bytes) -> Result<Response, Refusal> {
    let Login { username, password } = body(&bytes)?;
    let user = server.read(|world, _| world.users.get(&username).cloned())?;
    let user = user.ok_or_else(Refusal::unauthorized)?;
    if password.is_empty() {
        return Err(Refusal::bad_request("password can't be empty"));
    }
    if !user.password.matches(&password) {
        return Err(Refusal::bad_request("incorrect credentials"));
    }
    let token = server.open_user_session(&user.name);
    let response = json!({"UserName": user.name, "AuthToken": token.expose()});
    Ok(wrapped(format!("W1R3: Device {} Authorized", user.name), Some(response)))
}

const LONGEST_NAME: usize = 40;

/// Characters.
const SHORTEST_PASSWORD: usize = 5;
