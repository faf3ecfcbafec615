//! Making the interface what the assignment says: observe, decide, change.

use std::{net::IpAddr, num::NonZeroU16};

use crate::{
    facts,
    link::{self, AnyLink, LeftOut, Link},
    model::{Assignment, Backend, Device, InterfaceName, Membership, Observation},
    plan::{self, Change, Surroundings},
};

use super::MembershipError;

/// The interface of one membership, open for changes.
#[derive(Debug)]
pub struct Tunnel {
    /// The last plan that was carried out.
    applied: Vec<Change>,
    backend: Backend,
    /// What this machine did not take of the last plan, as IPv6 addresses where IPv6 is off; not asked for again.
    futile: Vec<Change>,
    /// What the interface looked like last, or must look like after the last plan; `None` when there was none.
    last: Option<Observation>,
    link: AnyLink,
}

/// What a plan starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// What the interface looks like now.
    Afresh,
    /// What it looked like last; whatever somebody else did since is left for the next look.
    Remembered,
}

impl Tunnel {
    /// Opens the interface of `membership`; nothing is changed yet.
    pub fn open(backend: Backend, membership: &Membership) -> Result<Self, MembershipError> {
        let keys = membership.identity.interface_keys();
        let link = link::open(backend, membership.interface.clone(), keys)?;
        Ok(Self { applied: Vec::new(), backend, futile: Vec::new(), last: None, link })
    }

    /// Who carries the packets.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Looks at the interface.
    pub async fn observe(&mut self) -> Result<Option<&Observation>, MembershipError> {
        // Whatever was known is not, if looking fails.
        self.last = None;
        self.last = self.link.observe().await?;
        Ok(self.last.as_ref())
    }

    /// What the interface looked like when it was last looked at; looks if it was not there or was not looked at yet.
    pub async fn recent(&mut self) -> Result<Option<&Observation>, MembershipError> {
        if self.last.is_none() {
            self.observe().await?;
        }
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
    /// What comes of changes that all succeeded is known without another look, except a port that the system chose, and
    /// except that a plan which comes again may never have had an effect. `server` is the enrollment server's address,
    /// which no route may take into the tunnel.
    pub async fn apply(
        &mut self,
        membership: &Membership,
        assignment: &Assignment,
        server: Option<IpAddr>,
        look: Look,
    ) -> Result<usize, MembershipError> {
        let surroundings = surroundings(membership, server);
        match look {
            Look::Afresh => self.observe().await?,
            Look::Remembered => self.recent().await?,
        };
        let want = want(membership, assignment, self.last.as_ref(), &surroundings);
        let changes = plan::diff(self.last.as_ref().map(|have| &have.device), &want);
        if changes.is_empty() || changes == self.futile {
            return Ok(0);
        }
        tracing::info!(interface = %membership.interface, changes = changes.len(), "changing the interface");
        let left_out = match self.link.apply(&changes).await {
            Ok(left_out) => left_out,
            Err(error) => {
                // Some of it may be done; the next plan starts from there.
                if let Err(error) = self.observe().await {
                    tracing::debug!(%error, "cannot see how far the changes got");
                }
                return Err(error.into());
            }
        };
        let (count, whole) = (changes.len(), left_out == LeftOut::default());
        let known = want.listen_port.is_some() && changes != self.applied;
        if known {
            self.last = Some(outcome(want, &left_out, &changes, self.last.take()));
        } else {
            self.observe().await?;
        }
        self.applied = changes;
        self.futile = if known && whole {
            Vec::new()
        } else {
            self::changes(membership, assignment, self.last.as_ref(), &surroundings)
        };
        Ok(count)
    }

    /// Removes the interface.
    pub async fn remove(&mut self) -> Result<(), MembershipError> {
        self.last = None;
        Ok(self.link.remove().await?)
    }
}

/// What an interface looks like after `changes` to `want`, of which `left_out` was not taken.
fn outcome(want: Device, left_out: &LeftOut, changes: &[Change], before: Option<Observation>) -> Observation {
    let mut stats = before.map(|before| before.stats).unwrap_or_default();
    for change in changes {
        // A peer made anew starts from nothing.
        if let Change::RemovePeer(public_key) = change {
            stats.remove(public_key);
        }
    }
    let LeftOut { addresses, routes } = left_out;
    let mut device = want;
    device.addresses.retain(|net| !addresses.contains(net));
    device.routes.retain(|net| !routes.contains(net));
    Observation { device, stats }
}

/// Decides what has to change on an interface that looks like `have`.
pub(super) fn changes(
    membership: &Membership,
    assignment: &Assignment,
    have: Option<&Observation>,
    surroundings: &Surroundings,
) -> Vec<Change> {
    plan::diff(have.map(|have| &have.device), &want(membership, assignment, have, surroundings))
}

/// Decides what an interface that looks like `have` should look like.
fn want(
    membership: &Membership,
    assignment: &Assignment,
    have: Option<&Observation>,
    surroundings: &Surroundings,
) -> Device {
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
    want
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

#[cfg(test)]
mod tests;
