//! Where this host is seen from outside: asked before the interface takes its port, and looked at again later.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
    time::Instant,
};

use tokio::sync::broadcast;

use super::{MembershipError, OWN_PREFIX, Work};
use crate::{
    endpoint::{Datagram, Door, Look},
    facts, link,
    model::{Assignment, Facts, Outside, StunServer, Switch},
    plan,
};

impl Door for link::SideDoor {
    fn send(&self, message: &[u8], to: SocketAddr) -> io::Result<()> {
        link::SideDoor::send(self, message, to)
    }

    fn listen(&self) -> broadcast::Receiver<Datagram> {
        link::SideDoor::listen(self)
    }
}

/// What is under way, and what the server was not told yet.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    look: Option<Look>,
    untold: bool,
}

impl Work {
    /// What this machine says about itself, with what others told of it.
    pub(super) fn facts(&self) -> Facts {
        Facts { outside: self.membership.seen(), ..facts::gather(&[OWN_PREFIX]) }
    }

    /// Begins to ask where packets from `port` seem to come from, while nobody else has it; nobody waits for the answer.
    ///
    /// `named` are the servers that the enrollment server names, if it did already.
    pub(super) fn look_out(&mut self, port: NonZeroU16, named: &[StunServer]) {
        let servers = self.stun_servers(named);
        if self.lookout.look.is_none() && self.tunnel.last().is_none() && !servers.is_empty() {
            self.lookout.look = Some(Look::begin(Some(port), &servers, &[]));
        }
    }

    /// Ends that, since the interface is about to take the port; what was found by now is noted.
    pub(super) async fn end_look_out(&mut self) {
        let Some(look) = self.lookout.look.take() else { return };
        let found = look.stop().await;
        for seen in found.all() {
            tracing::debug!(address = %seen.address, nat = seen.nat.word(), "seen from outside");
            self.membership.outside.put(seen);
            self.lookout.untold = true;
        }
    }

    /// Tells the server after `changes` which port it really became, and where it is seen: peers have to hear of it.
    pub(super) async fn tell_port(&mut self, assignment: &Assignment, changes: usize) -> Result<(), MembershipError> {
        if changes > 0 && self.tunnel.port() != assignment.listen_port {
            return self.check_in().await;
        }
        if self.lookout.untold
            && let Err(error) = self.check_in().await
        {
            // What was asked of us is done; the next round tells it.
            tracing::warn!(%error, "the server does not know yet where this host is seen");
        }
        Ok(())
    }

    /// Notes that the server knows.
    pub(super) fn note_told(&mut self) {
        self.lookout.untold = false;
    }

    /// Begins to ask again, from WireGuard's own port if the data plane is ours, else from another; `None` when there is
    /// nobody to ask.
    pub fn look_again(&self) -> Option<Look> {
        let assignment = &self.membership.enrolled()?.assignment;
        let servers = self.stun_servers(&assignment.stun);
        if servers.is_empty() || self.membership.switch == Switch::Off {
            return None;
        }
        let inner: Vec<IpAddr> =
            assignment.nodes.values().flat_map(|node| &node.addresses).map(ipnet::IpNet::addr).collect();
        let look = match self.tunnel.side_door() {
            Some((door, port)) => Look::through(&(Arc::new(door) as Arc<dyn Door>), port, &servers, &inner),
            None => Look::begin(None, &servers, &inner),
        };
        Some(look)
    }

    /// Takes in what a later look found; returns whether the server has to be told, which the next round does.
    ///
    /// # Errors
    /// [`MembershipError::Store`] if it cannot be saved; it holds until then.
    pub fn relocate(&mut self, found: Outside) -> Result<bool, MembershipError> {
        let own: Vec<_> =
            facts::networks(&self.membership.interface).iter().map(|neighbour| neighbour.net.addr()).collect();
        let outside = plan::look_again(self.membership.outside, found, self.tunnel.port(), &own);
        if outside == self.membership.outside {
            return Ok(false);
        }
        let addresses: Vec<SocketAddr> = outside.all().map(|seen| seen.address).collect();
        tracing::info!(?addresses, "this host is seen elsewhere from outside");
        self.membership.outside = outside;
        self.lookout.untold = true;
        self.save().map(|()| true)
    }

    /// When peers that are not heard of are to be looked for elsewhere; `None` while there are none.
    pub fn next_trial(&self) -> Option<Instant> {
        self.tunnel.next_trial()
    }

    /// Who is asked: nobody where the owner gave the address or wants nobody asked, else whom the owner names, else
    /// those `named` by the enrollment server. There are no others.
    fn stun_servers(&self, named: &[StunServer]) -> Vec<StunServer> {
        let policy = &self.membership.policy;
        match (policy.endpoint, &policy.stun) {
            (Some(_), _) => Vec::new(),
            (None, Some(choice)) => choice.servers().to_vec(),
            (None, None) => named.to_vec(),
        }
    }

    /// The addresses by which a neighbour behind the same NAT is told.
    pub(super) fn public_addresses(&self) -> Vec<IpAddr> {
        let configured = self.membership.policy.endpoint.map(|endpoint| endpoint.ip());
        configured.into_iter().chain(self.membership.seen().all().map(|seen| seen.address.ip())).collect()
    }
}
