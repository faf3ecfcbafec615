//! Hosts for administrators.

use std::net::IpAddr;

use axum::{body::Bytes, extract::State, response::Response};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    answers::{self, Admin, Path, Query, id, wrapped},
    calls::Call,
    clock::go_time,
    documents::api_host,
    events::Event,
    host_api::Force,
    parse,
    refusal::Refusal,
    server::{Order, Server},
    world::World,
};
use crate::control::wire::{ApiHost, GoIp};

/// The calls about hosts.
pub(super) fn calls() -> Vec<Call> {
    let in_network = "/api/hosts/{host}/networks/{network}";
    vec![
        Call::get("/api/hosts", hosts, "List all hosts"),
        Call::get("/api/v1/hosts", page, "List hosts by name, a page at a time")
            .query(&["page", "per_page", "os", "q"]),
        Call::get("/api/hosts/{host}", host, "Show a host"),
        Call::put("/api/hosts/{host}", edit, "Change a host").takes::<ApiHost>(),
        Call::delete("/api/v1/ui/hosts/{host}", delete_host, "Delete a host").query(&["force"]),
        Call::post(in_network, add_to_network, "Give a host a node in a network"),
        Call::delete(in_network, remove_from_network, "Take a host out of a network").query(&["force"]),
        Call::put("/api/hosts/keys", rotate_all, "Ask all hosts for new WireGuard keys"),
        Call::put("/api/hosts/{host}/keys", rotate, "Ask a host for new WireGuard keys"),
        Call::post("/api/hosts/sync", sync_all, "Ask all hosts to pull"),
        Call::post("/api/hosts/{host}/sync", sync, "Ask a host to pull"),
        Call::post("/api/hosts/upgrade", upgrade_all, "Ask all hosts to upgrade"),
        Call::put("/api/hosts/{host}/upgrade", upgrade, "Ask a host to upgrade"),
    ]
}

async fn hosts(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    Ok(answers::json(&server.read(|world, _| world.hosts.values().map(api_host).collect::<Vec<_>>())?))
}

/// Which hosts; numbers that are none are as if not given.
#[derive(Deserialize)]
struct Paging {
    page: Option<String>,
    per_page: Option<String>,
    os: Option<String>,
    q: Option<String>,
}

async fn page(State(server): State<Server>, _: Admin, Query(paging): Query<Paging>) -> Result<Response, Refusal> {
    let Paging { page, per_page, os, q } = paging;
    let number = |text: Option<String>| text.and_then(|text| text.parse::<usize>().ok()).unwrap_or_default();
    let page = number(page).max(1);
    let per_page = Some(number(per_page)).filter(|size| (1..=100).contains(size)).unwrap_or(10);
    let mut hosts = server.read(|world, _| world.hosts.values().map(api_host).collect::<Vec<_>>())?;
    hosts.retain(|host| {
        let fields = [&host.id, &host.name, &host.public_key, &host.endpoint_ip, &host.endpoint_ipv6];
        let found = q.as_ref().is_none_or(|q| fields.iter().any(|field| field.contains(q.as_str())));
        found && os.as_ref().is_none_or(|os| *os == host.os)
    });
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    let total = hosts.len();
    let data: Vec<_> = hosts.into_iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
    let pages = total.div_ceil(per_page).max(1);
    let response = json!({"data": data, "page": page, "per_page": per_page, "total": total, "total_pages": pages});
    Ok(wrapped("fetched hosts", Some(response)))
}

async fn host(State(server): State<Server>, _: Admin, Path(host): Path<String>) -> Result<Response, Refusal> {
    let host = id(&host)?;
    let host = server.read(|world, _| world.hosts.get(&host).map(api_host))?;
    Ok(wrapped("fetched host", Some(host.ok_or_else(no_host)?)))
}

async fn edit(State(server): State<Server>, _: Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let asked: ApiHost = parse::object(&bytes).map_err(Refusal::internal)?;
    // The path's id is not looked at.
    let host = id(&asked.id)?;
    let shown = server.write(|world, now| world.edit_host(host, asked, now))?;
    server.order(Order::Edited(host));
    Ok(answers::json(&shown))
}

impl World {
    /// Takes over what administrators decide about a host, every time all of it; what has no switch stays where they
    /// leave it out.
    fn edit_host(&mut self, id: Uuid, asked: ApiHost, now: OffsetDateTime) -> Result<ApiHost, Refusal> {
        let host = self.hosts.get_mut(&id).ok_or_else(|| Refusal::internal("record not found"))?;
        let joins_all = asked.is_default && !host.is_default;
        host.endpoint_ip = endpoint(&asked.endpoint_ip)?.unwrap_or(host.endpoint_ip);
        host.endpoint_ipv6 = endpoint(&asked.endpoint_ipv6)?.unwrap_or(host.endpoint_ipv6);
        let keepalive = asked.persistent_keepalive.checked_mul(1_000_000_000);
        let keepalive = keepalive.ok_or_else(|| Refusal::bad_request("persistentkeepalive is too long"))?;
        take(&mut host.persistent_keepalive, keepalive);
        take(&mut host.name, asked.name);
        take(&mut host.listen_port, asked.listen_port);
        take(&mut host.mtu, asked.mtu);
        take(&mut host.dns_status, asked.dns.trim().to_lowercase());
        host.verbosity = asked.verbosity;
        host.firewall_in_use = asked.firewall_in_use;
        host.is_static_port = asked.is_static_port || asked.is_default;
        host.is_static = asked.is_static;
        host.is_default = asked.is_default;
        host.auto_update = asked.auto_update;
        // The real server forgets it here, and so peers use the listen port until the host tells again.
        host.public_listen_port = 0;
        host.updated_at = Some(go_time(now));
        if joins_all {
            for network in self.networks.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                self.join(id, &network, now)?;
            }
        }
        self.events.push(Event::HostUpdated { host: id });
        Ok(api_host(self.host(id)?))
    }
}

