//! Name servers: whom the hosts of a network should ask for which names.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Edition, clock::go_time, egress::is_label, events::Event, policies::ALL, refusal::Refusal, table::Row, world::World,
};
use crate::control::wire::{Host, Nameserver, NameserverDomain, NameserverSetting, Node};

impl Row<String> for NameserverSetting {
    /// Name of the network.
    type Place = String;

    fn places(&self, _: &String) -> Vec<String> {
        vec![self.network.clone()]
    }
}

impl World {
    /// Makes the name servers that come with a network.
    pub(super) fn create_default_name_servers(&mut self, network: &str, now: OffsetDateTime) {
        let setting = NameserverSetting {
            id: Uuid::new_v4().to_string(),
            name: "Google Public DNS".to_owned(),
            network: network.to_owned(),
            is_default: true,
            fallback: true,
            servers: Some(servers(&GOOGLE)),
            domains: Some(vec![]),
            tags: Some(everybody()),
            nodes: Some(BTreeMap::new()),
            status: true,
            created_by: "auto".to_owned(),
            created_at: go_time(now),
            ..NameserverSetting::default()
        };
        self.name_servers.insert(setting.id.clone(), setting);
    }

    /// Makes the name servers that networks of an older store should have come with.
    pub(super) fn add_missing_name_servers(&mut self, now: OffsetDateTime) {
        let bare = self.networks.iter().filter(|(name, _)| self.name_servers.find(name).next().is_none());
        for network in bare.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.create_default_name_servers(&network, now);
        }
    }

    /// Whom a host should ask, unless it manages its names itself.
    pub(super) fn name_servers_for(&self, host: &Host, nodes: &[&Node]) -> Vec<Nameserver> {
        if host.dns_status != "yes" {
            return Vec::new();
        }
        let of_node = |node: &&Node| {
            let own = [node.address.ip.0, node.address6.ip.0].map(|ip| ip.map(|ip| ip.to_string()));
            let mut settings: Vec<_> = self.name_servers.find(&node.network).map(|(_, setting)| setting).collect();
            settings.sort_by_key(|setting| setting.created_at.unix_seconds());
            let told = settings.into_iter().filter(|setting| setting.status && is_for(setting, node));
            told.flat_map(|setting| asked(setting, &own)).collect::<Vec<_>>()
        };
        nodes.iter().flat_map(of_node).collect()
    }

    pub(super) fn create_name_servers(
        &mut self,
        asked: NameserverSetting,
        by: &str,
        now: OffsetDateTime,
    ) -> Result<NameserverSetting, Refusal> {
        let asked = self.checked(asked)?;
        let setting = NameserverSetting {
            id: Uuid::new_v4().to_string(),
            is_default: false,
            match_domains: None,
            status: true,
            created_by: by.to_owned(),
            created_at: go_time(now),
            ..asked
        };
        Ok(self.store_name_servers(setting))
    }

    /// Changes all but the network; of a default one only whether it is switched on.
    pub(super) fn edit_name_servers(
        &mut self,
        asked: NameserverSetting,
        now: OffsetDateTime,
    ) -> Result<NameserverSetting, Refusal> {
        let asked = self.checked(asked)?;
        let stored = self.name_servers.get(&asked.id).cloned().ok_or_else(nothing)?;
        let status = asked.status;
        if stored.is_default {
            return Ok(self.store_name_servers(NameserverSetting { status, ..stored }));
        }
        let NameserverSetting { id, network, is_default, match_domains, created_by, created_at, .. } = stored;
        let updated_at = go_time(now);
        let kept = NameserverSetting { id, network, is_default, match_domains, created_by, created_at, ..asked };
        Ok(self.store_name_servers(NameserverSetting { updated_at, ..kept }))
    }

    pub(super) fn delete_name_servers(&mut self, id: &str) -> Result<(), Refusal> {
        let id = id.to_owned();
        if self.name_servers.get(&id).ok_or_else(nothing)?.is_default {
            return Err(Refusal::bad_request("cannot delete default nameservers"));
        }
        let network = self.name_servers.remove(&id).map(|setting| setting.network).ok_or_else(nothing)?;
        self.events.push(Event::NameServersChanged { network });
        Ok(())
    }

    fn store_name_servers(&mut self, setting: NameserverSetting) -> NameserverSetting {
        self.name_servers.insert(setting.id.clone(), setting.clone());
        self.events.push(Event::NameServersChanged { network: setting.network.clone() });
        setting
    }

    fn checked(&self, mut asked: NameserverSetting) -> Result<NameserverSetting, Refusal> {
        let refuse = |reason: &str| Err(Refusal::bad_request(reason));
        if asked.name.is_empty() {
            return refuse("name is required");
        }
        if asked.network.is_empty() {
            return refuse("network is required");
        }
        if asked.servers.as_ref().is_none_or(Vec::is_empty) {
            return refuse("atleast one nameserver should be specified");
        }
        if !self.networks.contains(&asked.network) {
            return refuse("invalid network id");
        }
        if let Some(wrong) = asked.servers.iter().flatten().find(|server| server.parse::<IpAddr>().is_err()) {
            return refuse(&format!("invalid nameserver {wrong}"));
        }
        for node in asked.nodes.iter().flatten().map(|(id, _)| Uuid::parse_str(id)) {
            match node.ok().and_then(|node| self.nodes.get(&node)) {
                Some(node) if node.network == asked.network => {}
                Some(_) => return refuse("invalid network node"),
                None => return refuse("invalid node"),
            }
        }
        if asked.fallback {
            (asked.domains, asked.match_all) = (Some(vec![]), false);
        } else if asked.match_all {
            asked.domains = Some(vec![NameserverDomain { domain: ".".to_owned(), ..NameserverDomain::default() }]);
        } else if asked.domains.as_ref().is_none_or(Vec::is_empty) {
            return refuse("atleast one match domain is required");
        } else if !asked.domains.iter().flatten().all(|domain| is_match_domain(&domain.domain)) {
            return refuse("invalid match domain");
        }
        if let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == asked.name) {
            asked.servers = Some(servers(known));
        }
        if self.manners.edition == Edition::Community {
            asked.tags = Some(everybody());
        }
        asked.tags.get_or_insert_default();
        asked.nodes.get_or_insert_default();
        Ok(asked)
    }
}

