//! Gateways: what is known of those in use, and choosing the nearest where the server leaves that to the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use uuid::Uuid;

use super::{MembershipError, Round, Work};
use crate::{
    control::{self, Candidate, Freshness},
    daemon::clock,
    endpoint,
    model::{Assignment, NetworkName, Node, Phase, RelayChoice},
    plan::{self, Peers, Standing},
};

/// The gateways that a host chose itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaysInUse {
    /// Where those answer probes that do.
    pub answering: BTreeSet<SocketAddr>,
    /// Whether one of them is silent in the tunnel.
    pub any_silent: bool,
    /// Whether a network that should have one has none.
    pub any_lacking: bool,
}

impl Work {
    /// Measures the gateways of every network that selects one automatically, and tells the server which is nearest if
    /// that is another than before.
    ///
    /// Returns the round that takes over what comes of it; `None` if nothing changes.
    pub async fn select_gateways(&mut self) -> Result<Option<Round>, MembershipError> {
        // What the server was told, which the saved assignment does not say yet.
        let mut told: BTreeMap<NetworkName, Option<Uuid>> = BTreeMap::new();
        let mut in_use = BTreeSet::new();
        // Behind a gateway a host is told of no other: the second time is for one that had to be given up.
        for freshness in [Freshness::Cached, Freshness::Recomputed] {
            let choosing: Vec<(NetworkName, Node)> = self.choosing().collect();
            let candidates = self.candidates(freshness).await?;
            let mut given_up = false;
            in_use.clear();
            for (network, node) in choosing {
                let listed = candidates.get(&network).map(Vec::as_slice).unwrap_or_default();
                let saved = node.relay.as_ref().map(|relay| relay.node_id);
                let current = told.get(&network).copied().unwrap_or(saved);
                let Choice { address, chosen } = self.choose(&network, current, &node, listed).await;
                in_use.extend(address);
                if chosen != current {
                    self.call(async |rest| rest.choose_gateway(node.id, chosen).await).await?;
                    given_up |= chosen.is_none();
                    told.insert(network, chosen);
                }
            }
            if !given_up {
                break;
            }
        }
        self.gateways = in_use;
        if told.is_empty() { Ok(None) } else { self.round(Peers::Recomputed).await.map(Some) }
    }

    async fn choose(
        &mut self,
        network: &NetworkName,
        current: Option<Uuid>,
        node: &Node,
        listed: &[Candidate],
    ) -> Choice {
        for Candidate { endpoint, node_id, overlay: _ } in listed {
            self.known_gateways.extend(endpoint.map(|endpoint| (*node_id, endpoint)));
        }
        let known = |candidate: &Candidate| self.known_gateways.get(&candidate.node_id).copied();
        let addresses: Vec<_> = listed.iter().map(|candidate| known(candidate).unwrap_or(candidate.overlay)).collect();
        let measured = endpoint::probe(&addresses, clock::now).await;
        let probed: Vec<_> = listed.iter().map(|candidate| candidate.node_id).zip(measured).collect();
        let current = current.map(|node_id| {
            let place = probed.iter().position(|(other, _)| *other == node_id);
            let answers = place.is_some_and(|place| probed[place].1.answered > 0);
            let answered = place.is_some_and(|place| self.gateways.contains(&addresses[place]));
            let standing = match (self.is_silent(node), answers, answered) {
                (true, _, _) | (false, false, true) => Standing::Dead,
                (false, true, _) => Standing::Answering,
                (false, false, false) => Standing::Mute,
            };
            (node_id, standing)
        });
        let chosen = plan::choose_gateway(current, &probed);
        tracing::info!(%network, ?probed, ?current, ?chosen, "gateways were measured");
        let mut answering = probed.iter().zip(addresses).filter(|((_, probes), _)| probes.answered > 0);
        let address = answering.find(|((node_id, _), _)| Some(*node_id) == chosen).map(|(_, address)| address);
        Choice { address, chosen }
    }

    /// Learns the names and keys of relays that are known by node id only; a failure leaves them unnamed.
    pub(super) async fn name_relays(&mut self) {
        let Phase::Enrolled(enrolled) = &mut self.membership.phase else { return };
        let unnamed = |relay: &crate::model::Relay| relay.public_key.is_none();
        if !enrolled.assignment.nodes.values().filter_map(|node| node.relay.as_ref()).any(unnamed) {
            return;
        }
        match self.rest.peer_info(self.membership.identity.host_id).await {
            Ok(peers) => {
                control::name_relays(&mut enrolled.assignment, &peers);
                if let Err(error) = self.hands.store.save(&self.membership) {
                    tracing::warn!(error = %error, "cannot save the relays' names");
                }
            }
            Err(error) => tracing::debug!(error = %error, "cannot ask for the relays' names"),
        }
    }

    /// A pull names relays by node id only; what was learnt about them before still holds.
    pub(super) fn with_known_relays(&self, mut assignment: Assignment) -> Assignment {
        let Some(enrolled) = self.membership.enrolled() else { return assignment };
        for (name, node) in &mut assignment.nodes {
            let known = enrolled.assignment.nodes.get(name).and_then(|node| node.relay.as_ref());
            if let (Some(relay), Some(known)) = (&mut node.relay, known)
                && relay.node_id == known.node_id
            {
                *relay = known.clone();
            }
        }
        assignment
    }

    /// The gateways in use that this host chose; `None` if it has none to choose.
    pub fn gateways(&self) -> Option<GatewaysInUse> {
        let nodes: Vec<Node> = self.choosing().map(|(_, node)| node).collect();
        let any_silent = nodes.iter().any(|node| self.is_silent(node));
        let any_lacking = nodes.iter().any(|node| node.relay.is_none());
        (!nodes.is_empty()).then(|| GatewaysInUse { answering: self.gateways.clone(), any_lacking, any_silent })
    }

    /// Whether a node's gateway was silent when the interface was last looked at.
    fn is_silent(&self, node: &Node) -> bool {
        let key = node.relay.as_ref().and_then(|relay| relay.public_key);
        let Some((have, key)) = self.tunnel.last().zip(key) else { return false };
        match (have.device.peers.get(&key), have.stats.get(&key)) {
            (Some(peer), Some(stats)) => plan::is_silent(peer, stats),
            (_, _) => false,
        }
    }

    fn choosing(&self) -> impl Iterator<Item = (NetworkName, Node)> {
        let nodes = self.membership.enrolled().map(|enrolled| &enrolled.assignment.nodes).into_iter().flatten();
        let automatic = nodes.filter(|(_, node)| node.relay_choice == RelayChoice::Automatic);
        automatic.map(|(network, node)| (network.clone(), node.clone()))
    }

    /// The gateways that the server offers.
    async fn candidates(
        &mut self,
        freshness: Freshness,
    ) -> Result<BTreeMap<NetworkName, Vec<Candidate>>, MembershipError> {
        let host_id = self.membership.identity.host_id;
        let peers = self.call(async |rest| rest.peer_info(host_id).await).await?;
        let pulled = self.call(async |rest| rest.pull(freshness).await).await?;
        Ok(control::candidates(&pulled, &peers))
    }
}

struct Choice {
    /// Where the chosen one answers probes, if it does.
    address: Option<SocketAddr>,
    chosen: Option<Uuid>,
}
