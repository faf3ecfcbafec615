//! What a host may say about itself: registration, check-in, update.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Edition, Names,
    clock::go_time,
    events::Event,
    parse,
    policies::gateways_tag,
    refusal::Refusal,
    secrets::{hash_password, password_matches},
    world::{Grant, Join, World},
};
use crate::control::wire::{Host, TagSet};

/// What came of a registration.
#[derive(Debug)]
pub(super) struct Registered {
    /// The record as it is stored, before the new nodes: a pull tells those.
    pub(super) host: Host,
    /// Names of the networks in which the host has, or will have, nodes by this key.
    pub(super) networks: Vec<String>,
}

/// When the nodes of a host that registers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Creation {
    /// After this time; zero is at once.
    After(time::Duration),
    /// Never, and nobody is told.
    Never,
    /// When somebody approves the host.
    OnceApproved,
}

impl World {
    /// Redeems a key for a host: one use, the host's record and its nodes, or nothing at all.
    ///
    /// The nodes are made `when` it is their time; the real server makes them a little later.
    pub(super) fn register(
        &mut self,
        token: &str,
        body: &[u8],
        when: Creation,
        now: OffsetDateTime,
    ) -> Result<Registered, Refusal> {
        let key = self.key_of_token(token, now)?;
        let key_id = key.id;
        let grants_nothing = key.networks().is_empty();
        let sent: Host = parse::object(body).map_err(Refusal::internal)?;
        let id = sent.id;
        if self.hosts.contains(&id) && grants_nothing {
            return Err(Refusal::bad_request("host already exists"));
        }
        if !version_is_admitted(&sent.version) {
            return Err(Refusal::version(&sent.version));
        }
        if sent.traffic_key_public.0.is_none() && sent.os != "iot" {
            return Err(Refusal::bad_request("missing traffic key"));
        }
        if self.hosts.get(&id).is_some_and(|known| !password_matches(sent.password.expose(), known.password.expose())) {
            return Err(Refusal::unauthorized());
        }
        let grant = self.redeem(key_id, id, now)?;
        if self.hosts.contains(&id) {
            self.update_host(&sent, now)?;
        } else {
            self.insert_host(sent, now)?;
        }
        let host = self.host(id)?.clone();
        self.events.push(Event::Registered { host: id });
        let networks = self.promise(id, grant, when, now);
        Ok(Registered { host, networks })
    }

    /// Makes the nodes now or later; returns the networks that there will be nodes in.
    fn promise(&mut self, host: Uuid, grant: Grant, when: Creation, now: OffsetDateTime) -> Vec<String> {
        if host.is_nil() {
            return Vec::new();
        }
        let delay = match when {
            Creation::After(delay) if delay.is_zero() => return self.grant(host, &grant, now),
            Creation::After(delay) => delay,
            Creation::Never => return Vec::new(),
            Creation::OnceApproved => {
                for network in &grant.networks {
                    self.ask_for_approval(host, network, &grant, now);
                }
                return grant.networks.into_iter().filter(|name| self.networks.contains(name)).collect();
            }
        };
        let networks = grant.networks.iter().filter(|name| self.networks.contains(name)).cloned().collect();
        let mut join = self.joins.remove(&host).unwrap_or(Join { due: 0, grants: vec![] });
        join.due = (now + delay).unix_timestamp_nanos();
        join.grants.push(grant);
        self.joins.insert(host, join);
        networks
    }

    /// Gives a host what a key grants; a network that is missing or full is left out.
    pub(super) fn grant(&mut self, host: Uuid, grant: &Grant, now: OffsetDateTime) -> Vec<String> {
        let mut joined = Vec::new();
        for network in &grant.networks {
            if self.wants_approval(network) {
                self.ask_for_approval(host, network, grant, now);
                continue;
            }
            let is_new = self.nodes_of(host).all(|node| node.network != *network);
            let Ok(id) = self.join(host, network, now) else { continue };
            joined.push(network.clone());
            self.give(id, grant);
            if is_new {
                let mut queue = self.queues.remove(&host).unwrap_or_default();
                queue.push(id);
                self.queues.insert(host, queue);
            }
        }
        joined
    }

    fn wants_approval(&self, network: &str) -> bool {
        let network = self.networks.get(&network.to_owned());
        self.manners.edition == Edition::Pro && network.is_some_and(|network| !network.auto_join)
    }

    /// Gives a node the tags and the gateway of a key.
    pub(super) fn give(&mut self, id: Uuid, grant: &Grant) {
        let Grant { networks: _, groups, relay, auto_assign_gateway } = grant;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let network = node.network.clone();
        node.auto_assign_gateway |= *auto_assign_gateway;
        if !groups.is_empty() {
            // All groups go on every node, whatever network their name begins with.
            node.tags = Some(TagSet(groups.iter().cloned().collect()));
            if node.is_gateway {
                node.tags.get_or_insert_default().0.insert(gateways_tag(&network));
            }
        }
        let free = !node.is_relayed && !node.is_gateway;
        if free && self.nodes.get(relay).is_some_and(|gateway| gateway.network == network && gateway.is_gateway) {
            self.relay(id, *relay);
        }
    }

