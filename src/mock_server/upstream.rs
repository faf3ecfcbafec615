//! What hosts send through the broker: opened, and handled as if it had come by the fallback.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    audit::Actor,
    broker::{Admits, Delivery, Login},
    debounce::{Audience, Broadcast},
    messages::{self, MessageError, Origin},
    publisher::Publisher,
    secrets::{password_matches, same},
    server::Server,
};
use crate::control::wire::{Host, HostAction, HostUpdate};

impl Publisher {
    pub(super) async fn received(&mut self, delivery: Delivery) {
        let Delivery { topic, payload, retained: _ } = delivery;
        match Origin::of(&topic, &self.server.config().server) {
            Some(Origin::Host(host)) => self.received_update(host, &payload).await,
            Some(Origin::Node(node)) => self.received_byte(node, &payload),
            None => tracing::debug!(topic, "message on an unknown topic"),
        }
    }

    async fn received_update(&mut self, id: Uuid, payload: &[u8]) {
        let Some(host) = self.host(id) else {
            return tracing::debug!(host = %id, "message from an unknown host");
        };
        let update = match read(&host, &self.server.traffic_key(), payload) {
            Ok(update) => update,
            Err(error) => return tracing::warn!(host = %id, error = %error, "message from a host dropped"),
        };
        self.server.faults().observe("MQTT", &format!("/{}", update.action.as_str()), &[]);
        match update.action {
            HostAction::Ack => self.acknowledged(id).await,
            HostAction::CheckIn | HostAction::DeleteHost | HostAction::SignalHost | HostAction::UpdateHost => {
                if let Err(refusal) = self.server.host_update(&Actor::Device, id, update) {
                    tracing::warn!(host = %id, error = %refusal, "message from a host refused");
                }
            }
            HostAction::CheckAutoAssignGateway
            | HostAction::EgressUpdate
            | HostAction::ForceUpgrade
            | HostAction::JoinHostToNetwork
            | HostAction::Other(_)
            | HostAction::RequestAck
            | HostAction::RequestPull
            | HostAction::SignalPull
            | HostAction::UpdateKeys
            | HostAction::UpdateMetrics
            | HostAction::UpdateNode
            | HostAction::Upgrade => {}
        }
    }

    /// A node says that it has done what it was told; everybody hears of its peers again.
    fn received_byte(&mut self, node: Uuid, payload: &[u8]) {
        let known = self.node(node).and_then(|node| Some((self.host(node.host_id)?, node.network)));
        let Some((host, network)) = known else {
            return tracing::debug!(%node, "message from an unknown node");
        };
        match messages::open(&host, &self.server.traffic_key(), payload) {
            Ok(text) if text == [DONE] => self.debounce.ask(Broadcast::Ordinary, Audience::network(network)),
            Ok(_) => {}
            Err(error) => tracing::warn!(%node, error = %error, "message from a node dropped"),
        }
    }
}

impl Server {
    /// Who may connect to the broker inside.
    pub(super) fn broker_admits(&self, login: Login) -> Admits {
        let server = self.clone();
        Arc::new(move |user, password| {
            let Ok(password) = std::str::from_utf8(password) else { return false };
            match login {
                Login::Host => {
                    let Ok(host) = Uuid::parse_str(user) else { return false };
                    let hash = server.read(|world, _| world.host(host).map(|host| host.password.clone()));
                    matches!(hash, Ok(Ok(hash)) if password_matches(password, hash.expose()))
                }
                Login::Shared => {
                    let config = server.config();
                    user == config.mq_user_name && same(password, config.mq_password.expose())
                }
            }
        })
    }
}

fn read(host: &Host, private: &[u8; 32], payload: &[u8]) -> Result<HostUpdate, MessageError> {
    Ok(serde_json::from_slice(&messages::open(host, private, payload)?)?)
}

/// What a node sends after it has followed a change.
const DONE: u8 = 2;
