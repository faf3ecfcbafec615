//! What becomes of this machine's packets: routes, rules, and what an agent leaves behind.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    lab::{Case, Lab, Node, Program, eventually},
    status::{host_id, membership, node_id, stop, wait_for, wait_up},
    world::{DONE, JOINED, World, address, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_machine_is_as_before_once_the_agent_is_gone", a_machine_is_as_before),
        ("all_traffic_goes_through_a_gateway_only_if_the_owner_says_so", all_traffic_goes_through_a_gateway),
        ("a_network_in_use_here_is_treated_as_the_owner_says", a_network_in_use),
        ("what_a_server_may_use_is_bounded", what_a_server_may_use),
    ]
}

fn a_machine_is_as_before(lab: &mut Lab) -> Result<()> {
    let (node, other) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["plant-a", "office"], 3)?;
    let (_peer, _) = world.join(&other, &key, &[])?;
    let before = node.snapshot()?;

    let service = world.enrolled(&node, &key)?;
    let up = node.snapshot()?;
    ensure!(up != before, "the snapshot shows an interface");
    ended_with(&world.run(&node, &["down"])?, 0, "");
    same(&node.snapshot()?, &before, "down");
    ended_with(&world.run(&node, &["up"])?, 0, "");
    wait_up(&world, &node)?;
    same(&node.snapshot()?, &up, "up");
    service.kill()?;
    let service = world.serve(&node, &[])?;
    wait_up(&world, &node)?;
    same(&node.snapshot()?, &up, "killed and started");
    stop(&service)?;
    same(&settled(&node, &before)?, &before, "stopped");
    let service = world.serve(&node, &[])?;
    wait_up(&world, &node)?;
    ended_with(&world.run(&node, &["leave"])?, 0, "");
    same(&node.snapshot()?, &before, "left");
    stop(&service)
}

fn all_traffic_goes_through_a_gateway(lab: &mut Lab) -> Result<()> {
    let [client, gateway, visitor] = [lab.node("client")?, lab.node("gateway")?, lab.node("visitor")?];
    let world = World::new(lab)?;
    // Only the gateway knows the way there.
    gateway.add_address("203.0.113.1/32".parse()?)?;
    let target: std::net::IpAddr = "203.0.113.1".parse()?;
    // As strict as some systems are with packets that come another way than answers would go.
    shell(&client, "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter")?;
    let before = client.snapshot()?;
    let key = world.key("team", &["office"], 2)?;
    let gateway_service = world.enrolled(&gateway, &key)?;
    let gateway_node = node_id(&membership(&world, &gateway)?)?;
    let service = world.enrolled(&client, &key)?;
    let client_node = node_id(&membership(&world, &client)?)?;
    let path = format!("/api/nodes/office/{gateway_node}/gateway");
    let wish = json!({"is_internet_gw": true, "inet_node_client_ids": [client_node]});
    ensure!(world.admin(lab, "POST", &path, &wish)? == 200);

    ended_with(&world.run(&client, &["sync"])?, 0, "");
    ended_with(&world.run(&gateway, &["sync"])?, 0, "");
    let refused = membership(&world, &client)?;
    assert!(
        refused["remarks"].to_string().contains("all of this machine's traffic, which stays as it is"),
        "{refused}"
    );
    assert!(client.ping(target, 1, JOINED / 30)?.replies.is_empty());
    stop(&service)?;

    world.configure(&client, "accept_default_route = true\n")?;
    let service = world.serve(&client, &[])?;
    wait_for(&world, &client, "the gateway", |status| status["remarks"].as_array().is_some_and(Vec::is_empty))?;
    for _ in 0..2 {
        assert_eq!(client.ping(target, 3, DONE)?.replies.len(), 3, "through the gateway");
        assert_eq!(client.ping(Lab::V4, 3, DONE)?.replies.len(), 3, "the server");
        assert_eq!(visitor.ping(client.v4, 3, DONE)?.replies.len(), 3, "answers go where the question came from");
        ended_with(&world.run(&client, &["sync"])?, 0, "");
    }
    // A crash leaves the machine with its own way out, and nothing once the agent was there again.
    service.kill()?;
    assert_eq!(client.ping(Lab::V4, 3, DONE)?.replies.len(), 3);
    assert_eq!(client.ping(visitor.v4, 3, DONE)?.replies.len(), 3);
    let service = world.serve(&client, &[])?;
    assert_eq!(client.ping(target, 3, DONE)?.replies.len(), 3, "again");
    stop(&service)?;
    same(&client.snapshot()?, &before, "stopped");
    let service = world.serve(&client, &[])?;
    assert_eq!(client.ping(target, 3, DONE)?.replies.len(), 3, "and again");
    ended_with(&world.run(&client, &["leave"])?, 0, "");
    same(&client.snapshot()?, &before, "left");
    stop(&service)?;
    stop(&gateway_service)
}

