//! The service over the kernel's WireGuard: what a restart, a kill and a rotation cost an established flow.
//!
//! Needs a kernel with WireGuard; `.ci/kernel` runs it in a virtual machine with one.

#![expect(clippy::allow_attributes, reason = "an expectation would be unmet in the program that uses everything")]

#[allow(dead_code, reason = "shared with tests/agent")]
#[path = "../agent/firewall.rs"]
mod firewall;
#[path = "../lab/mod.rs"]
mod lab;
#[allow(dead_code, reason = "shared with tests/agent")]
#[path = "../agent/status.rs"]
mod status;
#[allow(dead_code, reason = "shared with tests/agent")]
#[path = "../agent/traffic.rs"]
mod traffic;
#[allow(dead_code, reason = "shared with tests/agent")]
#[path = "../agent/world.rs"]
mod world;

use std::{net::SocketAddr, process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use self::{
    firewall::Filter,
    lab::{Exit, Lab, Node, Reached},
    status::{membership, node_id, stop, wait_for, wait_up},
    traffic::same,
    world::{DONE, World, address},
};

fn main() -> ExitCode {
    lab::trials(vec![
        ("a_restart_loses_no_packet_of_a_flow", a_restart_loses_no_packet),
        ("a_kill_loses_no_packet_of_a_flow", a_kill_loses_no_packet),
        ("an_outage_and_a_restart_in_it_lose_no_packet", an_outage_loses_no_packet),
        ("a_joined_network_disturbs_no_other", a_joined_network_disturbs_no_other),
        ("a_rotated_key_is_known_after_a_restart", a_rotated_key_is_known),
        ("down_takes_away_what_up_brings_back", down_and_up),
        ("a_command_without_a_service_works_on_the_interface", a_command_without_a_service),
        ("all_traffic_goes_through_a_gateway_and_comes_back", all_traffic_goes_through_a_gateway),
        ("access_rules_stay_with_the_interface_whoever_serves_it", access_rules_stay),
    ])
}

fn a_restart_loses_no_packet(lab: &mut Lab) -> Result<()> {
    undisturbed(lab, |world, node| {
        for _ in 0..3 {
            let service = world.serve_on(node, "kernel", &[])?;
            wait_up(world, node)?;
            stop(&service)?;
        }
        Ok(())
    })
}

fn a_kill_loses_no_packet(lab: &mut Lab) -> Result<()> {
    undisturbed(lab, |world, node| {
        for _ in 0..3 {
            let service = world.serve_on(node, "kernel", &[])?;
            wait_up(world, node)?;
            service.signal(Signal::SIGKILL)?;
            service.wait(DONE)?;
        }
        Ok(())
    })
}

fn an_outage_loses_no_packet(lab: &mut Lab) -> Result<()> {
    undisturbed(lab, |world, node| {
        world.server.faults().inject(usize::MAX, "/", status::bad_gateway());
        let service = world.serve_on(node, "kernel", &[])?;
        wait_for(world, node, "the failure", |status| !status["last_error"].is_null())?;
        world.server.faults().clear();
        wait_for(world, node, "the recovery", |status| status["last_error"].is_null())?;
        stop(&service)
    })
}

fn a_joined_network_disturbs_no_other(lab: &mut Lab) -> Result<()> {
    undisturbed(lab, |world, node| {
        let service = world.serve_on(node, "kernel", &[])?;
        let key = world.key("more", &["plant-a"], 1)?;
        let joined = node.run(world.agent(node, &["join", "-"]).stdin(key), DONE)?;
        ensure!(joined.exit == Some(Exit::Code(0)), "{joined:?}");
        wait_for(world, node, "the further network", |status| !status["networks"]["plant-a"].is_null())?;
        let left = world.run(node, &["leave", "plant-a"])?;
        ensure!(left.exit == Some(Exit::Code(0)), "{left:?}");
        stop(&service)
    })
}

fn a_rotated_key_is_known(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.serve_on(&node, "kernel", &[])?;
    join(&world, &node)?;
    let before = wait_up(&world, &node)?;

    let rotated = world.run(&node, &["rotate-keys"])?;
    ensure!(rotated.exit == Some(Exit::Code(0)), "{rotated:?}");
    stop(&service)?;
    let service = world.serve_on(&node, "kernel", &[])?;

    let after = wait_up(&world, &node)?;
    ensure!(after["public_key"] != before["public_key"] && after["last_error"].is_null(), "{after}");
    stop(&service)
}

fn down_and_up(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.serve_on(&node, "kernel", &[])?;
    join(&world, &node)?;
    wait_up(&world, &node)?;
    let there = |node: &Node| Ok::<_, anyhow::Error>(node.interfaces()?.iter().any(|found| found.name == "enroll0"));

    ensure!(world.run(&node, &["down"])?.exit == Some(Exit::Code(0)));
    ensure!(!there(&node)?, "the interface stays after down");
    ensure!(world.run(&node, &["up"])?.exit == Some(Exit::Code(0)));
    ensure!(there(&node)?, "no interface after up");
    stop(&service)?;
    ensure!(there(&node)?, "the kernel's interface outlives the service");
    ensure!(world.run(&node, &["down", "--until-start"])?.exit == Some(Exit::Code(0)));
    ensure!(!there(&node)?, "the interface stays without its package");
    let service = world.serve_on(&node, "kernel", &[])?;
    wait_up(&world, &node)?;
    stop(&service)?;
    ensure!(world.run(&node, &["leave"])?.exit == Some(Exit::Code(0)));
    ensure!(!there(&node)?, "the interface stays after leaving");
    Ok(())
}

fn a_command_without_a_service(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    join(&world, &node)?;

    for command in ["sync", "down", "up", "rotate-keys"] {
        let done = world.run(&node, &[command])?;
        ensure!(done.exit == Some(Exit::Code(0)), "{command}: {done:?}");
    }

    let status = membership(&world, &node)?;
    ensure!(status["state"] == "up" && status["backend"] == "kernel", "{status}");
    ensure!(world.run(&node, &["wait-online", "--timeout", "5"])?.exit == Some(Exit::Code(0)));
    Ok(())
}

fn all_traffic_goes_through_a_gateway(lab: &mut Lab) -> Result<()> {
    let (client, gateway) = (lab.node("client")?, lab.node("gateway")?);
    let world = World::new(lab)?;
    // Only the gateway knows the way there.
    gateway.add_address("203.0.113.1/32".parse()?)?;
    let target: std::net::IpAddr = "203.0.113.1".parse()?;
    let before = client.snapshot()?;
    join(&world, &client)?;
    join(&world, &gateway)?;
    let nodes = [node_id(&membership(&world, &client)?)?, node_id(&membership(&world, &gateway)?)?];
    let path = format!("/api/nodes/office/{}/gateway", nodes[1]);
    let wish = json!({"is_internet_gw": true, "inet_node_client_ids": [nodes[0]]});
    ensure!(world.admin(lab, "POST", &path, &wish)? == 200);
    ensure!(world.run(&gateway, &["sync"])?.exit == Some(Exit::Code(0)));
    let through = |when: &str| -> Result<()> {
        ensure!(client.ping(target, 3, DONE)?.replies.len() == 3, "{when}: nothing comes through the gateway");
        ensure!(client.ping(Lab::V4, 3, DONE)?.replies.len() == 3, "{when}: the server is out of reach");
        Ok(())
    };
    world.configure(&client, "accept_default_route = true\n")?;
    let service = world.serve_on(&client, "kernel", &[])?;
    wait_up(&world, &client)?;
    ensure!(world.run(&client, &["sync"])?.exit == Some(Exit::Code(0)));
    through("served")?;
    service.kill()?;
    through("killed")?;
    ensure!(world.run(&client, &["leave"])?.exit == Some(Exit::Code(0)));
    same(&client.snapshot()?, &before, "left");
    Ok(())
}

fn access_rules_stay(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let filter = Filter::with_a_foreign_table(&one)?;
    let world = firewall::paid(lab)?;
    join(&world, &one)?;
    join(&world, &two)?;
    let there = address(&membership(&world, &one)?, "office", 0)?;
    firewall::restrict(lab, &world, &one, json!({"protocol": "tcp", "type": "SSH", "ports": ["22"]}))?;

    // No agent serves.
    let synced = world.run(&one, &["sync"])?;
    ensure!(synced.exit == Some(Exit::Code(0)), "{synced:?}");
    ensure!(world.run(&two, &["sync"])?.exit == Some(Exit::Code(0)));
    firewall::wait_enforced(&world, &one)?;
    ensure!(two.connect(SocketAddr::new(there, 22), DONE)? == Reached::Machine);
    ensure!(two.connect(SocketAddr::new(there, 80), SHORT)? == Reached::Nothing);
    let right = filter.now()?;
    // One does, ends, and is killed.
    let service = world.serve_on(&one, "kernel", &[])?;
    firewall::wait_enforced(&world, &one)?;
    stop(&service)?;
    ensure!(filter.now()? == right, "the end of the service opens the interface");
    let service = world.serve_on(&one, "kernel", &[])?;
    service.kill()?;
    ensure!(filter.now()? == right, "the end of the service opens the interface");
    ensure!(two.connect(SocketAddr::new(there, 80), SHORT)? == Reached::Nothing);
    ensure!(world.run(&one, &["leave"])?.exit == Some(Exit::Code(0)));

    ensure!(filter.now()? == filter.before, "{:?}", filter.now());
    Ok(())
}

fn join(world: &World, node: &Node) -> Result<()> {
    let key = world.key(&format!("key-of-{}", node.name), &["office"], 1)?;
    let program = world.agent(node, &["join", "-"]).env("ENROLL_AGENT_ENDPOINT", node.v4.to_string());
    let joined = node.run(program.stdin(key), DONE)?;
    ensure!(joined.exit == Some(Exit::Code(0)), "{joined:?}");
    Ok(())
}

/// Two hosts in a network, one pinging the other as fast as it answers, while `trouble` is made at the other.
fn undisturbed(lab: &mut Lab, trouble: impl Fn(&World, &Node) -> Result<()>) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    join(&world, &one)?;
    join(&world, &two)?;
    world.run(&one, &["sync"])?;
    let there = address(&membership(&world, &two)?, "office", 0)?;
    ensure!(!one.ping(there, 1, DONE)?.replies.is_empty(), "before the trouble");

    let (flow, made) = thread::scope(|scope| {
        let flow = scope.spawn(|| one.ping(there, usize::MAX, FLOW));
        let made = trouble(&world, &two);
        (flow.join(), made)
    });

    made?;
    let flow = flow.map_err(|_| anyhow::anyhow!("the flow's thread ended"))?.context("no flow")?;
    println!("{} of {} replies", flow.replies.len(), flow.sent);
    ensure!(flow.lost == 0 && flow.replies.len() > 100, "{} of {} were lost", flow.lost, flow.sent);
    Ok(())
}

/// Silence takes as long.
const SHORT: Duration = Duration::from_secs(2);

/// Longer than any of the troubles takes.
const FLOW: Duration = Duration::from_secs(15);
