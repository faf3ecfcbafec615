//! Access rules: what the server says about packets to this host.
//!
//! A rule that names something unknown never opens anything: one that allows is left out, one that denies denies all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::AssignmentError;
use crate::{
    control::wire,
    model::{Access, AccessRule, PortRange, Remark, Traffic, Verdict},
};

/// Checks the packet filter's part of a document; `None` is a server that restricts nothing.
///
/// `direction` and `networks` add nothing: the server has worked them into the sources of each rule (protocol page,
/// "Firewall").
pub(super) fn access(
    update: Option<&wire::FwUpdate>,
    remarks: &mut BTreeSet<Remark>,
) -> Result<Access, AssignmentError> {
    let Some(update) = update else { return Ok(Access::default()) };
    let others = if update.allow_all { Verdict::Allow } else { Verdict::Deny };
    let mut rules = BTreeMap::new();
    for (id, wire) in update.acl_rules.iter().flatten() {
        let id: String = id.chars().filter(|character| !character.is_control()).take(LONGEST_ID).collect();
        let verdict = if wire.allowed { Verdict::Allow } else { Verdict::Deny };
        let traffic = match (traffic(wire, &id)?, verdict) {
            (Some(traffic), _) => traffic,
            (None, Verdict::Allow) => {
                remarks.insert(Remark::AccessRuleUnused(id));
                continue;
            }
            (None, Verdict::Deny) => {
                remarks.insert(Remark::AccessRuleWidened(id.clone()));
                Traffic::All
            }
        };
        let sources = nets(wire.ip_list.as_ref(), &id)?.into_iter().chain(nets(wire.ip6_list.as_ref(), &id)?).collect();
        let rule = AccessRule { destinations: destinations(wire, &id)?, sources, traffic, verdict };
        // What is allowed anyway needs no rule.
        if verdict != others {
            insert(&mut rules, &id, rule);
        }
    }
    Ok(Access { others, rules })
}

/// Returns what a rule is about; `None` for what this agent does not know.
fn traffic(wire: &wire::AclRule, id: &str) -> Result<Option<Traffic>, AssignmentError> {
    let written = wire.allowed_ports.as_deref().unwrap_or_default();
    let mut ports = BTreeSet::new();
    for text in written.iter().filter(|text| !text.is_empty()) {
        let malformed = |_| AssignmentError::AccessPort { port: text.clone(), rule: id.to_owned() };
        ports.insert(text.parse::<PortRange>().map_err(malformed)?);
    }
    if ports.is_empty() && !written.is_empty() {
        // Ports are named, and then they are not.
        return Ok(None);
    }
    Ok(match (wire.allowed_protocol.as_str(), ports.is_empty()) {
        ("all", true) => Some(Traffic::All),
        // Of all protocols these have ports.
        ("all", false) => Some(Traffic::TcpOrUdp(ports)),
        ("icmp", true) => Some(Traffic::Icmp),
        ("tcp", _) => Some(Traffic::Tcp(ports)),
        ("udp", _) => Some(Traffic::Udp(ports)),
        _ => None,
    })
}

/// Without destinations of a family every address of it is meant; an address that is not there is none.
fn destinations(wire: &wire::AclRule, id: &str) -> Result<BTreeSet<IpNet>, AssignmentError> {
    let every4 = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
    let every6 = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));
    let mut destinations: BTreeSet<IpNet> = BTreeSet::new();
    for (listed, every) in [(wire.destinations.as_ref(), every4), (wire.destinations6.as_ref(), every6)] {
        if listed.is_none_or(Vec::is_empty) {
            destinations.insert(every);
        }
        destinations.extend(nets(listed, id)?);
    }
    Ok(destinations)
}

fn nets(listed: Option<&Vec<wire::IpNet>>, id: &str) -> Result<BTreeSet<IpNet>, AssignmentError> {
    let mut nets = BTreeSet::new();
    for address in listed.into_iter().flatten() {
        let malformed = || AssignmentError::AccessAddress { address: super::shown(address), rule: id.to_owned() };
        nets.extend(address.to_net().map_err(|_| malformed())?.map(|net| net.trunc()));
    }
    Ok(nets)
}

/// Ids that become one when they are shortened stay apart.
fn insert(rules: &mut BTreeMap<String, AccessRule>, id: &str, rule: AccessRule) {
    let mut name = id.to_owned();
    for number in 2.. {
        if !rules.contains_key(&name) {
            break;
        }
        name = format!("{id} ({number})");
    }
    rules.insert(name, rule);
}

