//! Memberships as text.

use std::{collections::BTreeSet, fmt::Write, io::Write as _, net::SocketAddr, time::Duration};

use comfy_table::{Table, presets::NOTHING};
use ipnet::IpNet;
use serde::Serialize;

use crate::daemon::clock;
use crate::model::{
    Connection, Contact, DnsMode, DnsStatus, Enrolling, EnrollingState, LeavingStatus, Nat, NetworkStatus, PeerStatus,
    PublicEndpoint, PushState, RelayChoice, Requirement, State, Status, is_reverse,
};

/// Renders one membership: what it is, its networks, its peers.
pub(super) fn status(status: &Status) -> String {
    let Status {
        backend,
        contact,
        dns,
        firewall,
        host_id,
        interface,
        keys,
        last_error,
        listen_port,
        name,
        networks,
        peers,
        public_endpoints,
        remarks,
        server,
        ..
    } = status;
    let mut text = format!("{server}: {}", state(status.state));
    if let Some(name) = name {
        let _ = write!(text, ", as {name}");
    }
    let _ = writeln!(text, " (host {host_id})");
    if !keys.is_empty() {
        let _ = writeln!(text, "keys redeemed: {}", keys.iter().cloned().collect::<Vec<_>>().join(", "));
    }
    let mut place = format!("interface {interface}");
    if let Some(backend) = backend {
        let _ = write!(place, ", {backend}");
    }
    if let Some(port) = listen_port {
        let _ = write!(place, ", port {port}");
    }
    let _ = writeln!(text, "{place}, {}", counted(peers.len(), "peer"));
    if !public_endpoints.is_empty() {
        let shown: Vec<_> = public_endpoints.iter().map(public_endpoint).collect();
        let _ = writeln!(text, "public endpoint {}", shown.join(", "));
    }
    let lines = [
        contact.as_ref().map(self::contact),
        firewall.as_ref().map(|firewall| format!("firewall: {firewall}")),
        dns.as_ref().map(names),
        unmet(status).map(|unmet| format!("required networks missing: {unmet}")),
    ];
    for line in lines.into_iter().flatten() {
        let _ = writeln!(text, "{line}");
    }
    if !networks.is_empty() {
        let _ = writeln!(text, "\n{}", self::networks(std::slice::from_ref(status)));
    }
    if !peers.is_empty() {
        let _ = writeln!(text, "\n{}", self::peers(std::slice::from_ref(status)));
    }
    for remark in remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    if let Some(error) = last_error {
        let _ = writeln!(text, "last failure: {}", error.message);
    }
    text
}

/// The required networks that this host is not usefully in, with the reason; `None` if there are none.
pub(super) fn unmet(status: &Status) -> Option<String> {
    let texts: Vec<_> = status.unmet().map(|(name, requirement)| format!("{name} ({})", met(requirement))).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn met(requirement: Requirement) -> &'static str {
    match requirement {
        Requirement::Disconnected => "disconnected by its administrator",
        Requirement::Joined => "joined",
        Requirement::LeftOut => "left out, since it overlaps what this machine uses",
        Requirement::Missing => "not assigned",
        Requirement::Waiting => "granted, not assigned yet",
    }
}

/// Renders a sign-off that waits for its server.
pub(super) fn leaving(leaving: &LeavingStatus) -> String {
    let LeavingStatus { attempts: _, host_id, last_error, next_at, server, since } = leaving;
    let ago = clock::unix_seconds().saturating_sub(*since);
    let mut text = format!("{server}: leaving since {ago} s, as the server does not know yet (host {host_id})");
    if let Some(at) = next_at {
        let _ = write!(text, ", it is told in {} s", at.saturating_sub(clock::unix_seconds()));
    }
    text.push('\n');
    if let Some(error) = last_error {
        let _ = writeln!(text, "last failure: {}", error.message);
    }
    text
}

/// Renders an enrollment that did not come to its end yet.
pub(super) fn enrolling(enrolling: &Enrolling) -> String {
    let Enrolling { attempts, key, last_error, next_at, server, state } = enrolling;
    let key = key.as_ref().map(|key| format!(" with key {key}")).unwrap_or_default();
    let mut text = format!("{server}: enrolling{key}, {}", counted(*attempts as usize, "attempt"));
    if *state == EnrollingState::Clock {
        text.push_str(", waiting for this machine's clock");
    } else if let Some(at) = next_at {
        let _ = write!(text, ", the next in {} s", at.saturating_sub(clock::unix_seconds()));
    }
    text.push('\n');
    if let Some(error) = last_error {
        let _ = writeln!(text, "last failure: {}", error.message);
    }
    text
}

/// Renders the networks of memberships as a table.
pub(super) fn networks(memberships: &[Status]) -> String {
    let mut table = table(["network", "address", "relay gateway", "tags"]);
    for (name, network) in memberships.iter().flat_map(|status| &status.networks) {
        table.add_row([name.to_string(), addresses(network), relay(network), list(&network.tags)]);
    }
    table.to_string()
}

