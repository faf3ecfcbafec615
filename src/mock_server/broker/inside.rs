//! The broker's connections: one port for MQTT 3.1.1 over TCP and WebSocket, each with and without TLS.
//!
//! ```text
//!  first byte 0x16 ─► TLS ─┐
//!             else ────────┴─► first byte 'G' ─► WebSocket, subprotocol mqtt ─┐
//!                                        else ───────────────────────────────┴─► session ─► hub
//! ```
//!
//! The frames are read and written by the client library's codec. Everything goes out at quality of service 0, which
//! is all that a subscriber of this server asks for; messages may come in at any.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_tungstenite::{
    bytes::{ByteReader, ByteWriter},
    tokio::accept_hdr_async,
    tungstenite::{
        self,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL},
    },
};
use futures_util::{SinkExt, StreamExt};
use rumqttc::{
    Codec, ConnAck, Connect, ConnectAuth, ConnectReturnCode, LastWill, Packet, PubAck, PubComp, PubRec, Publish, QoS,
    SubAck, Subscribe, SubscribeReasonCode, UnsubAck,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::Framed;
use tracing::debug;
use uuid::Uuid;

use super::hub::{Delivery, Hub, Keep};

/// Tells whether a name and a password let a client in.
pub(in crate::mock_server) type Admits = Arc<dyn Fn(&str, &[u8]) -> bool + Send + Sync>;

/// What every connection shares.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) hub: Hub,
    pub(super) admits: Admits,
    pub(super) tls: TlsAcceptor,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("connection closed")]
    Closed,
    #[error("connection failed")]
    Io(#[from] io::Error),
    #[error("not MQTT 3.1.1")]
    Protocol(#[from] rumqttc::mqttbytes::Error),
    #[error("client was refused")]
    Refused,
    #[error("client was silent for too long")]
    Silent,
    #[error("not a WebSocket for MQTT")]
    WebSocket(#[from] tungstenite::Error),
}

/// Accepts connections until `stop` says so.
pub(super) async fn serve(listener: TcpListener, gate: Gate, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(run(stream, peer, gate.clone()));
            }
            Err(error) => {
                // Out of descriptors, mostly: those in use come back.
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

async fn run(stream: TcpStream, peer: SocketAddr, gate: Gate) {
    if !gate.hub.is_up() {
        return;
    }
    match sniff(stream, gate).await {
        Ok(()) | Err(Broken::Closed) => debug!(%peer, "broker client left"),
        Err(error) => debug!(%peer, error = %error, "broker client lost"),
    }
}

async fn sniff(stream: TcpStream, gate: Gate) -> Result<(), Broken> {
    let mut first = [0];
    timeout(PATIENCE, stream.peek(&mut first)).await.map_err(|_| Broken::Silent)??;
    if first[0] == TLS_HANDSHAKE {
        let acceptor = gate.tls.clone();
        let stream = timeout(PATIENCE, acceptor.accept(stream)).await.map_err(|_| Broken::Silent)??;
        speak(stream, gate).await
    } else {
        speak(stream, gate).await
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin>(stream: S, gate: Gate) -> Result<(), Broken> {
    let mut stream = BufReader::new(stream);
    let first = timeout(PATIENCE, stream.fill_buf()).await.map_err(|_| Broken::Silent)??.first().copied();
    match first {
        None => Err(Broken::Closed),
        Some(b'G') => {
            let accepted = timeout(PATIENCE, accept_hdr_async(stream, subprotocol)).await;
            let (sender, receiver) = accepted.map_err(|_| Broken::Silent)??.split();
            session(tokio::io::join(ByteReader::new(receiver), ByteWriter::new(sender)), gate).await
        }
        Some(_) => session(stream, gate).await,
    }
}

/// Agrees on `mqtt`, and on nothing else.
fn subprotocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if offered.any(|name| name.trim() == "mqtt") {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some("the subprotocol must be mqtt".to_owned()));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    Err(refusal)
}

type Frames<S> = Framed<S, Codec>;

async fn session<S: AsyncRead + AsyncWrite + Unpin>(stream: S, gate: Gate) -> Result<(), Broken> {
    let codec = Codec { max_incoming_size: LARGEST_IN, max_outgoing_size: usize::MAX };
    let mut frames = Framed::new(stream, codec);
    let connect = timeout(PATIENCE, next(&mut frames)).await.map_err(|_| Broken::Silent)??;
    let Packet::Connect(connect) = connect else { return Err(Broken::Refused) };
    let Connect { keep_alive, client_id, clean_session: _, last_will, auth } = connect;
    if !admits(&gate, &auth) {
        frames.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false))).await?;
        return Err(Broken::Refused);
    }
    let name = if client_id.is_empty() { Uuid::new_v4().to_string() } else { client_id };
    let (id, deliveries) = gate.hub.connect(&name);
    frames.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await?;
    // A client is gone after one and a half of its keepalives; zero turns that off (MQTT 3.1.1 section 3.1.2.10).
    let idle = if keep_alive == 0 { Duration::MAX } else { Duration::from_secs(u64::from(keep_alive)) * 3 / 2 };
    let ended = Session { hub: &gate.hub, id, idle }.run(&mut frames, deliveries).await;
    gate.hub.disconnect(id);
    if let (Err(_), Some(LastWill { topic, message, qos: _, retain })) = (&ended, last_will) {
        gate.hub.publish(&topic, &message, keep(retain));
    }
    ended
}

fn admits(gate: &Gate, auth: &ConnectAuth) -> bool {
    match auth {
        ConnectAuth::None | ConnectAuth::Username { .. } => false,
        ConnectAuth::UsernamePassword { username, password } => (gate.admits)(username, password),
    }
}

async fn next<S: AsyncRead + AsyncWrite + Unpin>(frames: &mut Frames<S>) -> Result<Packet, Broken> {
    Ok(frames.next().await.ok_or(Broken::Closed)??)
}

fn keep(retain: bool) -> Keep {
    if retain { Keep::Retained } else { Keep::Not }
}

/// A client that was let in.
struct Session<'a> {
    hub: &'a Hub,
    id: u64,
    idle: Duration,
}

