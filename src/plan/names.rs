//! Which names this machine should resolve through a membership, and what is answered.
//!
//! A link has one list of servers for all of its domains, so the only server on it is a responder of our own: it knows
//! the hosts, and asks for every other name the servers that are for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::reverse::{reverse_name, reverse_zones};
use crate::model::{
    Assignment, Connection, DnsMode, DomainName, DomainUse, HostNames, Membership, NameScope, NameServers, Remark,
    Server, lineage,
};

/// What the resolver of this machine should know of a membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkNames {
    /// What is answered, and how.
    pub answers: Answers,
    /// One of this host's own addresses in the networks; `None` if it has none.
    pub address: Option<IpAddr>,
    /// The domains that are resolved through the membership.
    pub domains: BTreeMap<DomainName, DomainUse>,
    /// What was left out, and why.
    pub remarks: BTreeSet<Remark>,
}

/// What a responder knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Servers to ask by domain; the longest domain decides.
    pub forward: BTreeMap<DomainName, Vec<IpAddr>>,
    /// Addresses by name.
    pub hosts: HostNames,
    /// Names by the names of addresses.
    pub pointers: BTreeMap<DomainName, BTreeSet<DomainName>>,
    /// Servers to ask for names that nothing else here is for; empty leaves those to others.
    pub rest: Vec<IpAddr>,
    /// Domains of which every name is known.
    pub zones: BTreeSet<DomainName>,
}

/// What is known about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Others know; they are to be asked in this order.
    Ask(&'a [IpAddr]),
    /// These addresses.
    Host(&'a BTreeSet<IpAddr>),
    /// There is no such name.
    Nothing,
    /// It is an address of these.
    Pointers(&'a BTreeSet<DomainName>),
    /// Nobody should ask us.
    Stranger,
    /// There is nothing under this name itself, but under others below it.
    Trunk,
}

impl LinkNames {
    /// Whether there is nothing to resolve.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty() && self.answers.rest.is_empty()
    }
}

impl Answers {
    /// Returns what is known about `name`, which is in lower case and without a dot at its end.
    pub fn find(&self, name: &str) -> Found<'_> {
        if let Some(addresses) = self.hosts.get(name) {
            return Found::Host(addresses);
        }
        if let Some(names) = self.pointers.get(name) {
            return Found::Pointers(names);
        }
        for ancestor in lineage(name) {
            if let Some(servers) = self.forward.get(ancestor) {
                return Found::Ask(servers);
            }
            if self.zones.contains(ancestor) {
                return if self.is_trunk(name) { Found::Trunk } else { Found::Nothing };
            }
        }
        if self.rest.is_empty() { Found::Stranger } else { Found::Ask(&self.rest) }
    }

    fn is_trunk(&self, name: &str) -> bool {
        let below = |known: &DomainName| lineage(known.as_str()).any(|ancestor| ancestor == name);
        self.zones.contains(name) || self.hosts.keys().any(below) || self.pointers.keys().any(below)
    }
}

/// Decides what names of `assignment` are resolved within `mode`.
///
/// `own` are names that this agent needs to reach its server: they are never resolved through the membership, which may
/// not work until they are.
pub fn link_names(assignment: &Assignment, mode: DnsMode, own: &[&str]) -> LinkNames {
    let mut link = link_domains(assignment, mode, own);
    let hosts =
        assignment.names.hosts.iter().filter(|(network, _)| {
            assignment.names.zone(network).is_some_and(|zone| link.answers.zones.contains(&zone))
        });
    for (name, addresses) in hosts.flat_map(|(_, hosts)| hosts) {
        for address in addresses {
            link.answers.pointers.entry(reverse_name(*address)).or_default().insert(name.clone());
        }
        link.answers.hosts.insert(name.clone(), addresses.clone());
    }
    link
}

