//! The shapes of answers: bare documents, wrapped ones, and who is asking.

use axum::{
    body::Body,
    extract::{self, FromRequestParts},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    audit::Actor,
    parse,
    refusal::Refusal,
    secrets::{Claims, same},
    server::Server,
};
use crate::control::wire::Success;

/// A document with the content type the real server gives where it sets one.
pub(super) fn json(document: &impl Serialize) -> Response {
    bare(document, "application/json")
}

/// A document with the content type Go guesses where the real server sets none.
pub(super) fn text(document: &impl Serialize) -> Response {
    bare(document, TEXT)
}

/// A document in the wrapper that some calls have.
pub(super) fn wrapped<T: Serialize>(message: impl Into<String>, response: Option<T>) -> Response {
    json(&Success { code: 200, message: message.into(), response })
}

/// What is not refused, and done in the background by the real server.
pub(super) fn accepted(message: String) -> Response {
    let answer = json(&Success::<()> { code: 202, message, response: None });
    (StatusCode::ACCEPTED, answer).into_response()
}

/// 200 with nothing in it.
pub(super) fn empty() -> Response {
    Response::new(Body::empty())
}

/// The router's answer to a path that is none.
pub(super) async fn no_page() -> Response {
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, TEXT)], "404 page not found\n").into_response()
}

/// Reads a body; an empty one is an error, as in Go.
pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    parse::object(bytes).map_err(Refusal::bad_request)
}

/// Reads an id out of a path.
pub(super) fn id(text: &str) -> Result<Uuid, Refusal> {
    Uuid::parse_str(text)
        .map_err(|_| Refusal::bad_request(format!("failed to parse host id: invalid UUID length: {}", text.len())))
}

fn bare(document: &impl Serialize, content_type: &'static str) -> Response {
    match serde_json::to_string(document) {
        Ok(text) => ([(header::CONTENT_TYPE, content_type)], text + "\n").into_response(),
        Err(error) => Refusal::internal(error.to_string()).into_response(),
    }
}

/// Who sends a request to a host's route.
pub(super) enum Caller {
    /// A host with a session.
    Host(Claims),
    /// An administrator, who may do everything.
    Master,
}

impl Caller {
    /// Who that is in the audit trail.
    pub(super) fn actor(&self) -> Actor {
        match self {
            Self::Host(_) => Actor::Device,
            Self::Master => Actor::MasterKey,
        }
    }

    /// The host that a path names, if the caller may act for it; what is no id is nobody's own.
    pub(super) fn host(&self, text: &str) -> Result<Uuid, Refusal> {
        match self {
            Self::Host(claims) if Uuid::parse_str(text).is_ok_and(|host| host == claims.id) => Ok(claims.id),
            Self::Host(_) => Err(Refusal::forbidden()),
            Self::Master => id(text),
        }
    }

    /// Checks that the caller may act for `host`.
    pub(super) fn act_for(&self, host: Uuid) -> Result<(), Refusal> {
        match self {
            Self::Host(claims) if claims.id == host => Ok(()),
            Self::Host(_) => Err(Refusal::forbidden()),
            Self::Master => Ok(()),
        }
    }
}

impl FromRequestParts<Server> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Refusal> {
        let token = bearer(&parts.headers).ok_or_else(Refusal::unauthorized)?;
        if same(token, server.master_key().expose()) {
            return Ok(Self::Master);
        }
        server.session(token).map(Self::Host).ok_or_else(Refusal::unauthorized)
    }
}

/// Proof that the caller is an administrator.
pub(super) struct Admin(pub(super) Actor);

impl FromRequestParts<Server> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Refusal> {
        let token = bearer(&parts.headers).ok_or_else(Refusal::unauthorized)?;
        if let Some(user) = server.user_session(token)? {
            return Ok(Self(Actor::User(user)));
        }
        match Caller::from_request_parts(parts, server).await? {
            Caller::Master => Ok(Self(Actor::MasterKey)),
            Caller::Host(_) => Err(Refusal { status: 401, message: "user identifiers not provided".to_owned() }),
        }
    }
}

/// Parameters of a path, refused as everything else is.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Server> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Refusal> {
        let found = extract::Path::from_request_parts(parts, server).await;
        found.map(|extract::Path(found)| Self(found)).map_err(|_| Refusal::bad_request("the path is not UTF-8"))
    }
}

/// Parameters of a query, refused as everything else is.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Server> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Refusal> {
        let found = extract::Query::from_request_parts(parts, server).await;
        found.map(|extract::Query(found)| Self(found)).map_err(|error| Refusal::bad_request(error.body_text()))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

const TEXT: &str = "text/plain; charset=utf-8";
