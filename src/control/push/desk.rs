//! Where messages are opened and sorted.

use std::collections::VecDeque;

use rumqttc::{AsyncClient, Publish, PublishOptions};
use tokio::sync::mpsc;

use super::{LARGEST, NAMES, PeerSnapshot, Pushed, SnapshotAge};
use crate::{
    control::{
        seal::{self, PayloadKey, SealError},
        wire::HostAction,
    },
    model::{NetworkName, PrivateKey},
    plan::Hint,
};

/// The topics that are always listened to.
pub(super) struct Topics {
    pub(super) action: String,
    pub(super) peers: String,
    /// The server's own name, the last part of every topic.
    pub(super) server: String,
}

impl Topics {
    /// The network whose names come under `topic`.
    fn network(&self, topic: &str) -> Option<NetworkName> {
        topic.strip_prefix(NAMES)?.strip_suffix(&self.server)?.strip_suffix('/')?.parse().ok()
    }
}

/// The desk.
pub(super) struct Desk {
    pub(super) client: AsyncClient,
    opener: Opener,
    /// What came before the last message with peers, and all actions.
    passed: Passed,
    sender: mpsc::Sender<Pushed>,
    pub(super) topics: Topics,
}

/// Messages that were taken, by their nonces: the protocol itself stops no replays.
#[derive(Debug, Default)]
struct Passed {
    last_peers: Option<Mark>,
    marks: VecDeque<Mark>,
}

/// Enough of a nonce to tell messages apart.
type Mark = [u8; 12];

impl Passed {
    /// Notes peers; returns whether they are older than others that were taken. The last ones may come again, as they
    /// do with every connection.
    fn are_stale(&mut self, payload: &[u8]) -> bool {
        let mark = payload.first_chunk().copied();
        if mark == self.last_peers {
            return false;
        }
        let stale = mark.is_some_and(|mark| self.marks.contains(&mark));
        if !stale {
            let replaced = std::mem::replace(&mut self.last_peers, mark);
            self.note(replaced);
        }
        stale
    }

    /// Notes an action; returns whether it was taken already.
    fn was_obeyed(&mut self, payload: &[u8]) -> bool {
        let mark: Option<Mark> = payload.first_chunk().copied();
        let known = mark.is_some_and(|mark| self.marks.contains(&mark));
        if !known {
            self.note(mark);
        }
        known
    }

    fn note(&mut self, mark: Option<Mark>) {
        self.marks.extend(mark);
        if self.marks.len() > REMEMBERED {
            self.marks.pop_front();
        }
    }
}

impl Desk {
    pub(super) fn new(client: AsyncClient, opener: Opener, sender: mpsc::Sender<Pushed>, topics: Topics) -> Self {
        Self { client, opener, passed: Passed::default(), sender, topics }
    }

    pub(super) async fn take(&mut self, publish: Publish) {
        let Ok(topic) = std::str::from_utf8(&publish.topic) else { return };
        if publish.payload.is_empty() {
            return;
        }
        if let Some(network) = self.topics.network(topic) {
            // The only messages that are not sealed (protocol page, "Node update and DNS sync").
            match serde_json::from_slice(&publish.payload) {
                Ok(entries) => self.pass(Pushed::Names(network, entries)).await,
                Err(error) => tracing::warn!(%error, topic, "pushed names cannot be read"),
            }
            return;
        }
        let text = match self.opener.open(&publish.payload) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, topic, "a message cannot be opened");
                if topic == self.topics.peers {
                    self.pass(Pushed::Spoiled).await;
                }
                return;
            }
        };
        if topic == self.topics.peers {
            if self.passed.are_stale(&publish.payload) {
                tracing::warn!("peers that were replaced already came again, and are not applied");
                return self.pass(Pushed::Spoiled).await;
            }
            match serde_json::from_slice(&text) {
                Ok(update) => {
                    let age = if publish.retain { SnapshotAge::Kept } else { SnapshotAge::Fresh };
                    self.pass(Pushed::Peers(Box::new(PeerSnapshot { age, update }))).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "pushed peers cannot be read");
                    // A pull is read with more patience.
                    self.pass(Pushed::Spoiled).await;
                }
            }
        } else if topic == self.topics.action {
            self.clear(topic);
            if self.passed.was_obeyed(&publish.payload) {
                return;
            }
            match serde_json::from_slice::<Action>(&text) {
                Ok(Action { action }) => self.act(&action).await,
                Err(error) => tracing::warn!(%error, "a pushed action cannot be read"),
            }
        } else {
            self.pass(Pushed::Hint(Hint::Look)).await;
        }
    }

    /// Takes an action off the broker: it would come again with every connection.
    fn clear(&self, topic: &str) {
        let options = PublishOptions::at_most_once().retained();
        if let Err(error) = self.client.try_publish(topic, Vec::new(), options) {
            tracing::warn!(%error, "an action stays at the broker");
        }
    }

    async fn act(&self, action: &HostAction) {
        tracing::debug!(action = action.as_str(), "the server asks for something");
        if let Some(hint) = hint(action) {
            self.pass(Pushed::Hint(hint)).await;
        }
    }

    pub(super) async fn pass(&self, pushed: Pushed) {
        if self.sender.send(pushed).await.is_err() {
            tracing::debug!("nobody takes what is pushed any more");
        }
    }
}

