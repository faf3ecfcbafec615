//! Where packets go: routes to the interface, and rules that say which packets see which routes.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
};

use ipnet::IpNet;

/// A destination routed to the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// What lies there; host bits are zero.
    pub destination: IpNet,
    /// Lower goes first among routes to the same destination; `None` leaves it to the kernel.
    pub metric: Option<NonZeroU32>,
    /// Who sees it.
    pub table: Table,
}

/// A routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The machine's own, which every packet sees.
    Main,
    /// One of this interface alone, numbered as [`InterfaceName::mark`](super::InterfaceName::mark); only packets that
    /// a [`Rule`] sends there see it.
    Own,
}

/// Which packets look into which table, before the machine's usual rules.
///
/// In the order of their priority; the first table with a route for a packet decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Packets to this address look into the main table.
    To(IpAddr),
    /// Packets from this address of ours look into a table.
    From {
        /// One of this machine's addresses.
        source: IpAddr,
        /// Where they look.
        table: Table,
    },
    /// Everything looks for routes in the main table other than a default route.
    Specific(Family),
    /// Everything but WireGuard's own packets, which carry the interface's mark, looks into the interface's table.
    Unmarked(Family),
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Route {
    /// A route as the kernel will report it: IPv6 has no route without a metric, 1024 is its usual one.
    pub fn new(destination: IpNet, metric: Option<NonZeroU32>, table: Table) -> Self {
        let usual = Family::of(destination.addr()) == Family::V6 && metric == NonZeroU32::new(USUAL_METRIC_V6);
        Self { destination: destination.trunc(), metric: metric.filter(|_| !usual), table }
    }

    /// A route that every packet sees.
    pub fn main(destination: IpNet) -> Self {
        Self::new(destination, None, Table::Main)
    }
}

impl Rule {
    /// The family whose packets it is for.
    pub fn family(&self) -> Family {
        match self {
            Self::From { source: ip, table: _ } | Self::To(ip) => Family::of(*ip),
            Self::Specific(family) | Self::Unmarked(family) => *family,
        }
    }
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// What there is around an interface that no route may take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Addresses at which the enrollment server was met, with its certificate; empty before that.
    pub confirmed: BTreeSet<IpAddr>,
    /// Networks on the machine's other interfaces, with the machine's address in them.
    pub links: Vec<Neighbour>,
    /// Where this machine asks for names, loopback left out.
    pub name_servers: Vec<IpAddr>,
    /// Largest packet in bytes on the interface that leads to the server; `None` when nothing does.
    pub path_mtu: Option<NonZeroU16>,
    /// Routes of others in the main table, default routes left out.
    pub routes: Vec<Neighbour>,
    /// Where the enrollment server is looked for: `confirmed`, and what its name leads to now.
    pub servers: BTreeSet<IpAddr>,
    /// Marks of interfaces of ours that all of this machine's traffic goes through.
    pub tunnels: BTreeSet<NonZeroU32>,
}

/// A network that another interface of this machine leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The interface's name.
    pub interface: String,
    /// The network; with our own address where there is one.
    pub net: IpNet,
}

/// What the kernel gives an IPv6 route that comes without a metric (`IP6_RT_PRIO_USER`).
const USUAL_METRIC_V6: u32 = 1024;
