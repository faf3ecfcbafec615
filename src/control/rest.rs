//! The server's HTTPS API as calls; the only place that knows its paths.
//!
//! The token is part of a path, so no error here carries a URL.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use reqwest::{Client, Method, RequestBuilder, Response, header, redirect};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use super::{
    failure::{Garbled, RestError},
    resolver::Resolver,
    trust::Trust,
    wire,
};
use crate::model::{Identity, Mac, NetworkName, Secret, Server};

/// A conversation with one server over one kept-alive connection.
#[derive(Debug)]
pub struct Rest {
    client: Client,
    jwt: Option<Secret>,
    /// By the server's host: one may send us to another, and back.
    resolvers: BTreeMap<String, Resolver>,
    server: Server,
    trust: Trust,
}

/// What the server answered to a registration.
#[derive(Debug)]
pub struct Registered {
    /// The networks that the key grants; `None` unless the server speaks our extension header.
    pub networks: Option<Vec<NetworkName>>,
    /// The answer itself.
    pub response: wire::RegisterResponse,
}

/// Which peer data a pull asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever the server has in its cache; costs nobody anything.
    Cached,
    /// Computed now; makes the server broadcast to every host (protocol page, "Staleness").
    Recomputed,
}

impl Rest {
    /// Prepares to talk to `server`; nothing is sent yet. `known` are its addresses when it was last talked to, for when
    /// its name cannot be looked up.
    ///
    /// # Errors
    /// [`RestError::Setup`] if the HTTP client cannot be made.
    pub fn new(server: Server, known: &BTreeSet<IpAddr>, trust: Trust) -> Result<Self, RestError> {
        let resolver = Resolver::new(server.host(), known);
        let client = client(&trust, &server, resolver.clone())?;
        let resolvers = BTreeMap::from([(server.host().to_owned(), resolver)]);
        Ok(Self { client, jwt: None, resolvers, server, trust })
    }

    /// Whom this conversation trusts.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Gives up connections that may be dead since this machine moved; what was proven holds on.
    pub fn reconnect(&mut self) -> Result<(), RestError> {
        self.client = client(&self.trust, &self.server, self.resolver())?;
        Ok(())
    }

