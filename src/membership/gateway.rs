//! Choosing the nearest gateway, where the server leaves that to the host.

use super::{MembershipError, Round, Work};
use crate::{
    control::{self, Candidate, Freshness},
    daemon::clock,
    endpoint,
    model::RelayChoice,
    plan::{self, Peers},
};

impl Work {
    /// Measures the gateways of every network that selects one automatically, tells the server which is nearest, and
    /// takes over what comes of it.
    pub async fn select_gateways(&mut self) -> Result<Round, MembershipError> {
        let host_id = self.membership.identity.host_id;
        let pulled = self.call(async |rest| rest.pull(Freshness::Recomputed).await).await?;
        let peers = self.call(async |rest| rest.peer_info(host_id).await).await?;
        let candidates = control::candidates(&pulled, &peers);
        for (network, node) in self.assignment().nodes {
            let Some(listed) = candidates.get(&network).filter(|_| node.relay_choice == RelayChoice::Automatic) else {
                continue;
            };
            let addresses: Vec<_> = listed.iter().map(|Candidate { address, node_id: _ }| *address).collect();
            let distances = endpoint::distances(&addresses, clock::now).await;
            let probed: Vec<_> = listed.iter().map(|candidate| candidate.node_id).zip(distances).collect();
            let current = node.relay.as_ref().map(|relay| relay.node_id);
            let chosen = plan::choose_gateway(current, &probed);
            tracing::info!(%network, ?probed, ?chosen, "gateways were measured");
            if chosen != current {
                self.call(async |rest| rest.choose_gateway(node.id, chosen).await).await?;
            }
        }
        self.round(Peers::Recomputed).await
    }
}
