//! A client of a broker elsewhere, such as Mosquitto or EMQX.

use std::{sync::Arc, time::Duration};

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, PublishOptions, QoS, Transport};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::sync::{mpsc, watch};

use super::{BrokerError, Elsewhere, hub::Delivery};
use crate::control::{seal::random, wire::BrokerAddress};

/// The sending half.
#[derive(Clone)]
pub(in crate::mock_server) struct Client {
    client: AsyncClient,
    is_connected: watch::Receiver<bool>,
}

/// The receiving half, which also keeps the connection.
pub(super) struct Connection {
    events: EventLoop,
    client: AsyncClient,
    is_connected: watch::Sender<bool>,
    topics: Vec<String>,
}

/// Prepares a client; nothing is sent before [`Connection::run`].
pub(super) fn client(broker: &Elsewhere, topics: Vec<String>) -> Result<(Client, Connection), BrokerError> {
    let Elsewhere { url, user, password, ca_pem, login: _, announce: _ } = broker;
    let mut options = options(url, ca_pem.as_deref())?;
    options.set_credentials(user, password.expose().to_owned());
    options.set_keep_alive(KEEPALIVE);
    options.set_max_packet_size(LARGEST, LARGEST);
    let (client, events) = AsyncClient::builder(options).capacity(QUEUE).build();
    let (connected, is_connected) = watch::channel(false);
    let connection = Connection { events, client: client.clone(), is_connected: connected, topics };
    Ok((Client { client, is_connected }, connection))
}

impl Client {
    /// Sends a message that stays; waits only while the queue is full.
    pub(super) async fn publish(&self, topic: String, payload: Vec<u8>) {
        let options = PublishOptions::at_most_once().retained();
        if let Err(error) = self.client.publish(topic, payload, options).await {
            tracing::warn!(error = %error, "message not sent to the broker");
        }
    }

    pub(super) fn is_up(&self) -> bool {
        *self.is_connected.borrow()
    }

    /// Waits until the broker listens for us.
    pub(super) async fn connected(&self) {
        // Without a connection to wait for there is no reason to wait.
        drop(self.is_connected.clone().wait_for(|connected| *connected).await);
    }
}

impl Connection {
    /// Stays connected, and passes on what comes in, until nobody takes it any more.
    pub(super) async fn run(mut self, incoming: mpsc::Sender<Delivery>) {
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    for topic in &self.topics {
                        if let Err(error) = self.client.try_subscribe(topic.as_str(), QoS::AtMostOnce) {
                            tracing::warn!(error = %error, topic, "cannot subscribe");
                        }
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => drop(self.is_connected.send_replace(true)),
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let Some(delivery) = delivery(publish) else { continue };
                    if incoming.send(delivery).await.is_err() {
                        return;
                    }
                }
                Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
                Err(error) => {
                    if self.is_connected.send_replace(false) {
                        tracing::warn!(error = %error, "connection to the broker lost");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn delivery(publish: Publish) -> Option<Delivery> {
    let Publish { dup: _, qos: _, retain, topic, pkid: _, payload } = publish;
    Some(Delivery { topic: String::from_utf8(topic.into()).ok()?, payload, retained: retain })
}

fn options(url: &str, ca_pem: Option<&str>) -> Result<MqttOptions, BrokerError> {
    let bad = || BrokerError::Url(url.to_owned());
    let name = format!("server{}", data_encoding::HEXLOWER.encode(&random::<8>()));
    match url.parse().map_err(|_| bad())? {
        BrokerAddress::Tcp { host, port } => Ok(MqttOptions::new(name, (host, port))),
        BrokerAddress::Tls { host, port } => {
            let mut options = MqttOptions::new(name, (host, port));
            options.set_transport(Transport::tls_with_config(trust(ca_pem)?.into()));
            Ok(options)
        }
        BrokerAddress::WebSocket(url) => {
            Ok(MqttOptions::new(name, rumqttc::Broker::websocket(url).map_err(|_| bad())?))
        }
        BrokerAddress::WebSocketTls(url) => {
            MqttOptions::websocket_with_tls_config(name, url, trust(ca_pem)?.into()).map_err(|_| bad())
        }
    }
}

/// Trusts the given authority, or the system's.
fn trust(ca_pem: Option<&str>) -> Result<ClientConfig, BrokerError> {
    let mut roots = RootCertStore::empty();
    match ca_pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate.map_err(|_| BrokerError::Authority)?).map_err(|_| BrokerError::Authority)?;
            }
        }
        None => {
            let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(BrokerError::Authority);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|_| BrokerError::Authority)?.with_root_certificates(roots).with_no_client_auth())
}

/// Seconds; what the hosts use.
const KEEPALIVE: u16 = 15;

/// Bytes in a message; one for 10,000 peers has a tenth of it.
const LARGEST: usize = 64 * 1024 * 1024;

/// Messages that may wait for the connection.
const QUEUE: usize = 1024;

/// A rest after a failed connection.
const RETRY: Duration = Duration::from_secs(1);
