//! Links, addresses and routes over rtnetlink: what the kernel and the userspace backend have in common.

use std::{collections::BTreeSet, fs, io, mem::discriminant, path::Path};

use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message, address::AddressMessage, link::LinkMessage};
use netlink_proto::{
    ConnectionHandle,
    sys::{AsyncSocket, SocketAddr, protocols::NETLINK_ROUTE},
};
use nix::errno::Errno;
use rtnetlink::{LinkUnspec, LinkWireguard};
use tracing::{debug, warn};

use super::{
    LeftOut, LinkError, failed,
    netlink_messages::{Found, Place, address_of, adds_ipv6, found, refused, request_for, route_of, route_query},
    words::describe,
};
use crate::{
    model::{InterfaceName, LinkState, Route, Rule},
    plan::Change,
};

/// A connection to the kernel's rtnetlink; its task ends when this is dropped.
#[derive(Debug)]
pub(super) struct Netlink(ConnectionHandle<Message>);

/// Interfaces are numbered upward from 1, so none gets here.
const NO_INDEX: u32 = i32::MAX.cast_unsigned();

impl Netlink {
    /// Connects; must be called within a tokio runtime.
    pub(super) fn open() -> Result<Self, LinkError> {
        let opened = netlink_proto::new_connection::<Message>(NETLINK_ROUTE);
        let (mut connection, handle, _) = opened.map_err(|source| failed("open a netlink socket", source))?;
        // Lets the kernel filter the routes of a machine that has very many; before Linux 4.20 we do it all.
        if let Err(error) = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true) {
            debug!(%error, "kernel cannot filter what it lists");
        }
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Looks an interface up; `None` when there is none of that name.
    pub(super) async fn find(&self, name: &InterfaceName) -> Result<Option<Found>, LinkError> {
        let query = LinkUnspec::new_with_name(name.as_str()).build();
        match self.request(Message::GetLink(query), NLM_F_REQUEST).await {
            Ok(replies) => Ok(replies.iter().find_map(found)),
            Err(error) if is(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(failed(format!("look up interface {name}"), error)),
        }
    }

    /// Lists all interfaces.
    pub(super) async fn interfaces(&self) -> Result<Vec<Found>, LinkError> {
        let replies = self.list(Message::GetLink(LinkMessage::default()), "list interfaces").await?;
        Ok(replies.iter().filter_map(found).collect())
    }

    /// Reads the rules of an interface, whether it is there or not.
    pub(super) async fn rules_of(&self, name: &InterfaceName) -> Result<BTreeSet<Rule>, LinkError> {
        let rules = self.rules().await?.into_iter();
        Ok(rules.filter(|(_, mark)| *mark == name.mark().get()).map(|(rule, _)| rule).collect())
    }

    /// Removes the rules of an interface.
    pub(super) async fn remove_rules(&self, name: &InterfaceName) -> Result<(), LinkError> {
        self.sweep_rules(|mark| mark != name.mark().get()).await.map(drop)
    }

    /// Makes a WireGuard interface.
    pub(super) async fn create_wireguard(&self, name: &InterfaceName) -> Result<(), LinkError> {
        let message = Message::NewLink(LinkWireguard::new(name.as_str()).build());
        match self.request(message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, Errno::EOPNOTSUPP) => Err(LinkError::Absent),
            Err(error) if is(&error, Errno::EEXIST) => Err(LinkError::Taken(name.clone())),
            Err(error) => Err(failed(format!("create interface {name}"), error)),
        }
    }

