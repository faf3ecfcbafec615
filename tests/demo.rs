//! `cargo demo`: a whole fleet on this machine, with the real programs and real packets.
//!
//! ```text
//!              hub: enrollment server
//!             /          |           \
//!          relay       edge-1       edge-2
//!
//!  plant-a   10.101.0.0/16                       every node talks to every other directly
//!  office    10.202.0.0/24, fd00:202::/64        relay is the relay gateway; edges talk to each other through it
//! ```
//!
//! Ends with 0 only if every ping came back.

mod fleet;
mod lab;

use std::{
    io::{self, Write},
    net::IpAddr,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::NOTHING};
use enroll_agent::mock_server::{NewKey, NewNetwork};
use fleet::{Family, Machine, Server, Status, stop};
use lab::{Lab, Pings, Process, enter};

fn main() -> ExitCode {
    let mut lab = match enter() {
        Ok(lab) => lab,
        Err(missing) => {
            eprintln!("The demo cannot run on this machine: {missing}.");
            eprintln!("It needs root, or else user namespaces and a /dev/net/tun that everyone may open.");
            return ExitCode::FAILURE;
        }
    };
    match demo(&mut lab) {
        Ok(Pinged::All) => ExitCode::SUCCESS,
        Ok(Pinged::Some) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every ping came back.
#[derive(PartialEq, Eq)]
enum Pinged {
    All,
    Some,
}

fn demo(lab: &mut Lab) -> Result<Pinged> {
    say("Four machines on a little internet of network namespaces: a hub, relay, edge-1, edge-2.");
    let server = Server::start(lab)?;
    say(&format!("The enrollment server listens in the hub at {}, with a CA of its own.", server.admin.addr()));
    create_networks(&server)?;
    let [relay, edge1, edge2] = ["relay", "edge-1", "edge-2"].map(|name| Machine::new(lab, name));
    let (relay, edges) = (relay?, [edge1?, edge2?]);

    let mut agents = vec![enroll(&relay, &server, server.admin.default_key(PLANT)?.expose(), "plant-a's own key")?];
    let gateway = become_gateway(&relay, &server)?;
    let tags = vec![format!("{PLANT}.edges"), format!("{OFFICE}.edges")];
    let key = server.admin.create_key(NewKey {
        name: "edges".to_owned(),
        networks: vec![PLANT.to_owned(), OFFICE.to_owned()],
        uses: Some(2),
        groups: tags.clone(),
        relay: Some(gateway),
        ..NewKey::default()
    })?;
    say(&format!("A key for {PLANT} and {OFFICE} is made: 2 uses, tags {}, gateway relay.", tags.join(", ")));
    for edge in &edges {
        agents.push(enroll(edge, &server, key.token.expose(), "that key")?);
    }

    let pinged = ping_all(&relay, &edges)?;
    for agent in &agents {
        stop(agent)?;
    }
    say("The agents were stopped; with the demo their machines, the server and all files are gone.");
    Ok(pinged)
}

fn create_networks(server: &Server) -> Result<()> {
    let plant = NewNetwork { name: PLANT.to_owned(), range4: Some("10.101.0.0/16".parse()?), range6: None };
    let office = NewNetwork {
        name: OFFICE.to_owned(),
        range4: Some("10.202.0.0/24".parse()?),
        range6: Some("fd00:202::/64".parse()?),
    };
    for network in [plant, office] {
        server.admin.create_network(&network)?;
        let v4 = network.range4.map(|range| range.to_string());
        let v6 = network.range6.map(|range| range.to_string());
        let ranges = v4.into_iter().chain(v6).collect::<Vec<_>>().join(" and ");
        say(&format!("Network {} is made: {ranges}.", network.name));
    }
    Ok(())
}

fn enroll(machine: &Machine, server: &Server, token: &str, key: &str) -> Result<Process> {
    let name = &machine.node.name;
    let agent = machine.join(server, token)?;
    let joined: Status = serde_json::from_value(agent.json(SOON).with_context(|| format!("{name} cannot join"))?)?;
    let networks = joined.networks.iter().map(|(network, membership)| {
        let addresses: Vec<_> = membership.addresses.iter().map(|address| address.addr().to_string()).collect();
        let tags: Vec<_> = membership.tags.iter().map(String::as_str).collect();
        let tags = if tags.is_empty() { String::new() } else { format!(" [{}]", tags.join(", ")) };
        format!("{network} {}{tags}", addresses.join(" "))
    });
    say(&format!("{name} joined with {key}: {}.", networks.collect::<Vec<_>>().join("; ")));
    Ok(agent)
}

/// Puts the relay into the second network too, and makes it the relay gateway there.
fn become_gateway(relay: &Machine, server: &Server) -> Result<uuid::Uuid> {
    server.admin.add_to_network(relay.status()?.host_id, OFFICE)?;
    let status = relay.wait_for("the relay's second network", SOON, |status| status.networks.contains_key(OFFICE))?;
    let addresses = [status.address(OFFICE, Family::V4)?, status.address(OFFICE, Family::V6)?];
    let node = status.networks[OFFICE].node_id;
    server.admin.make_gateway(OFFICE, node, &[])?;
    let addresses = addresses.map(|address| address.to_string()).join(" ");
    say(&format!("The administrator put relay into {OFFICE} too ({addresses}) and made it the relay gateway there."));
    Ok(node)
}

/// One way that packets have to go.
struct Way<'a> {
    from: &'a Machine,
    to: &'a Status,
    to_name: &'a str,
    network: &'static str,
    family: Family,
}

fn ping_all(relay: &Machine, edges: &[Machine; 2]) -> Result<Pinged> {
    say("Pings through the tunnels:");
    let [edge1, edge2] = edges;
    let (hub, one, two) = (relay.status()?, edge1.status()?, edge2.status()?);
    let way = |from, to, to_name, network, family| Way { from, to, to_name, network, family };
    let ways = [
        way(edge1, &hub, "relay", PLANT, Family::V4),
        way(edge1, &two, "edge-2", PLANT, Family::V4),
        way(edge1, &hub, "relay", OFFICE, Family::V4),
        way(edge1, &hub, "relay", OFFICE, Family::V6),
        way(edge1, &two, "edge-2", OFFICE, Family::V4),
        way(edge1, &two, "edge-2", OFFICE, Family::V6),
        way(edge2, &one, "edge-1", OFFICE, Family::V4),
        way(edge2, &one, "edge-1", OFFICE, Family::V6),
    ];
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["who", "network", "to", "address", "via", "replies", "median"]);
    let mut pinged = Pinged::All;
    for Way { from, to, to_name, network, family } in ways {
        let address = to.address(network, family)?;
        let relayed = network == OFFICE && to_name != "relay";
        let via = if relayed { ("relay", &hub.public_key) } else { ("direct", &to.public_key) };
        let what = format!("the way from {} to {to_name} in {network}", from.node.name);
        from.wait_for(&what, SOON, |status| status.next_hop(address) == Some(via.1))?;
        // The first packet makes the handshake, which may have to wait until the other side has heard of this one.
        from.node.ping(address, 1, SOON)?;
        let pings = from.node.ping(address, REPLIES, SOON)?;
        if pings.replies.len() < REPLIES || pings.lost > 0 {
            pinged = Pinged::Some;
        }
        table.add_row(row(&from.node.name, network, to_name, address, via.0, &pings));
    }
    say(&table.to_string());
    let verdict = if pinged == Pinged::All { "Every ping came back." } else { "Not every ping came back." };
    say(verdict);
    Ok(pinged)
}

fn row(who: &str, network: &str, to: &str, address: IpAddr, via: &str, pings: &Pings) -> [String; 7] {
    let mut times = pings.replies.clone();
    times.sort();
    let median = times.get(times.len() / 2).map_or_else(|| "-".to_owned(), |time| format!("{} µs", time.as_micros()));
    let replies = format!("{} of {}", pings.sent - pings.lost, pings.sent);
    [who, network, to, &address.to_string(), via, &replies, &median].map(str::to_owned)
}

fn say(text: &str) {
    // Nobody may read on; that is no reason to leave half a fleet behind.
    let _ = writeln!(io::stdout(), "{text}");
}

const PLANT: &str = "plant-a";
const OFFICE: &str = "office";
const REPLIES: usize = 3;

/// Long enough for a handshake that is tried again, and for a machine that is busy building.
const SOON: Duration = Duration::from_secs(60);
