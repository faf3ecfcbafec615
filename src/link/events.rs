//! What happens to this machine's interfaces, addresses and way out, while it happens.
//!
//! The kernel's messages only say that it is time to look; what changed is found by looking and comparing.

#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel's lists of messages and attributes are open")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::AddressMessage,
    link::{LinkAttribute, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use rtnetlink::MulticastGroup;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{LinkError, failed, netlink::Netlink, netlink_messages::address_of, rules::rule_of};
use crate::model::InterfaceName;

/// Tells of changes until it is dropped.
#[derive(Debug)]
pub struct Events {
    changes: mpsc::Receiver<HostChange>,
    task: JoinHandle<()>,
}

/// What changed on this machine since the last one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostChange {
    /// Interfaces whose addresses changed, or over which a way out appeared, changed or vanished.
    pub moved: BTreeSet<String>,
    /// Interfaces that somebody did something to.
    pub touched: BTreeSet<String>,
}

impl Events {
    /// Begins to listen; must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Failed`] if the system has no netlink for us.
    pub async fn listen() -> Result<Self, LinkError> {
        let opened = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv6Rule,
        ]);
        let (connection, _, messages) = opened.map_err(|source| failed("listen to the kernel", source))?;
        tokio::spawn(connection);
        let netlink = Netlink::open()?;
        let known = Whereabouts::look(&netlink).await?;
        let (sender, changes) = mpsc::channel(8);
        Ok(Self { changes, task: tokio::spawn(watch(netlink, known, messages, sender)) })
    }

    /// The next change; may be given up and asked for again.
    pub async fn next(&mut self) -> HostChange {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(
    netlink: Netlink,
    mut known: Whereabouts,
    mut messages: impl Stream<Item = (NetlinkMessage<Message>, netlink_proto::sys::SocketAddr)> + Unpin,
    changes: mpsc::Sender<HostChange>,
) {
    while let Some((message, _)) = messages.next().await {
        let mut touched = Touched::default();
        touched.note(message);
        // What belongs together comes together.
        let burst = async {
            while let Ok(Some((message, _))) = timeout(QUIET, messages.next()).await {
                touched.note(message);
            }
        };
        if timeout(LONGEST_BURST, burst).await.is_err() {
            tracing::debug!("the kernel has much to tell");
        }
        let now = match Whereabouts::look(&netlink).await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "cannot look at what changed");
                continue;
            }
        };
        let change = HostChange { moved: known.difference(&now), touched: touched.names(&known, &now) };
        known = now;
        tracing::debug!(?change, "this machine changed");
        if change != HostChange::default() && changes.send(change).await.is_err() {
            return;
        }
    }
}

/// Interfaces that messages were about.
#[derive(Debug, Default)]
struct Touched {
    indexes: BTreeSet<u32>,
    /// Of interfaces whose routing rules changed.
    marks: BTreeSet<u32>,
    /// Of interfaces that may have come and gone in between.
    names: BTreeSet<String>,
}

impl Touched {
    fn note(&mut self, message: NetlinkMessage<Message>) {
        let NetlinkPayload::InnerMessage(message) = message.payload else { return };
        match message {
            Message::NewLink(link) | Message::DelLink(link) => self.names.extend(name_of(link).map(|(_, name)| name)),
            Message::NewAddress(address) | Message::DelAddress(address) => {
                self.indexes.insert(address.header.index);
            }
            Message::NewRule(rule) | Message::DelRule(rule) => {
                self.marks.extend(rule_of(&rule).map(|(_, mark)| mark));
            }
            Message::NewRoute(route) | Message::DelRoute(route) => {
                self.indexes.extend(route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                }));
            }
            _ => {}
        }
    }

    fn names(self, before: &Whereabouts, now: &Whereabouts) -> BTreeSet<String> {
        let name = |index: &u32| now.names.get(index).or_else(|| before.names.get(index)).cloned();
        let mut names = self.names;
        names.extend(self.indexes.iter().filter_map(name));
        if !self.marks.is_empty() {
            let mark = |name: &str| name.parse::<InterfaceName>().ok().map(|name| name.mark().get());
            let all = before.names.values().chain(now.names.values());
            let ruled = all.filter(|name| mark(name).is_some_and(|mark| self.marks.contains(&mark)));
            names.extend(ruled.cloned());
        }
        names
    }
}