/// Takes a value over unless it is not given.
fn take<T: Default + PartialEq>(stored: &mut T, asked: T) {
    if asked != T::default() {
        *stored = asked;
    }
}

fn endpoint(text: &str) -> Result<Option<GoIp>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse::<IpAddr>().map_err(|_| Refusal::bad_request("an endpoint is not an address"))?;
    Ok(Some(GoIp(Some(address))))
}

async fn delete_host(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path(host): Path<String>,
    Query(force): Query<Force>,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    let gone = server.write_as(&actor, |world, _| {
        if !world.hosts.contains(&host) {
            return Err(Refusal::internal("record not found"));
        }
        if !force.is_set() && world.nodes_of(host).next().is_some() {
            return Err(Refusal::internal("host still has associated nodes"));
        }
        world.delete_host(host)
    })?;
    Ok(wrapped(format!("deleted host {}", gone.name), Some(api_host(&gone))))
}

async fn add_to_network(
    State(server): State<Server>,
    _: Admin,
    Path((host, network)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    server.write(|world, now| {
        if !world.hosts.contains(&host) {
            return Err(Refusal::internal("record not found"));
        }
        if world.nodes_of(host).any(|node| node.network == network) {
            return Err(Refusal::internal(format!("host already part of network {network}")));
        }
        if !world.networks.contains(&network) {
            return Err(Refusal::internal("record not found"));
        }
        world.join(host, &network, now)
    })?;
    Ok(answers::empty())
}

async fn remove_from_network(
    State(server): State<Server>,
    Admin(actor): Admin,
    Path((host, network)): Path<(String, String)>,
    Query(force): Query<Force>,
) -> Result<Response, Refusal> {
    let host = id(&host)?;
    server.write_as(&actor, |world, _| {
        if !world.hosts.contains(&host) {
            return Err(Refusal::bad_request("node not found"));
        }
        let node = world.nodes_of(host).find(|node| node.network == network).map(|node| node.id);
        let node = node.ok_or_else(|| Refusal::internal(format!("host not part of the network {network}")))?;
        if force.is_set() {
            world.delete_node(node);
            return Ok(());
        }
        world.mark_node_deleted(node)
    })?;
    Ok(answers::empty())
}

async fn rotate(State(server): State<Server>, _: Admin, Path(host): Path<String>) -> Result<Response, Refusal> {
    tell(&server, &host, Refusal::bad_request, |host| Event::KeysRequested { host })?;
    Ok(answers::empty())
}

async fn rotate_all(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    tell_all(&server, |host| Event::KeysRequested { host })?;
    Ok(answers::empty())
}

async fn sync(State(server): State<Server>, _: Admin, Path(host): Path<String>) -> Result<Response, Refusal> {
    tell(&server, &host, Refusal::bad_request, |host| Event::PullRequested { host })?;
    Ok(answers::empty())
}

async fn sync_all(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    tell_all(&server, |host| Event::PullRequested { host })?;
    Ok(wrapped::<()>("sync all hosts request received", None))
}

async fn upgrade(State(server): State<Server>, _: Admin, Path(host): Path<String>) -> Result<Response, Refusal> {
    tell(&server, &host, Refusal::not_found, |host| Event::UpgradeRequested { host })?;
    Ok(wrapped::<()>("passed message to upgrade host", None))
}

async fn upgrade_all(State(server): State<Server>, _: Admin) -> Result<Response, Refusal> {
    tell_all(&server, |host| Event::UpgradeRequested { host })?;
    Ok(wrapped::<()>("upgrade all hosts request received", None))
}

/// Asks something of a host; `refuse` is how its absence is answered.
fn tell(
    server: &Server,
    host: &str,
    refuse: fn(&'static str) -> Refusal,
    event: impl FnOnce(Uuid) -> Event,
) -> Result<(), Refusal> {
    let host = id(host)?;
    server.write(|world, _| {
        if !world.hosts.contains(&host) {
            return Err(refuse("record not found"));
        }
        world.events.push(event(host));
        Ok(())
    })
}

fn tell_all(server: &Server, event: impl Fn(Uuid) -> Event) -> Result<(), Refusal> {
    server.write(|world, _| {
        let events: Vec<_> = world.hosts.iter().map(|(host, _)| event(*host)).collect();
        world.events.extend(events);
        Ok(())
    })
}

fn no_host() -> Refusal {
    Refusal::not_found("record not found")
}
