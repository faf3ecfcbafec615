//! The messages the publisher sends, each made from the world as it is now.

use std::{collections::BTreeSet, mem};

use serde::Serialize;
use uuid::Uuid;

use super::{
    broker::Repeat,
    debounce::Audience,
    messages::{self, Change, action, dns_topics, host_of_peers_topic, host_topic, peers_topic},
    publisher::Publisher,
};
use crate::control::wire::{Host, HostAction, HostUpdate, Node, Signal};

impl Publisher {
    /// Asks for an action; a host that is gone is asked for nothing.
    pub(super) async fn ask(&mut self, host: Uuid, what: HostAction) {
        if let Some(host) = self.host(host) {
            self.send(&host, host_topic(host.id, &self.name), &action(what, &host)).await;
        }
    }

    pub(super) async fn tell_join(&mut self, host: Uuid, node: Uuid) {
        let (Some(host), Some(node)) = (self.host(host), self.node(node)) else { return };
        let update = HostUpdate { node, ..action(HostAction::JoinHostToNetwork, &host) };
        self.send(&host, host_topic(host.id, &self.name), &update).await;
    }

    /// Passes on a message between hosts.
    pub(super) async fn signal(&mut self, to: Uuid, signal: Signal) {
        if let Some(host) = self.host(to) {
            let update = HostUpdate { signal, ..action(HostAction::SignalHost, &host) };
            self.send(&host, host_topic(to, &self.name), &update).await;
        }
    }

    /// Asks the hosts of nodes that are free to choose a gateway to do so; only the Pro server does.
    pub(super) async fn ask_to_choose(&mut self, which: impl Fn(&Node) -> bool) {
        if !self.server.config().is_ee {
            return;
        }
        let choosing = self.server.read(|world, _| {
            let free = |node: &&Node| node.auto_assign_gateway && !node.is_gateway && which(node);
            world.nodes.values().filter(free).cloned().collect::<Vec<_>>()
        });
        for node in choosing.unwrap_or_default() {
            let Some(host) = self.host(node.host_id) else { continue };
            let update = HostUpdate { node, ..action(HostAction::CheckAutoAssignGateway, &host) };
            self.send(&host, host_topic(host.id, &self.name), &update).await;
        }
    }

    /// Tells everybody the names in a network, if the server manages names at all.
    pub(super) async fn tell_names(&mut self, network: &str) {
        let config = self.server.config();
        if !config.manage_dns {
            return;
        }
        let names = self.server.read(|world, _| world.names(network, &config.default_domain)).unwrap_or_default();
        let Ok(text) = serde_json::to_vec(&names) else { return };
        for topic in dns_topics(network, &self.name) {
            self.link.publish(topic, text.clone()).await;
        }
    }

    /// Tells hosts their peers: those that listen, and the others once they do.
    pub(super) async fn tell_peers(&mut self, change: &Change, audience: &Audience) {
        let Audience { everybody, networks, hosts } = audience;
        let concerned = self.server.read(|world, _| match everybody {
            true => world.hosts.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(),
            false => world.hosts_in(networks).union(hosts).copied().collect(),
        });
        for host in concerned.unwrap_or_default() {
            let topic = peers_topic(host, &self.name);
            if let Some(hub) = self.link.hub().filter(|hub| !hub.is_heard(&topic)) {
                hub.forget(&topic);
                self.owed.entry(host).or_default().extend(change.clone());
                continue;
            }
            self.tell_peers_of(host, change).await;
            tokio::task::yield_now().await;
        }
    }

    /// Tells what is owed to a host that begins to listen; to all of them, if many may.
    pub(super) async fn subscribed(&mut self, filter: &str) {
        let listening: Vec<_> = match host_of_peers_topic(filter, &self.name) {
            Some(host) => self.owed.contains_key(&host).then_some(host).into_iter().collect(),
            None => self.owed.keys().copied().collect(),
        };
        for host in listening {
            let heard = self.link.hub().is_none_or(|hub| hub.is_heard(&peers_topic(host, &self.name)));
            if let Some(change) = heard.then(|| self.owed.remove(&host)).flatten() {
                self.tell_peers_of(host, &change).await;
            }
        }
    }

    pub(super) async fn tell_peers_of(&mut self, host: Uuid, change: &Change) {
        let config = self.server.config();
        let update = self.server.read(|world, now| world.peer_update(host, config, change, now));
        // A host that is gone meanwhile needs no peers.
        let Ok(Ok(update)) = update else { return };
        self.hosts.insert(host, update.host.clone());
        self.send(&update.host, peers_topic(host, &self.name), &update).await;
    }

    pub(super) async fn send(&mut self, host: &Host, topic: String, document: &impl Serialize) {
        let payload = match messages::seal(host, &self.server.traffic_key(), document) {
            Ok(payload) => payload,
            Err(error) => return tracing::debug!(host = %host.id, error = %error, "message not sent"),
        };
        if self.server.faults().is_recording() {
            let sent = self.sent.entry((host.id, topic.clone())).or_default();
            let before = mem::replace(&mut sent.last, payload.clone());
            sent.stale = Some(before).filter(|before| !before.is_empty());
        }
        self.link.publish(topic, payload).await;
    }

    /// Sends messages again, as a broker or a network in trouble would.
    pub(super) async fn repeat(&self, to: Uuid, which: Repeat) {
        for ((_, topic), sent) in self.sent.iter().filter(|((host, _), _)| *host == to) {
            let payload = match which {
                Repeat::Last => Some(&sent.last),
                Repeat::Stale => sent.stale.as_ref(),
            };
            if let Some(payload) = payload {
                self.link.publish(topic.clone(), payload.clone()).await;
            }
        }
    }
}
