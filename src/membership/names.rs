//! Names of the networks: where they are learnt from, and who resolves them on this machine.

use super::{MembershipError, News, Round, Work, error::describe};
use crate::{
    control::{self, wire},
    dns::{Dns, DnsError, Machine},
    model::{
        Assignment, Connection, DnsManager, DnsStatus, InterfaceName, Membership, Names, NetworkName, Report, Status,
        Switch,
    },
    plan::{self, LinkNames},
    store::Store,
};

/// Who resolves the names of one membership.
#[derive(Debug, Default)]
pub(super) struct Resolution {
    /// `None` while no agent serves the membership: whoever answers has to stay.
    dns: Option<Dns>,
    interface: Option<InterfaceName>,
    names: LinkNames,
    result: Option<Result<Option<DnsManager>, DnsError>>,
}

impl Resolution {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Resolves these names and no others.
    async fn apply(&mut self, interface: &InterfaceName, names: LinkNames) {
        if self.interface.as_ref().is_some_and(|before| before != interface) {
            self.end().await;
        }
        let Some(dns) = &mut self.dns else { return };
        self.interface = Some(interface.clone());
        self.names = names;
        let result = dns.apply(interface, &self.names).await;
        if let Err(error) = &result
            && !matches!(self.result, Some(Err(_)))
        {
            tracing::warn!(%interface, error = %words(error), "names are not resolved");
        }
        self.result = Some(result);
    }

    /// Resolves nothing any more.
    pub(super) async fn end(&mut self) {
        let (Some(dns), Some(interface)) = (&mut self.dns, self.interface.take()) else { return };
        if let Err(error) = dns.release(&interface).await {
            tracing::warn!(%interface, error = %words(&error), "names are still asked at the interface");
        }
        self.names = LinkNames::default();
        self.result = None;
    }
}

impl Work {
    /// Has names resolved as long as this work goes on: it is served from now on.
    pub fn serve_names(&mut self) {
        self.resolution.dns = Some(Dns::new(Machine::default()));
    }

    /// Has this machine resolve the names that `assignment` brings; a failure is seen in the status.
    pub(super) async fn put_names_in_order(&mut self, assignment: &Assignment) {
        let names = link_names(&self.membership, assignment);
        self.resolution.apply(&self.membership.interface, names).await;
    }

    /// How names are resolved; `None` when that is nobody's business.
    pub(super) fn dns_status(&self) -> Option<DnsStatus> {
        let Resolution { dns, interface: _, names, result } = &self.resolution;
        let enrolled = self.membership.enrolled()?;
        if dns.is_none() || enrolled.assignment.names == Names::default() {
            return None;
        }
        let manager = match result {
            Some(Ok(manager)) => *manager,
            Some(Err(_)) | None => None,
        };
        Some(DnsStatus {
            domains: names.domains.keys().map(ToString::to_string).collect(),
            everything: !names.answers.rest.is_empty(),
            hosts: names.answers.hosts.len(),
            manager,
            mode: self.membership.policy.dns,
            note: result.as_ref().and_then(|result| result.as_ref().err()).map(words),
        })
    }

    /// A pull does not name hosts; what was learnt about them before still holds in the networks that it lists.
    pub(super) fn with_known_names(&self, mut assignment: Assignment) -> Assignment {
        let Some(enrolled) = self.membership.enrolled() else { return assignment };
        let known = &enrolled.assignment.names;
        if assignment.names.domain.is_some() && assignment.names.domain == known.domain {
            let (nodes, hosts) = (&assignment.nodes, &known.hosts);
            let held = hosts.iter().filter(|(network, _)| nodes.contains_key(network));
            assignment.names.hosts = held.map(|(network, names)| (network.clone(), names.clone())).collect();
        }
        assignment
    }

    /// Asks the server for the names in the networks, where nothing is pushed that tells them; a failure leaves them.
    pub(super) async fn learn_names(&mut self, before: &Assignment, assignment: &mut Assignment) {
        let connected = assignment.nodes.iter().filter(|(_, node)| node.connection == Connection::Connected);
        let networks = connected.map(|(network, _)| network).filter(|network| assignment.names.zone(network).is_some());
        let is_told = networks.clone().all(|network| assignment.names.hosts.contains_key(network));
        let is_wanted = self.resolution.dns.is_some() && assignment.names.domain.is_some() && networks.count() > 0;
        if !is_wanted || is_told && before.peers == assignment.peers {
            return;
        }
        match self.rest.peer_info(self.membership.identity.host_id).await {
            Ok(peers) => assignment.names.hosts.extend(control::peer_names(&peers, assignment)),
            Err(error) => tracing::debug!(%error, "cannot ask for the names in the networks"),
        }
    }

    /// Takes over the names in `network` that were told to everybody.
    pub async fn take_names(
        &mut self,
        network: &NetworkName,
        entries: &[wire::DnsEntry],
    ) -> Result<Round, MembershipError> {
        let before = self.assignment();
        let told = control::told_names(entries, network, &before.names);
        if !before.nodes.contains_key(network) || before.names.domain.is_none() {
            return Ok(Round { changes: 0, news: News::Nothing });
        }
        if before.names.hosts.get(network) == Some(&told) {
            return Ok(Round { changes: 0, news: News::Nothing });
        }
        let mut now = before;
        now.names.hosts.insert(network.clone(), told);
        if self.membership.switch == Switch::On {
            self.put_names_in_order(&now).await;
        }
        self.keep(now)?;
        Ok(Round { changes: 0, news: News::Details })
    }
}

/// Decides what names are resolved for a membership.
fn link_names(membership: &Membership, assignment: &Assignment) -> LinkNames {
    plan::link_names(assignment, membership.policy.dns, &plan::own_names(membership))
}

/// Has the interfaces of memberships that were served resolve nothing any more.
pub async fn end_names(report: &Report) {
    let resolving = |status: &&Status| status.dns.as_ref().is_some_and(|dns| dns.manager.is_some());
    for Status { interface, .. } in report.memberships.iter().filter(resolving) {
        release(interface).await;
    }
}

/// Has the interfaces of all saved memberships resolve nothing, as after an agent that could not do so itself.
///
/// # Errors
/// [`MembershipError::Store`] if the memberships cannot be read.
pub async fn release_names(store: &Store) -> Result<(), MembershipError> {
    for server in store.servers()? {
        // One that cannot be read hinders no other.
        match store.load(&server) {
            Ok(Some(membership)) => release(&membership.interface).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%server, error = %describe(&error.into()), "names stay as they are"),
        }
    }
    Ok(())
}

pub(super) async fn release(interface: &InterfaceName) {
    if let Err(error) = Dns::new(Machine::default()).release(interface).await {
        tracing::warn!(%interface, error = %words(&error), "names are still asked at the interface");
    }
}

/// What happened, with its causes.
fn words(error: &DnsError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
