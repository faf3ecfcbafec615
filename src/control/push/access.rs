//! How a server's broker is reached.

use std::sync::Arc;

use rumqttc::{MqttOptions, Transport};
use rustls::ClientConfig;

use super::LARGEST;
use crate::{
    control::{
        seal,
        wire::{self, BrokerAddress, BrokerAddressError},
    },
    model::{Identity, Secret},
};

/// How to reach a server's broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    address: BrokerAddress,
    password: Secret,
    /// The server's public key for sealed messages.
    pub(super) server_key: Option<[u8; 32]>,
    /// The server's own name, part of every topic.
    pub(super) server_name: String,
    user: String,
}

/// Why a broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The server does not say where it is in words we know.
    #[error(transparent)]
    Address(#[from] BrokerAddressError),
    /// The server's name would make other topics of ours.
    #[error("the server's name {0:?} cannot be part of a topic")]
    Name(String),
}

impl Access {
    /// Reads from the server's description of itself how the host of `identity` reaches its broker; `None` if it has
    /// none.
    pub fn new(config: &wire::ServerConfig, identity: &Identity) -> Result<Option<Self>, PushError> {
        if config.broker.is_empty() {
            return Ok(None);
        }
        let address = config.broker.parse()?;
        let server_name = config.server.clone();
        if server_name.is_empty() || server_name.contains(['/', '+', '#']) {
            return Err(PushError::Name(server_name.chars().take(80).collect()));
        }
        // With EMQX every host has an account of its own; the names in the document are placeholders.
        let (user, password) = match config.broker_type.as_str() {
            "emqx" => (identity.host_id.to_string(), identity.password.clone()),
            _ => (config.mq_user_name.clone(), config.mq_password.clone()),
        };
        let server_key = seal::gob::decode(config.traffic_key.as_slice()).ok();
        Ok(Some(Self { address, password, server_key, server_name, user }))
    }

    pub(super) fn options(&self, tls: &Arc<ClientConfig>) -> Result<MqttOptions, BrokerAddressError> {
        let name = client_name();
        let tls = || {
            let mut config = ClientConfig::clone(tls);
            config.alpn_protocols = Vec::new();
            config
        };
        let mut options = match &self.address {
            BrokerAddress::Tcp { host, port } => MqttOptions::new(name, (host.clone(), *port)),
            BrokerAddress::Tls { host, port } => {
                let mut options = MqttOptions::new(name, (host.clone(), *port));
                options.set_transport(Transport::tls_with_config(tls().into()));
                options
            }
            BrokerAddress::WebSocket(url) => match rumqttc::Broker::websocket(url) {
                Ok(broker) => MqttOptions::new(name, broker),
                Err(_) => return Err(BrokerAddressError::of(url)),
            },
            BrokerAddress::WebSocketTls(url) => MqttOptions::websocket_with_tls_config(name, url, tls().into())
                .map_err(|_| BrokerAddressError::of(url))?,
        };
        options.set_credentials(&self.user, self.password.expose().to_owned());
        options.set_keep_alive(KEEPALIVE);
        options.set_max_packet_size(LARGEST, LARGEST);
        Ok(options)
    }
}

fn client_name() -> String {
    let mut name = data_encoding::BASE32_NOPAD.encode(&seal::random::<15>());
    name.truncate(23);
    name
}

/// Seconds; what the real client uses.
const KEEPALIVE: u16 = 15;
