//! Answers that go wrong on their way.

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use futures_util::{StreamExt, stream};

use super::refusal::Refusal;

/// The connection is closed instead of answered.
#[derive(Debug, thiserror::Error)]
#[error("connection dropped on purpose")]
pub(super) struct Dropped;

/// Asks the client to come back later.
pub(super) fn busy(status: u16, retry_after: u32) -> Response<Body> {
    let status = if StatusCode::from_u16(status).is_ok() { status } else { 503 };
    let refusal = Refusal { status, message: "too many requests".to_owned() };
    ([(header::RETRY_AFTER, retry_after.to_string())], refusal).into_response()
}

/// Gives the answer another content type.
pub(super) fn called(mut response: Response<Body>, name: &str) -> Response<Body> {
    if let Ok(name) = HeaderValue::from_str(name) {
        response.headers_mut().insert(header::CONTENT_TYPE, name);
    }
    response
}

/// Breaks the JSON of the answer; its length is right.
pub(super) async fn malformed(response: Response<Body>) -> Result<Response<Body>, Dropped> {
    let (mut parts, body) = whole(response).await?;
    let start = body.slice(..body.len() / 2);
    let broken = [&start[..], b"]}"].concat();
    parts.headers.insert(header::CONTENT_LENGTH, broken.len().into());
    Ok(Response::from_parts(parts, Body::from(broken)))
}

/// Sends the body in small pieces with pauses between.
pub(super) async fn slow(response: Response<Body>, pause: Duration) -> Result<Response<Body>, Dropped> {
    let (mut parts, body) = whole(response).await?;
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    let starts: Vec<_> = (0..body.len()).step_by(PIECE).collect();
    let pieces = stream::iter(starts).then(move |start| {
        let piece = body.slice(start..body.len().min(start + PIECE));
        async move {
            tokio::time::sleep(pause).await;
            Ok::<_, io::Error>(piece)
        }
    });
    Ok(Response::from_parts(parts, Body::from_stream(pieces)))
}

/// Announces the whole body, sends its start and breaks off.
pub(super) async fn truncated(response: Response<Body>, length: usize) -> Result<Response<Body>, Dropped> {
    let (mut parts, body) = whole(response).await?;
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    let start = body.slice(..length.min(body.len()));
    // The start must be on its way before the end, or nothing is sent at all.
    let end = async {
        tokio::time::sleep(BREAK_PAUSE).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    };
    let pieces = stream::iter([Ok(start)]).chain(stream::once(end));
    Ok(Response::from_parts(parts, Body::from_stream(pieces)))
}

async fn whole(response: Response<Body>) -> Result<(axum::http::response::Parts, Bytes), Dropped> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|_| Dropped)?;
    Ok((parts, body))
}

/// Bytes in a piece of a slow body.
const PIECE: usize = 64;

/// Time for the start of an answer to leave.
const BREAK_PAUSE: Duration = Duration::from_millis(30);