/// The same without the hosts.
pub(super) fn link_domains(assignment: &Assignment, mode: DnsMode, own: &[&str]) -> LinkNames {
    let mut link = LinkNames::default();
    let names = &assignment.names;
    let connected = assignment.nodes.iter().filter(|(_, node)| node.connection == Connection::Connected);
    if mode == DnsMode::Off || connected.clone().next().is_none() {
        return link;
    }
    link.address = connected.clone().flat_map(|(_, node)| &node.addresses).map(IpNet::addr).next();
    // Without its names, nothing can be said of a network.
    for (network, node) in connected.filter(|(network, _)| names.hosts.contains_key(network)) {
        let Some(zone) = names.zone(network) else { continue };
        if let Some(remark) = refusal(&zone, mode, own) {
            link.remarks.insert(remark);
            continue;
        }
        link.claim(zone);
        node.addresses.iter().flat_map(reverse_zones).for_each(|zone| link.claim(zone));
    }
    // This host answers itself: asked for more, it would ask itself again and again.
    let is_other =
        |ip: &IpAddr| !assignment.nodes.values().any(|node| node.addresses.iter().any(|net| net.addr() == *ip));
    let others = names.servers.iter().map(|servers| NameServers {
        addresses: servers.addresses.iter().copied().filter(is_other).collect(),
        ..servers.clone()
    });
    let others: Vec<_> = others.filter(|servers| !servers.addresses.is_empty()).collect();
    for servers in &others {
        link.follow(servers, mode, own);
    }
    link.answers.rest = rest(&others, mode);
    link
}

/// The names that the agent needs to reach the server of a membership.
pub fn own_names(membership: &Membership) -> Vec<&str> {
    let servers = membership.enrolled().map(|enrolled| &enrolled.api).into_iter().chain([&membership.server]);
    servers.map(Server::host).collect()
}

impl LinkNames {
    fn claim(&mut self, zone: DomainName) {
        self.answers.zones.insert(zone.clone());
        self.domains.insert(zone, DomainUse::Route);
    }

    fn follow(&mut self, servers: &NameServers, mode: DnsMode, own: &[&str]) {
        match &servers.scope {
            NameScope::Domain { name, usage } => {
                if let Some(remark) = refusal(name, mode, own) {
                    self.remarks.insert(remark);
                    return;
                }
                let known = self.answers.forward.entry(name.clone()).or_default();
                let new: Vec<_> = servers.addresses.iter().filter(|address| !known.contains(address)).collect();
                known.extend(new);
                let used = self.domains.entry(name.clone()).or_insert(*usage);
                *used = (*used).max(*usage);
            }
            NameScope::Everything if mode == DnsMode::Split => {
                self.remarks.insert(Remark::NameServersForEverything);
            }
            // Every network comes with such servers: not to follow them is no news.
            NameScope::Everything | NameScope::Rest => {}
        }
    }
}

/// Servers for all names go before servers for those that nobody else is for.
fn rest(servers: &[NameServers], mode: DnsMode) -> Vec<IpAddr> {
    if mode != DnsMode::Full {
        return Vec::new();
    }
    let of = |scope: &NameScope| {
        let listed = servers.iter().filter(|servers| servers.scope == *scope);
        listed.flat_map(|servers| servers.addresses.iter().copied()).collect::<Vec<_>>()
    };
    let everything = of(&NameScope::Everything);
    if everything.is_empty() { of(&NameScope::Rest) } else { everything }
}

fn refusal(domain: &DomainName, mode: DnsMode, own: &[&str]) -> Option<Remark> {
    if own.iter().any(|name| domain.contains(name)) {
        Some(Remark::DomainOfServer(domain.clone()))
    } else if mode != DnsMode::Full && is_suffix(domain) {
        Some(Remark::DomainTooWide(domain.clone()))
    } else {
        None
    }
}

/// Whether a domain looks like one under which others register theirs, as `com` or `co.uk`. Servers take the last two
/// labels of a name for its domain (protocol page, "DNS data").
fn is_suffix(domain: &DomainName) -> bool {
    match domain.as_str().split('.').collect::<Vec<_>>()[..] {
        [] | [_] => true,
        [second, country] => country.len() == 2 && SECOND_LEVELS.contains(&second),
        [..] => false,
    }
}

