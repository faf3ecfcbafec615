//! The words of rtnetlink: the kernel's answers as ours, our changes as requests.
#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel's lists of messages and attributes are open")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{AddressMessageBuilder, LinkUnspec};

use super::rules::rule_message;
use crate::{
    model::{Family, LinkState, Route, Table},
    plan::Change,
};

/// Where an interface's routes go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The kernel's number for the interface.
    pub(super) index: u32,
    /// The number of its own routing table, and its mark.
    pub(super) mark: u32,
}

/// An interface as the kernel lists it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The kernel's number for it, never used twice.
    pub(super) index: u32,
    /// What made it.
    pub(super) kind: Option<InfoKind>,
    /// Largest packet in bytes.
    pub(super) mtu: u16,
    /// What it is called.
    pub(super) name: String,
    /// Whether the administrator has it up.
    pub(super) state: LinkState,
}

/// Reads an interface.
pub(super) fn found(reply: &Message) -> Option<Found> {
    let Message::NewLink(link) = reply else {
        return None;
    };
    let state = if link.header.flags.contains(LinkFlags::Up) { LinkState::Up } else { LinkState::Down };
    let mut found = Found { index: link.header.index, kind: None, mtu: 0, name: String::new(), state };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::LinkInfo(infos) => {
                found.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            LinkAttribute::Mtu(mtu) => found.mtu = u16::try_from(*mtu).unwrap_or(u16::MAX),
            _ => {}
        }
    }
    Some(found)
}

/// Reads an address of the interface `index` that is not link-local.
pub(super) fn address_of(reply: &Message, index: u32) -> Option<IpNet> {
    let Message::NewAddress(AddressMessage { header, attributes, .. }) = reply else {
        return None;
    };
    if header.index != index || header.scope == AddressScope::Link {
        return None;
    }
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    // On a point-to-point interface "address" is the other end and "local" ours; IPv6 sends only "address".
    IpNet::new(local.or(address)?, header.prefix_len).ok()
}

/// Reads a route of ours to the interface at `place`.
pub(super) fn route_of(reply: &Message, place: Place) -> Option<Route> {
    let Message::NewRoute(RouteMessage { header, attributes, .. }) = reply else {
        return None;
    };
    if header.protocol != PROTOCOL || !attributes.contains(&RouteAttribute::Oif(place.index)) {
        return None;
    }
    let mut number = u32::from(header.table);
    let mut metric = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Priority(given) => metric = NonZeroU32::new(*given),
            RouteAttribute::Table(given) => number = *given,
            _ => {}
        }
    }
    let table = match number {
        MAIN => Table::Main,
        number if number == place.mark => Table::Own,
        _ => return None,
    };
    Some(Route::new(destination_of(header, attributes)?, metric, table))
}

pub(super) fn destination_of(header: &RouteHeader, attributes: &[RouteAttribute]) -> Option<IpNet> {
    let destination = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let everything: IpAddr = match header.address_family {
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    IpNet::new(destination.unwrap_or(everything), header.destination_prefix_length).ok()
}

/// Says a change to the kernel; `None` for one that is not rtnetlink's.
pub(super) fn request_for(change: &Change, place: Place) -> Option<NetlinkMessage<Message>> {
    let create = NLM_F_CREATE | NLM_F_EXCL;
    let set = |link| Message::SetLink(link);
    let Place { index, mark } = place;
    let link = LinkUnspec::new_with_index(index);
    let (message, flags) = match change {
        Change::AddAddress(net) => (Message::NewAddress(address_message(*net, index)), create),
        Change::AddRoute(route) => (Message::NewRoute(route_message(route, place)), create),
        Change::AddRule(rule) => (Message::NewRule(rule_message(rule, mark)), create),
        Change::RemoveAddress(net) => (Message::DelAddress(address_message(*net, index)), 0),
        Change::RemoveRoute(route) => (Message::DelRoute(route_message(route, place)), 0),
        Change::RemoveRule(rule) => (Message::DelRule(rule_message(rule, mark)), 0),
        Change::SetMtu(mtu) => (set(link.mtu((*mtu).into()).build()), 0),
        Change::SetState(LinkState::Down) => (set(link.down().build()), 0),
        Change::SetState(LinkState::Up) => (set(link.up().build()), 0),
        Change::AddPeer { .. }
        | Change::CreateInterface
        | Change::RemovePeer(_)
        | Change::SetFwmark(_)
        | Change::SetListenPort(_)
        | Change::SetPrivateKey(_)
        | Change::UpdatePeer { .. } => return None,
    };
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    Some(request)
}

fn address_message(net: IpNet, index: u32) -> AddressMessage {
    match net.addr() {
        IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(ip, net.prefix_len()).build(),
        IpAddr::V6(ip) => {
            let builder = AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(ip, net.prefix_len());
            let mut message = builder.build();
            // Bindable at once: nobody else can have this address on a WireGuard interface.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            message
        }
    }
}

/// Asks for our routes to the interface `index`.
pub(super) fn route_query(family: AddressFamily, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.protocol = PROTOCOL;
    message.attributes = vec![RouteAttribute::Oif(index)];
    message
}

fn route_message(route: &Route, place: Place) -> RouteMessage {
    let Route { destination, metric, table } = route;
    let mut message = RouteMessage::default();
    let (family, scope) = match destination {
        IpNet::V4(_) => (AddressFamily::Inet, RouteScope::Link),
        IpNet::V6(_) => (AddressFamily::Inet6, RouteScope::Universe),
    };
    message.header.address_family = family;
    message.header.scope = scope;
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = PROTOCOL;
    message.header.kind = RouteType::Unicast;
    let number = if *table == Table::Own { place.mark } else { MAIN };
    message.attributes = vec![RouteAttribute::Table(number), RouteAttribute::Oif(place.index)];
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.network().into()));
    }
    message.attributes.extend(metric.map(|metric| RouteAttribute::Priority(metric.get())));
    message
}

/// Finds the change that the kernel refused: its answer carries the request, of which the place in the batch is told
/// by the body.
pub(super) fn refused<'a>(request: &[u8], batch: &[&'a Change], place: Place) -> Option<&'a Change> {
    let body = NetlinkMessage::<Message>::deserialize(request).ok().map(|message| message.payload);
    let same = |change: &&&Change| request_for(change, place).is_some_and(|sent| Some(sent.payload) == body);
    batch.iter().find(same).or(batch.first()).copied()
}

/// Whether a change needs IPv6.
pub(super) fn adds_ipv6(change: &Change) -> bool {
    match change {
        Change::AddAddress(net) | Change::AddRoute(Route { destination: net, .. }) => matches!(net, IpNet::V6(_)),
        Change::AddRule(rule) => rule.family() == Family::V6,
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
        | Change::UpdatePeer { .. } => false,
    }
}

/// The number of the main table.
const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// Marks routes and rules as ours; a number without a name in `/etc/iproute2/rt_protos`.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(0xE7);
