//! What this machine says about itself; decides nothing.

mod haystack;
mod leftovers;
mod machine;
mod netclient;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    num::NonZeroU16,
    path::Path,
};

use ipnet::IpNet;
use nix::{
    ifaddrs::{self, InterfaceAddress},
    net::if_::InterfaceFlags,
    sys::utsname,
};

pub use self::{
    haystack::{Haystack, Hideout, Searched},
    leftovers::{Leftover, forwards, leftovers, mode, owner_of_interface},
    machine::machine,
    netclient::{netclient_files, running_netclient},
};
use crate::model::{Facts, InterfaceName, Neighbour, Outside};

/// Gathers the facts; what cannot be read is left empty. Interfaces whose name starts with one of `ours` are skipped.
pub fn gather(ours: &[&str]) -> Facts {
    let uname = utsname::uname().ok();
    let text =
        |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let os_release = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    Facts {
        default_interface: default_interface(&fs::read_to_string("/proc/net/route").unwrap_or_default()),
        firewall: firewall(),
        host_name: text(uname.as_ref().map(utsname::UtsName::nodename)),
        in_container: Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists(),
        interfaces: interfaces(ours),
        ip_forwarding: fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1"),
        kernel_version: text(uname.as_ref().map(utsname::UtsName::release)),
        os_family: os_release_field(&os_release, "ID"),
        os_version: os_release_field(&os_release, "VERSION_ID"),
        // Only others can tell.
        outside: Outside::default(),
    }
}

/// Returns what tells this machine from others: its id, or on a machine without one that of this boot.
pub fn machine_id() -> String {
    let read = |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| text.len() >= 32);
    read("/etc/machine-id").or_else(|| read("/proc/sys/kernel/random/boot_id")).unwrap_or_default()
}

/// Tells whether an interface of this name leads to virtual machines or containers inside this machine.
pub fn is_inner(name: &str) -> bool {
    ["docker", "br-", "veth", "virbr", "cni", "flannel"].iter().any(|prefix| name.starts_with(prefix))
}

/// Returns the networks on this machine's interfaces other than `own`, with this machine's addresses in them.
pub fn networks(own: &InterfaceName) -> Vec<Neighbour> {
    let Ok(all) = ifaddrs::getifaddrs() else { return Vec::new() };
    let others = all.filter(|entry| entry.interface_name != own.as_str());
    others.filter_map(|entry| Some(Neighbour { net: network(&entry)?, interface: entry.interface_name })).collect()
}

/// Returns where this machine asks for names; a stub on this machine itself is replaced by those that it asks.
pub fn name_servers() -> Vec<IpAddr> {
    let listed = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"].iter().flat_map(|path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        name_servers_in(&text).collect::<Vec<_>>()
    });
    let mut servers: Vec<IpAddr> = listed.filter(|ip| !ip.is_loopback()).collect();
    servers.sort();
    servers.dedup();
    servers
}

/// Reads the `nameserver` lines of resolv.conf(5).
fn name_servers_in(text: &str) -> impl Iterator<Item = IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next()).flatten()?;
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(address)
}

/// Returns the private networks that this machine is attached to, with its own addresses in them. Interfaces whose name
/// starts with one of `ours` are skipped.
pub fn private_networks(ours: &[&str]) -> Vec<IpNet> {
    interfaces(ours).into_iter().map(|(_, net)| net).collect()
}

/// Returns the first UDP port from `first` upward that is free on this machine now.
///
/// # Errors
/// The last bind error when none of 1,000 ports was free.
pub fn free_port(first: NonZeroU16) -> io::Result<NonZeroU16> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in (first.get()..=u16::MAX).take(1000).filter_map(NonZeroU16::new) {
        match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port.get())) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn interfaces(ours: &[&str]) -> Vec<(String, IpNet)> {
    let Ok(all) = ifaddrs::getifaddrs() else { return Vec::new() };
    let mut found = Vec::new();
    for entry in all {
        let unusable = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_POINTOPOINT;
        let foreign =
            is_inner(&entry.interface_name) || ours.iter().any(|prefix| entry.interface_name.starts_with(prefix));
        if foreign || entry.flags.intersects(unusable) || !entry.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        if let Some(net) = network(&entry)
            && is_private(net.addr())
        {
            found.push((entry.interface_name, net));
        }
    }
    found
}

fn network(entry: &InterfaceAddress) -> Option<IpNet> {
    let (address, mask) = (entry.address?, entry.netmask?);
    let (address, mask) = if let (Some(ip), Some(mask)) = (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
        (IpAddr::V4(ip.ip()), IpAddr::V4(mask.ip()))
    } else {
        (IpAddr::V6(address.as_sockaddr_in6()?.ip()), IpAddr::V6(mask.as_sockaddr_in6()?.ip()))
    };
    IpNet::with_netmask(address, mask).ok()
}

/// RFC 1918 and RFC 4193 addresses: the ones a neighbour on the same network can use.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => Ipv6Addr::is_unique_local(&ip),
    }
}

fn default_interface(table: &str) -> String {
    let fields = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let default = fields
        .filter(|fields| fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000"))
        .min_by_key(|fields| fields.get(6).and_then(|metric| metric.parse::<u32>().ok()).unwrap_or(u32::MAX));
    default.map(|fields| fields[0].to_owned()).unwrap_or_default()
}

fn firewall() -> &'static str {
    let installed =
        |tool: &str| ["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(tool).exists());
    match (installed("nft"), installed("iptables")) {
        (true, _) => "nftables",
        (false, true) => "iptables",
        (false, false) => "none",
    }
}

fn os_release_field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_os_release_with_and_without_quotes() {
        let text = "PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n";

        assert_eq!(os_release_field(text, "ID"), "debian");
        assert_eq!(os_release_field(text, "VERSION_ID"), "12");
        assert_eq!(os_release_field(text, "VARIANT"), "");
    }

    #[test]
    fn reads_name_servers_with_and_without_an_interface() {
        let text = "# by hand\nnameserver 192.0.2.53\n nameserver fe80::1%eth0\nsearch example.net\nnameserver x\n";

        let found: Vec<IpAddr> = name_servers_in(text).collect();

        assert_eq!(found, ["192.0.2.53".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }

    #[test]
    fn finds_the_default_route_with_the_lowest_metric() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            wlan0 00000000 0102A8C0 0003 0 0 600 00000000 0 0 0\n\
            eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n\
            eth0 0001A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0\n";

        assert_eq!(default_interface(table), "eth0");
        assert_eq!(default_interface(""), "");
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let first = free_port(NonZeroU16::new(52000).unwrap()).unwrap();
        let _held = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, first.get())).unwrap();

        assert!(free_port(first).unwrap() > first);
    }
}
