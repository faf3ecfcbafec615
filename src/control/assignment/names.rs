//! What a server says about names: whatever cannot be used is left out, since nothing else depends on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::wire;
use crate::model::{
    Assignment, Connection, DomainName, DomainUse, HostNames, NameScope, NameServers, Names, NetworkName, Remark,
};

/// Reads whom to ask for which names; the hosts' own are told elsewhere.
pub(super) fn names(
    config: &wire::ServerConfig,
    listed: Option<&[wire::Nameserver]>,
    remarks: &mut BTreeSet<Remark>,
) -> Names {
    if !config.manage_dns {
        return Names::default();
    }
    let mut servers: Vec<NameServers> = Vec::new();
    for wire in listed.unwrap_or_default().iter().take(MOST_SERVERS) {
        match name_servers(wire) {
            // Each network names the same ones again.
            Some(known) if servers.contains(&known) => {}
            Some(new) => servers.push(new),
            None => {
                let domain = wire.match_domain.chars().filter(|character| !character.is_control()).take(80).collect();
                remarks.insert(Remark::NameServersUnusable(domain));
            }
        }
    }
    Names { domain: config.default_domain.parse().ok(), hosts: BTreeMap::new(), servers }
}

fn name_servers(wire: &wire::Nameserver) -> Option<NameServers> {
    let addresses = wire.ips.iter().flatten().map(|text| text.parse().ok().filter(is_server));
    let addresses: Vec<IpAddr> = addresses.take(MOST_ADDRESSES).collect::<Option<_>>()?;
    let domain = wire.match_domain.trim();
    let scope = if wire.is_fallback {
        NameScope::Rest
    } else if [".", "~."].contains(&domain) {
        NameScope::Everything
    } else {
        let usage = if wire.is_search_domain { DomainUse::Search } else { DomainUse::Route };
        NameScope::Domain { name: domain.strip_prefix('~').unwrap_or(domain).parse().ok()?, usage }
    };
    (!addresses.is_empty()).then_some(NameServers { addresses, scope })
}

/// Reads the names in a network that were told to everybody; those outside its domain are left out, as is what no
/// other machine has.
///
/// Anyone who may publish at the broker can tell them, so they may not be more than names of the network.
pub fn told_names(entries: &[wire::DnsEntry], network: &NetworkName, names: &Names) -> HostNames {
    let Some(zone) = names.zone(network) else { return HostNames::new() };
    let mut hosts = HostNames::new();
    for entry in entries.iter().take(MOST_NAMES) {
        let Some(name) = entry.name.parse().ok().filter(|name: &DomainName| zone.contains(name.as_str())) else {
            continue;
        };
        note(&mut hosts, name, [&entry.address, &entry.address6]);
    }
    hosts
}

/// Reads the names in the networks of `assignment` from what the server says about its peers, and adds its own.
pub fn peer_names(peers: &wire::PeerInfo, assignment: &Assignment) -> BTreeMap<NetworkName, HostNames> {
    let connected = assignment.nodes.iter().filter(|(_, node)| node.connection == Connection::Connected);
    let of_network = |network: &NetworkName| -> Option<HostNames> {
        let zone = assignment.names.zone(network)?;
        let mut hosts = HostNames::new();
        let named = |host: &str| format!("{host}.{zone}").parse::<DomainName>().ok();
        let listed = peers.network_peers.iter().flatten().find(|(name, _)| name.as_str() == network.as_str());
        for entry in listed.into_iter().flat_map(|(_, peers)| peers.values()).take(MOST_NAMES) {
            if let Some(name) = named(&entry.name).filter(|_| !entry.is_ext_client) {
                note(&mut hosts, name, [&entry.address4, &entry.address6]);
            }
        }
        if let Some(name) = named(&assignment.name) {
            let own = assignment.nodes.get(network)?.addresses.iter().map(ipnet::IpNet::addr);
            hosts.entry(name).or_default().extend(own);
        }
        Some(hosts)
    };
    connected.filter_map(|(network, _)| Some((network.clone(), of_network(network)?))).collect()
}

fn note(hosts: &mut HostNames, name: DomainName, addresses: [&String; 2]) {
    let addresses: BTreeSet<_> = addresses.into_iter().filter_map(|text| text.parse().ok()).filter(is_server).collect();
    if !addresses.is_empty() {
        hosts.entry(name).or_default().extend(addresses);
    }
}

