//! Our hand on one network interface: look, change, remove.
//!
//! Three implementations behave alike: [`Kernel`] (WireGuard in the kernel), [`Userspace`] (an embedded data plane in
//! this process) and [`Memory`] (for tests and `--dry-run`). One suite, `tests/link`, runs on each; its kernel cases run
//! where the kernel has WireGuard, and in a virtual machine (`.ci/kernel`). What up to 10,000 peers cost
//! is measured by `cargo bench --bench peers`, and beside `wg` by `.ci/kernel --bench`.

mod around;
mod events;
mod kernel;
mod memory;
mod netlink;
mod netlink_messages;
mod probe;
mod rules;
mod userspace;
mod userspace_peers;
mod userspace_udp;
mod words;

use std::{collections::BTreeSet, future::Future, io};

use ipnet::IpNet;
use tracing::debug;

use self::netlink::Netlink;
pub use self::{
    around::{Around, around, interface_mtus},
    events::{Events, HostChange},
    kernel::Kernel,
    memory::Memory,
    userspace::Userspace,
    userspace_udp::{Datagram, SideDoor},
};
use crate::{
    model::{Backend, InterfaceName, Observation, PublicKey, Route, Rule},
    plan::Change,
};

/// One interface of ours on this host, whether it exists yet or not.
pub trait Link: Send {
    /// Looks at the interface; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`LinkError::Taken`] if an interface of that name exists and this link cannot be its owner.
    fn observe(&mut self) -> impl Future<Output = Result<Option<Observation>, LinkError>> + Send;

    /// Carries out `changes`, as [`diff`](crate::plan::diff) made them, in order. On an error earlier changes stay;
    /// observing tells which.
    ///
    /// Each change touches only what it names: what Linux drops along the way (IPv6 addresses of an interface going
    /// down, routes and further addresses with the last or first address) is put back, except that an interface that
    /// is down has no routes. Left out, with a warning, are IPv6 addresses and routes where IPv6 is disabled, and routes
    /// that somebody else has already; those are returned, and everything else is as it was asked for.
    fn apply(&mut self, changes: &[Change]) -> impl Future<Output = Result<LeftOut, LinkError>> + Send;

    /// Removes the interface with everything on it; none there is success.
    ///
    /// # Errors
    /// [`LinkError::Taken`] as for [`observe`](Self::observe).
    fn remove(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// What this machine did not take of changes that were carried out otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Addresses the interface does not have.
    pub addresses: BTreeSet<IpNet>,
    /// Routes that are not there.
    pub routes: BTreeSet<Route>,
    /// Rules that are not there.
    pub rules: BTreeSet<Rule>,
}

impl LeftOut {
    fn note(&mut self, change: &Change) {
        match change {
            Change::AddAddress(net) => {
                self.addresses.insert(*net);
            }
            Change::AddRoute(route) => {
                self.routes.insert(*route);
            }
            Change::AddRule(rule) => {
                self.rules.insert(*rule);
            }
            Change::AddPeer { .. }
            | Change::CreateInterface
            | Change::RemoveAddress(_)
            | Change::RemovePeer(_)
            | Change::RemoveRoute(_)
            | Change::RemoveRule(_)
            | Change::SetFwmark(_)
            | Change::SetListenPort(_)
            | Change::SetMtu(_)
            | Change::SetPrivateKey(_)
            | Change::SetState(_)
            | Change::UpdatePeer { .. } => {}
        }
    }
}

/// A link of the kind that was chosen when the program ran.
#[derive(Debug)]
pub enum AnyLink {
    /// WireGuard in the kernel.
    Kernel(Kernel),
    /// State in memory.
    Memory(Memory),
    /// The data plane in this process.
    Userspace(Userspace),
}

/// Why a hand could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel has no WireGuard (`EOPNOTSUPP` on creating a link of that kind).
    #[error("this kernel has no WireGuard")]
    Absent,
    /// The process lacks the right (`EPERM`, `EACCES`); needs `CAP_NET_ADMIN`.
    #[error("not permitted to {action}")]
    Denied {
        /// What was tried, as "create interface enroll0".
        action: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Anything else the system answered.
    #[error("cannot {action}")]
    Failed {
        /// What was tried.
        action: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// This machine has no `/dev/net/tun`, so the userspace data plane cannot run.
    #[error("this machine has no TUN device (/dev/net/tun)")]
    NoTun,
    /// An interface of this name exists that is not ours.
    #[error("interface {0} belongs to something else")]
    Taken(InterfaceName),
}

/// What the caller can do about a [`LinkError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Use another interface name, or remove the interface that has it.
    ChooseName,
    /// Run as root, or with `CAP_NET_ADMIN` and access to `/dev/net/tun`.
    GainRights,
    /// Give the machine kernel WireGuard or a TUN device; nothing else helps.
    ProvideDevice,
    /// Observe, plan again and apply; the host may have changed in between.
    Retry,
}

impl LinkError {
    /// Says more precisely what was tried.
    fn named(self, action: String) -> Self {
        match self {
            Self::Denied { source, .. } | Self::Failed { source, .. } => failed(action, source),
            Self::Absent | Self::NoTun | Self::Taken(_) => self,
        }
    }

    /// Returns what the caller can do.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Absent | Self::NoTun => Advice::ProvideDevice,
            Self::Denied { .. } => Advice::GainRights,
            Self::Failed { .. } => Advice::Retry,
            Self::Taken(_) => Advice::ChooseName,
        }
    }
}

