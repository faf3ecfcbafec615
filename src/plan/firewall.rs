//! From access rules to the lines of a packet filter on one interface.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::model::{Access, AccessRule, FirewallSetting, PortRange, Traffic, Verdict};

/// What this machine should do about access rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wall {
    /// Nothing: the owner of this machine wants them ignored.
    Ignored,
    /// Nothing: there are none.
    Open,
    /// Enforce these.
    Rules(Ruleset),
}

/// A packet filter for what comes in by one interface and is no answer: the first line that fits decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// In order.
    pub lines: Vec<Line>,
    /// For packets that no line fits.
    pub others: Verdict,
    /// How many rules of the server they come from.
    pub rules: usize,
}

/// One decision, for one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Networks apart from each other, of one family; never empty, and `/0` is every address.
    pub destinations: Vec<IpNet>,
    /// The server's id of the rule.
    pub rule: String,
    /// The same for where a packet comes from.
    pub sources: Vec<IpNet>,
    /// What is decided about, with ranges of ports that are apart from each other.
    pub traffic: Traffic,
    /// What is decided.
    pub verdict: Verdict,
}

/// Decides what to do about `access`; without a `setting` it is enforced.
pub fn wall(access: &Access, setting: Option<FirewallSetting>) -> Wall {
    match setting {
        _ if access.is_open() => Wall::Open,
        Some(FirewallSetting::Ignore) => Wall::Ignored,
        Some(FirewallSetting::Enforce) | None => Wall::Rules(ruleset(access)),
    }
}

fn ruleset(access: &Access) -> Ruleset {
    let Access { others, rules } = access;
    let of = |wanted: Verdict| {
        rules.iter().filter(move |(_, rule)| rule.verdict == wanted).flat_map(|(id, rule)| lines(id, rule))
    };
    Ruleset { lines: of(Verdict::Deny).chain(of(Verdict::Allow)).collect(), others: *others, rules: rules.len() }
}

/// A rule is one line in each family that has both sources and destinations.
fn lines(id: &str, rule: &AccessRule) -> impl Iterator<Item = Line> {
    let AccessRule { destinations, sources, traffic, verdict } = rule;
    let traffic = match traffic {
        Traffic::All => Traffic::All,
        Traffic::Icmp => Traffic::Icmp,
        Traffic::Tcp(ports) => Traffic::Tcp(apart(ports)),
        Traffic::TcpOrUdp(ports) => Traffic::TcpOrUdp(apart(ports)),
        Traffic::Udp(ports) => Traffic::Udp(apart(ports)),
    };
    [IpAddr::is_ipv4, IpAddr::is_ipv6].into_iter().filter_map(move |is_of_family| {
        let of = |nets: &BTreeSet<IpNet>| {
            let nets: Vec<_> = nets.iter().filter(|net| is_of_family(&net.addr())).copied().collect();
            IpNet::aggregate(&nets)
        };
        let (destinations, sources) = (of(destinations), of(sources));
        let line = Line { destinations, rule: id.to_owned(), sources, traffic: traffic.clone(), verdict: *verdict };
        (!line.destinations.is_empty() && !line.sources.is_empty()).then_some(line)
    })
}