/// An address of some other machine: names that lead to this one could open what is only for it.
fn is_server(ip: &IpAddr) -> bool {
    let special = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !special && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// Servers for one domain; a resolver gives up after a few.
const MOST_ADDRESSES: usize = 8;

/// Names in one network.
const MOST_NAMES: usize = 1 << 16;

/// Domains with servers of their own; systemd-resolved takes 256 on a link, the networks' own with them.
const MOST_SERVERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{check, fixture},
        *,
    };

    #[test]
    fn reads_name_servers_by_what_they_are_for() {
        let servers = |match_domain: &str, is_search_domain, is_fallback| wire::Nameserver {
            ips: Some(vec!["10.101.0.53".to_owned(), "fd00::53".to_owned()]),
            match_domain: match_domain.to_owned(),
            is_search_domain,
            is_fallback,
            is_ad_domain: false,
        };
        let listed = [
            servers("", false, true),
            servers("~Corp.Example.", false, false),
            servers("corp.example", false, false),
            servers("lab.example", true, false),
            servers("~.", false, false),
            servers("*.example", false, false),
            wire::Nameserver { ips: Some(vec!["127.0.0.1".to_owned()]), ..servers("x.example", false, false) },
            wire::Nameserver { ips: None, ..servers("y.example", false, false) },
        ];
        let mut remarks = BTreeSet::new();

        let read = names(&config(true), Some(&listed), &mut remarks);

        let domain = |name: &str, usage| NameScope::Domain { name: name.parse().unwrap(), usage };
        let scopes: Vec<_> = read.servers.iter().map(|servers| servers.scope.clone()).collect();
        assert_eq!(
            scopes,
            [
                NameScope::Rest,
                domain("corp.example", DomainUse::Route),
                domain("lab.example", DomainUse::Search),
                NameScope::Everything,
            ]
        );
        assert_eq!(read.domain, "nm.internal".parse().ok());
        let unusable = ["*.example", "x.example", "y.example"].map(|name| Remark::NameServersUnusable(name.to_owned()));
        assert_eq!(remarks, BTreeSet::from(unusable));
    }

    #[test]
    fn a_server_that_manages_no_names_says_nothing_about_them() {
        assert_eq!(names(&config(false), None, &mut BTreeSet::new()), Names::default());
    }

    #[test]
    fn names_outside_the_network_and_of_this_machine_are_left_out() {
        let entry = |name: &str, address: &str, address6: &str| wire::DnsEntry {
            name: name.to_owned(),
            address: address.to_owned(),
            address6: address6.to_owned(),
            network: "office".to_owned(),
        };
        let entries = [
            entry("A.office.nm.internal", "10.202.0.2", "fd00:202::2"),
            entry("b.office.nm.internal", "", "fd00:202::3"),
            entry("bank.example", "10.202.0.2", ""),
            entry("c.plant-a.nm.internal", "10.202.0.2", ""),
            entry("x y.office.nm.internal", "10.202.0.2", ""),
            entry("local.office.nm.internal", "127.0.0.1", "::ffff:127.0.0.1"),
        ];

        let read = told_names(&entries, &"office".parse().unwrap(), &managed());

        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(
            read,
            HostNames::from([
                ("a.office.nm.internal".parse().unwrap(), addresses(&["10.202.0.2", "fd00:202::2"])),
                ("b.office.nm.internal".parse().unwrap(), addresses(&["fd00:202::3"])),
            ])
        );
    }

    #[test]
    fn the_peers_names_are_those_of_the_recorded_answer() {
        let answer: wire::Success<wire::PeerInfo> = fixture("peer-info-response");
        let checked = check(|_| {}).unwrap();
        let assignment = Assignment { name: "Edge-1".to_owned(), names: managed(), ..checked };

        let read = peer_names(&answer.response.unwrap(), &assignment);

        let names = |network: &str| read[&network.parse().unwrap()].keys().map(DomainName::as_str).collect::<Vec<_>>();
        assert_eq!(
            names("office"),
            ["edge-1.office.nm.internal", "nas-1.office.nm.internal", "relay-fra1.office.nm.internal"]
        );
        assert_eq!(
            names("plant-a"),
            ["edge-1.plant-a.nm.internal", "plc-4.plant-a.nm.internal", "relay-fra1.plant-a.nm.internal"]
        );
    }

    fn config(manage_dns: bool) -> wire::ServerConfig {
        wire::ServerConfig { manage_dns, default_domain: "nm.internal".to_owned(), ..wire::ServerConfig::default() }
    }

    fn managed() -> Names {
        names(&config(true), None, &mut BTreeSet::new())
    }
}