    /// Asks whether this process may change interfaces at all, by deleting one with a number that none has.
    pub(super) async fn may_change(&self) -> Result<(), LinkError> {
        let message = Message::DelLink(LinkUnspec::new_with_index(NO_INDEX).build());
        match self.request(message, NLM_F_REQUEST | NLM_F_ACK).await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, Errno::ENODEV) => Ok(()),
            Err(error) => Err(failed("create an interface".to_owned(), error)),
        }
    }

    /// Deletes an interface; none of that number is success.
    pub(super) async fn delete(&self, index: u32, name: &InterfaceName) -> Result<(), LinkError> {
        let message = Message::DelLink(LinkUnspec::new_with_index(index).build());
        match self.request(message, NLM_F_REQUEST | NLM_F_ACK).await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, Errno::ENODEV) => Ok(()),
            Err(error) => Err(failed(format!("delete interface {name}"), error)),
        }
    }

    /// Reads the addresses of an interface, without link-local ones.
    pub(super) async fn addresses(&self, index: u32) -> Result<BTreeSet<IpNet>, LinkError> {
        let mut query = AddressMessage::default();
        query.header.index = index;
        let replies = self.list(Message::GetAddress(query), "list addresses").await?;
        Ok(replies.iter().filter_map(|reply| address_of(reply, index)).collect())
    }

    /// Reads our routes to an interface: those with our protocol number in the main table and in its own.
    pub(super) async fn routes(&self, name: &InterfaceName, index: u32) -> Result<BTreeSet<Route>, LinkError> {
        let place = Place { index, mark: name.mark().get() };
        let mut routes = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let replies = self.list(Message::GetRoute(route_query(family, index)), "list routes").await?;
            routes.extend(replies.iter().filter_map(|reply| route_of(reply, place)));
        }
        Ok(routes)
    }

    /// Carries out changes of addresses, routes, MTU and state on one interface; other changes are not its business.
    pub(super) async fn apply(
        &self,
        name: &InterfaceName,
        index: u32,
        changes: &[Change],
        left_out: &mut LeftOut,
    ) -> Result<(), LinkError> {
        for run in changes.chunk_by(|a, b| discriminant(a) == discriminant(b)) {
            match run[0] {
                Change::RemoveAddress(_) | Change::SetState(LinkState::Down) => {
                    let addresses = self.addresses(index).await?;
                    let routes = self.routes(name, index).await?;
                    self.send(name, index, run, left_out).await?;
                    let lost = self.lost(name, index, run, addresses, routes).await?;
                    for run in lost.chunk_by(|a, b| discriminant(a) == discriminant(b)) {
                        self.send(name, index, run, left_out).await?;
                    }
                }
                Change::AddAddress(_)
                | Change::AddPeer { .. }
                | Change::AddRoute(_)
                | Change::AddRule(_)
                | Change::CreateInterface
                | Change::RemovePeer(_)
                | Change::RemoveRoute(_)
                | Change::RemoveRule(_)
                | Change::SetFwmark(_)
                | Change::SetListenPort(_)
                | Change::SetMtu(_)
                | Change::SetPrivateKey(_)
                | Change::SetState(LinkState::Up)
                | Change::UpdatePeer { .. } => self.send(name, index, run, left_out).await?,
            }
        }
        Ok(())
    }

    /// Says how to put back what Linux dropped beside what it was told to: with a first address others of its range,
    /// with a last one the routes, with an interface going down its IPv6 addresses.
    async fn lost(
        &self,
        name: &InterfaceName,
        index: u32,
        done: &[Change],
        addresses: BTreeSet<IpNet>,
        routes: BTreeSet<Route>,
    ) -> Result<Vec<Change>, LinkError> {
        let left = self.addresses(index).await?;
        let removed = |change: &Change| if let Change::RemoveAddress(net) = change { Some(*net) } else { None };
        let meant: BTreeSet<IpNet> = done.iter().filter_map(removed).collect();
        let addresses = addresses.into_iter().filter(|net| !left.contains(net) && !meant.contains(net));
        let mut lost: Vec<_> = addresses.map(Change::AddAddress).collect();
        if !done.contains(&Change::SetState(LinkState::Down)) {
            let left = self.routes(name, index).await?;
            lost.extend(routes.into_iter().filter(|route| !left.contains(route)).map(Change::AddRoute));
        }
        Ok(lost)
    }

    /// Sends one request per change, many in a datagram.
    async fn send(
        &self,
        name: &InterfaceName,
        index: u32,
        changes: &[Change],
        left_out: &mut LeftOut,
    ) -> Result<(), LinkError> {
        let mut changes: Vec<&Change> = changes.iter().collect();
        if changes.iter().any(|change| adds_ipv6(change)) && ipv6_is_off(name) {
            warn!(interface = %name, "IPv6 is disabled here, leaving out its addresses and routes");
            changes.iter().filter(|change| adds_ipv6(change)).for_each(|change| left_out.note(change));
            changes.retain(|change| !adds_ipv6(change));
        }
        let place = Place { index, mark: name.mark().get() };
        for batch in changes.chunks(BATCH) {
            let requests = batch.iter().filter_map(|change| request_for(change, place));
            let stream = self.0.request_batch(requests, SocketAddr::new(0, 0)).map_err(io::Error::other);
            let mut answers = stream.map_err(|source| failed(format!("change interface {name}"), source))?;
            let mut first = None;
            // To the end even after an error, so that all of the batch is done when this returns.
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload
                    && error.code.is_some()
                    && let Some(change) = refused(&error.header, batch, place)
                {
                    let (what, source) = (describe(change, name), error.to_io());
                    let is_there = is(&source, Errno::EEXIST);
                    if is_there && matches!(change, Change::AddRoute(_)) {
                        // Somebody else's route; taking it over would cut off whatever is behind it.
                        warn!("cannot {what}: there is such a route already, leaving it out");
                        left_out.note(change);
                    } else if is_there && matches!(change, Change::AddRule(_)) {
                        // Left over from a crash, and right.
                    } else if first.is_none() {
                        first = Some((what, source));
                    }
                }
            }
            if let Some((what, source)) = first {
                return Err(failed(what, source));
            }
        }
        Ok(())
    }

    /// Asks for all of something; none where the kernel does without that, as without IPv6.
    pub(super) async fn list(&self, message: Message, action: &str) -> Result<Vec<Message>, LinkError> {
        match self.request(message, NLM_F_REQUEST | NLM_F_DUMP).await {
            Ok(replies) => Ok(replies),
            Err(error) if is(&error, Errno::EOPNOTSUPP) || is(&error, Errno::EAFNOSUPPORT) => Ok(Vec::new()),
            Err(source) => Err(failed(action, source)),
        }
    }

    pub(super) async fn request(&self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut answers = self.0.request(request, SocketAddr::new(0, 0)).map_err(io::Error::other)?;
        let mut replies = Vec::new();
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = &answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
            if let NetlinkPayload::InnerMessage(reply) = answer.payload {
                replies.push(reply);
            }
        }
        Ok(replies)
    }
}

pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// Whether IPv6 is switched off for an interface, for the machine, or missing from the kernel.
fn ipv6_is_off(name: &InterfaceName) -> bool {
    let sysctl = Path::new("/proc/sys/net");
    match fs::read_to_string(sysctl.join("ipv6/conf").join(name.as_str()).join("disable_ipv6")) {
        Ok(value) => value.trim() == "1",
        Err(_) => sysctl.join("ipv4/conf").join(name.as_str()).exists(),
    }
}

/// Requests in one datagram: more gain nothing and may overrun the socket's buffer.
const BATCH: usize = 256;
