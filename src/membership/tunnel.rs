//! Making the interface what the assignment says: observe, decide, change.

use std::{net::IpAddr, num::NonZeroU16, time::Instant};

use crate::{
    daemon::clock,
    facts,
    link::{self, AnyLink, Link, SideDoor},
    model::{Assignment, Backend, InterfaceName, Membership, Observation},
    plan::{self, Change, Surroundings, Trials, Vicinity},
};

use super::{MembershipError, OWN_PREFIX};

/// The interface of one membership, open for changes.
#[derive(Debug)]
pub struct Tunnel {
    backend: Backend,
    /// What this machine did not take of the last plan, as IPv6 addresses where IPv6 is off; not asked for again.
    futile: Vec<Change>,
    /// What the interface looked like last; `None` when there was none.
    last: Option<Observation>,
    link: AnyLink,
    /// Where peers are looked for in this machine's own networks.
    trials: Trials,
}

impl Tunnel {
    /// Opens the interface of `membership`; nothing is changed yet.
    pub fn open(backend: Backend, membership: &Membership) -> Result<Self, MembershipError> {
        let keys = membership.identity.interface_keys();
        let link = link::open(backend, membership.interface.clone(), keys)?;
        Ok(Self { backend, futile: Vec::new(), last: None, link, trials: Trials::default() })
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

    /// The UDP port when it was last looked at.
    pub fn port(&self) -> Option<NonZeroU16> {
        self.last.as_ref().and_then(|have| have.device.listen_port)
    }

    /// Brings the interface in step with `assignment`; returns how many changes that took.
    ///
    /// `server` is the enrollment server's address, which no route may take into the tunnel; `public` are this host's
    /// addresses as others see it.
    pub async fn apply(
        &mut self,
        membership: &Membership,
        assignment: &Assignment,
        server: Option<IpAddr>,
        public: &[IpAddr],
    ) -> Result<usize, MembershipError> {
        let surroundings = surroundings(membership, server);
        self.observe().await?;
        let attached = if assignment.nearby.is_empty() { Vec::new() } else { facts::private_networks(&[OWN_PREFIX]) };
        let around = Vicinity { attached: &attached, public };
        self.trials.advance(assignment, self.last.as_ref(), around, clock::now());
        let changes = changes(membership, assignment, self.last.as_ref(), &surroundings, &self.trials);
        if changes == self.futile {
            return Ok(0);
        }
        tracing::info!(interface = %membership.interface, changes = changes.len(), "changing the interface");
        self.link.apply(&changes).await?;
        self.observe().await?;
        self.futile = self::changes(membership, assignment, self.last.as_ref(), &surroundings, &self.trials);
        Ok(changes.len())
    }

    /// The way beside WireGuard through its own port, and that port; `None` where the kernel has it.
    pub fn side_door(&self) -> Option<(SideDoor, NonZeroU16)> {
        Some((self.link.side_door()?, self.port()?))
    }

    /// When peers that are not heard of are to be looked for elsewhere; `None` while there are none.
    pub fn next_trial(&self) -> Option<Instant> {
        self.trials.deadline()
    }

    /// Removes the interface.
    pub async fn remove(&mut self) -> Result<(), MembershipError> {
        self.last = None;
        self.trials = Trials::default();
        Ok(self.link.remove().await?)
    }
}

/// Decides what has to change on an interface that looks like `have`.
pub(super) fn changes(
    membership: &Membership,
    assignment: &Assignment,
    have: Option<&Observation>,
    surroundings: &Surroundings,
    trials: &Trials,
) -> Vec<Change> {
    let target = plan::target(assignment, &membership.policy, &membership.identity.private_key, surroundings);
    let settled = plan::settle(target, have, membership.enrolled().map(|enrolled| &enrolled.assignment));
    let mut want = trials.put_into(settled);
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
