//! Making the interface what the assignment says: observe, decide, change.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU16, time::Instant};

use crate::{
    daemon::clock,
    facts,
    link::{self, AnyLink, Around, LeftOut, Link, SideDoor},
    model::{
        Assignment, Backend, Device, FirewallStatus, InterfaceName, Membership, Observation, Surroundings, Switch,
        Withheld,
    },
    plan::{self, Change, Target, Trials, Vicinity},
};

use super::{MembershipError, OWN_PREFIX, fence::Fence};

/// The interface of one membership, open for changes.
#[derive(Debug)]
pub struct Tunnel {
    /// The last plan that was carried out.
    applied: Vec<Change>,
    /// What there was around the interface when that was last looked at.
    around: Option<Surroundings>,
    backend: Backend,
    fence: Fence,
    /// What this machine did not take of the last plan, as IPv6 addresses where IPv6 is off; not asked for again.
    futile: Vec<Change>,
    /// What the interface looked like last, or must look like after the last plan; `None` when there was none.
    last: Option<Observation>,
    link: AnyLink,
    /// Where peers are looked for in this machine's own networks.
    trials: Trials,
    /// What the server asked for and did not get when the interface was last put in order.
    withheld: BTreeSet<Withheld>,
}

/// What a plan starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// What the interface looks like now.
    Afresh,
    /// What it looked like last; whatever somebody else did since is left for the next look.
    Remembered,
}

/// Where the enrollment server is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Where it was met, with its certificate.
    pub confirmed: BTreeSet<IpAddr>,
    /// Where it is looked for: also where its name leads to, which anybody may say.
    pub looked_for: BTreeSet<IpAddr>,
}

impl Whereabouts {
    fn met_at(addresses: &BTreeSet<IpAddr>) -> Self {
        Self { confirmed: addresses.clone(), looked_for: addresses.clone() }
    }
}

impl Tunnel {
    /// Opens the interface of `membership`; nothing is changed yet.
    pub fn open(backend: Backend, membership: &Membership) -> Result<Self, MembershipError> {
        let keys = membership.identity.interface_keys();
        let link = link::open(backend, membership.interface.clone(), keys)?;
        Ok(Self::over(link, backend, membership.interface.clone()))
    }

    fn over(link: AnyLink, backend: Backend, interface: InterfaceName) -> Self {
        Self {
            applied: Vec::new(),
            around: None,
            backend,
            fence: Fence::new(interface),
            futile: Vec::new(),
            last: None,
            link,
            trials: Trials::default(),
            withheld: BTreeSet::new(),
        }
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

    /// What the server asked for and did not get when the interface was last put in order.
    pub fn withheld(&self) -> &BTreeSet<Withheld> {
        &self.withheld
    }

    /// The server's addresses when the interface was last put in order; `None` before.
    pub fn servers(&self) -> Option<&BTreeSet<IpAddr>> {
        self.around.as_ref().map(|around| &around.servers)
    }

    /// What became of the server's access rules; `None` before the interface was put in order.
    pub fn firewall(&self) -> Option<FirewallStatus> {
        self.fence.status()
    }

    /// Asks again for what this machine did not take: what was in the way may be gone.
    pub fn insist(&mut self) {
        self.futile.clear();
    }

    /// The UDP port when it was last looked at.
    pub fn port(&self) -> Option<NonZeroU16> {
        self.last.as_ref().and_then(|have| have.device.listen_port)
    }

    /// Brings the packet filter and then the interface in step with `assignment`; returns how many changes the
    /// interface took.
    ///
    /// What comes of changes that all succeeded is known without another look, except a port that the system chose, and
    /// except that a plan which comes again may never have had an effect. `server` is where the enrollment server
    /// is, which no route may take into the tunnel; `public` are this host's addresses as others see it.
    pub async fn apply(
        &mut self,
        membership: &Membership,
        assignment: &Assignment,
        server: Whereabouts,
        public: &[IpAddr],
        look: Look,
    ) -> Result<usize, MembershipError> {
        let surroundings = self.surroundings(membership, server, look).await?;
        let assignment = &*self.fence.prepare(assignment, membership.policy.firewall, look).await;
        match look {
            Look::Afresh => self.observe().await?,
            Look::Remembered => self.recent().await?,
        };
        let attached = if assignment.nearby.is_empty() { Vec::new() } else { facts::private_networks(&[OWN_PREFIX]) };
        let around = Vicinity { attached: &attached, public };
        self.trials.advance(assignment, self.last.as_ref(), around, clock::now());
        let Target { device: want, withheld } =
            want(membership, assignment, self.last.as_ref(), &surroundings, &self.trials)?;
        self.withhold(membership, withheld);
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
            self::changes(membership, assignment, self.last.as_ref(), &surroundings, &self.trials)?.0
        };
        Ok(count)
    }