/// What countries commonly call the part of theirs under which others register.
const SECOND_LEVELS: &[&str] =
    &["ac", "co", "com", "edu", "gob", "gov", "go", "ltd", "mil", "ne", "net", "nom", "or", "org", "plc", "sch"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::model::{Names, Node, RelayChoice};

    #[test]
    fn this_host_is_never_asked_on_behalf_of_itself() {
        let link = link_names(&assignment(&[("firm.example", "10.101.0.3")]), DnsMode::Full, &[]);

        assert!(link.answers.forward.is_empty() && !domains(&link).contains(&"firm.example"));
    }

    #[test]
    fn what_others_register_under_is_no_domain_of_anybody() {
        let domain = |text: &str| text.parse::<DomainName>().unwrap();

        for suffix in ["com", "co.uk", "com.au", "or.jp"] {
            assert!(is_suffix(&domain(suffix)), "{suffix}");
        }
        for own in ["firm.co.uk", "example.com", "kit.de", "nm.internal"] {
            assert!(!is_suffix(&domain(own)), "{own}");
        }
    }

    #[test]
    fn hosts_of_connected_networks_are_answered() {
        let link = link_names(&assignment(&[]), DnsMode::Split, &["api.example.net"]);

        assert_eq!(domains(&link), ["101.10.in-addr.arpa", "plant-a.nm.internal"]);
        assert_eq!(
            link.answers.find("plc-1.plant-a.nm.internal"),
            Found::Host(&["10.101.0.2".parse().unwrap()].into())
        );
        assert_eq!(
            link.answers.find("2.0.101.10.in-addr.arpa"),
            Found::Pointers(&[domain("plc-1.plant-a.nm.internal")].into())
        );
        assert_eq!(link.answers.find("plc-2.plant-a.nm.internal"), Found::Nothing);
        assert_eq!(link.answers.find("9.0.101.10.in-addr.arpa"), Found::Nothing);
        assert_eq!(link.answers.find("plant-a.nm.internal"), Found::Trunk);
        assert_eq!(link.answers.find("0.101.10.in-addr.arpa"), Found::Trunk);
        assert_eq!(link.answers.find("plant-b.nm.internal"), Found::Stranger);
        assert_eq!(link.answers.find("example.net"), Found::Stranger);
    }

    #[test]
    fn nothing_is_said_of_networks_whose_names_nobody_told_or_that_are_disconnected() {
        let mut untold = assignment(&[]);
        untold.names.hosts.clear();
        let mut disconnected = assignment(&[("corp.example", "10.101.0.53")]);
        for node in disconnected.nodes.values_mut() {
            node.connection = Connection::Disconnected;
        }

        for assignment in [untold, disconnected] {
            assert!(link_names(&assignment, DnsMode::Full, &[]).is_empty());
        }
    }

    #[test]
    fn off_follows_nothing() {
        assert_eq!(link_names(&wide(), DnsMode::Off, &[]), LinkNames::default());
    }

    #[test]
    fn split_follows_domains_and_never_takes_a_machine_over() {
        let link = link_names(&wide(), DnsMode::Split, &["api.example.net"]);

        assert_eq!(domains(&link), ["101.10.in-addr.arpa", "corp.example", "plant-a.nm.internal"]);
        assert_eq!(link.answers.find("git.corp.example"), Found::Ask(&["10.101.0.53".parse().unwrap()]));
        assert_eq!(link.answers.find("example.com"), Found::Stranger);
        assert_eq!(link.answers.find("www.example.net"), Found::Stranger);
        assert_eq!(
            link.remarks,
            BTreeSet::from([
                Remark::DomainOfServer(domain("example.net")),
                Remark::DomainTooWide(domain("com")),
                Remark::NameServersForEverything,
            ])
        );
    }

    #[test]
    fn full_follows_everything_but_what_the_agent_needs_itself() {
        let link = link_names(&wide(), DnsMode::Full, &["api.example.net"]);

        assert_eq!(domains(&link), ["101.10.in-addr.arpa", "com", "corp.example", "plant-a.nm.internal"]);
        assert_eq!(link.answers.find("example.org"), Found::Ask(&["10.101.0.54".parse().unwrap()]));
        assert_eq!(link.remarks, BTreeSet::from([Remark::DomainOfServer(domain("example.net"))]));
    }

    #[test]
    fn servers_for_the_rest_are_asked_where_none_are_for_everything() {
        let mut assignment = wide();
        assignment.names.servers.retain(|servers| servers.scope != NameScope::Everything);

        assert_eq!(link_names(&assignment, DnsMode::Full, &[]).answers.rest, ["8.8.8.8".parse::<IpAddr>().unwrap()]);
        assert!(link_names(&assignment, DnsMode::Split, &[]).answers.rest.is_empty());
    }

    #[test]
    fn the_longest_domain_decides_and_known_hosts_go_first() {
        let servers = [("nm.internal", "10.101.0.53"), ("lab.plant-a.nm.internal", "10.101.0.54")];
        let link = link_names(&assignment(&servers), DnsMode::Split, &[]);

        let ask = |name: &str| link.answers.find(name);
        assert_eq!(ask("x.nm.internal"), Found::Ask(&["10.101.0.53".parse().unwrap()]));
        assert_eq!(ask("x.plant-a.nm.internal"), Found::Nothing);
        assert_eq!(ask("x.lab.plant-a.nm.internal"), Found::Ask(&["10.101.0.54".parse().unwrap()]));
        assert!(matches!(ask("plc-1.plant-a.nm.internal"), Found::Host(_)));
    }

    #[test]
    fn a_server_for_the_zone_itself_knows_what_we_do_not() {
        let link = link_names(&assignment(&[("plant-a.nm.internal", "10.101.0.53")]), DnsMode::Split, &[]);

        assert!(matches!(link.answers.find("plc-1.plant-a.nm.internal"), Found::Host(_)));
        assert_eq!(link.answers.find("printer.plant-a.nm.internal"), Found::Ask(&["10.101.0.53".parse().unwrap()]));
    }

    proptest! {
        /// Whatever a server says, `split` leaves alone every name that is in no domain it names, and in no network.
        #[test]
        fn split_is_never_asked_for_strangers(scopes in proptest::collection::vec(0..4_usize, 0..6), name in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}") {
            let mut assignment = assignment(&[]);
            let pick = |kind: &usize| match kind {
                0 => NameScope::Everything,
                1 => NameScope::Rest,
                2 => NameScope::Domain { name: domain("com"), usage: DomainUse::Search },
                _ => NameScope::Domain { name: domain("corp.example"), usage: DomainUse::Route },
            };
            assignment.names.servers = scopes.iter().map(|kind| servers(pick(kind), "10.101.0.53")).collect();

            let link = link_names(&assignment, DnsMode::Split, &[]);

            let ours = link.domains.keys().any(|domain| domain.contains(&name));
            prop_assert!(ours || link.answers.find(&name) == Found::Stranger);
            prop_assert!(link.domains.keys().all(|domain| domain.labels() > 1));
        }
    }

    fn wide() -> Assignment {
        let mut assignment =
            assignment(&[("corp.example", "10.101.0.53"), ("com", "10.101.0.53"), ("example.net", "10.101.0.53")]);
        assignment.names.servers.push(servers(NameScope::Everything, "10.101.0.54"));
        assignment.names.servers.push(servers(NameScope::Rest, "8.8.8.8"));
        assignment
    }

    fn assignment(named: &[(&str, &str)]) -> Assignment {
        let node = Node {
            addresses: ["10.101.0.3/16".parse().unwrap()].into(),
            connection: Connection::Connected,
            id: Uuid::nil(),
            relay: None,
            relay_choice: RelayChoice::Fixed,
            tags: BTreeSet::new(),
        };
        let hosts = HostNames::from([(domain("plc-1.plant-a.nm.internal"), ["10.101.0.2".parse().unwrap()].into())]);
        let named = named
            .iter()
            .map(|(name, address)| servers(NameScope::Domain { name: domain(name), usage: DomainUse::Route }, address));
        Assignment {
            names: Names {
                domain: Some(domain("nm.internal")),
                hosts: BTreeMap::from([("plant-a".parse().unwrap(), hosts)]),
                servers: named.collect(),
            },
            nodes: BTreeMap::from([("plant-a".parse().unwrap(), node)]),
            ..Assignment::default()
        }
    }

    fn servers(scope: NameScope, address: &str) -> NameServers {
        NameServers { addresses: vec![address.parse().unwrap()], scope }
    }

    fn domain(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    fn domains(link: &LinkNames) -> Vec<&str> {
        link.domains.keys().map(DomainName::as_str).collect()
    }
}
