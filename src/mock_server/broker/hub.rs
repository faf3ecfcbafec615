//! Who listens to what, and the messages that stay: the broker without its connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rumqttc::{matches, valid_filter, valid_topic};
use tokio::sync::mpsc;

/// A message on its way to a client.
#[derive(Clone, Debug)]
pub(in crate::mock_server) struct Delivery {
    pub(in crate::mock_server) topic: String,
    pub(in crate::mock_server) payload: Bytes,
    /// It was there before the client asked.
    pub(in crate::mock_server) retained: bool,
}

/// What keeps a message after it was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mock_server) enum Keep {
    /// Nothing.
    Not,
    /// It stays for those who subscribe later; an empty one removes what stays.
    Retained,
}

/// The broker's state; all its connections share it.
#[derive(Clone, Default)]
pub(in crate::mock_server) struct Hub(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    clients: BTreeMap<u64, Client>,
    next: u64,
    retained: BTreeMap<String, Bytes>,
    is_down: bool,
    /// Who wants to know what clients subscribe to.
    watcher: Option<mpsc::UnboundedSender<String>>,
}

struct Client {
    name: String,
    /// Filters that are topics.
    topics: BTreeSet<String>,
    /// Filters that may match many topics.
    wildcards: BTreeSet<String>,
    out: mpsc::Sender<Delivery>,
}

impl Hub {
    /// Lets a client in; the one of the same name is put out, and so is everybody while the broker is down.
    pub(in crate::mock_server) fn connect(&self, name: &str) -> (u64, mpsc::Receiver<Delivery>) {
        let (out, deliveries) = mpsc::channel(QUEUE);
        let mut state = self.lock();
        state.clients.retain(|_, other| other.name != name);
        state.next += 1;
        let id = state.next;
        if !state.is_down {
            let (topics, wildcards) = (BTreeSet::new(), BTreeSet::new());
            state.clients.insert(id, Client { name: name.to_owned(), topics, wildcards, out });
        }
        (id, deliveries)
    }

    pub(in crate::mock_server) fn disconnect(&self, id: u64) {
        self.lock().clients.remove(&id);
    }

    /// Adds a filter, and sends what stays for it; false if the filter is none.
    pub(in crate::mock_server) fn subscribe(&self, id: u64, filter: &str) -> bool {
        if !valid_filter(filter) {
            return false;
        }
        let mut state = self.lock();
        let State { clients, retained, .. } = &mut *state;
        let Some(client) = clients.get_mut(&id) else { return false };
        let kept = |topic: &String, payload: &Bytes| {
            let (topic, payload) = (topic.clone(), payload.clone());
            Delivery { topic, payload, retained: true }
        };
        if filter.contains(['+', '#']) {
            client.wildcards.insert(filter.to_owned());
            for (topic, payload) in retained.iter().filter(|(topic, _)| matches(topic, filter)) {
                client.send(kept(topic, payload));
            }
        } else {
            client.topics.insert(filter.to_owned());
            if let Some((topic, payload)) = retained.get_key_value(filter) {
                client.send(kept(topic, payload));
            }
        }
        if let Some(watcher) = &state.watcher {
            // Whoever watched is gone only when the server ends.
            drop(watcher.send(filter.to_owned()));
        }
        true
    }

    /// What clients subscribe to from now on.
    pub(in crate::mock_server) fn subscriptions(&self) -> mpsc::UnboundedReceiver<String> {
        let (watcher, subscriptions) = mpsc::unbounded_channel();
        self.lock().watcher = Some(watcher);
        subscriptions
    }

    /// Removes what stays on a topic, and tells nobody.
    pub(in crate::mock_server) fn forget(&self, topic: &str) {
        self.lock().retained.remove(topic);
    }

    /// Tells whether somebody listens to a topic.
    pub(in crate::mock_server) fn is_heard(&self, topic: &str) -> bool {
        self.lock().clients.values().any(|client| client.listens(topic))
    }

    pub(in crate::mock_server) fn unsubscribe(&self, id: u64, filter: &str) {
        if let Some(client) = self.lock().clients.get_mut(&id) {
            client.topics.remove(filter);
            client.wildcards.remove(filter);
        }
    }

