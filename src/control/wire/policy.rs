//! What administrators decide about traffic: ranges behind nodes, who may talk to whom, whom to ask for names.

use std::collections::BTreeMap;

use super::{GoTime, document};

document! {
    /// A range, or a domain, that is reached through nodes of a network.
    pub struct Egress {
        /// Its id.
        id: String = "id",
        /// Its name.
        name: String = "name",
        /// Name of the network.
        network: String = "network",
        /// A remark.
        description: String = "description",
        /// Node ids of those that forward, with the metrics of their routes.
        nodes: Option<BTreeMap<String, i64>> = "nodes",
        /// The same by device tags.
        tags: Option<BTreeMap<String, i64>> = "tags",
        /// CIDR text; `*` is everything; empty with a domain.
        range: String = "range",
        /// `virtual_nat`, `direct_nat`, or empty without translation.
        mode: String = "mode",
        /// CIDR text of the range it is translated to; Pro.
        virtual_range: String = "virtual_range",
        /// CIDR texts that the domain was resolved to.
        domain_answers: Option<Vec<String>> = "domain_ans",
        /// A domain instead of a range.
        domain: String = "domain",
        /// Whether addresses are translated.
        nat: bool = "nat",
        /// It is switched on.
        status: bool = "status",
        /// The user who made it.
        created_by: String = "created_by",
        /// When it was made.
        created_at: GoTime = "created_at",
        /// When it was changed.
        updated_at: GoTime = "updated_at",
    }
}

document! {
    /// What an administrator asks for about an [`Egress`].
    pub struct EgressRequest {
        /// Which, in a change.
        id: String = "id",
        /// Its name.
        name: String = "name",
        /// Name of the network.
        network: String = "network",
        /// A remark.
        description: String = "description",
        /// Node ids with metrics.
        nodes: Option<BTreeMap<String, i64>> = "nodes",
        /// Device tags with metrics; they go before nodes.
        tags: Option<BTreeMap<String, i64>> = "tags",
        /// CIDR text.
        range: String = "range",
        /// A domain instead.
        domain: String = "domain",
        /// Whether addresses are translated.
        nat: bool = "nat",
        /// How.
        mode: String = "mode",
        /// It is switched on; a new one always is.
        status: bool = "status",
        /// Everything instead of a range.
        is_internet_gateway: bool = "is_internet_gateway",
    }
}

document! {
    /// A policy: who may talk to whom.
    pub struct Acl {
        /// Its id.
        id: String = "id",
        /// It came with the network; only switching it on and off is possible.
        is_default: bool = "default",
        /// A remark.
        metadata: String = "meta_data",
        /// Its name.
        name: String = "name",
        /// Name of the network.
        network: String = "network_id",
        /// `device-policy` or `user-policy`.
        policy_type: String = "policy_type",
        /// From whom.
        sources: Option<Vec<AclTag>> = "src_type",
        /// To whom.
        destinations: Option<Vec<AclTag>> = "dst_type",
        /// `all`, `udp`, `tcp` or `icmp`.
        protocol: String = "protocol",
        /// `Any`, `Custom`, or the name of a service.
        service: String = "type",
        /// Ports and ranges as text.
        ports: Option<Vec<String>> = "ports",
        /// 0 one way, 1 both.
        direction: i64 = "allowed_traffic_direction",
        /// It is switched on.
        enabled: bool = "enabled",
        /// The user who made it, or `auto`.
        created_by: String = "created_by",
        /// When it was made.
        created_at: GoTime = "created_at",
    }
}

document! {
    /// One side of a policy.
    pub struct AclTag {
        /// `tag`, `device`, `egress-id`, `user` or `user-group`.
        id: String = "id",
        /// The name of what `value` stands for.
        name: String = "name",
        /// Tag, node id, egress id; `*` for all.
        value: String = "value",
    }
}

document! {
    /// Name servers that a network's hosts should ask.
    pub struct NameserverSetting {
        /// Its id.
        id: String = "id",
        /// Its name; `Google`, `Cloudflare` and `Quad9` stand for their servers.
        name: String = "name",
        /// Name of the network.
        network: String = "network_id",
        /// A remark.
        description: String = "description",
        /// It came with the network; only switching it on and off is possible.
        is_default: bool = "default",
        /// For names nobody else knows.
        fallback: bool = "fallback",
        /// Addresses as text.
        servers: Option<Vec<String>> = "servers",
        /// For all names.
        match_all: bool = "match_all",
        /// For names below these.
        domains: Option<Vec<NameserverDomain>> = "domains",
        /// Vestigial.
        match_domains: Option<Vec<String>> = "match_domains",
        /// Device tags whose nodes are told; `*` tells all.
        tags: Option<BTreeMap<String, serde_json::Value>> = "tags",
        /// Node ids that are told.
        nodes: Option<BTreeMap<String, serde_json::Value>> = "nodes",
        /// It is switched on; a new one always is.
        status: bool = "status",
        /// The user who made it.
        created_by: String = "created_by",
        /// When it was made.
        created_at: GoTime = "created_at",
        /// When it was changed.
        updated_at: GoTime = "updated_at",
    }
}

document! {
    /// A domain that name servers know.
    pub struct NameserverDomain {
        /// The domain; `.` for all.
        domain: String = "domain",
        /// Also a search domain.
        is_search_domain: bool = "is_search_domain",
        /// Active Directory.
        is_ad_domain: bool = "is_ad_domain",
    }
}
