//! Making the interface what the assignment says: observe, decide, change.

use std::{net::IpAddr, num::NonZeroU16};

use crate::{
    facts,
    link::{self, AnyLink, Link},
    model::{Assignment, Backend, FirewallStatus, InterfaceName, Membership, Observation},
    plan::{self, Change, Surroundings},
};

use super::{MembershipError, fence::Fence};

/// The interface of one membership, open for changes.
#[derive(Debug)]
pub struct Tunnel {
    backend: Backend,
    fence: Fence,
    /// What this machine did not take of the last plan, as IPv6 addresses where IPv6 is off; not asked for again.
    futile: Vec<Change>,
    /// What the interface looked like last; `None` when there was none.
    last: Option<Observation>,
    link: AnyLink,
}

impl Tunnel {
    /// Opens the interface of `membership`; nothing is changed yet.
    pub fn open(backend: Backend, membership: &Membership) -> Result<Self, MembershipError> {
        let keys = membership.identity.interface_keys();
        let link = link::open(backend, membership.interface.clone(), keys)?;
        let fence = Fence::new(membership.interface.clone());
        Ok(Self { backend, fence, futile: Vec::new(), last: None, link })
    }

    /// Who carries the packets.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Looks at the interface.
    pub async fn observe(&mut self) -> Result<Option<&Observation>, MembershipError> {
        self.last = self.link.observe().await?;
        Ok(self.last.as_ref())
    }

    /// What the interface looked like when it was last looked at; `None` when there was none.
    pub fn last(&self) -> Option<&Observation> {
        self.last.as_ref()
    }

    /// What became of the server's access rules; `None` before the interface was put in order.
    pub fn firewall(&self) -> Option<FirewallStatus> {
        self.fence.status()
    }

    /// The UDP port when it was last looked at.
    pub fn port(&self) -> Option<NonZeroU16> {
        self.last.as_ref().and_then(|have| have.device.listen_port)
    }

    /// Brings the packet filter and then the interface in step with `assignment`; returns how many changes the
    /// interface took.
    ///
    /// `server` is the enrollment server's address, which no route may take into the tunnel.
    pub async fn apply(
        &mut self,
        membership: &Membership,
        assignment: &Assignment,
        server: Option<IpAddr>,
    ) -> Result<usize, MembershipError> {
        let surroundings = surroundings(membership, server);
        let assignment = &*self.fence.prepare(assignment, membership.policy.firewall).await;
        self.observe().await?;
        let changes = changes(membership, assignment, self.last.as_ref(), &surroundings);
        if changes == self.futile {
            return Ok(0);
        }
        tracing::info!(interface = %membership.interface, changes = changes.len(), "changing the interface");
        self.link.apply(&changes).await?;
        self.observe().await?;
        self.futile = self::changes(membership, assignment, self.last.as_ref(), &surroundings);
        Ok(changes.len())
    }

    /// Removes the interface, and then the packet filter in front of it.
    pub async fn remove(&mut self) -> Result<(), MembershipError> {
        self.last = None;
        // An interface that stays is filtered on.
        self.link.remove().await?;
        self.fence.clear().await
    }
}

/// Decides what has to change on an interface that looks like `have`.
pub(super) fn changes(
    membership: &Membership,
    assignment: &Assignment,
    have: Option<&Observation>,
    surroundings: &Surroundings,
) -> Vec<Change> {
    let target = plan::target(assignment, &membership.policy, &membership.identity.private_key, surroundings);
    let mut want = plan::settle(target, have, membership.enrolled().map(|enrolled| &enrolled.assignment));
    let current = have.and_then(|have| have.device.listen_port);
    if want.listen_port != current && membership.policy.listen_port.is_none() {
        // A port the server chose is adopted only if nobody else has it.
        want.listen_port = want.listen_port.map(|port| match facts::free_port(port) {
            Ok(free) if free == port => port,
            Ok(free) => current.unwrap_or(free),
            Err(_) => current.unwrap_or(port),
        });
    }
    plan::diff(have.map(|have| &have.device), &want)
}

/// Looks at what there is around the interface of `membership`.
pub(super) fn surroundings(membership: &Membership, server: Option<IpAddr>) -> Surroundings {
    Surroundings { local: facts::networks(&membership.interface), server }
}

/// Refuses a port that the owner asked for and somebody else has.
pub(super) fn refuse_taken_port(membership: &Membership, have: Option<&Observation>) -> Result<(), MembershipError> {
    match membership.policy.listen_port {
        Some(port) if have.and_then(|have| have.device.listen_port) != Some(port) => match facts::free_port(port) {
            Ok(free) if free == port => Ok(()),
            Ok(_) | Err(_) => Err(MembershipError::PortTaken(port)),
        },
        Some(_) | None => Ok(()),
    }
}

/// Returns the UDP port that is, or would be, this membership's.
pub(super) fn listen_port(membership: &Membership, have: Option<&Observation>) -> Result<NonZeroU16, MembershipError> {
    let assigned = membership.enrolled().and_then(|enrolled| enrolled.assignment.listen_port);
    let current = have.and_then(|have| have.device.listen_port);
    match current.or(membership.policy.listen_port).or(assigned) {
        Some(port) => Ok(port),
        None => facts::free_port(FIRST_PORT)
            .map_err(|source| MembershipError::Host { action: "find a free UDP port", source }),
    }
}

/// The first listen port tried.
const FIRST_PORT: NonZeroU16 = NonZeroU16::new(51821).expect("not zero");

/// Returns the first default interface name that is free on this host and in no other membership.
pub(super) fn free_interface(taken: impl Fn(&InterfaceName) -> bool) -> InterfaceName {
    (0..=u16::MAX).map(InterfaceName::numbered).find(|name| !taken(name)).unwrap_or_else(|| InterfaceName::numbered(0))
}
