//! Users: logging in, and the tokens they give to programs.

use axum::{body::Bytes, extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    account_api::shown,
    answers::{self, Admin, Query, body, wrapped},
    calls::{Call, Credential},
    refusal::Refusal,
    server::Server,
    users::PasswordHash,
};
use crate::control::wire::{AccessToken, Secret};

/// The calls about users.
pub(super) fn calls() -> Vec<Call> {
    let tokens = "/api/v1/users/access_token";
    vec![
        Call::get("/api/users/adm/hassuperadmin", has_first, "Tell whether there is a user").by(Credential::None),
        Call::post("/api/users/adm/createsuperadmin", create_first, "Make the first user")
            .by(Credential::None)
            .takes::<Login>(),
        Call::post("/api/users/adm/authenticate", log_in, "Log a user in").by(Credential::None).takes::<Login>(),
        Call::get(tokens, access_tokens, "List the access tokens of a user").query(&["username"]),
        Call::post(tokens, create_access_token, "Make an access token for a user").takes::<AccessToken>(),
        Call::delete(tokens, revoke_access_token, "Revoke an access token").query(&["id"]),
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
    Ok(answers::json(&shown(&user, 0)))
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

/// Whose, or which.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Which {
    username: String,
    id: String,
}

async fn access_tokens(
    State(server): State<Server>,
    _: Admin,
    Query(which): Query<Which>,
) -> Result<Response, Refusal> {
    let Which { username, id: _ } = which;
    if username.is_empty() {
        return Err(Refusal::bad_request("username is required"));
    }
    let tokens = server.read(|world, _| world.access_tokens_of(&username))?;
    Ok(wrapped(format!("fetched api access tokens for user {username}"), Some(tokens)))
}

/// Makes a token and shows it, this once; the master key is no user, and makes none.
async fn create_access_token(
    State(server): State<Server>,
    Admin(actor): Admin,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let asked: AccessToken = body(&bytes)?;
    let by = actor.user_name();
    let (id, made) = server.write_as(&actor, |world, now| world.create_access_token(asked, &by, now))?;
    let token = server.sign_access_token(&made.user_name, id, made.expires_at.unix_seconds());
    tracing::info!(user = %made.user_name, name = %made.name, "access token created");
    let response = json!({"UserName": made.user_name, "AuthToken": token.expose()});
    Ok(wrapped(format!("api access token has generated for user {}", made.user_name), Some(response)))
}

async fn revoke_access_token(
    State(server): State<Server>,
    Admin(actor): Admin,
    Query(which): Query<Which>,
) -> Result<Response, Refusal> {
    if which.id.is_empty() {
        return Err(Refusal::bad_request("id is required"));
    }
    server.write_as(&actor, |world, _| world.revoke_access_token(&which.id))?;
    Ok(wrapped::<()>("revoked access token", None))
}

const LONGEST_NAME: usize = 40;

/// Characters.
const SHORTEST_PASSWORD: usize = 5;
