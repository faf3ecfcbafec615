//! What the server's broker is good for: where it is, and peers that come from it.

use super::{
    MembershipError, News, Round, Work,
    round::lists_differ,
    tunnel::{self, Look},
};
use crate::{
    control::{self, Access, PeerSnapshot, Push, PushedPeers, SnapshotAge},
    model::{Assignment, Names, NetworkName},
    plan::Peers,
};

impl Work {
    /// How to reach the server's broker, as the last pull told; `None` when it has none that we can use, or nothing was
    /// pulled yet.
    pub fn push_access(&self) -> Option<Access> {
        match Access::new(self.server_config.as_ref()?, &self.membership.identity) {
            Ok(access) => access,
            Err(error) => {
                tracing::warn!(%error, "changes are pulled, since the broker cannot be used");
                None
            }
        }
    }

    /// Begins to listen to the server's broker.
    pub fn listen(&self, access: &Access) -> Result<Push, MembershipError> {
        let port = tunnel::listen_port(&self.membership, self.tunnel.last())?;
        let host = control::host(&self.membership, &self.facts(), port);
        let push = Push::open(access, &self.membership.identity, host, &self.rest.trust().broker)?;
        self.follow(&push);
        Ok(push)
    }

    /// Listens to the nodes of this host, and to no others.
    pub fn follow(&self, push: &Push) {
        let nodes = self.membership.enrolled().map(|enrolled| &enrolled.assignment.nodes);
        let nodes = nodes.into_iter().flatten();
        push.follow(nodes.map(|(network, node): (&NetworkName, _)| (network, node.id)));
    }

    /// Applies peers and access rules that were pushed, and saves them; everything else is told by pulls.
    ///
    /// # Errors
    /// [`MembershipError::Assignment`] if they cannot be used; the interface is as it was then.
    pub async fn take_in(&mut self, snapshot: &PeerSnapshot) -> Result<Round, MembershipError> {
        let PeerSnapshot { age, update } = snapshot;
        let before = self.assignment();
        let pushed = control::pushed_peers(update, &self.membership.identity).map_err(|error| self.unusable(error))?;
        if before.nodes.is_empty() {
            return Ok(Round { changes: 0, news: News::Nothing });
        }
        let PushedPeers { access, default_gateway, names, nearby, peers, remarks, route_metrics } = pushed;
        let names = Names { hosts: before.names.hosts.clone(), ..names };
        let mut now = Assignment { access, default_gateway, names, nearby, peers, route_metrics, ..before.clone() };
        now.remarks.retain(|remark| !remark.comes_with_peers());
        now.remarks.extend(remarks);
        if *age == SnapshotAge::Kept && lists_differ(&before, &now) {
            // Which of both is older, a peer or a rule that was revoked meanwhile, only a computation tells.
            if self.may_clarify() {
                return self.round(Peers::Recomputed).await;
            }
            // Until then whoever is in one of them only may have been revoked.
            let known = before.peers.iter().filter(|(key, _)| now.peers.contains_key(*key));
            now = Assignment { peers: known.map(|(key, peer)| (*key, peer.clone())).collect(), ..before.clone() };
        }
        // Whoever else changes the interface is told of by the kernel, and a look follows.
        self.take_over(&before, now, Look::Remembered).await
    }
}
