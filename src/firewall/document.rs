//! What `nft` is told and says, as its JSON (libnftables-json(5)).

use std::{borrow::Cow, collections::BTreeSet};

use ipnet::IpNet;
use nftables::{
    batch::Batch,
    expr::{CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, Range, SetItem},
    schema::{Chain, NfCmd, NfListObject, NfObject, Nftables, Rule, Table},
    stmt::{Match, Operator, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use crate::{
    model::{InterfaceName, PortRange, Traffic, Verdict},
    plan::{Line, Ruleset},
};

/// The documents about one interface's table.
pub(super) struct Document<'a> {
    interface: &'a InterfaceName,
    table: String,
}

impl<'a> Document<'a> {
    pub(super) fn of(interface: &'a InterfaceName) -> Self {
        Self { interface, table: format!("{PREFIX}{}", interface.as_str()) }
    }

    /// Asks for the table as it is.
    pub(super) fn list(&self) -> String {
        let mut batch = Batch::new();
        batch.add_cmd(NfCmd::List(self.table()));
        text(batch)
    }

    /// Removes the table.
    pub(super) fn remove(&self) -> String {
        let mut batch = Batch::new();
        self.add_removal(&mut batch);
        text(batch)
    }

    /// Makes the table anew, in one transaction with the removal of the one before.
    pub(super) fn replace(&self, ruleset: &Ruleset) -> String {
        let Ruleset { lines, others, rules: _ } = ruleset;
        let mut batch = Batch::new();
        self.add_removal(&mut batch);
        batch.add(self.table());
        batch.add(NfListObject::Chain(Chain {
            family: NfFamily::INet,
            table: self.table.as_str().into(),
            name: CHAIN.into(),
            _type: Some(NfChainType::Filter),
            hook: Some(NfHook::Input),
            prio: Some(PRIORITY),
            policy: Some(NfChainPolicy::Accept),
            ..Chain::default()
        }));
        let foreign = compare(Operator::NEQ, meta(MetaKey::Iifname), word(self.interface.as_str()));
        batch.add(self.rule(vec![foreign, Statement::Accept(None)], None));
        let state = CT { key: "state".into(), family: None, dir: None };
        let known = Expression::List(vec![word("established"), word("related")]);
        let answer = compare(Operator::IN, NamedExpression::CT(state), known);
        batch.add(self.rule(vec![answer, Statement::Accept(None)], None));
        for line in lines {
            batch.add(self.rule(statements(line), comment(&line.rule)));
        }
        batch.add(self.rule(vec![verdict(*others)], None));
        text(batch)
    }

    /// Whether the table is in a list of tables.
    pub(super) fn is_among(&self, tables: &str) -> bool {
        names(tables).contains(&self.table)
    }

    /// A table has to be there to be removed.
    fn add_removal(&self, batch: &mut Batch<'a>) {
        batch.add(self.table());
        batch.delete(self.table());
    }

    fn table(&self) -> NfListObject<'a> {
        NfListObject::Table(Table { family: NfFamily::INet, name: self.table.clone().into(), handle: None })
    }

    fn rule(&self, statements: Vec<Statement<'a>>, comment: Option<String>) -> NfListObject<'a> {
        NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: self.table.clone().into(),
            chain: CHAIN.into(),
            expr: statements.into(),
            comment: comment.map(Cow::from),
            ..Rule::default()
        })
    }
}

/// Returns the interfaces of our tables in a list of tables.
pub(super) fn interfaces(tables: &str) -> Vec<InterfaceName> {
    names(tables).iter().filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect()
}

fn names(tables: &str) -> BTreeSet<String> {
    let Ok(Nftables { objects }) = serde_json::from_str(tables) else { return BTreeSet::new() };
    let table = |object: &NfObject<'_>| match object {
        NfObject::ListObject(NfListObject::Table(table)) => Some(table.name.clone().into_owned()),
        NfObject::CmdObject(_) | NfObject::ListObject(_) => None,
    };
    objects.iter().filter_map(table).collect()
}

fn text(batch: Batch<'_>) -> String {
    serde_json::to_string(&batch.to_nftables()).expect("texts and numbers can always be written")
}

fn statements(line: &Line) -> Vec<Statement<'static>> {
    let Line { destinations, rule: _, sources, traffic, verdict: decision } = line;
    let is_v4 = sources.iter().all(|net| net.addr().is_ipv4());
    let (family, header, icmp) = if is_v4 { ("ipv4", "ip", "icmp") } else { ("ipv6", "ip6", "icmpv6") };
    let mut statements = vec![compare(Operator::EQ, meta(MetaKey::Nfproto), word(family))];
    statements.extend(addresses(header, "saddr", sources));
    statements.extend(addresses(header, "daddr", destinations));
    let (protocols, numbers) = match traffic {
        Traffic::All => (&[][..], None),
        Traffic::Icmp => (&[icmp][..], None),
        Traffic::Tcp(ports) => (&["tcp"][..], Some(ports)),
        Traffic::TcpOrUdp(ports) => (&["tcp", "udp"][..], Some(ports)),
        Traffic::Udp(ports) => (&["udp"][..], Some(ports)),
    };
    if !protocols.is_empty() {
        let protocols = protocols.iter().map(|name| word(*name)).collect();
        statements.push(compare(Operator::EQ, meta(MetaKey::L4proto), one_of(protocols)));
    }
    if let Some(ports) = numbers.filter(|ports| !ports.is_empty()) {
        let ports = ports.iter().map(|range| self::ports(*range)).collect();
        statements.push(compare(Operator::EQ, payload("th", "dport"), one_of(ports)));
    }
    statements.push(verdict(*decision));
    statements
}

