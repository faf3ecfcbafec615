//! What a server asks of a serving agent, over its broker or by what a pull says.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use enroll_agent::mock_server::{Broker, Edition, Fault, Inside, Login, NewKey, Options, Repeat, Scheme, Trouble};
use serde_json::{Value, json};

use crate::{
    lab::{Cable, Case, Exit, Lab, eventually},
    status::{footprint, host_id, membership, node_id, peers, report, stop, wait_for, wait_pushed, with_broker},
    world::{DONE, NOTICED, World, address, new_key},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_pushed_change_is_applied_at_once", a_pushed_change_is_applied_at_once),
        ("an_announced_deletion_is_confirmed_and_obeyed", an_announced_deletion),
        ("a_deleted_host_enrolls_again_if_told_so", a_deleted_host_enrolls_again),
        ("keys_rotate_by_command_and_by_the_server", keys_rotate),
        ("a_rotation_survives_a_kill", a_rotation_survives_a_kill),
        ("a_relay_assigned_later_is_taken", a_relay_assigned_later_is_taken),
        ("the_nearest_gateway_is_chosen_where_the_server_leaves_it", the_nearest_gateway_is_chosen),
        ("a_relay_takes_over_without_a_gap", a_relay_takes_over),
        ("a_gateway_that_falls_silent_is_left_for_another", a_gateway_that_falls_silent),
        ("networks_come_and_go_by_the_administrator", networks_come_and_go),
        ("what_an_administrator_edits_is_taken_over", what_an_administrator_edits),
        ("messages_that_come_again_change_nothing", messages_that_come_again),
        ("a_broker_that_flaps_drops_nothing_and_leaks_nothing", a_broker_that_flaps),
    ]
}

fn a_pushed_change_is_applied_at_once(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    for scheme in [Scheme::Mqtt, Scheme::Wss] {
        let world = with_broker(lab, scheme)?;
        let key = world.key("team", &["office"], 2)?;
        let service = world.enrolled(&one, &key)?;
        wait_pushed(&world, &one)?;

        // Without push it would take two minutes.
        let (peer, second) = world.join(&two, &key, &[])?;
        wait_for(&world, &one, "the new peer", |status| peers(status) == 1)?;
        world.server.delete_host(host_id(&second)?)?;
        wait_for(&world, &one, "the peer's removal", |status| peers(status) == 0)?;
        peer.kill()?;
        stop(&service)?;
        for node in [&one, &two] {
            fs::remove_dir_all(world.own(node))?;
        }
    }
    Ok(())
}

fn an_announced_deletion(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = with_broker(lab, Scheme::Mqtts)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    let status = wait_pushed(&world, &node)?;

    world.server.delete_host(host_id(&status)?)?;

    wait_for(&world, &node, "the end", |status| status["state"] == "revoked")?;
    assert!(!node.interfaces()?.iter().any(|interface| interface.name == "enroll0"));
    assert_eq!(world.run(&node, &["status"])?.exit, Some(Exit::Code(3)));
    stop(&service)?;
    // Nor after a restart, until somebody forgets it.
    let service = world.serve(&node, &[])?;
    wait_for(&world, &node, "the memory of it", |status| status["state"] == "revoked")?;
    assert_eq!(world.run(&node, &["leave"])?.exit, Some(Exit::Code(0)));
    assert!(report(&world, &node)?["memberships"].as_array().is_some_and(Vec::is_empty));
    stop(&service)
}

fn a_deleted_host_enrolls_again(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = with_broker(lab, Scheme::Mqtt)?;
    let key = world.key("team", &["office"], 2)?;
    world.configure(&node, &format!("key = \"{key}\"\nreenroll = true\n"))?;
    let service = world.serve(&node, &[])?;
    let first = wait_pushed(&world, &node)?;

    world.server.delete_host(host_id(&first)?)?;

    let again = wait_for(&world, &node, "the new host", |status| {
        status["state"] == "up" && status["host_id"] != first["host_id"]
    })?;
    assert_ne!(again["public_key"], first["public_key"]);
    assert_eq!(world.uses_left("team")?, 0);
    stop(&service)
}