fn a_network_in_use(lab: &mut Lab) -> Result<()> {
    let (node, other) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["plant-a", "office"], 4)?;
    let (_peer, second) = world.join(&other, &key, &[])?;
    let there = [address(&second, "plant-a", 0)?, address(&second, "office", 0)?];
    node.add_address("10.202.0.200/25".parse()?)?;
    let before = node.snapshot()?;

    // Refused: enrolled, but nothing of it is carried out.
    let refused = world.start_join(&node, &key, &["--overlap", "refuse"])?.wait(DONE)?;
    ended_with(&refused, 1, "");
    let said = refused.stdout.join("\n") + &refused.stderr.join("\n");
    let expected =
        "the range of network office 10.202.0.0/24 overlaps 10.202.0.128/25 on this machine's interface eth0";
    assert!(said.contains(expected), "{said}");
    same(&settled(&node, &before)?, &before, "refused");

    // Skipped: the other network works.
    let (process, _) = world.join(&node, &key, &["--overlap", "skip-network"])?;
    let status = membership(&world, &node)?;
    assert!(status["remarks"].to_string().contains("network office is left out"), "{status}");
    assert_eq!(node.ping(there[0], 2, DONE)?.replies.len(), 2);
    assert!(!node.interfaces()?.iter().any(|interface| {
        interface.name == "enroll0"
            && interface.addresses.iter().any(|net| net.addr().to_string().starts_with("10.202"))
    }));
    process.kill()?;

    // Apart: who speaks with the overlay address gets there, everybody else to the local network.
    let (process, result) = world.join(&node, &key, &["--overlap", "table"])?;
    let own = address(&result, "office", 0)?;
    assert_eq!(other.ping(own, 2, DONE)?.replies.len(), 2);
    assert_eq!(node.ping(there[0], 2, DONE)?.replies.len(), 2);
    let rules = node.snapshot()?;
    let to_own = |line: &&String| line.starts_with("rule") && line.contains(&own.to_string());
    assert_eq!(rules.iter().filter(to_own).count(), 1, "{rules:?}");
    assert_eq!(world.uses_left("team")?, 2, "one host, enrolled once");
    process.kill()?;
    ended_with(&world.run(&node, &["leave"])?, 0, "");
    Ok(())
}

fn what_a_server_may_use(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    world.configure(&node, "allowed_prefixes = [\"10.101.0.0/16\", \"fd00:202::/64\"]\nport = 51900\nmtu = 1300\n")?;

    let service = world.enrolled(&node, &world.key("team", &["plant-a", "office"], 1)?)?;

    let status = membership(&world, &node)?;
    let remarks = status["remarks"].to_string();
    let expected = "network office is left out: its range 10.202.0.0/24 is none that allowed_prefixes permits";
    assert!(remarks.contains(expected), "{remarks}");
    assert_eq!(status["listen_port"], 51900);
    let path = format!("/api/hosts/{}", host_id(&status)?);
    let host = json!({"id": status["host_id"], "name": "one", "mtu": 1400, "listenport": 51901});
    ensure!(world.admin(lab, "PUT", &path, &host)? == 200);
    ended_with(&world.run(&node, &["sync"])?, 0, "");
    let status = membership(&world, &node)?;
    let remarks = status["remarks"].to_string();
    assert!(remarks.contains("asks for an MTU of 1400; it stays 1300"), "{remarks}");
    assert_eq!(status["listen_port"], 51900);
    stop(&service)
}

/// Checks that two snapshots are the same, and shows what is not.
pub(crate) fn same(seen: &[String], expected: &[String], when: &str) {
    let extra: Vec<_> = seen.iter().filter(|line| !expected.contains(line)).collect();
    let missing: Vec<_> = expected.iter().filter(|line| !seen.contains(line)).collect();
    assert!(extra.is_empty() && missing.is_empty(), "{when}: more {extra:#?}, less {missing:#?}");
}

/// The node's network once it is as expected, or as it stays: interfaces end a little after their process.
pub(crate) fn settled(node: &Node, expected: &[String]) -> Result<Vec<String>> {
    let mut last = None;
    let same = eventually("the machine as before", JOINED, || {
        let seen = node.snapshot().ok()?;
        let same = seen == expected;
        last = Some(seen);
        same.then_some(())
    });
    last.with_context(|| format!("{same:?}"))
}

fn shell(node: &Node, script: &str) -> Result<()> {
    let output = node.run(Program::new("/bin/sh").args(["-c", script]), DONE)?;
    ensure!(output.exit == Some(crate::lab::Exit::Code(0)), "{output:?}");
    Ok(())
}