/// Joins ranges that overlap or touch.
fn apart(ports: &BTreeSet<PortRange>) -> BTreeSet<PortRange> {
    let mut joined: Vec<PortRange> = Vec::new();
    for &range in ports {
        match joined.last_mut() {
            Some(before) if u32::from(range.first()) <= u32::from(before.last()) + 1 => {
                let last = before.last().max(range.last());
                // The first of a sorted pair is never above the last of either.
                *before = PortRange::new(before.first(), last).unwrap_or(*before);
            }
            Some(_) | None => joined.push(range),
        }
    }
    joined.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection, prelude::*, sample::select};

    use super::*;

    /// What of a packet is decided by.
    #[derive(Clone, Copy, Debug)]
    struct Packet {
        source: IpAddr,
        destination: IpAddr,
        kind: Kind,
    }

    #[derive(Clone, Copy, Debug)]
    enum Kind {
        Icmp,
        Sctp,
        Tcp(u16),
        Udp(u16),
    }

    proptest! {
        #[test]
        fn the_lines_decide_as_the_rules_do(access in accesses(), packets in collection::vec(packets(), 20)) {
            let Wall::Rules(ruleset) = wall(&access, None) else {
                prop_assert!(access.is_open());
                return Ok(());
            };
            for packet in packets {
                let fits = ruleset.lines.iter().find(|line| {
                    fits(&line.sources, &line.destinations, &line.traffic, packet)
                });
                prop_assert_eq!(fits.map_or(ruleset.others, |line| line.verdict), expected(&access, packet));
            }
        }

        #[test]
        fn what_a_line_lists_is_apart(access in accesses()) {
            let Wall::Rules(ruleset) = wall(&access, Some(FirewallSetting::Enforce)) else { return Ok(()) };
            for line in &ruleset.lines {
                for nets in [&line.sources, &line.destinations] {
                    prop_assert!(!nets.is_empty());
                    for (index, one) in nets.iter().enumerate() {
                        prop_assert_eq!(one.addr().is_ipv4(), nets[0].addr().is_ipv4());
                        prop_assert!(nets[index + 1..].iter().all(|two| !one.contains(two) && !two.contains(one)));
                    }
                }
                let (Traffic::Tcp(ports) | Traffic::TcpOrUdp(ports) | Traffic::Udp(ports)) = &line.traffic else {
                    continue;
                };
                let ports: Vec<_> = ports.iter().collect();
                prop_assert!(ports.windows(2).all(|pair| u32::from(pair[0].last()) + 1 < u32::from(pair[1].first())));
            }
        }

        #[test]
        fn what_is_ignored_is_never_enforced(access in accesses()) {
            let wall = wall(&access, Some(FirewallSetting::Ignore));
            prop_assert_eq!(wall, if access.is_open() { Wall::Open } else { Wall::Ignored });
        }
    }

    fn expected(access: &Access, packet: Packet) -> Verdict {
        let fitting: Vec<_> = access
            .rules
            .values()
            .filter(|rule| {
                let (sources, destinations): (Vec<_>, Vec<_>) =
                    (rule.sources.iter().copied().collect(), rule.destinations.iter().copied().collect());
                fits(&sources, &destinations, &rule.traffic, packet)
            })
            .map(|rule| rule.verdict)
            .collect();
        if fitting.contains(&Verdict::Deny) { Verdict::Deny } else { fitting.first().copied().unwrap_or(access.others) }
    }

    fn fits(sources: &[IpNet], destinations: &[IpNet], traffic: &Traffic, packet: Packet) -> bool {
        let listed = |ports: &BTreeSet<PortRange>, port: u16| {
            ports.is_empty() || ports.iter().any(|range| (range.first()..=range.last()).contains(&port))
        };
        let is_meant = match (traffic, packet.kind) {
            (Traffic::All, _) | (Traffic::Icmp, Kind::Icmp) => true,
            (Traffic::Tcp(ports) | Traffic::TcpOrUdp(ports), Kind::Tcp(port))
            | (Traffic::TcpOrUdp(ports) | Traffic::Udp(ports), Kind::Udp(port)) => listed(ports, port),
            _ => false,
        };
        is_meant
            && sources.iter().any(|net| net.contains(&packet.source))
            && destinations.iter().any(|net| net.contains(&packet.destination))
    }

    fn accesses() -> impl Strategy<Value = Access> {
        let rules = collection::btree_map("[a-d]", rules(), 0..4);
        (verdicts(), rules).prop_map(|(others, rules): (_, BTreeMap<_, _>)| Access { others, rules })
    }

    fn rules() -> impl Strategy<Value = AccessRule> {
        (nets(), nets(), traffic(), verdicts()).prop_map(|(destinations, sources, traffic, verdict)| AccessRule {
            destinations,
            sources,
            traffic,
            verdict,
        })
    }

    fn traffic() -> impl Strategy<Value = Traffic> {
        let ports = || collection::btree_set((0..8_u16, 0..4_u16), 0..4);
        let ranges = |pairs: BTreeSet<(u16, u16)>| {
            pairs.into_iter().map(|(first, more)| PortRange::new(first, first + more).unwrap()).collect()
        };
        prop_oneof![
            Just(Traffic::All),
            Just(Traffic::Icmp),
            ports().prop_map(move |pairs| Traffic::Tcp(ranges(pairs))),
            ports().prop_map(move |pairs| Traffic::TcpOrUdp(ranges(pairs))),
            ports().prop_map(move |pairs| Traffic::Udp(ranges(pairs))),
        ]
    }

    fn verdicts() -> impl Strategy<Value = Verdict> {
        select(vec![Verdict::Allow, Verdict::Deny])
    }

    fn nets() -> impl Strategy<Value = BTreeSet<IpNet>> {
        let net = (addresses(), 0..=8_u8).prop_map(|(address, short)| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, if short == 8 { 0 } else { bits - short }).unwrap().trunc()
        });
        collection::btree_set(net, 0..4)
    }

    /// Few, so that packets meet rules.
    fn addresses() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), 0..16_u8).prop_map(|(is_v4, last)| address(is_v4, last))
    }

    fn address(is_v4: bool, last: u8) -> IpAddr {
        if is_v4 { [10, 0, 0, last].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into() }
    }

    fn packets() -> impl Strategy<Value = Packet> {
        let kinds = prop_oneof![
            Just(Kind::Icmp),
            Just(Kind::Sctp),
            (0..12_u16).prop_map(Kind::Tcp),
            (0..12_u16).prop_map(Kind::Udp),
        ];
        (any::<bool>(), 0..16_u8, 0..16_u8, kinds).prop_map(|(is_v4, source, destination, kind)| Packet {
            source: address(is_v4, source),
            destination: address(is_v4, destination),
            kind,
        })
    }
}
