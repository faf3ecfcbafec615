//! Leaving: the server is told first, then the interface goes, then the state. A failure is noted, not obeyed.

use uuid::Uuid;

use super::{
    Hands, HoldWatch, MembershipError, Work,
    bond::{self, Means},
    error::describe,
};
use crate::{
    control::Advice,
    model::{Backend, NetworkName, Server},
    plan::Peers,
};

/// How leaving went.
#[derive(Debug, Default)]
pub struct Farewell {
    /// What did not work, with the step it happened in; everything else was done.
    pub failures: Vec<(&'static str, MembershipError)>,
}

impl Work {
    /// Deletes a node of this host; one that is gone already is what was wanted.
    pub(super) async fn delete_node(&mut self, network: &NetworkName, node_id: Uuid) -> Result<(), MembershipError> {
        match self.call(async |rest| rest.leave_network(network, node_id).await).await {
            Err(MembershipError::Rest(error)) if error.advice() == Advice::Broken => Ok(()),
            other => other,
        }
    }

    /// Deletes this host on the server; one that is gone already is what was wanted.
    pub(super) async fn delete_host(&mut self) -> Result<(), MembershipError> {
        let host_id = self.membership.identity.host_id;
        match self.call(async |rest| rest.delete_host(host_id).await).await {
            Err(MembershipError::Deleted(_)) => Ok(()),
            other => other,
        }
    }

    /// Leaves one network; the membership with the server and its other networks stay.
    pub async fn leave_network(&mut self, network: &NetworkName) -> Result<(), MembershipError> {
        let Some(node_id) = self.assignment().nodes.get(network).map(|node| node.id) else {
            return Err(MembershipError::NotInNetwork(network.clone()));
        };
        self.delete_node(network, node_id).await?;
        self.round(Peers::Recomputed).await.map(|_| ())
    }

    /// Leaves the server: deletes the host there, then the interface, then the state.
    pub async fn leave_server(&mut self) -> Farewell {
        let mut farewell = Farewell::default();
        farewell.note("tell the server", self.delete_host().await);
        farewell.note("remove the interface", self.take_down().await);
        let (server, store) = (&self.membership.server, &self.hands.store);
        let forgotten =
            store.remove(server).and_then(|()| store.forget_inherited(server)).map_err(MembershipError::from);
        farewell.note("forget the membership", forgotten);
        farewell
    }
}

impl Farewell {
    fn note(&mut self, step: &'static str, result: Result<(), MembershipError>) {
        if let Err(error) = result {
            tracing::warn!(step, error = %describe(&error), "leaving goes on");
            self.failures.push((step, error));
        }
    }
}

/// Leaves `server`, or one `network` of it, without a serving agent. What is another machine's is forgotten; the server,
/// which knows it as that one's, is not told.
///
/// # Errors
/// [`MembershipError::NotEnrolled`] if there is nothing to leave. What fails on the way is in the [`Farewell`].
pub async fn leave(
    hands: &Hands,
    server: &Server,
    network: Option<&NetworkName>,
    backend: Option<Backend>,
) -> Result<Farewell, MembershipError> {
    let lock = hands.store.lock(server)?;
    let admitted = match hands.store.load(server)? {
        Some(saved) => bond::admit(hands, saved, None, Means::Act, &mut HoldWatch::default()).await?,
        None if hands.store.is_inherited(server) => None,
        None => return Err(MembershipError::NotEnrolled),
    };
    let Some(membership) = admitted else {
        hands.store.forget_inherited(server)?;
        return Ok(Farewell::default());
    };
    // A userspace interface ended with its process; what is left to remove can only be the kernel's.
    let mut work = Work::new(hands.clone(), lock, membership, backend.unwrap_or(Backend::Kernel))?;
    match network {
        None => Ok(work.leave_server().await),
        Some(network) => work.leave_network(network).await.map(|()| Farewell::default()),
    }
}