/// Renders the peers of memberships as a table.
pub(super) fn peers(memberships: &[Status]) -> String {
    let mut table = table(["peer", "endpoint", "handshake", "received", "sent", "allowed IPs"]);
    for peer in memberships.iter().flat_map(|status| &status.peers) {
        table.add_row(row(peer));
    }
    table.to_string()
}

fn row(peer: &PeerStatus) -> [String; 6] {
    [
        peer.public_key.to_string(),
        peer.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string()),
        peer.handshake_age.map_or_else(|| "never".to_owned(), |age| format!("{age} s ago")),
        bytes(peer.rx_bytes),
        bytes(peer.tx_bytes),
        shortened(&peer.allowed_ips),
    ]
}

fn public_endpoint(endpoint: &PublicEndpoint) -> String {
    let PublicEndpoint { address, nat, port } = *endpoint;
    let place = port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string());
    let how = match nat {
        Some(Nat::BehindNat) => "behind NAT",
        Some(Nat::Public) => "this host's own",
        None => "as configured",
    };
    format!("{place} ({how})")
}

fn contact(contact: &Contact) -> String {
    let Contact { last_sync, next, online, push, since, upgrade_requested } = contact;
    let now = clock::unix_seconds();
    let mut text = if *online { "server in contact".to_owned() } else { "no contact to the server".to_owned() };
    let _ = write!(text, " for {} s, ", now.saturating_sub(*since));
    text.push_str(match push {
        PushState::Absent => "changes are pulled",
        PushState::Connected => "changes are pushed",
        PushState::Disconnected { .. } => "changes are pulled while the broker does not answer",
    });
    if let Some(sync) = last_sync {
        let _ = write!(text, "; last news {} s ago", now.saturating_sub(sync.at));
    }
    if let Some(next) = next {
        let _ = write!(text, "; next in {} s: {}", next.at.saturating_sub(now), next.why);
    }
    if *upgrade_requested {
        text.push_str("\nnote: the server asks for an update of this agent, which is the package manager's to make");
    }
    text
}

/// How names are resolved, in words.
fn names(dns: &DnsStatus) -> String {
    let DnsStatus { domains, everything, hosts, manager, mode, note } = dns;
    let domains: Vec<_> = domains.iter().filter(|name| !is_reverse(name)).map(String::as_str).collect();
    match (mode, manager, note) {
        (DnsMode::Off, _, _) => "names: left as they are, since dns is off".to_owned(),
        (DnsMode::Full | DnsMode::Split, Some(manager), _) => {
            let others = if *everything { ", and all others" } else { "" };
            format!("names: {}{others}, by {manager}; {} known", domains.join(", "), counted(*hosts, "host"))
        }
        (DnsMode::Full | DnsMode::Split, None, Some(note)) => format!("names: {note}"),
        (DnsMode::Full | DnsMode::Split, None, None) => "names: none yet".to_owned(),
    }
}

/// One line, complete when it is seen: a program may wait for it while this process goes on.
pub(super) fn print_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => print_text(&format!("{text}\n")),
        Err(error) => tracing::error!(%error, "cannot write the result as JSON"),
    }
}

pub(super) fn print_text(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads the result");
    }
}

/// Renders a duration in whole or tenths of milliseconds.
pub(super) fn millis(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros < 10_000 {
        format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
    } else {
        format!("{} ms", micros / 1000)
    }
}

/// `1 peer`, `2 peers`.
pub(super) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    table
}

fn state(state: State) -> &'static str {
    match state {
        State::Clone => "not used: this machine is a copy of that host",
        State::Down => "enrolled, interface down",
        State::Held => "held: this machine may be a copy of that host",
        State::Off => "enrolled, switched off",
        State::Pending => "not enrolled yet: a key is being redeemed",
        State::Revoked => "deleted by the server",
        State::Up => "up",
        State::Waiting => "enrolled, waiting for a network",
    }
}

fn addresses(network: &NetworkStatus) -> String {
    let addresses: Vec<_> = network.addresses.iter().map(ToString::to_string).collect();
    match network.connection {
        Connection::Connected => addresses.join(", "),
        Connection::Disconnected => format!("{} (disconnected)", addresses.join(", ")),
    }
}

/// The relay in words; it is in effect while it has a handshake younger than 180 s.
fn relay(network: &NetworkStatus) -> String {
    let Some(relay) = &network.relay else {
        return match network.relay_choice {
            RelayChoice::Automatic => "automatic, none yet".to_owned(),
            RelayChoice::Fixed => "-".to_owned(),
        };
    };
    let name = relay.name.clone().unwrap_or_else(|| relay.node_id.to_string());
    if network.relay_effective { name } else { format!("{name} (no handshake yet)") }
}

fn list(tags: &BTreeSet<String>) -> String {
    if tags.is_empty() { "-".to_owned() } else { tags.iter().cloned().collect::<Vec<_>>().join(", ") }
}

fn shortened(nets: &BTreeSet<IpNet>) -> String {
    let shown: Vec<_> = nets.iter().take(4).map(ToString::to_string).collect();
    match nets.len().saturating_sub(4) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} KiB", count >> 10),
        10_000_000.. => format!("{} MiB", count >> 20),
    }
}