/// Where this machine is.
#[derive(Debug)]
struct Whereabouts {
    addresses: BTreeMap<u32, BTreeSet<IpNet>>,
    names: BTreeMap<u32, String>,
    ways: BTreeSet<Way>,
}

/// How packets to the internet leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    gateway: Option<IpAddr>,
    index: u32,
    source: Option<IpAddr>,
}

impl Whereabouts {
    async fn look(netlink: &Netlink) -> Result<Self, LinkError> {
        let dump = NLM_F_REQUEST | NLM_F_DUMP;
        let ask = |message, flags| async move {
            netlink.request(message, flags).await.map_err(|source| failed("look at this machine's network", source))
        };
        let links = ask(Message::GetLink(LinkMessage::default()), dump).await?;
        let link = |reply| match reply {
            Message::NewLink(link) => name_of(link),
            _ => None,
        };
        let names: BTreeMap<_, _> = links.into_iter().filter_map(link).collect();
        let listed = ask(Message::GetAddress(AddressMessage::default()), dump).await?;
        let mut addresses: BTreeMap<u32, BTreeSet<IpNet>> = BTreeMap::new();
        for &index in names.keys() {
            let own = listed.iter().filter_map(|reply| address_of(reply, index));
            addresses.insert(index, own.filter(|net| !net.addr().is_loopback()).collect());
        }
        let mut ways = BTreeSet::new();
        for far in FAR {
            // Without a way out the kernel answers with an error.
            let replies = netlink.request(Message::GetRoute(question(far)), NLM_F_REQUEST).await.unwrap_or_default();
            ways.extend(replies.iter().filter_map(way_of));
        }
        Ok(Self { addresses, names, ways })
    }

    /// Names the interfaces that differ.
    fn difference(&self, now: &Self) -> BTreeSet<String> {
        let indexes: BTreeSet<_> = self.addresses.keys().chain(now.addresses.keys()).collect();
        let empty = BTreeSet::new();
        let of = |all: &Self, index| all.addresses.get(index).unwrap_or(&empty).clone();
        let readdressed = indexes.into_iter().filter(|index| of(self, index) != of(now, index)).copied();
        let rerouted = self.ways.symmetric_difference(&now.ways).map(|way| way.index);
        let differing = readdressed.chain(rerouted);
        differing.filter_map(|index| now.names.get(&index).or_else(|| self.names.get(&index)).cloned()).collect()
    }
}

fn name_of(link: LinkMessage) -> Option<(u32, String)> {
    let name = link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    });
    Some((link.header.index, name?))
}

/// Asks which way packets to `far` would go.
fn question(far: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, length) = match far {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.attributes = vec![RouteAttribute::Destination(far.into())];
    message
}

fn way_of(reply: &Message) -> Option<Way> {
    let Message::NewRoute(RouteMessage { attributes, .. }) = reply else { return None };
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let mut way = Way { gateway: None, index: 0, source: None };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(gateway) => way.gateway = address(gateway),
            RouteAttribute::Oif(index) => way.index = *index,
            RouteAttribute::PrefSource(source) => way.source = address(source),
            _ => {}
        }
    }
    (way.index != 0).then_some(way)
}

/// Addresses that only a default route leads to; nothing is ever sent there (RFC 5737, RFC 3849).
const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// A machine whose routes change all the time is looked at this often.
const LONGEST_BURST: Duration = Duration::from_millis(500);

/// How long nothing more has to come before it is looked.
const QUIET: Duration = Duration::from_millis(100);