/// Characters of a rule's id that are kept; the server's own have 36 to 63.
const LONGEST_ID: usize = 100;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_server_without_rules_restricts_nothing() {
        assert!(access(None, &mut BTreeSet::new()).unwrap().is_open());
        assert!(read(json!({"allow_all": true, "acl_rules": {"a": rule("tcp", &["80"])}})).0.is_open());
    }

    #[test]
    fn what_no_rule_allows_is_denied() {
        let (access, remarks) = read(json!({"allow_all": false}));

        assert_eq!(access, Access { others: Verdict::Deny, rules: BTreeMap::new() });
        assert_eq!(remarks, BTreeSet::new());
    }

    #[test]
    fn a_rule_is_read_with_its_protocol_and_ports() {
        let ports = BTreeSet::from([PortRange::new(80, 90).unwrap(), PortRange::new(443, 443).unwrap()]);
        let cases = [
            (rule("all", &[]), Traffic::All),
            (rule("icmp", &[]), Traffic::Icmp),
            (rule("tcp", &[]), Traffic::Tcp(BTreeSet::new())),
            (rule("udp", &["443", "", "80-90"]), Traffic::Udp(ports.clone())),
            (rule("all", &["443", "80-90"]), Traffic::TcpOrUdp(ports)),
        ];
        for (rule, traffic) in cases {
            let (access, remarks) = restricted(&rule);

            let AccessRule { destinations, sources, traffic: read, verdict } = access.rules["a"].clone();
            assert_eq!((read, verdict, remarks), (traffic, Verdict::Allow, BTreeSet::new()));
            assert_eq!(sources, nets(&["10.1.0.0/16", "fd00:1::2/128"]));
            assert_eq!(destinations, nets(&["10.1.0.1/32", "::/0"]));
        }
    }

    #[test]
    fn an_address_that_is_not_there_is_no_destination() {
        let mut rule = rule("tcp", &[]);
        rule["dst6"] = json!([{"IP": "", "Mask": "/////////////////////w=="}]);

        assert_eq!(restricted(&rule).0.rules["a"].destinations, nets(&["10.1.0.1/32"]));
    }

    #[test]
    fn what_is_not_understood_opens_nothing() {
        for (protocol, ports) in [("sctp", vec![]), ("", vec![]), ("icmp", vec!["8"]), ("tcp", vec![""])] {
            let (access, remarks) = restricted(&rule(protocol, &ports));

            assert_eq!((access.others, access.rules.len()), (Verdict::Deny, 0), "{protocol} {ports:?}");
            assert_eq!(remarks, BTreeSet::from([Remark::AccessRuleUnused("a".into())]));
        }
        let mut denied = rule("sctp", &[]);
        denied["Allowed"] = json!(false);

        let (access, remarks) = read(json!({"allow_all": true, "acl_rules": {"a": denied}}));

        assert_eq!(access.rules["a"].traffic, Traffic::All);
        assert_eq!(remarks, BTreeSet::from([Remark::AccessRuleWidened("a".into())]));
    }

    #[test]
    fn names_the_value_that_cannot_be_used() {
        let mut source = rule("tcp", &[]);
        source["ip_list"][0]["Mask"] = json!("/wD/AA==");
        let mut destination = rule("tcp", &[]);
        destination["dst"][0]["Mask"] = json!("//8=");
        for (rule, expected) in [
            (rule("tcp", &["70000"]), "access rule a: port \"70000\""),
            (rule("udp", &["90-80"]), "access rule a: port \"90-80\""),
            (source, "access rule a: address 10.1.0.0 with mask ff00ff00 is malformed"),
            (destination, "access rule a: address 10.1.0.1 with mask ffff is malformed"),
        ] {
            let update = serde_json::from_value(json!({"acl_rules": {"a": rule}})).unwrap();

            let message = access(Some(&update), &mut BTreeSet::new()).unwrap_err().to_string();

            assert!(message.contains(expected), "{message:?} does not say {expected:?}");
        }
    }

    fn restricted(rule: &Value) -> (Access, BTreeSet<Remark>) {
        read(json!({"allow_all": false, "acl_rules": {"a": rule}}))
    }

    fn read(update: Value) -> (Access, BTreeSet<Remark>) {
        let mut remarks = BTreeSet::new();
        let access = access(Some(&serde_json::from_value(update).unwrap()), &mut remarks).unwrap();
        (access, remarks)
    }

    fn rule(protocol: &str, ports: &[&str]) -> Value {
        json!({
            "id": "a", "allowed_protocols": protocol, "allowed_ports": ports, "direction": 1, "Allowed": true,
            "ip_list": [{"IP": "10.1.0.0", "Mask": "//8AAA=="}],
            "ip6_list": [{"IP": "fd00:1::2", "Mask": "/////////////////////w=="}],
            "dst": [{"IP": "10.1.0.1", "Mask": "/////w=="}], "dst6": null,
        })
    }

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }
}