/// Tells whether a node is to ask these servers.
fn is_for(setting: &NameserverSetting, node: &Node) -> bool {
    let tags = node.tags.iter().flat_map(|tags| &tags.0);
    let tagged = setting.tags.iter().flatten().any(|(tag, _)| tag == ALL || tags.clone().any(|own| own == tag));
    tagged || setting.nodes.as_ref().is_some_and(|nodes| nodes.contains_key(&node.id.to_string()))
}

/// What a host is told; a server among its `own` addresses is left out.
fn asked(setting: &NameserverSetting, own: &[Option<String>]) -> Vec<Nameserver> {
    let others = setting.servers.iter().flatten().filter(|server| !own.contains(&Some((*server).clone())));
    let ips: Vec<_> = others.cloned().collect();
    if ips.is_empty() {
        return Vec::new();
    }
    if setting.fallback {
        return vec![Nameserver { ips: Some(ips), is_fallback: true, ..Nameserver::default() }];
    }
    let domains = setting.domains.iter().flatten().map(|domain| Nameserver {
        ips: Some(ips.clone()),
        match_domain: domain.domain.clone(),
        is_search_domain: domain.is_search_domain,
        is_fallback: false,
        is_ad_domain: domain.is_ad_domain,
    });
    domains.collect()
}

/// A domain, perhaps with `~` before or a dot behind; `~.` is everything.
fn is_match_domain(text: &str) -> bool {
    let domain = text.strip_prefix('~').unwrap_or(text);
    text == "~." || domain.len() <= 253 && domain.strip_suffix('.').unwrap_or(domain).split('.').all(is_label)
}

fn servers(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn everybody() -> BTreeMap<String, serde_json::Value> {
    BTreeMap::from([(ALL.to_owned(), json!({}))])
}

fn nothing() -> Refusal {
    Refusal::bad_request("record not found")
}

/// What every network of the real server comes with.
const GOOGLE: [&str; 4] = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];

/// Names that stand for servers.
const KNOWN: [(&str, [&str; 4]); 3] = [
    ("Google", GOOGLE),
    ("Cloudflare", ["1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"]),
    ("Quad9", ["9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"]),
];