    /// What there is around the interface; from memory only while the server is where it was.
    async fn surroundings(
        &mut self,
        membership: &Membership,
        server: Whereabouts,
        look: Look,
    ) -> Result<Surroundings, MembershipError> {
        match &self.around {
            Some(around) if look == Look::Remembered && around.servers == server.looked_for => Ok(around.clone()),
            Some(_) | None => {
                let around = surroundings(membership, server).await?;
                self.around = Some(around.clone());
                Ok(around)
            }
        }
    }

    fn withhold(&mut self, membership: &Membership, withheld: BTreeSet<Withheld>) {
        for withheld in withheld.difference(&self.withheld) {
            tracing::warn!(interface = %membership.interface, "{withheld}");
        }
        self.withheld = withheld;
    }

    /// The way beside WireGuard through its own port, and that port; `None` where the kernel has it.
    pub fn side_door(&self) -> Option<(SideDoor, NonZeroU16)> {
        Some((self.link.side_door()?, self.port()?))
    }

    /// When peers that are not heard of are to be looked for elsewhere; `None` while there are none.
    pub fn next_trial(&self) -> Option<Instant> {
        self.trials.deadline()
    }

    /// Removes the interface, and then the packet filter in front of it.
    pub async fn remove(&mut self) -> Result<(), MembershipError> {
        self.last = None;
        self.trials = Trials::default();
        self.withheld.clear();
        // An interface that stays is filtered on.
        self.link.remove().await?;
        self.fence.clear().await
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
    let LeftOut { addresses, routes, rules } = left_out;
    let mut device = want;
    device.addresses.retain(|net| !addresses.contains(net));
    device.routes.retain(|route| !routes.contains(route));
    device.rules.retain(|rule| !rules.contains(rule));
    Observation { device, stats }
}

/// Decides what has to change on an interface that looks like `have`.
///
/// # Errors
/// [`MembershipError::Overlap`] if a range is in use already and the owner wants none of the assignment then.
pub(super) fn changes(
    membership: &Membership,
    assignment: &Assignment,
    have: Option<&Observation>,
    surroundings: &Surroundings,
    trials: &Trials,
) -> Result<(Vec<Change>, BTreeSet<Withheld>), MembershipError> {
    let Target { device, withheld } = want(membership, assignment, have, surroundings, trials)?;
    Ok((plan::diff(have.map(|have| &have.device), &device), withheld))
}

/// Decides what an interface that looks like `have` should look like.
fn want(
    membership: &Membership,
    assignment: &Assignment,
    have: Option<&Observation>,
    surroundings: &Surroundings,
    trials: &Trials,
) -> Result<Target, MembershipError> {
    let Membership { identity, interface, policy, server, .. } = membership;
    let target = plan::target(assignment, policy, interface, &identity.private_key, surroundings);
    let Target { device, withheld } =
        target.map_err(|source| MembershipError::Overlap { server: server.clone(), source })?;
    let settled = plan::settle(device, have, membership.enrolled().map(|enrolled| &enrolled.assignment));
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
    Ok(Target { device: want, withheld })
}

/// What of the saved assignment would be left out now, without the server.
pub(super) async fn withheld(membership: &Membership, have: &Observation) -> BTreeSet<Withheld> {
    let (Some(enrolled), Switch::On) = (membership.enrolled(), membership.switch) else { return BTreeSet::new() };
    match surroundings(membership, Whereabouts::met_at(&enrolled.server_addresses)).await {
        Ok(surroundings) => want(membership, &enrolled.assignment, Some(have), &surroundings, &Trials::default()),
        Err(error) => Err(error),
    }
    .map_or_else(|_| BTreeSet::new(), |target| target.withheld)
}

/// Looks at what there is around the interface of `membership`.
pub(super) async fn surroundings(
    membership: &Membership,
    server: Whereabouts,
) -> Result<Surroundings, MembershipError> {
    let Whereabouts { confirmed, looked_for: servers } = server;
    let first = confirmed.first().or(servers.first()).copied();
    let Around { path_mtu, routes, tunnels } = link::around(&membership.interface, first).await?;
    let links = facts::networks(&membership.interface);
    Ok(Surroundings { confirmed, links, name_servers: facts::name_servers(), path_mtu, routes, servers, tunnels })
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