/// Compares one address of a packet; nothing has to be compared where any will do.
fn addresses(header: &'static str, field: &'static str, nets: &[IpNet]) -> Option<Statement<'static>> {
    if nets.iter().any(|net| net.prefix_len() == 0) {
        return None;
    }
    let nets = nets.iter().map(|net| {
        let address = word(net.addr().to_string());
        if net.prefix_len() == net.max_prefix_len() {
            return address;
        }
        let prefix = Prefix { addr: Box::new(address), len: net.prefix_len().into() };
        Expression::Named(NamedExpression::Prefix(prefix))
    });
    Some(compare(Operator::EQ, payload(header, field), one_of(nets.collect())))
}

/// Some versions of `nft` take no range of one.
fn ports(range: PortRange) -> Expression<'static> {
    let number = |port: u16| Expression::Number(port.into());
    if range.first() == range.last() {
        return number(range.first());
    }
    Expression::Range(Box::new(Range { range: [number(range.first()), number(range.last())] }))
}

fn one_of(values: Vec<Expression<'_>>) -> Expression<'_> {
    Expression::Named(NamedExpression::Set(values.into_iter().map(SetItem::Element).collect()))
}

fn verdict(verdict: Verdict) -> Statement<'static> {
    match verdict {
        Verdict::Allow => Statement::Accept(None),
        Verdict::Deny => Statement::Drop(None),
    }
}

fn compare<'a>(op: Operator, left: NamedExpression<'a>, right: Expression<'a>) -> Statement<'a> {
    Statement::Match(Match { left: Expression::Named(left), right, op })
}

fn meta(key: MetaKey) -> NamedExpression<'static> {
    NamedExpression::Meta(Meta { key })
}

fn payload(protocol: &'static str, field: &'static str) -> NamedExpression<'static> {
    NamedExpression::Payload(Payload::PayloadField(PayloadField { protocol: protocol.into(), field: field.into() }))
}

fn word<'a>(text: impl Into<Cow<'a, str>>) -> Expression<'a> {
    Expression::String(text.into())
}

/// A comment that reads the same wherever it is printed.
fn comment(rule: &str) -> Option<String> {
    let plain = |character: &char| character.is_ascii_alphanumeric() || " -_.()".contains(*character);
    let comment: String = rule.chars().filter(plain).collect();
    (!comment.is_empty()).then_some(comment)
}

/// Before the name of the interface; programs and people know our tables by it.
const PREFIX: &str = "enroll-agent-";

const CHAIN: &str = "input";

/// That of the chains others filter in (`filter` in nft's words); which goes first does not matter.
const PRIORITY: i32 = 0;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_table_is_replaced_in_one_transaction() {
        let interface = "enroll0".parse().unwrap();
        let ruleset = Ruleset { lines: Vec::new(), others: Verdict::Deny, rules: 0 };

        let document: Value = serde_json::from_str(&Document::of(&interface).replace(&ruleset)).unwrap();

        let table = json!({"table": {"family": "inet", "name": "enroll-agent-enroll0"}});
        let commands = document["nftables"].as_array().unwrap();
        assert_eq!(commands[..3], [json!({"add": table}), json!({"delete": table}), json!({"add": table})]);
        assert_eq!(commands[3]["add"]["chain"]["hook"], "input");
        assert_eq!(
            commands[4]["add"]["rule"]["expr"],
            json!([
                {"match": {"left": {"meta": {"key": "iifname"}}, "op": "!=", "right": "enroll0"}},
                {"accept": null},
            ])
        );
        assert_eq!(commands.last().unwrap()["add"]["rule"]["expr"], json!([{"drop": null}]));
    }

    #[test]
    fn a_line_compares_only_what_it_has_to() {
        let line = Line {
            destinations: vec!["0.0.0.0/0".parse().unwrap()],
            rule: "a\"\u{1b}[2J".to_owned(),
            sources: vec!["10.1.0.0/16".parse().unwrap(), "10.2.0.7/32".parse().unwrap()],
            traffic: Traffic::Tcp(["443", "80-90"].map(|text| text.parse().unwrap()).into()),
            verdict: Verdict::Allow,
        };

        let statements = serde_json::to_value(statements(&line)).unwrap();

        let equal = |left: Value, right: Value| json!({"match": {"left": left, "op": "==", "right": right}});
        assert_eq!(
            statements,
            json!([
                equal(json!({"meta": {"key": "nfproto"}}), json!("ipv4")),
                equal(
                    json!({"payload": {"protocol": "ip", "field": "saddr"}}),
                    json!({"set": [{"prefix": {"addr": "10.1.0.0", "len": 16}}, "10.2.0.7"]}),
                ),
                equal(json!({"meta": {"key": "l4proto"}}), json!({"set": ["tcp"]})),
                equal(
                    json!({"payload": {"protocol": "th", "field": "dport"}}),
                    json!({"set": [{"range": [80, 90]}, 443]}),
                ),
                {"accept": null},
            ])
        );
        assert_eq!(comment(&line.rule).as_deref(), Some("a2J"));
    }

    #[test]
    fn only_our_tables_are_found_in_a_list() {
        let list = json!({"nftables": [
            {"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
            {"table": {"family": "inet", "name": "filter", "handle": 1}},
            {"table": {"family": "inet", "name": "enroll-agent-enroll1", "handle": 7}},
            {"table": {"family": "inet", "name": "enroll-agent-no interface", "handle": 8}},
        ]});

        assert_eq!(interfaces(&list.to_string()), ["enroll1".parse().unwrap()]);
        assert!(Document::of(&"enroll1".parse().unwrap()).is_among(&list.to_string()));
        assert!(!Document::of(&"enroll0".parse().unwrap()).is_among(&list.to_string()));
    }
}
