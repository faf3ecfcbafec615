//! Everything about a namespace's network that an agent could change, as text lines that can be compared.
//!
//! Left out is what changes by itself or means nothing: counters, caches, ages, handles, link-local addresses, which are
//! random, and the numbers of interfaces, for which their names stand.
#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel's lists of attributes are open")]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    link::LinkAttribute,
    route::{RouteAttribute, RouteFlags, RouteMessage},
    rule::RuleAttribute,
};
use rtnetlink::{Handle, IpVersion};

/// Describes this process' namespace, sorted.
pub(super) async fn snapshot(handle: &Handle) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let names = links(handle, &mut lines).await?;
    let name = |index: u32| names.get(&index).cloned().unwrap_or_else(|| index.to_string());
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let texts = message.attributes.iter().filter_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(format!("{ip}")),
            AddressAttribute::Local(ip) => Some(format!("local {ip}")),
            _ => None,
        });
        let texts: Vec<_> = texts.collect();
        lines.push(format!(
            "address {}/{} on {}",
            texts.join(" "),
            message.header.prefix_len,
            name(message.header.index)
        ));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let mut routes = handle.route().get(query).execute();
        while let Some(message) = routes.try_next().await? {
            if !message.header.flags.contains(RouteFlags::Cloned) {
                lines.push(route(&message, &name));
            }
        }
    }
    for version in [IpVersion::V4, IpVersion::V6] {
        let mut rules = handle.rule().get(version).execute();
        while let Some(message) = rules.try_next().await? {
            let attributes: Vec<_> = message
                .attributes
                .iter()
                .filter(|attribute| !matches!(attribute, RuleAttribute::SuppressPrefixLen(u32::MAX)))
                .collect();
            lines.push(format!("rule {:?} {attributes:?}", message.header));
        }
    }
    lines.extend(filters()?);
    let resolvers = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    lines.extend(resolvers.lines().map(|line| format!("resolv.conf {line}")));
    lines.retain(|line| !is_link_local(line));
    lines.sort();
    Ok(lines)
}

/// Whether a line is about a link-local address; the routes to `fe80::/64` and `fe80::` stay.
fn is_link_local(line: &str) -> bool {
    line.split("fe80::").skip(1).any(|rest| rest.starts_with(|character: char| character.is_ascii_hexdigit()))
}

async fn links(handle: &Handle, lines: &mut Vec<String>) -> Result<BTreeMap<u32, String>> {
    let mut names = BTreeMap::new();
    let mut listed = handle.link().get().execute();
    while let Some(message) = listed.try_next().await? {
        let (mut name, mut mtu) = (String::new(), 0);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name.clone_from(text),
                LinkAttribute::Mtu(bytes) => mtu = *bytes,
                _ => {}
            }
        }
        lines.push(format!("link {name} mtu {mtu} {:?}", message.header.flags));
        names.insert(message.header.index, name);
    }
    Ok(names)
}

fn route(message: &RouteMessage, name: &impl Fn(u32) -> String) -> String {
    let attributes = message.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::CacheInfo(_) => None,
        RouteAttribute::Oif(index) => Some(format!("on {}", name(*index))),
        other => Some(format!("{other:?}")),
    });
    let attributes: Vec<_> = attributes.collect();
    format!("route {:?} {}", message.header, attributes.join(" "))
}

/// The packet filter, where there is a program that shows it.
fn filters() -> Result<Vec<String>> {
    let Some(nft) = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"].iter().find(|path| Path::new(path).exists()) else {
        return Ok(Vec::new());
    };
    let output = Command::new(nft).args(["-s", "list", "ruleset"]).output().context("cannot run nft")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| format!("filter {}", line.trim())).collect())
}
