//! The few rtnetlink requests the lab is built with, and the switches under `/proc/sys/net`.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use nix::{
    ifaddrs::getifaddrs,
    net::if_::{InterfaceFlags, if_nametoindex},
    sys::socket::SockaddrStorage,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{hub::Forwarding, protocol::Interface};

/// Opens a connection whose answers are read by the current runtime.
pub(super) fn connect() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Makes a cable: `name` here, `eth0` in the namespace of process `pid`.
pub(super) async fn add_cable(handle: &Handle, name: &str, pid: u32) -> Result<()> {
    let far_end = LinkUnspec::new_with_name("eth0").setns_by_pid(pid).build();
    let cable = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far_end)))
        .build();
    handle.link().add(cable).execute().await.with_context(|| format!("cannot make the veth pair {name}"))
}

/// Makes a cable between the namespaces of two processes, `name` at both ends.
pub(super) async fn add_cable_between(handle: &Handle, name: &str, one: u32, two: u32) -> Result<()> {
    let far_end = LinkUnspec::new_with_name(name).setns_by_pid(two).build();
    let cable = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name.to_owned())
        .setns_by_pid(one)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far_end)))
        .build();
    handle.link().add(cable).execute().await.with_context(|| format!("cannot make the veth pair {name}"))
}

/// Gives an interface an address.
pub(super) async fn add_address(handle: &Handle, name: &str, address: IpAddr, prefix: u8) -> Result<()> {
    let request = handle.address().add(index(name)?, address, prefix);
    request.execute().await.with_context(|| format!("cannot give {name} the address {address}"))
}

/// Deletes an interface.
pub(super) async fn delete(handle: &Handle, name: &str) -> Result<()> {
    handle.link().del(index(name)?).execute().await.with_context(|| format!("cannot delete {name}"))
}

/// Sets an interface up.
pub(super) async fn up(handle: &Handle, name: &str) -> Result<()> {
    let link = LinkUnspec::new_with_index(index(name)?).up().build();
    handle.link().set(link).execute().await.with_context(|| format!("cannot set {name} up"))
}

/// Sets an interface down.
pub(super) async fn down(handle: &Handle, name: &str) -> Result<()> {
    let link = LinkUnspec::new_with_index(index(name)?).down().build();
    handle.link().set(link).execute().await.with_context(|| format!("cannot set {name} down"))
}

/// Sends everything that has no better route to these gateways.
pub(super) async fn add_default_routes(handle: &Handle, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).build();
    handle.route().add(route).execute().await.context("cannot add the IPv4 default route")?;
    let route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).build();
    handle.route().add(route).execute().await.context("cannot add the IPv6 default route")
}

/// Switches forwarding of both families for this process' namespace.
pub(super) fn forward(forwarding: Forwarding) -> Result<()> {
    let value = match forwarding {
        Forwarding::Off => "0",
        Forwarding::On => "1",
    };
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        fs::write(path, value).with_context(|| format!("cannot switch forwarding: cannot write {path}"))?;
    }
    Ok(())
}

/// Has an interface use its IPv6 addresses at once; the check for duplicates, even if only of the link-local one, would
/// hold packets up for two seconds.
pub(super) fn trust_addresses(name: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/accept_dad");
    fs::write(&path, "0").with_context(|| format!("cannot write {path}"))
}

/// Lists the interfaces of this process' namespace by name.
pub(super) fn interfaces() -> Result<Vec<Interface>> {
    let mut interfaces = BTreeMap::<String, Interface>::new();
    for entry in getifaddrs().context("cannot list the interfaces")? {
        let interface = interfaces.entry(entry.interface_name.clone()).or_insert_with(|| Interface {
            name: entry.interface_name.clone(),
            addresses: Vec::new(),
            up: entry.flags.contains(InterfaceFlags::IFF_UP),
        });
        let (Some(address), Some(mask)) = (entry.address.and_then(ip), entry.netmask.and_then(ip)) else { continue };
        interface.addresses.push(IpNet::with_netmask(address, mask).context("an interface has an odd netmask")?);
    }
    let mut interfaces: Vec<_> = interfaces.into_values().collect();
    for interface in &mut interfaces {
        interface.addresses.sort();
    }
    Ok(interfaces)
}

fn index(name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("there is no interface {name}"))
}

fn ip(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}