impl Session<'_> {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        frames: &mut Frames<S>,
        mut deliveries: mpsc::Receiver<Delivery>,
    ) -> Result<(), Broken> {
        loop {
            let answer = tokio::select! {
                packet = timeout(self.idle, next(frames)) => match packet {
                    Ok(Ok(Packet::Disconnect)) => return Ok(()),
                    Ok(packet) => self.answer(packet?)?,
                    Err(_) => return Err(Broken::Silent),
                },
                delivery = deliveries.recv() => {
                    // Without a sender somebody else has this client's name now, or the broker is down.
                    let Delivery { topic, payload, retained } = delivery.ok_or(Broken::Closed)?;
                    let mut publish = Publish::from_bytes(topic, QoS::AtMostOnce, payload);
                    publish.retain = retained;
                    Some(Packet::Publish(publish))
                }
            };
            if let Some(answer) = answer {
                frames.send(answer).await?;
            }
        }
    }

    fn answer(&self, packet: Packet) -> Result<Option<Packet>, Broken> {
        let answer = match packet {
            Packet::PingReq => Packet::PingResp,
            Packet::Publish(publish) => return self.publish(publish),
            Packet::PubRel(released) => Packet::PubComp(PubComp::new(released.pkid)),
            Packet::Subscribe(Subscribe { pkid, filters }) => {
                let granted = filters.iter().map(|filter| {
                    if self.hub.subscribe(self.id, &filter.path) {
                        SubscribeReasonCode::Success(QoS::AtMostOnce)
                    } else {
                        SubscribeReasonCode::Failure
                    }
                });
                Packet::SubAck(SubAck::new(pkid, granted.collect()))
            }
            Packet::Unsubscribe(unsubscribe) => {
                for topic in &unsubscribe.topics {
                    self.hub.unsubscribe(self.id, topic);
                }
                Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))
            }
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubComp(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Disconnect => return Err(Broken::Refused),
        };
        Ok(Some(answer))
    }

    fn publish(&self, publish: Publish) -> Result<Option<Packet>, Broken> {
        let Publish { dup: _, qos, retain, topic, pkid, payload } = publish;
        let topic = std::str::from_utf8(&topic).map_err(|_| Broken::Refused)?;
        if !self.hub.publish(topic, &payload, keep(retain)) {
            return Err(Broken::Refused);
        }
        Ok(match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(Packet::PubAck(PubAck::new(pkid))),
            QoS::ExactlyOnce => Some(Packet::PubRec(PubRec::new(pkid))),
        })
    }
}

/// First byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// How long a client may take for each step until it is let in.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes in a message from a host; none comes near this.
const LARGEST_IN: usize = 1024 * 1024;

/// A rest after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
