//! What there is on this machine around an interface of ours.
#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel's lists of messages and attributes are open")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
};

use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};

use super::{
    LinkError,
    netlink::Netlink,
    netlink_messages::{Found, destination_of},
};
use crate::model::{Family, InterfaceName, Neighbour, Rule};

/// What the machine's other interfaces lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Largest packet in bytes on the interface that leads to the server, or where the default route goes; `None` when
    /// nothing leads there.
    pub path_mtu: Option<NonZeroU16>,
    /// Routes of others in the main table, default routes left out.
    pub routes: Vec<Neighbour>,
    /// Marks of interfaces of ours that all of this machine's traffic goes through.
    pub tunnels: BTreeSet<NonZeroU32>,
}

/// Looks at the routes around the interface `own`, and at the way to `server`.
///
/// # Errors
/// [`LinkError::Failed`] if the kernel does not list them.
pub async fn around(own: &InterfaceName, server: Option<IpAddr>) -> Result<Around, LinkError> {
    let netlink = Netlink::open()?;
    let interfaces: BTreeMap<u32, Found> =
        netlink.interfaces().await?.into_iter().map(|found| (found.index, found)).collect();
    let foreign = |index: u32| interfaces.get(&index).filter(|interface| interface.name != own.as_str());
    let mut around = Around::default();
    let mut default = None;
    for family in [Family::V4, Family::V6] {
        for MainRoute { destination, index, metric } in netlink.main_routes(family).await? {
            let Some(interface) = foreign(index) else { continue };
            if destination.prefix_len() > 0 {
                around.routes.push(Neighbour { interface: interface.name.clone(), net: destination });
            } else if default.is_none_or(|(_, lowest)| metric < lowest) {
                default = Some((index, metric));
            }
        }
    }
    for (rule, mark) in netlink.rules().await? {
        if let Rule::Unmarked(_) = rule {
            around.tunnels.extend(NonZeroU32::new(mark));
        }
    }
    let way = match server {
        Some(ip) => netlink.way_to(ip).await,
        None => default.map(|(index, _)| index),
    };
    around.path_mtu = way.and_then(foreign).and_then(|interface| NonZeroU16::new(interface.mtu));
    Ok(around)
}

/// Largest packet in bytes of each interface in this network namespace, by name.
///
/// # Errors
/// [`LinkError::Failed`] if the kernel does not list them.
pub async fn interface_mtus() -> Result<BTreeMap<String, u16>, LinkError> {
    Ok(Netlink::open()?.interfaces().await?.into_iter().map(|found| (found.name, found.mtu)).collect())
}

struct MainRoute {
    destination: ipnet::IpNet,
    index: u32,
    metric: u32,
}

impl Netlink {
    /// The routes of the main table that lead somewhere.
    async fn main_routes(&self, family: Family) -> Result<Vec<MainRoute>, LinkError> {
        let mut query = RouteMessage::default();
        query.header.address_family = family_of(family);
        query.header.table = RouteHeader::RT_TABLE_MAIN;
        let replies = self.list(Message::GetRoute(query), "list routes").await?;
        let read = |reply: &Message| {
            let Message::NewRoute(RouteMessage { header, attributes, .. }) = reply else { return None };
            if header.kind != RouteType::Unicast || header.table != RouteHeader::RT_TABLE_MAIN {
                return None;
            }
            let metric = attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Priority(metric) => Some(*metric),
                _ => None,
            });
            let index = leads_to(attributes)?;
            Some(MainRoute { destination: destination_of(header, attributes)?, index, metric: metric.unwrap_or(0) })
        };
        Ok(replies.iter().filter_map(read).collect())
    }

    /// The interface that packets to an address leave by; `None` if there is no way.
    async fn way_to(&self, ip: IpAddr) -> Option<u32> {
        let mut query = RouteMessage::default();
        let family = Family::of(ip);
        query.header.address_family = family_of(family);
        query.header.destination_prefix_length = if family == Family::V4 { 32 } else { 128 };
        query.attributes = vec![RouteAttribute::Destination(ip.into())];
        let replies: io::Result<_> = self.request(Message::GetRoute(query), NLM_F_REQUEST).await;
        replies.ok()?.iter().find_map(|reply| match reply {
            Message::NewRoute(RouteMessage { attributes, .. }) => leads_to(attributes),
            _ => None,
        })
    }
}

/// The interface of a route, of one with several the first.
fn leads_to(attributes: &[RouteAttribute]) -> Option<u32> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn family_of(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