/// Finds out what this machine can do: kernel WireGuard if it is there, else the userspace data plane. With `forced`
/// only that one is tried.
///
/// The kernel is asked by making and deleting an interface with a random name, which also loads its module. One that an
/// earlier probe left behind, killed in between, is deleted.
///
/// # Errors
/// [`LinkError::Absent`] only if the kernel is forced; [`LinkError::NoTun`] and [`LinkError::Denied`] if the choice
/// cannot work here. Lacking rights for the kernel is never taken for a missing kernel.
pub async fn choose(forced: Option<Backend>) -> Result<Backend, LinkError> {
    match forced {
        Some(Backend::Kernel) => probe::kernel().await?,
        Some(Backend::Userspace) => userspace::probe().await?,
        None => match probe::kernel().await {
            Ok(()) => {}
            Err(LinkError::Absent) => {
                debug!("kernel has no WireGuard, taking the userspace data plane");
                userspace::probe().await?;
                return Ok(Backend::Userspace);
            }
            Err(error) => return Err(error),
        },
    }
    Ok(forced.unwrap_or(Backend::Kernel))
}

/// Opens the link called `name`; makes no interface yet. `keys` are the public keys that tell our kernel interface
/// from another's.
/// Must be called within a tokio runtime, which the link then belongs to.
///
/// # Errors
/// [`LinkError::Failed`] if the system has no netlink or no threads for us.
pub fn open(backend: Backend, name: InterfaceName, keys: BTreeSet<PublicKey>) -> Result<AnyLink, LinkError> {
    match backend {
        Backend::Kernel => Kernel::new(name, keys).map(AnyLink::Kernel),
        Backend::Userspace => Userspace::new(name).map(AnyLink::Userspace),
    }
}

/// Removes routing rules of ours that a crash left behind; returns how many there were.
///
/// Kept are those of interfaces that are `known` or exist. Routes need no such care: they end with their interface.
///
/// # Errors
/// [`LinkError::Denied`] and [`LinkError::Failed`] if the kernel does not list or remove them.
pub async fn sweep(known: &[InterfaceName]) -> Result<usize, LinkError> {
    let netlink = Netlink::open()?;
    let there = netlink.interfaces().await?;
    let there: Vec<InterfaceName> = there.iter().filter_map(|found| found.name.parse().ok()).collect();
    let wanted: BTreeSet<u32> = known.iter().chain(&there).map(|name| name.mark().get()).collect();
    netlink.sweep_rules(|mark| wanted.contains(&mark)).await
}

/// Removes the routing rules of an interface that is gone.
///
/// # Errors
/// [`LinkError::Denied`] and [`LinkError::Failed`] if the kernel does not list or remove them.
pub async fn clear_rules(interface: &InterfaceName) -> Result<(), LinkError> {
    Netlink::open()?.remove_rules(interface).await
}

/// Lists the names of all interfaces in this network namespace.
pub async fn interface_names() -> Result<BTreeSet<String>, LinkError> {
    Ok(Netlink::open()?.interfaces().await?.into_iter().map(|found| found.name).collect())
}

/// Log directives that keep the libraries below this module quiet, for the default filter of the program: the data
/// plane reports each packet for a peer without an endpoint as an error, and prints peers at `trace`.
pub const LOG_DIRECTIVES: &str = "gotatun=off,netlink_proto=error,netlink_packet_core=error,netlink_packet_route=error";

impl AnyLink {
    /// The way beside WireGuard through its own UDP port; `None` where the kernel has that one, or nothing runs.
    pub fn side_door(&self) -> Option<SideDoor> {
        match self {
            Self::Kernel(_) | Self::Memory(_) => None,
            Self::Userspace(link) => link.door(),
        }
    }
}

impl Link for AnyLink {
    async fn observe(&mut self) -> Result<Option<Observation>, LinkError> {
        match self {
            Self::Kernel(link) => link.observe().await,
            Self::Memory(link) => link.observe().await,
            Self::Userspace(link) => link.observe().await,
        }
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<LeftOut, LinkError> {
        match self {
            Self::Kernel(link) => link.apply(changes).await,
            Self::Memory(link) => link.apply(changes).await,
            Self::Userspace(link) => link.apply(changes).await,
        }
    }

    async fn remove(&mut self) -> Result<(), LinkError> {
        match self {
            Self::Kernel(link) => link.remove().await,
            Self::Memory(link) => link.remove().await,
            Self::Userspace(link) => link.remove().await,
        }
    }
}

/// Who carries a change out; neighbours of one class go out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Makes the interface.
    Create,
    /// Addresses, routes, MTU and state: netlink, the same for every interface.
    Network,
    /// Keys, port and peers: the WireGuard implementation.
    WireGuard,
}

fn class(change: &Change) -> Class {
    match change {
        Change::CreateInterface => Class::Create,
        Change::AddAddress(_)
        | Change::AddRoute(_)
        | Change::AddRule(_)
        | Change::RemoveAddress(_)
        | Change::RemoveRoute(_)
        | Change::RemoveRule(_)
        | Change::SetMtu(_)
        | Change::SetState(_) => Class::Network,
        Change::AddPeer { .. }
        | Change::RemovePeer(_)
        | Change::SetFwmark(_)
        | Change::SetListenPort(_)
        | Change::SetPrivateKey(_)
        | Change::UpdatePeer { .. } => Class::WireGuard,
    }
}

/// Splits changes into runs of one class, in order.
fn runs(changes: &[Change]) -> impl Iterator<Item = (Class, &[Change])> {
    changes.chunk_by(|a, b| class(a) == class(b)).map(|run| (class(&run[0]), run))
}

/// Sorts a system error by what the caller can do.
fn failed(action: impl Into<String>, source: io::Error) -> LinkError {
    let action = action.into();
    if source.kind() == io::ErrorKind::PermissionDenied {
        LinkError::Denied { action, source }
    } else {
        LinkError::Failed { action, source }
    }
}