fn keys_rotate(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = with_broker(lab, Scheme::Ws)?;
    let key = world.key("team", &["office"], 2)?;
    let peer = world.enrolled(&one, &key)?;
    let service = world.enrolled(&two, &key)?;
    let first = wait_pushed(&world, &two)?;
    let there = address(&wait_pushed(&world, &one)?, "office", 0)?;

    assert_eq!(world.run(&two, &["rotate-keys"])?.exit, Some(Exit::Code(0)));
    let second = membership(&world, &two)?;
    let path = format!("/api/hosts/{}/keys", host_id(&first)?);
    assert_eq!(world.admin(lab, "PUT", &path, &Value::Null)?, 200);
    let third = wait_for(&world, &two, "the new key", |status| {
        ![&first["public_key"], &second["public_key"]].contains(&&status["public_key"])
    })?;

    assert_ne!(first["public_key"], second["public_key"]);
    let hosts = world.server.hosts()?;
    let known = hosts.iter().find(|host| Some(host.id.to_string().as_str()) == first["host_id"].as_str());
    let known = enroll_agent::model::PublicKey::from(known.context("no such host")?.public_key).to_string();
    assert_eq!(third["public_key"].as_str(), Some(known.as_str()));
    wait_for(&world, &one, "the new peer", |status| status["peers"][0]["public_key"] == third["public_key"])?;
    assert!(two.ping(there, 3, DONE)?.replies.len() >= 3, "the tunnel carries on with the new key");
    stop(&service)?;
    // What was asked for once is not done again with every connection.
    let service = world.serve(&two, &[])?;
    assert_eq!(wait_pushed(&world, &two)?["public_key"], third["public_key"]);
    stop(&service)?;
    stop(&peer)
}

fn a_rotation_survives_a_kill(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    let before = membership(&world, &node)?["public_key"].clone();
    world.server.faults().inject(1, "/api/v1/fallback/host/", Fault::DropAfterCommit);

    let lost = world.run(&node, &["rotate-keys"])?;
    service.kill()?;
    let service = world.serve(&node, &[])?;

    assert_eq!(lost.exit, Some(Exit::Code(75)), "{lost:?}");
    let after = wait_for(&world, &node, "the new key", |status| status["public_key"] != before)?;
    let known = enroll_agent::model::PublicKey::from(world.server.hosts()?[0].public_key).to_string();
    assert_eq!(after["public_key"].as_str(), Some(known.as_str()));
    let observed = world.server.faults().observed();
    let updates = observed.iter().filter_map(|seen| serde_json::from_slice::<Value>(&seen.body).ok());
    let announced = updates.filter(|update| update["Action"] == "UPDATE_HOST");
    let keys: BTreeSet<_> = announced.map(|update| update["Host"]["publickey"].to_string()).collect();
    assert_eq!(keys.len(), 1, "one wish, one key");
    stop(&service)
}

fn a_relay_assigned_later_is_taken(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = with_broker(lab, Scheme::Mqtt)?;
    let key = world.key("team", &["office"], 2)?;
    let relay = world.enrolled(&one, &key)?;
    let service = world.enrolled(&two, &key)?;
    let gateway = node_id(&wait_pushed(&world, &one)?)?;
    let own = node_id(&wait_pushed(&world, &two)?)?;

    world.server.make_gateway("office", gateway, &[])?;
    world.server.assign_gateway("office", own, gateway)?;

    let relayed = wait_for(&world, &two, "the relay", |status| {
        let office = &status["networks"]["office"];
        office["relay"]["name"] == "one" && office["relay_effective"] == true
    })?;
    assert_eq!(relayed["networks"]["office"]["relay"]["node_id"], gateway.to_string());
    world.server.unassign_gateway("office", own)?;
    wait_for(&world, &two, "the direct way", |status| status["networks"]["office"]["relay"].is_null())?;
    stop(&service)?;
    stop(&relay)
}

