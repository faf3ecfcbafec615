//! What the server says when it will not.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::control::wire::ErrorResponse;

/// A refusal: an HTTP status and the reason that goes into the body.
///
/// The real server answers many mistakes of the caller with 500; those are reproduced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The reason.
    pub message: String,
}

impl Refusal {
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into() }
    }

    /// A host that speaks a version that no server admits.
    pub(super) fn version(version: &str) -> Self {
        Self::bad_request(format!("{BAD_VERSION}: {version}"))
    }

    /// Whether nothing but the version was wrong, as far as that was looked at.
    pub(super) fn is_about_version(&self) -> bool {
        self.message.starts_with(BAD_VERSION)
    }

    pub(super) fn forbidden() -> Self {
        Self { status: 403, message: "forbidden".to_owned() }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { status: 500, message: message.into() }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { status: 404, message: message.into() }
    }

    pub(super) fn unauthorized() -> Self {
        Self { status: 401, message: "unauthorized".to_owned() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = ErrorResponse { code: self.status, message: self.message, response: None };
        let text = serde_json::to_string(&body).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
    }
}

const BAD_VERSION: &str = "bad client version on register";
