//! A device at the broker: it listens to its topics, opens what comes and seals what it says.

use std::{sync::Arc, time::Duration};

use enroll_agent::{
    control::{
        seal::{PayloadKey, gob, open_payload, random, seal_box},
        wire::{GoBytes, Host},
    },
    mock_server::{Broker, Handle, Inside, Login, Options, Scheme},
};
use rumqttc::{AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet, Publish, QoS, Transport};
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::bench::{Bench, device};

/// A device that talks to the broker.
pub(crate) struct Device {
    pub(crate) host: Host,
    secret: StaticSecret,
    client: AsyncClient,
    messages: mpsc::UnboundedReceiver<Publish>,
    server_key: [u8; 32],
    task: JoinHandle<ConnectionError>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Device {
    /// Connects as a host that shares its login with all others, and listens to its own topics.
    pub(crate) async fn connect(bench: &Bench, host: &Host) -> Self {
        Self::connect_trusting(bench, bench, host).await
    }

    /// The same, where the broker's certificate is of another server.
    pub(crate) async fn connect_trusting(bench: &Bench, broker: &Bench, host: &Host) -> Self {
        let session = bench.session(host).await;
        let pull: Value =
            serde_json::from_str(&bench.get("/api/v1/host", &session).await.text().await.unwrap()).unwrap();
        let config = &pull["server_config"];
        let text = |name: &str| config[name].as_str().unwrap().to_owned();
        let mut options = options(&broker.handle, &text("Broker"));
        match text("BrokerType").as_str() {
            "emqx" => options.set_credentials(host.id.to_string(), host.password.expose().to_owned()),
            _ => options.set_credentials(text("MQUserName"), text("MQPassword")),
        };
        let server_key: GoBytes = serde_json::from_value(config["TrafficKey"].clone()).unwrap();
        let server_key = gob::decode(server_key.as_slice()).unwrap();
        Self::with(options, host, &text("Server"), server_key).await
    }

    async fn with(options: MqttOptions, host: &Host, server: &str, server_key: [u8; 32]) -> Self {
        let (client, mut events) = AsyncClient::builder(options).build();
        let (sender, messages) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => drop(sender.send(publish)),
                    Ok(_) => {}
                    Err(error) => return error,
                }
            }
        });
        for topic in [format!("host/update/{}/{server}", host.id), format!("peers/host/{}/{server}", host.id)] {
            client.subscribe(topic, QoS::AtMostOnce).await.unwrap();
        }
        Self { host: host.clone(), secret: secret(host), client, messages, server_key, task }
    }

    pub(crate) async fn subscribe(&self, topic: &str) {
        self.client.subscribe(topic, QoS::AtMostOnce).await.unwrap();
    }

    /// The next message that is not empty: the first word of its topic, whether it stayed, and what is in it.
    pub(crate) async fn next(&mut self) -> (String, bool, Value) {
        loop {
            let message =
                timeout(SOON, self.messages.recv()).await.expect("a message comes").expect("the broker is there");
            if message.payload.is_empty() {
                continue;
            }
            let topic = String::from_utf8(message.topic.to_vec()).unwrap();
            let key = PayloadKey::from_traffic_key(self.host.traffic_key_public.as_slice()).unwrap();
            let text = open_payload(&key, &message.payload, 1 << 24).unwrap_or_else(|_| message.payload.to_vec());
            return (topic, message.retain, serde_json::from_slice(&text).unwrap_or(json!(message.payload.to_vec())));
        }
    }

    /// The next action asked for; peers in between are passed over.
    pub(crate) async fn action(&mut self) -> Value {
        loop {
            let (topic, _, document) = self.next().await;
            if topic.starts_with("host/update/") {
                return document;
            }
        }
    }

    /// The next peers for which `is_it` holds.
    pub(crate) async fn peers(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (topic, _, document) = self.next().await;
            if topic.starts_with("peers/host/") && is_it(&document) {
                return document;
            }
        }
    }

    /// Waits for the peers that follow an ACK; what was broadcast before has come by then.
    pub(crate) async fn peers_after_ack(&mut self) {
        self.say("ACK", "mock.test").await;
        self.peers(|peers| peers["replace_peers"] == false).await;
    }

    pub(crate) async fn say(&self, action: &str, server: &str) {
        let text = json!({"Action": action, "Host": self.host}).to_string();
        self.send(&format!("host/serverupdate/{server}/{}", self.host.id), text.as_bytes()).await;
    }

    pub(crate) async fn send(&self, topic: &str, text: &[u8]) {
        let sealed = seal_box(&self.server_key, self.secret.as_bytes(), text, random);
        let options = rumqttc::PublishOptions::at_least_once();
        self.client.publish(topic, sealed, options).await.unwrap();
    }

    /// Removes what stays on a topic.
    pub(crate) async fn clear(&self, topic: &str) {
        let options = rumqttc::PublishOptions::at_most_once().retained();
        self.client.publish(topic, Vec::new(), options).await.unwrap();
    }

    /// Waits until the connection is gone.
    pub(crate) async fn lost(mut self) -> ConnectionError {
        timeout(SOON, &mut self.task).await.expect("the connection ends").unwrap()
    }
}

/// A device whose traffic key is a real one.
pub(crate) fn sealing(name: &str, number: u8) -> Host {
    let host = device(name, number);
    let public = PublicKey::from(&secret(&host));
    Host { traffic_key_public: gob::encode(public.as_bytes(), Some(&[0x55; 32])).as_slice().into(), ..host }
}

fn secret(host: &Host) -> StaticSecret {
    StaticSecret::from(<[u8; 32]>::try_from([host.id.as_bytes().as_slice(), host.id.as_bytes()].concat()).unwrap())
}

pub(crate) fn inside(scheme: Scheme, login: Login) -> Options {
    let broker = Inside { listen: "127.0.0.1:0".parse().unwrap(), scheme, login };
    Options { broker: Some(Broker::Inside(broker)), ..Options::default() }
}

/// What a connection attempt is answered.
pub(crate) async fn attempt(handle: &Handle, url: &str, user: &str, password: &str) -> ConnectReturnCode {
    let mut options = options(handle, url);
    options.set_credentials(user, password.to_owned());
    let (_client, mut events) = AsyncClient::builder(options).build();
    match timeout(SOON, events.poll()).await.expect("an answer comes") {
        Ok(Event::Incoming(Packet::ConnAck(answer))) => answer.code,
        Err(ConnectionError::ConnectionRefused(code)) => code,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn options(handle: &Handle, url: &str) -> MqttOptions {
    let name = uuid::Uuid::new_v4().simple().to_string();
    let (scheme, place) = url.split_once("://").unwrap();
    let (address, port) = place.trim_end_matches('/').rsplit_once(':').unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(PemObject::from_pem_slice(handle.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let mut options = match scheme {
        "ws" => MqttOptions::new(name, rumqttc::Broker::websocket(url).unwrap()),
        "wss" => MqttOptions::websocket_with_tls_config(name, url, tls.clone().into()).unwrap(),
        _ => MqttOptions::new(name, (address.to_owned(), port.parse().unwrap())),
    };
    if scheme == "mqtts" {
        options.set_transport(Transport::tls_with_config(tls.into()));
    }
    options.set_max_packet_size(1 << 24, 1 << 24);
    options.set_keep_alive(15);
    options
}

/// Everything here takes at most the 3 s that a broadcast may wait; a busy machine takes its time.
pub(crate) const SOON: Duration = Duration::from_secs(15);