fn a_gateway_that_falls_silent(lab: &mut Lab) -> Result<()> {
    let gateways = [lab.node("one")?, lab.node("two")?];
    let client = lab.node("three")?;
    let inside = Inside { listen: (Lab::V4, 0).into(), scheme: Scheme::Mqtt, login: Login::Shared };
    let broker = Some(Broker::Inside(inside));
    let world = World::with(lab, Options { broker, edition: Edition::Pro, ..Options::default() })?;
    let key = world.key("team", &["office"], 2)?;
    let mut services = Vec::new();
    let mut nodes = Vec::new();
    for gateway in &gateways {
        services.push(world.enrolled(gateway, &key)?);
        nodes.push(node_id(&wait_pushed(&world, gateway)?)?);
    }
    for node in &nodes {
        world.server.make_gateway("office", *node, &[])?;
    }
    let choosing = NewKey { auto_assign_gateway: true, ..new_key("choosing", &["office"]) };
    services.push(world.enrolled(&client, world.server.create_key(choosing)?.token.expose())?);
    let office = |status: &Value| status["networks"]["office"].clone();
    let status = wait_for(&world, &client, "a choice", |status| office(status)["relay_effective"] == true)?;
    let first = nodes.iter().position(|node| office(&status)["relay"]["node_id"] == node.to_string());
    let first = first.context("chosen is none of them")?;

    lab.plug(&gateways[first], Cable::Out)?;

    let other = nodes[1 - first].to_string();
    wait_for(&world, &client, "the other gateway", |status| {
        office(status)["relay"]["node_id"] == other && office(status)["relay_effective"] == true
    })?;
    services.iter().try_for_each(stop)
}

fn the_nearest_gateway_is_chosen(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let inside = Inside { listen: (Lab::V4, 0).into(), scheme: Scheme::Mqtt, login: Login::Shared };
    let broker = Some(Broker::Inside(inside));
    let world = World::with(lab, Options { broker, edition: Edition::Pro, ..Options::default() })?;
    let gateway = world.enrolled(&one, &world.key("team", &["office"], 1)?)?;
    let gateway_node = node_id(&wait_pushed(&world, &one)?)?;
    world.server.make_gateway("office", gateway_node, &[])?;
    let choosing = NewKey { auto_assign_gateway: true, ..new_key("choosing", &["office"]) };

    let service = world.enrolled(&two, world.server.create_key(choosing)?.token.expose())?;

    let status = wait_for(&world, &two, "the choice", |status| {
        let office = &status["networks"]["office"];
        office["relay"]["node_id"] == gateway_node.to_string() && office["relay_effective"] == true
    })?;
    assert_eq!(status["networks"]["office"]["relay_choice"], "automatic");
    stop(&service)?;
    stop(&gateway)
}

fn networks_come_and_go(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = with_broker(lab, Scheme::Mqtt)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    let status = wait_pushed(&world, &node)?;
    let has = |name: &'static str| move |status: &Value| !status["networks"][name].is_null();
    let lacks = |name: &'static str| move |status: &Value| status["networks"][name].is_null();

    let added = world.server.add_to_network(host_id(&status)?, "plant-a")?;
    wait_for(&world, &node, "the further network", has("plant-a"))?;
    world.server.mark_node_deleted(added)?;
    wait_for(&world, &node, "its end", lacks("plant-a"))?;
    eventually("the confirmation", NOTICED, || (world.server.nodes().ok()?.len() == 1).then_some(()))?;
    world.server.delete_node(node_id(&status)?)?;
    let waiting = wait_for(&world, &node, "the end of the other", lacks("office"))?;

    assert_eq!(waiting["state"], "waiting");
    let left: Vec<_> = node.interfaces()?.into_iter().filter(|interface| interface.name == "enroll0").collect();
    assert!(left.iter().all(|interface| !interface.addresses.iter().any(|net| net.to_string().starts_with("10."))));
    stop(&service)
}

fn what_an_administrator_edits(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = with_broker(lab, Scheme::Mqtt)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    let id = host_id(&wait_pushed(&world, &node)?)?;
    let edit = json!({ "id": id, "name": "edge-gw-17", "mtu": 1300, "listenport": 51999 });

    assert_eq!(world.admin(lab, "PUT", &format!("/api/hosts/{id}"), &edit)?, 200);
    assert_eq!(world.admin(lab, "PUT", &format!("/api/hosts/{id}/upgrade"), &Value::Null)?, 200);

    wait_for(&world, &node, "the new settings", |status| {
        status["name"] == "edge-gw-17" && status["listen_port"] == 51999
    })?;
    wait_for(&world, &node, "the wish for an update", |status| status["contact"]["upgrade_requested"] == true)?;
    stop(&service)
}

