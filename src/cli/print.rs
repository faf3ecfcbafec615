//! Memberships as text.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use comfy_table::{Table, presets::NOTHING};
use ipnet::IpNet;

use crate::model::{Connection, NetworkStatus, PeerStatus, RelayChoice, State, Status};

/// Renders one membership: what it is, its networks, its peers.
pub(super) fn status(status: &Status) -> String {
    let Status {
        backend,
        host_id,
        interface,
        keys,
        last_error,
        listen_port,
        name,
        networks,
        peers,
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
    if !networks.is_empty() {
        let mut table = table(["network", "address", "relay gateway", "tags"]);
        for (name, network) in networks {
            table.add_row([name.to_string(), addresses(network), relay(network, peers), list(&network.tags)]);
        }
        let _ = writeln!(text, "\n{table}");
    }
    if !peers.is_empty() {
        let mut table = table(["peer", "endpoint", "handshake", "received", "sent", "allowed IPs"]);
        for peer in peers {
            table.add_row([
                peer.public_key.to_string(),
                peer.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string()),
                peer.handshake_age.map_or_else(|| "never".to_owned(), |age| format!("{age} s ago")),
                bytes(peer.rx_bytes),
                bytes(peer.tx_bytes),
                shortened(&peer.allowed_ips),
            ]);
        }
        let _ = writeln!(text, "\n{table}");
    }
    for remark in remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    if let Some(error) = last_error {
        let _ = writeln!(text, "last contact failed: {error}");
    }
    text
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
        State::Down => "enrolled, interface down",
        State::Pending => "not enrolled yet: a key is being redeemed",
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
fn relay(network: &NetworkStatus, peers: &[PeerStatus]) -> String {
    let Some(relay) = &network.relay else {
        return match network.relay_choice {
            RelayChoice::Automatic => "automatic, none yet".to_owned(),
            RelayChoice::Fixed => "-".to_owned(),
        };
    };
    let name = relay.name.clone().unwrap_or_else(|| relay.node_id.to_string());
    let age = relay.public_key.and_then(|key| peers.iter().find(|peer| peer.public_key == key)?.handshake_age);
    if age.is_some_and(|age| age < 180) { name } else { format!("{name} (no handshake yet)") }
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