    fn insert_host(&mut self, sent: Host, now: OffsetDateTime) -> Result<(), Refusal> {
        if sent.password.expose().len() > BCRYPT_LIMIT {
            return Err(Refusal::internal("bcrypt: password length exceeds 72 bytes"));
        }
        let mut host = Host {
            auto_update: false,
            password: hash_password(sent.password.expose()).into(),
            // The real server honours these two; a device could make itself a gateway everywhere.
            nodes: None,
            is_default: false,
            dns_status: if self.manners.names == Names::Managed { "yes" } else { "no" }.to_owned(),
            persistent_keepalive: KEEPALIVE,
            enable_flow_logs: false,
            created_at: Some(go_time(now)),
            updated_at: Some(go_time(now)),
            ..sent
        };
        host.listen_port = self.free_port(&host);
        self.hosts.insert(host.id, host);
        Ok(())
    }

    /// Moves the listen port of a host that shares its public address and port with another one.
    fn free_port(&self, host: &Host) -> i64 {
        if host.is_static_port {
            return host.listen_port;
        }
        let Some(address) = host.endpoint_ip.0 else { return host.listen_port };
        let is_taken = |port: i64| self.hosts.find(&(address, port)).any(|(id, _)| *id != host.id);
        let mut port = host.listen_port;
        // Who finds every port taken keeps its own.
        for _ in 0..=u16::MAX {
            if !is_taken(port) {
                return port;
            }
            port = match port {
                443 => 51821,
                ..65535 => port + 1,
                _ => 1025,
            };
        }
        host.listen_port
    }

    /// Takes over what a known host may change about itself.
    pub(super) fn update_host(&mut self, sent: &Host, now: OffsetDateTime) -> Result<(), Refusal> {
        let host = self.hosts.get_mut(&sent.id).ok_or_else(|| Refusal::bad_request("record not found"))?;
        if !sent.public_key.is_zero() {
            host.public_key = sent.public_key;
        }
        host.listen_port = sent.listen_port;
        host.public_listen_port = sent.public_listen_port;
        host.endpoint_ip = sent.endpoint_ip;
        host.endpoint_ipv6 = sent.endpoint_ipv6;
        host.interfaces.clone_from(&sent.interfaces);
        host.name.clone_from(&sent.name);
        host.version.clone_from(&sent.version);
        host.mtu = sent.mtu;
        host.verbosity = sent.verbosity;
        host.is_static = sent.is_static;
        host.is_static_port = sent.is_static_port;
        host.nat_type.clone_from(&sent.nat_type);
        host.location.clone_from(&sent.location);
        host.updated_at = Some(go_time(now));
        self.events.push(Event::HostUpdated { host: sent.id });
        Ok(())
    }

    /// Notes that a host lives; an endpoint it does not send is cleared.
    pub(super) fn check_in(&mut self, sent: &Host, now: OffsetDateTime) -> Result<(), Refusal> {
        for id in self.node_ids(sent.id) {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.last_check_in = go_time(now);
            }
        }
        let host = self.hosts.get_mut(&sent.id).ok_or_else(|| Refusal::bad_request("record not found"))?;
        let before = host.clone();
        host.interfaces.clone_from(&sent.interfaces);
        host.endpoint_ip = sent.endpoint_ip;
        host.endpoint_ipv6 = sent.endpoint_ipv6;
        host.nat_type.clone_from(&sent.nat_type);
        host.default_interface.clone_from(&sent.default_interface);
        host.listen_port = sent.listen_port;
        host.public_listen_port = sent.public_listen_port;
        host.os_family.clone_from(&sent.os_family);
        host.os_version.clone_from(&sent.os_version);
        host.kernel_version.clone_from(&sent.kernel_version);
        host.location.clone_from(&sent.location);
        host.country_code.clone_from(&sent.country_code);
        let is_news = *host != before;
        // These two are of no interest to peers.
        host.version.clone_from(&sent.version);
        host.firewall_in_use.clone_from(&sent.firewall_in_use);
        if is_news {
            self.events.push(Event::HostUpdated { host: sent.id });
        }
        Ok(())
    }
}

/// The version gate: `dev`, or at least 0.17.0 without a pre-release once non-digits are trimmed from both ends.
fn version_is_admitted(version: &str) -> bool {
    if version == "dev" {
        return true;
    }
    let trimmed = version.trim_matches(|c: char| !c.is_ascii_digit());
    let number = trimmed.split_once('+').map_or(trimmed, |(number, _)| number);
    let segments: Option<Vec<u64>> = number.split('.').map(|segment| segment.parse().ok()).collect();
    segments.is_some_and(|segments| segments >= vec![0, 17])
}

/// Bcrypt takes no longer password.
const BCRYPT_LIMIT: usize = 72;

/// 20 s.
const KEEPALIVE: i64 = 20_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_admitted_as_the_real_gate_does() {
        for version in [
            "v1.5.1",
            "1.5.1",
            "dev",
            "v0.17.0",
            "v0.17",
            "v1.5.1-beta",
            "v1.5",
            "1",
            "v1.5.1.2",
            "v1.05.1",
            "v1.5.1+b1",
        ] {
            assert!(version_is_admitted(version), "{version}");
        }
        for version in ["", "v", "v0.16.9", "v0.9.0", "v1.5.1-rc1", "0", "v1..2", "banana"] {
            assert!(!version_is_admitted(version), "{version}");
        }
    }
}