/// The only part of an action that is used: a pull tells the rest.
#[derive(serde::Deserialize)]
struct Action {
    #[serde(rename = "Action", default)]
    action: HostAction,
}

fn hint(action: &HostAction) -> Option<Hint> {
    match action {
        HostAction::DeleteHost => Some(Hint::Delete),
        HostAction::ForceUpgrade | HostAction::Upgrade => Some(Hint::Upgrade),
        HostAction::JoinHostToNetwork => Some(Hint::Join),
        HostAction::RequestAck => Some(Hint::Acknowledge),
        HostAction::RequestPull => Some(Hint::Pull),
        HostAction::CheckAutoAssignGateway => Some(Hint::SelectGateway),
        HostAction::SignalPull | HostAction::UpdateHost => Some(Hint::Look),
        HostAction::UpdateKeys => Some(Hint::RotateKeys),
        HostAction::Ack
        | HostAction::CheckIn
        | HostAction::EgressUpdate
        | HostAction::SignalHost
        | HostAction::UpdateMetrics
        | HostAction::UpdateNode
        | HostAction::Other(_) => None,
    }
}

/// Opens messages in whichever of the two formats they come.
pub(super) struct Opener {
    pub(super) key: Option<PayloadKey>,
    pub(super) secret: PrivateKey,
    pub(super) server_key: Option<[u8; 32]>,
}

impl Opener {
    fn open(&self, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        let first =
            self.key.as_ref().ok_or(SealError::Broken).and_then(|key| seal::open_payload(key, payload, LARGEST));
        match (first, &self.server_key) {
            (Err(SealError::Broken | SealError::TooShort(_)), Some(server_key)) => {
                seal::open_box(server_key, self.secret.as_bytes(), payload)
            }
            (first, _) => first,
        }
    }
}

/// How many messages are recognised when they come again.
const REMEMBERED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_both_formats_and_nothing_else() {
        let (server, own) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32]));
        let encoded = seal::gob::encode(&own.public_key().0, Some(&[9; 32]));
        let key = PayloadKey::from_traffic_key(&encoded).unwrap();
        let opener = Opener { key: Some(key.clone()), secret: own.clone(), server_key: Some(server.public_key().0) };
        let text = br#"{"Action":"REQ_PULL"}"#;

        let sealed = seal::seal_payload(&key, seal::random(), text);
        let boxed = seal::seal_box(&own.public_key().0, server.as_bytes(), text, seal::random);
        let foreign = seal::seal_box(&own.public_key().0, &[7; 32], text, seal::random);

        assert_eq!(opener.open(&sealed).unwrap(), text);
        assert_eq!(opener.open(&boxed).unwrap(), text);
        assert!(matches!(opener.open(&foreign), Err(SealError::Broken)));
        assert!(opener.open(b"short").is_err());
    }

    #[test]
    fn peers_that_were_replaced_are_stale_and_the_last_ones_are_not() {
        let mut passed = Passed::default();
        let (first, second) = ([1; 40], [2; 40]);

        assert!(!passed.are_stale(&first) && !passed.are_stale(&second));
        assert!(!passed.are_stale(&second), "they come with every connection");
        assert!(passed.are_stale(&first));
        assert!(!passed.are_stale(&second), "what is stale replaces nothing");
    }

    #[test]
    fn an_action_is_obeyed_once() {
        let mut passed = Passed::default();

        assert!(!passed.was_obeyed(&[1; 40]));
        assert!(passed.was_obeyed(&[1; 40]));
        for number in 0..=u16::try_from(REMEMBERED).unwrap() {
            let mut message = [9; 40];
            message[..2].copy_from_slice(&number.to_be_bytes());
            assert!(!passed.was_obeyed(&message));
        }
        assert!(passed.marks.len() <= REMEMBERED);
    }
}
