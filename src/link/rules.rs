//! Routing rules in the words of rtnetlink.
//!
//! A rule is ours if it has our protocol number, and it belongs to the interface whose mark it names. Where a rule is
//! for packets with any mark, its mask is zero: the mark is a label then.
#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel's lists of messages and attributes are open")]

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    route::RouteHeader,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use nix::errno::Errno;

use super::{
    LinkError, failed,
    netlink::{Netlink, is},
    netlink_messages::PROTOCOL,
};
use crate::model::{Family, Rule, Table};

/// Says a rule of the interface whose mark is `mark`.
pub(super) fn rule_message(rule: &Rule, mark: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    let (priority, table) = place(rule);
    let label = [RuleAttribute::FwMark(mark), RuleAttribute::FwMask(0)];
    message.header.action = RuleAction::ToTable;
    message.header.family = match rule.family() {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.table = match table {
        Table::Main => RouteHeader::RT_TABLE_MAIN,
        Table::Own => RouteHeader::RT_TABLE_UNSPEC,
    };
    let number = if table == Table::Own { mark } else { RouteHeader::RT_TABLE_MAIN.into() };
    message.attributes =
        vec![RuleAttribute::Priority(priority), RuleAttribute::Table(number), RuleAttribute::Protocol(PROTOCOL)];
    match rule {
        Rule::From { source: ip, table: _ } => {
            message.header.src_len = width(*ip);
            message.attributes.push(RuleAttribute::Source(*ip));
            message.attributes.extend(label);
        }
        Rule::Specific(_) => {
            message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
            message.attributes.extend(label);
        }
        Rule::To(ip) => {
            message.header.dst_len = width(*ip);
            message.attributes.push(RuleAttribute::Destination(*ip));
            message.attributes.extend(label);
        }
        Rule::Unmarked(_) => {
            message.header.flags = RuleFlags::Invert;
            message.attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(u32::MAX)]);
        }
    }
    message
}

/// Reads a rule of ours; `None` for one of others. The number is the mark of its interface.
pub(super) fn rule_of(message: &RuleMessage) -> Option<(Rule, u32)> {
    let RuleMessage { header, attributes, .. } = message;
    if !attributes.contains(&RuleAttribute::Protocol(PROTOCOL)) {
        return None;
    }
    let family = if header.family == AddressFamily::Inet6 { Family::V6 } else { Family::V4 };
    let (mut mark, mut table, mut source, mut destination) = (None, None, None, None);
    for attribute in attributes {
        match attribute {
            RuleAttribute::Destination(ip) => destination = Some(*ip),
            RuleAttribute::FwMark(number) => mark = Some(*number),
            RuleAttribute::Source(ip) => source = Some(*ip),
            RuleAttribute::Table(number) => table = Some(*number),
            _ => {}
        }
    }
    let table = if table == mark { Table::Own } else { Table::Main };
    let rule = match (source, destination) {
        (Some(source), _) => Rule::From { source, table },
        (None, Some(ip)) => Rule::To(ip),
        (None, None) if header.flags.contains(RuleFlags::Invert) => Rule::Unmarked(family),
        (None, None) => Rule::Specific(family),
    };
    Some((rule, mark?))
}

/// Priority and table; lower priorities go first, the machine's own rules end with 32766 and 32767.
fn place(rule: &Rule) -> (u32, Table) {
    match rule {
        Rule::To(_) => (FIRST, Table::Main),
        Rule::From { source: _, table } => (FIRST + 1, *table),
        Rule::Specific(_) => (FIRST + 2, Table::Main),
        Rule::Unmarked(_) => (FIRST + 3, Table::Own),
    }
}

fn width(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl Netlink {
    /// Reads all rules of ours, each with the mark of its interface.
    pub(super) async fn rules(&self) -> Result<Vec<(Rule, u32)>, LinkError> {
        let replies = self.list(Message::GetRule(RuleMessage::default()), "list routing rules").await?;
        let read = |reply: &Message| match reply {
            Message::NewRule(message) => rule_of(message),
            _ => None,
        };
        Ok(replies.iter().filter_map(read).collect())
    }

    /// Removes the rules of ours whose interface's mark is not wanted; returns how many there were.
    pub(super) async fn sweep_rules(&self, wanted: impl Fn(u32) -> bool) -> Result<usize, LinkError> {
        let mut swept = 0;
        for (rule, mark) in self.rules().await?.into_iter().rev().filter(|(_, mark)| !wanted(*mark)) {
            let request = Message::DelRule(rule_message(&rule, mark));
            match self.request(request, NLM_F_REQUEST | NLM_F_ACK).await {
                Ok(_) => swept += 1,
                Err(error) if is(&error, Errno::ENOENT) => {}
                Err(source) => return Err(failed("remove a routing rule", source)),
            }
        }
        Ok(swept)
    }
}

/// The priority of the first of our rules.
const FIRST: u32 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_read_as_it_was_said() {
        let ips: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let families = [Family::V4, Family::V6];
        let of_ips = ips.into_iter().flat_map(|source| {
            [Rule::To(source), Rule::From { source, table: Table::Main }, Rule::From { source, table: Table::Own }]
        });
        let of_families = families.into_iter().flat_map(|family| [Rule::Specific(family), Rule::Unmarked(family)]);

        for rule in of_ips.chain(of_families) {
            assert_eq!(rule_of(&rule_message(&rule, 0x00E7_0001)), Some((rule, 0x00E7_0001)));
        }
    }

    #[test]
    fn rules_of_others_are_none_of_ours() {
        let mut foreign = rule_message(&Rule::Specific(Family::V4), 0x00E7_0001);
        foreign.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));

        assert_eq!(rule_of(&foreign), None);
    }
}
