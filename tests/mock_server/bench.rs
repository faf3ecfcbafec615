//! A running server with a client that trusts it.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use enroll_agent::{
    control::{
        seal::gob,
        wire::{AuthToken, Host, HostPull, Success, WgKey},
    },
    mock_server::{self, Clock, Handle, NewKey, NewNetwork, Options},
};
use reqwest::{Client, Method, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

/// A server with two networks, and a client that trusts it.
pub(crate) struct Bench {
    pub(crate) handle: Handle,
    pub(crate) client: Client,
    pub(crate) base: String,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let bench = Self::start(options).await;
        let range6 = Some("fd00:202::/64".parse().unwrap());
        let networks = [
            NewNetwork { name: "plant-a".into(), range4: Some("10.101.0.0/16".parse().unwrap()), range6: None },
            NewNetwork { name: "office".into(), range4: Some("10.202.0.0/24".parse().unwrap()), range6 },
        ];
        for network in &networks {
            bench.handle.create_network(network).unwrap();
        }
        bench
    }

    pub(crate) async fn start(options: Options) -> Self {
        let handle = mock_server::start(TcpListener::bind("127.0.0.1:0").unwrap(), options).await.unwrap();
        let client = client(handle.ca_pem());
        let base = format!("https://{}", handle.addr());
        Self { handle, client, base }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: String, bearer: Option<&str>) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, bearer: &str) -> Response {
        self.send(Method::GET, path, String::new(), Some(bearer)).await
    }

    pub(crate) async fn delete(&self, path: &str, bearer: &str) -> Response {
        self.send(Method::DELETE, path, String::new(), Some(bearer)).await
    }

    pub(crate) async fn admin(&self, method: Method, path: &str, body: Value) -> Response {
        self.send(method, path, body.to_string(), Some(self.handle.master_key())).await
    }

    pub(crate) async fn register(&self, token: &str, host: &Host) -> Response {
        self.send(Method::POST, &format!("/api/v1/host/register/{token}"), json!(host).to_string(), None).await
    }

    pub(crate) async fn join(&self, network: &str, name: &str, number: u8) -> Host {
        let host = device(name, number);
        assert_eq!(self.register(&self.token(network), &host).await.status(), 200);
        host
    }

    pub(crate) async fn session(&self, host: &Host) -> String {
        let body = json!({"macaddress": "", "id": host.id, "password": host.password});
        let answer = self.send(Method::POST, "/api/hosts/adm/authenticate", body.to_string(), None).await;
        assert_eq!(content_type(&answer), TEXT);
        let answer: Success<AuthToken> = answer.document().await;
        answer.response.unwrap().auth_token.expose().to_owned()
    }

    pub(crate) async fn pull(&self, host: &Host) -> (Value, HostPull) {
        let session = self.session(host).await;
        let text = self.get("/api/v1/host?reset_failovered=true", &session).await.text().await.unwrap();
        (serde_json::from_str(&text).unwrap(), serde_json::from_str(&text).unwrap())
    }

    pub(crate) async fn tell(&self, host: &Host, action: &str) {
        let session = self.session(host).await;
        let body = json!({"Action": action, "Host": host}).to_string();
        let answer = self.send(Method::PUT, &format!("/api/v1/fallback/host/{}", host.id), body, Some(&session)).await;
        assert_eq!(answer.status(), 200);
    }

    pub(crate) fn key(&self, key: NewKey) -> String {
        self.handle.create_key(key).unwrap().token.expose().to_owned()
    }

    pub(crate) fn token(&self, network: &str) -> String {
        self.handle.default_key(network).unwrap().expose().to_owned()
    }

    pub(crate) fn node(&self, host: Uuid, network: &str) -> Uuid {
        let nodes = self.handle.nodes().unwrap();
        nodes.iter().find(|node| node.host_id == host && node.network == network).unwrap().id
    }
}

/// A client that trusts one authority.
pub(crate) fn client(ca_pem: &str) -> Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

pub(crate) fn device(name: &str, number: u8) -> Host {
    Host {
        id: Uuid::from_u128(0xa000 + u128::from(number)),
        version: "v1.5.1".into(),
        password: format!("password of {number}").into(),
        name: name.into(),
        os: "linux".into(),
        listen_port: 51821,
        public_listen_port: 51821,
        mtu: 1420,
        public_key: WgKey([number; 32]),
        mac_address: [2, 0, 0, 0, 0, number].as_slice().into(),
        traffic_key_public: gob::encode(&[number; 32], Some(&[0x55; 32])).as_slice().into(),
        endpoint_ip: ip(&format!("198.51.100.{}", 100 + number)),
        nat_type: "behind_nat".into(),
        ..Host::default()
    }
}

pub(crate) fn key(name: &str, networks: &[&str]) -> NewKey {
    let networks = networks.iter().map(|name| (*name).to_owned()).collect();
    NewKey { name: name.to_owned(), networks, unlimited: true, ..NewKey::default() }
}

pub(crate) fn ip(text: &str) -> enroll_agent::control::wire::GoIp {
    serde_json::from_value(json!(text)).unwrap()
}

pub(crate) fn clock(seconds: &Arc<AtomicI64>) -> Clock {
    let seconds = seconds.clone();
    Clock::new(move || OffsetDateTime::from_unix_timestamp(seconds.load(Ordering::Relaxed)).unwrap())
}

pub(crate) fn names(document: &Value) -> BTreeSet<&String> {
    document.as_object().unwrap().keys().collect()
}

pub(crate) fn content_type(answer: &Response) -> &str {
    answer.headers().get("content-type").map_or("", |value| value.to_str().unwrap())
}

pub(crate) trait Document {
    /// Reads the body as JSON.
    async fn document<T: DeserializeOwned>(self) -> T;
}

impl Document for Response {
    async fn document<T: DeserializeOwned>(self) -> T {
        serde_json::from_str(&self.text().await.unwrap()).unwrap()
    }
}

pub(crate) async fn message(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.document().await;
    assert_eq!(body["Code"], status);
    (status, body["Message"].as_str().unwrap().to_owned())
}

/// Waits until something holds.
pub(crate) async fn eventually(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), waiting).await.expect("it holds in the end");
}

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// 2026-11-23, in Unix seconds.
pub(crate) const START: i64 = 1_795_448_492;
