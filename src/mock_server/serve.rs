//! The listener: TLS, one task per connection, planned trouble, a graceful end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, Request, Response, StatusCode, header},
    response::IntoResponse,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use time::{UtcOffset, format_description::well_known::Rfc2822};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::debug;

use super::{
    faults::{Fault, Power, redact},
    refusal::Refusal,
    resettable::{Reset, Resettable},
    server::Server,
    spoil::{self, Dropped},
};

/// Accepts connections until `stop` says so, then lets those that are busy finish.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    server: Server,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                // An answer's last packet would wait 40 ms for the client's delayed acknowledgement.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(error = %error, "answers may be slow");
                }
                let reset = Reset::default();
                let connection = Connection { peer, router: router.clone(), server: server.clone(), reset };
                connections.spawn(connection.run(acceptor.clone(), stream, stop.clone()));
            }
            Err(error) => {
                // Out of descriptors, mostly: those in use come back.
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let finished = timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
    if finished.is_err() {
        connections.shutdown().await;
    }
}

/// One client.
#[derive(Clone)]
struct Connection {
    peer: SocketAddr,
    router: Router,
    server: Server,
    reset: Reset,
}

impl Connection {
    async fn run(self, acceptor: TlsAcceptor, stream: TcpStream, mut stop: watch::Receiver<bool>) {
        let peer = self.peer;
        let mut power = self.server.faults().power();
        let mut certificate = self.server.certificates().changes();
        if *power.borrow() == Power::Off {
            return;
        }
        let stream = Resettable::new(stream, self.reset.clone());
        let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%peer, error = %error, "TLS handshake failed"),
            Err(_) => return debug!(%peer, "TLS handshake took too long"),
        };
        let service = service_fn(move |request| self.clone().dated(request));
        let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = stopped(&mut stop) => None,
            // Who is connected would not notice.
            _ = certificate.changed() => None,
            _ = power.wait_for(|power| *power == Power::Off) => return,
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            connection.as_mut().graceful_shutdown();
            connection.await
        };
        if let Err(error) = ended {
            debug!(%peer, error = %error, "connection ended early");
        }
    }

    /// Answers with a date by the server's clock, however wrong that is.
    async fn dated(self, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
        let server = self.server.clone();
        let mut response = self.answer(request).await?;
        let date = server.now().to_offset(UtcOffset::UTC).format(&Rfc2822).unwrap_or_default();
        // HTTP writes the zone of mail by its name (RFC 9110 §5.6.7).
        if let Ok(date) = HeaderValue::from_str(&date.replace("+0000", "GMT")) {
            response.headers_mut().insert(header::DATE, date);
        }
        Ok(response)
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(self.peer);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let Ok(body) = to_bytes(Body::new(body), BODY_LIMIT).await else {
            let refusal = Refusal { status: 413, message: "http: request body too large".to_owned() };
            return Ok(refusal.into_response());
        };
        let faults = self.server.faults().clone();
        faults.observe(parts.method.as_str(), &path, &body);
        debug!(method = %parts.method, path = %redact(&path), "request");
        let handle = async |body: Bytes| {
            let request = Request::from_parts(parts.clone(), Body::from(body));
            match self.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        let Some(fault) = faults.take(&path) else { return Ok(handle(body).await) };
        match fault {
            Fault::Busy { status, retry_after } => Ok(spoil::busy(status, retry_after)),
            Fault::ContentType(name) => Ok(spoil::called(handle(body).await, &name)),
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                Ok(handle(body).await)
            }
            Fault::DropAfterCommit => {
                handle(body).await;
                Err(Dropped)
            }
            Fault::DropBeforeCommit => Err(Dropped),
            Fault::EmptyOk => Ok(Response::new(Body::empty())),
            Fault::Malformed => spoil::malformed(handle(body).await).await,
            Fault::Reset(length) => {
                self.reset.ask();
                spoil::truncated(handle(body).await, length).await
            }
            Fault::Redirect(place) => {
                Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place)], ()).into_response())
            }
            Fault::SlowBody(pause) => spoil::slow(handle(body).await, pause).await,
            Fault::Status { status, body, content_type } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Ok((status, [(header::CONTENT_TYPE, content_type)], body).into_response())
            }
            Fault::Truncate(length) => spoil::truncated(handle(body).await, length).await,
            Fault::Twice => {
                handle(body.clone()).await;
                Ok(handle(body).await)
            }
        }
    }
}

/// Waits for the end; a handle that is gone is the end too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// No document of a client comes near this.
const BODY_LIMIT: usize = 1024 * 1024;

/// A client that has not finished its handshake by then will not.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long answers may take after the end was announced.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// A rest after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