    /// The server this conversation is with.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Where the server is looked for, under any of its names; empty before the first lookup.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.resolvers.values().flat_map(Resolver::addresses).collect()
    }

    /// Where the server was met, with its certificate; empty before the first time.
    pub fn confirmed(&self) -> BTreeSet<IpAddr> {
        self.resolver().confirmed()
    }

    fn resolver(&self) -> Resolver {
        self.resolvers.get(self.server.host()).cloned().unwrap_or_default()
    }

    /// Goes on with the address the server gave for all further calls.
    ///
    /// # Errors
    /// [`RestError::Setup`] if the HTTP client cannot be made.
    pub fn move_to(&mut self, api: &Server) -> Result<(), RestError> {
        if self.server == *api {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.server, api.clone());
        self.jwt = None;
        if before.host() != api.host() {
            let resolver = || Resolver::new(api.host(), &BTreeSet::new());
            self.resolvers.entry(api.host().to_owned()).or_insert_with(resolver);
            self.reconnect()?;
        }
        Ok(())
    }

    /// Redeems a token: shows it with the host's public facts.
    pub async fn register(&self, token: &Secret, host: &wire::Host) -> Result<Registered, RestError> {
        let path = format!("/api/v1/host/register/{}", token.expose());
        let response = self.send(self.request(Method::POST, &path).json_body(host)?).await?;
        let networks = response.headers().get(wire::NETWORKS_HEADER).and_then(|value| value.to_str().ok());
        let networks = networks.map(|text| text.split(',').filter_map(|name| name.trim().parse().ok()).collect());
        let response = self.read_essentials(response, wire::essential::registration).await?;
        Ok(Registered { networks, response })
    }

    /// Proves that we are the host of `identity`; all further calls need it, for 15 minutes.
    pub async fn authenticate(&mut self, identity: &Identity) -> Result<(), RestError> {
        self.prove(identity.host_id, identity.mac, &identity.password).await
    }

    /// The same with no more of an identity than it takes.
    pub async fn prove(&mut self, host_id: Uuid, mac: Mac, password: &Secret) -> Result<(), RestError> {
        let request =
            wire::AuthRequest { mac_address: mac.to_string(), id: host_id.to_string(), password: password.clone() };
        let sent = self.request(Method::POST, "/api/hosts/adm/authenticate").json_body(&request)?;
        let token: wire::AuthToken = self.unwrap(self.send(sent).await?).await?;
        self.jwt = Some(token.auth_token);
        Ok(())
    }

    /// Reads the host's networks and peers.
    pub async fn pull(&self, freshness: Freshness) -> Result<wire::HostPull, RestError> {
        let path = match freshness {
            Freshness::Cached => "/api/v1/host",
            Freshness::Recomputed => "/api/v1/host?reset_failovered=true",
        };
        let response = self.send(self.request(Method::GET, path)).await?;
        self.read_essentials(response, wire::essential::pull).await
    }

    /// Sends a host update, such as a check-in, over HTTP.
    pub async fn update(&self, host_id: Uuid, update: &wire::HostUpdate) -> Result<(), RestError> {
        let request = self.request(Method::PUT, &format!("/api/v1/fallback/host/{host_id}")).json_body(update)?;
        self.confirm(request).await
    }

    /// Reads who the peers are: names, node ids and addresses by public key.
    pub async fn peer_info(&self, host_id: Uuid) -> Result<wire::PeerInfo, RestError> {
        let request = self.request(Method::GET, &format!("/api/v1/host/{host_id}/peer_info"));
        self.unwrap(self.send(request).await?).await
    }

    /// Tells the server which gateway a node of ours chose; `None` goes without one.
    pub async fn choose_gateway(&self, node_id: Uuid, gateway: Option<Uuid>) -> Result<(), RestError> {
        let chosen = gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        let choice = serde_json::json!({ "auto_relay_gw_id": chosen });
        let path = format!("/api/v1/node/{node_id}/auto_relay_me");
        self.confirm(self.request(Method::PUT, &path).json_body(&choice)?).await
    }

    /// Leaves one network at once.
    pub async fn leave_network(&self, network: &NetworkName, node_id: Uuid) -> Result<(), RestError> {
        let path = format!("/api/nodes/{network}/{node_id}");
        self.confirm(self.request(Method::DELETE, &path).header("requestfrom", "node")).await
    }

    /// Leaves the server: the host and all its nodes are deleted.
    pub async fn delete_host(&self, host_id: Uuid) -> Result<(), RestError> {
        self.confirm(self.request(Method::DELETE, &format!("/api/hosts/{host_id}?force=true"))).await
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let scheme = if self.trust.is_plain(&self.server) { "http" } else { "https" };
        let url = format!("{scheme}://{}:{}{path}", self.server.host(), self.server.port());
        let request = self.client.request(method, url).header(header::ACCEPT, "application/json");
        match &self.jwt {
            Some(jwt) => request.bearer_auth(jwt.expose()),
            None => request,
        }
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, RestError> {
        let sent = request.send().await;
        let response = sent.map_err(|source| RestError::from_sending(&self.server, &source))?;
        if let Some(remote) = response.remote_addr() {
            self.resolver().confirm(remote.ip());
        }
        Ok(response)
    }

    /// Takes any answer of status 200 as a yes; the bodies of these calls say nothing more.
    async fn confirm(&self, request: RequestBuilder) -> Result<(), RestError> {
        let response = self.send(request).await?;
        if response.status().as_u16() == 200 {
            return Ok(());
        }
        Err(self.refusal(response).await)
    }

    /// Reads a JSON document whatever its content type says: the real server sends many as text.
    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, RestError> {
        if response.status().as_u16() != 200 {
            return Err(self.refusal(response).await);
        }
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| self.garbled(&body, &error))
    }

    /// Reads a JSON document; where it is not quite what it should be, `essential` leaves the parts that have to be.
    async fn read_essentials<T: DeserializeOwned>(
        &self,
        response: Response,
        essential: fn(Value) -> Value,
    ) -> Result<T, RestError> {
        if response.status().as_u16() != 200 {
            return Err(self.refusal(response).await);
        }
        let body = self.body(response).await?;
        if body.len() > SMALL_BODY && !wire::essential::is_plausible(&body) {
            return Err(RestError::Garbled { server: self.server.clone(), what: Garbled::TooLong });
        }
        match serde_json::from_slice(&body) {
            Err(error) if error.is_data() => {
                let document = serde_json::from_slice(&body).map_err(|error| self.garbled(&body, &error))?;
                let read = serde_json::from_value(essential(document)).map_err(|error| self.garbled(&body, &error))?;
                tracing::debug!(%error, "parts of the server's answer that are not needed were left out");
                Ok(read)
            }
            read => read.map_err(|error| self.garbled(&body, &error)),
        }
    }

    fn garbled(&self, body: &[u8], error: &serde_json::Error) -> RestError {
        RestError::Garbled { server: self.server.clone(), what: Garbled::from_body(body, error) }
    }

    /// Reads a document that comes in the server's wrapper.
    async fn unwrap<T: DeserializeOwned>(&self, response: Response) -> Result<T, RestError> {
        let wire::Success { response, .. } = self.read(response).await?;
        response.ok_or_else(|| RestError::Garbled { server: self.server.clone(), what: Garbled::NotProtocol })
    }

    pub(super) async fn refusal(&self, response: Response) -> RestError {
        let status = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let body = self.body(response).await.unwrap_or_default();
        let answer: Option<wire::ErrorResponse> = serde_json::from_slice(&body).ok();
        let message = answer.map(|answer| printable(&answer.message)).unwrap_or_default();
        RestError::Status { message, retry_after, server: self.server.clone(), status }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, RestError> {
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|source| RestError::from_reading(&self.server, &source))?
        {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(RestError::Garbled { server: self.server.clone(), what: Garbled::TooLong });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn client(trust: &Trust, server: &Server, resolver: Resolver) -> Result<Client, RestError> {
    let client = Client::builder();
    // What is meant for this machine alone goes through nobody else's hands.
    let client = if trust.is_plain(server) { client.no_proxy() } else { client };
    client
        .tls_backend_preconfigured(rustls::ClientConfig::clone(&trust.api))
        .dns_resolver(resolver)
        .https_only(!trust.is_plain(server))
        .http1_only()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .user_agent(concat!("enroll-agent/", env!("CARGO_PKG_VERSION")))
        .pool_idle_timeout(IDLE_CONNECTION)
        .build()
        .map_err(|source| RestError::Setup { source: source.without_url() })
}

/// Adds a JSON body without reqwest's own serialiser, whose error would carry the URL.
pub(super) trait JsonBody: Sized {
    fn json_body(self, body: &impl Serialize) -> Result<Self, RestError>;
}

impl JsonBody for RequestBuilder {
    fn json_body(self, body: &impl Serialize) -> Result<Self, RestError> {
        let body = serde_json::to_vec(body).map_err(RestError::Encode)?;
        Ok(self.header(header::CONTENT_TYPE, "application/json").body(body))
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The real client's own limit (protocol page, "Generic response bodies").
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than the time between two check-ins: one connection is enough for all.
const IDLE_CONNECTION: Duration = Duration::from_secs(180);

/// A pull of 10,000 peers is about 6 MiB.
const MAX_BODY: usize = 16 << 20;

/// A body that cannot do harm however it is made: an empty node takes 3 bytes of JSON and 2 KiB of memory.
const SMALL_BODY: usize = 64 << 10;

/// What a server says ends up on a terminal: one line, no control characters, at most 200 characters.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(200).collect()
}