fn messages_that_come_again(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = with_broker(lab, Scheme::Mqtt)?;
    let key = world.key("team", &["office"], 2)?;
    let peer = world.enrolled(&one, &key)?;
    let service = world.enrolled(&two, &key)?;
    let before = wait_pushed(&world, &two)?;
    let there = address(&wait_pushed(&world, &one)?, "office", 0)?;
    assert!(!two.ping(there, 1, NOTICED)?.replies.is_empty());

    for which in [Repeat::Last, Repeat::Stale, Repeat::Last] {
        lab.block_on(world.server.make(Trouble::Repeat { which }))?;
        assert_eq!(two.ping(there, 3, NOTICED)?.replies.len(), 3);
    }
    assert_eq!(world.run(&two, &["sync"])?.exit, Some(Exit::Code(0)));

    let after = membership(&world, &two)?;
    for part in ["host_id", "networks", "public_key", "state"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    assert_eq!(peers(&after), 1);
    stop(&service)?;
    stop(&peer)
}

fn a_broker_that_flaps(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = with_broker(lab, Scheme::Mqtt)?;
    let key = world.key("team", &["office"], 2)?;
    let peer = world.enrolled(&one, &key)?;
    let service = world.enrolled(&two, &key)?;
    let there = address(&wait_pushed(&world, &one)?, "office", 0)?;
    let flap = || -> Result<()> {
        lab.block_on(world.server.make(Trouble::BrokerDown))?;
        wait_for(&world, &two, "the loss", |status| status["contact"]["push"]["state"] == "disconnected")?;
        lab.block_on(world.server.make(Trouble::BrokerUp))?;
        wait_pushed(&world, &two).map(drop)
    };
    flap()?;
    let before = footprint(&service)?;
    let interfaces = two.interfaces()?;

    for _ in 0..FLAPS {
        flap()?;
        assert_eq!(two.ping(there, 1, NOTICED)?.replies.len(), 1);
    }

    let after = footprint(&service)?;
    assert!(after.files <= before.files, "{before:?} {after:?}");
    assert!(after.kilobytes < before.kilobytes + 4096, "{before:?} {after:?}");
    assert_eq!(two.interfaces()?, interfaces);
    stop(&service)?;
    stop(&peer)
}

/// Each takes up to eight seconds.
const FLAPS: usize = 10;

fn a_relay_takes_over(lab: &mut Lab) -> Result<()> {
    let [relay, client, peer] = [lab.node("relay")?, lab.node("client")?, lab.node("peer")?];
    let world = with_broker(lab, Scheme::Mqtt)?;
    let key = world.key("team", &["office"], 3)?;
    let mut services = Vec::new();
    for node in [&relay, &client, &peer] {
        services.push(world.enrolled(node, &key)?);
        wait_pushed(&world, node)?;
    }
    let gateway = node_id(&membership(&world, &relay)?)?;
    let own = node_id(&membership(&world, &client)?)?;
    let there = address(&membership(&world, &peer)?, "office", 0)?;
    world.server.make_gateway("office", gateway, &[])?;
    assert_eq!(client.ping(there, 3, DONE)?.replies.len(), 3);

    let (flow, made) = std::thread::scope(|scope| {
        let flow = scope.spawn(|| client.ping(there, usize::MAX, FLOW));
        let made = world.server.assign_gateway("office", own, gateway);
        (flow.join(), made)
    });

    made?;
    let flow = flow.map_err(|_| anyhow::anyhow!("the flow's thread ended"))??;
    // All hosts change at the same push, each a few milliseconds after another: one reply may be on its way just then.
    let lost = format!("{} of {} were lost", flow.lost, flow.sent);
    ensure!(flow.lost <= 1 && flow.replies.len() > 100, "{lost}");
    wait_for(&world, &client, "the relay", |status| status["networks"]["office"]["relay_effective"] == true)?;
    services.iter().try_for_each(stop)
}

const FLOW: std::time::Duration = std::time::Duration::from_secs(5);