    /// Passes a message to everybody who listens; false if its topic is none.
    pub(in crate::mock_server) fn publish(&self, topic: &str, payload: &Bytes, keep: Keep) -> bool {
        if topic.is_empty() || !valid_topic(topic) {
            return false;
        }
        let mut state = self.lock();
        match keep {
            Keep::Not => {}
            Keep::Retained if payload.is_empty() => drop(state.retained.remove(topic)),
            Keep::Retained => drop(state.retained.insert(topic.to_owned(), payload.clone())),
        }
        for client in state.clients.values().filter(|client| client.listens(topic)) {
            client.send(Delivery { topic: topic.to_owned(), payload: payload.clone(), retained: false });
        }
        true
    }

    /// Puts every client out but the server itself, and lets none in until [`Hub::bring_up`].
    pub(in crate::mock_server) fn take_down(&self) {
        let mut state = self.lock();
        state.is_down = true;
        state.clients.retain(|_, client| client.name == OWN_NAME);
    }

    pub(in crate::mock_server) fn bring_up(&self) {
        self.lock().is_down = false;
    }

    pub(in crate::mock_server) fn is_up(&self) -> bool {
        !self.lock().is_down
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn listens(&self, topic: &str) -> bool {
        self.topics.contains(topic) || self.wildcards.iter().any(|filter| matches(topic, filter))
    }

    /// Sends at quality of service 0: a client that does not keep up misses messages.
    fn send(&self, delivery: Delivery) {
        if self.out.try_send(delivery).is_err() {
            tracing::debug!(client = %self.name, "message dropped for a slow client");
        }
    }
}

/// The server's own name; a client without a name is given one, so that none has this.
pub(in crate::mock_server) const OWN_NAME: &str = "";

/// Messages that may wait for one client.
const QUEUE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_of_a_topic_stays_until_an_empty_one() {
        let hub = Hub::default();
        for payload in ["one", "two"] {
            assert!(hub.publish("host/update/a/s", &payload.into(), Keep::Retained));
        }
        let (client, mut deliveries) = hub.connect("a");

        assert!(hub.subscribe(client, "host/update/a/s"));

        let kept = deliveries.try_recv().expect("a message stays");
        assert_eq!((kept.payload, kept.retained), ("two".into(), true));
        assert!(hub.publish("host/update/a/s", &Bytes::new(), Keep::Retained));
        let cleared = deliveries.try_recv().expect("listeners see the empty message");
        assert_eq!((cleared.payload, cleared.retained), (Bytes::new(), false));
        let (late, mut deliveries) = hub.connect("b");
        assert!(hub.subscribe(late, "#"));
        assert!(deliveries.try_recv().is_err(), "nothing stays");
    }

    #[test]
    fn a_message_reaches_each_listener_once() {
        let hub = Hub::default();
        let (client, mut deliveries) = hub.connect("a");
        for filter in ["host/+/a/s", "host/#"] {
            assert!(hub.subscribe(client, filter));
        }

        hub.publish("host/update/a/s", &"one".into(), Keep::Not);

        assert!(deliveries.try_recv().is_ok());
        assert!(deliveries.try_recv().is_err());
    }

    #[test]
    fn a_topic_is_heard_while_somebody_listens() {
        let hub = Hub::default();
        let mut subscriptions = hub.subscriptions();
        let (client, _deliveries) = hub.connect("a");
        for filter in ["peers/host/a/s", "host/#"] {
            assert!(!hub.is_heard(filter));
            assert!(hub.subscribe(client, filter));
            assert_eq!(subscriptions.try_recv(), Ok(filter.to_owned()));
        }

        assert!(hub.is_heard("peers/host/a/s") && hub.is_heard("host/update/a/s") && !hub.is_heard("peers/host/b/s"));
        hub.unsubscribe(client, "peers/host/a/s");
        assert!(!hub.is_heard("peers/host/a/s"));
        hub.disconnect(client);
        assert!(!hub.is_heard("host/update/a/s"));
    }

    #[test]
    fn topics_and_filters_are_checked() {
        let hub = Hub::default();
        let (client, _deliveries) = hub.connect("a");

        assert!(!hub.subscribe(client, "host/#/more"));
        assert!(!hub.publish("host/+", &"one".into(), Keep::Retained));
        assert!(!hub.publish("", &"one".into(), Keep::Retained));
    }

    #[test]
    fn a_second_client_of_a_name_puts_the_first_out() {
        let hub = Hub::default();
        let (_, mut first) = hub.connect("a");

        let (_, mut second) = hub.connect("a");

        assert!(matches!(first.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        assert!(matches!(second.try_recv(), Err(mpsc::error::TryRecvError::Empty)));
    }
}
