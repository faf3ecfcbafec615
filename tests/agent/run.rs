//! The service: `agent run` from first boot through outages, rotation and revocation.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result, ensure};
use enroll_agent::mock_server::{Broker, Fault, Inside, Login, Options, Scheme, Trouble};
use nix::sys::signal::Signal;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    lab::{Case, Exit, Lab, Node, Process, eventually},
    world::{DONE, NOTICED, World, address, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_service_without_a_key_waits_and_writes_nothing", a_service_without_a_key_waits),
        ("a_configured_key_enrolls_by_itself_and_is_forgotten", a_configured_key_enrolls_by_itself),
        ("a_boot_without_the_server_brings_the_tunnel_up", a_boot_without_the_server),
        ("a_pushed_change_is_applied_at_once", a_pushed_change_is_applied_at_once),
        ("a_service_joins_for_others", a_service_joins_for_others),
        ("a_dead_key_does_an_enrolled_host_no_harm", a_dead_key_does_no_harm),
        ("a_key_that_is_refused_is_tried_again", a_key_that_is_refused_is_tried_again),
        ("an_announced_deletion_is_confirmed_and_obeyed", an_announced_deletion),
        ("a_deleted_host_enrolls_again_if_told_so", a_deleted_host_enrolls_again),
        ("a_server_that_forgot_everything_removes_nothing", a_server_that_forgot_everything),
        ("down_and_up_keep_the_membership", down_and_up),
        ("keys_rotate_by_command_and_by_the_server", keys_rotate),
        ("a_rotation_survives_a_kill", a_rotation_survives_a_kill),
        ("a_relay_assigned_later_is_taken", a_relay_assigned_later_is_taken),
        ("networks_come_and_go_by_the_administrator", networks_come_and_go),
        ("a_broker_that_flaps_drops_nothing_and_leaks_nothing", a_broker_that_flaps),
        ("a_service_ends_within_two_seconds", a_service_ends_within_two_seconds),
        ("probes_and_waiting_tell_by_exit_code", probes_and_waiting),
        ("a_damaged_membership_is_told_and_hinders_no_other", a_damaged_membership),
        ("a_deleted_interface_comes_back", a_deleted_interface_comes_back),
        ("a_machine_that_moves_tells_the_server_at_once", a_machine_that_moves),
        ("a_new_configuration_is_read_on_demand", a_new_configuration),
        ("the_socket_is_open_to_others_only_if_told_so", the_socket_is_open_to_others),
    ]
}

fn a_service_without_a_key_waits(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;

    let service = world.serve(&node, &[])?;

    ended_with(&world.run(&node, &["status"])?, 3, "this host is not enrolled");
    assert!(!world.own(&node).join("state").exists(), "something was written");
    stop(&service)
}

fn a_configured_key_enrolls_by_itself(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    world.server.faults().inject(2, "/api/v1/host/register", Fault::Busy { status: 429, retry_after: 1 });
    world.configure(&node, &format!("key = \"{key}\"\n"))?;

    let service = world.serve(&node, &[])?;

    wait_up(&world, &node)?;
    assert_eq!(world.uses_left("team")?, 0);
    let saved = serde_json::to_string(&world.saved(&node)?)?;
    assert!(!saved.contains(&key), "the key stays on disk");
    stop(&service)
}

fn a_boot_without_the_server(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_peer, first) = world.join(&one, &key, &[])?;
    let (joined, _) = world.join(&two, &key, &[])?;
    let there = address(&first, "office", 0)?;
    assert!(!two.ping(there, 1, NOTICED)?.replies.is_empty(), "before the outage");
    stop(&joined)?;
    world.server.faults().inject(usize::MAX, "/", bad_gateway());

    let service = world.serve(&two, &[])?;

    wait_up(&world, &two)?;
    assert!(two.ping(there, 3, NOTICED)?.replies.len() >= 3);
    let offline = wait_for(&world, &two, "the failure", |status| {
        status["contact"]["online"] == false && !status["last_error"].is_null()
    })?;
    assert_eq!(offline["last_error"]["class"], "temporary");
    assert_eq!(offline["contact"]["next"]["why"], "another try after a failure");
    world.server.faults().clear();
    wait_for(&world, &two, "the recovery", |status| status["contact"]["online"] == true)?;
    stop(&service)
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

fn a_service_joins_for_others(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (first, second) = (world.key("team", &["office"], 1)?, world.key("more", &["plant-a"], 1)?);
    let service = world.serve(&node, &[])?;
    let join = |key: &str| node.run(world.agent(&node, &["join", "--json", "-"]).stdin(key), DONE);

    let new: Value = serde_json::from_str(&join(&first)?.stdout.join("\n"))?;
    let again: Value = serde_json::from_str(&join(&first)?.stdout.join("\n"))?;
    let further: Value = serde_json::from_str(&join(&second)?.stdout.join("\n"))?;
    let refused = join(&second.replace('e', "f"))?;

    assert_eq!((&new["result"], &again["result"]), (&"enrolled".into(), &"already-enrolled".into()));
    assert!(new["timings_ms"]["redeem"].as_f64().is_some_and(|time| time > 0.0), "{new}");
    assert_eq!(further["result"], "further-key-redeemed");
    assert_eq!(further["networks"].as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(refused.exit, Some(Exit::Code(5)), "{refused:?}");
    assert_eq!((world.uses_left("team")?, world.uses_left("more")?), (0, 0));
    let left = world.run(&node, &["leave"])?;
    assert_eq!(left.exit, Some(Exit::Code(0)), "{left:?}");
    ended_with(&world.run(&node, &["status"])?, 3, "this host is not enrolled");
    assert!(world.server.hosts()?.is_empty());
    stop(&service)
}

fn a_dead_key_does_no_harm(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    stop(&service)?;
    let dead = world.key("dead", &["office"], 1)?;
    world.server.delete_key(&world.key_id("dead")?)?;
    world.configure(&node, &format!("key = \"{dead}\"\n\n[[membership]]\nkey = \"not a key\"\n"))?;

    let service = world.serve(&node, &[])?;

    wait_up(&world, &node)?;
    let registered = world.server.faults().observed().iter().filter(|seen| seen.path.contains("register")).count();
    assert_eq!(registered, 1, "the dead key was shown");
    stop(&service)
}

fn a_key_that_is_refused_is_tried_again(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let id = world.key_id("team")?;
    world.server.disable_key(&id)?;
    world.configure(&node, &format!("key = \"{key}\"\n"))?;
    let service = world.serve(&node, &[])?;

    let refused = eventually("the refusal", NOTICED, || {
        let report = report(&world, &node).ok()?;
        let enrolling = report["enrolling"][0].clone();
        (enrolling["last_error"]["class"] == "refused").then_some(enrolling)
    })?;
    world.server.enable_key(&id)?;

    assert!(refused["last_error"]["message"].as_str().is_some_and(|text| text.contains("disabled")), "{refused}");
    wait_up(&world, &node)?;
    assert_eq!(world.uses_left("team")?, 0);
    stop(&service)
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

fn a_server_that_forgot_everything(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    lab.block_on(world.server.make(Trouble::Snapshot { snapshot: "before".into() }))?;
    let (_peer, first) = world.join(&one, &key, &[])?;
    let service = world.enrolled(&two, &key)?;
    let there = address(&first, "office", 0)?;
    assert!(!two.ping(there, 1, NOTICED)?.replies.is_empty(), "before the rollback");

    lab.block_on(world.server.make(Trouble::Rollback { snapshot: "before".into() }))?;
    let synced = world.run(&two, &["sync"])?;

    ended_with(&synced, 3, "has deleted this host");
    assert!(two.ping(there, 3, NOTICED)?.replies.len() >= 3);
    let status = membership(&world, &two)?;
    assert_eq!((&status["state"], &status["last_error"]["class"]), (&"up".into(), &"not-enrolled".into()));
    stop(&service)
}

fn down_and_up(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_peer, first) = world.join(&one, &key, &[])?;
    let service = world.enrolled(&two, &key)?;
    let there = address(&first, "office", 0)?;

    assert_eq!(world.run(&two, &["down"])?.exit, Some(Exit::Code(0)));
    assert!(!two.interfaces()?.iter().any(|interface| interface.name == "enroll0"));
    stop(&service)?;
    let service = world.serve(&two, &[])?;
    assert_eq!(membership(&world, &two)?["state"], "off", "also after a restart");
    ended_with(&world.run(&two, &["sync"])?, 3, "is switched off");
    assert_eq!(world.run(&two, &["up"])?.exit, Some(Exit::Code(0)));

    assert_eq!(membership(&world, &two)?["state"], "up");
    assert!(two.ping(there, 1, NOTICED)?.replies.len() == 1);
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
    assert_eq!(world.admin(lab, "PUT", &path)?, 200);
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

fn a_service_ends_within_two_seconds(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    // In the middle of a request that takes long.
    world.server.faults().inject(usize::MAX, "/", Fault::Delay(Duration::from_secs(20)));
    let _syncing = node.spawn(world.agent(&node, &["sync"]))?;
    eventually("the request", NOTICED, || {
        let observed = world.server.faults().observed();
        observed.last().is_some_and(|seen| seen.path.contains("fallback")).then_some(())
    })?;

    service.signal(Signal::SIGTERM)?;

    let output = service.wait(Duration::from_secs(2))?;
    assert_eq!(output.exit, Some(Exit::Code(0)), "{output:?}");
    assert!(!world.own(&node).join("run/agent.sock").exists());
    assert!(!node.interfaces()?.iter().any(|interface| interface.name == "enroll0"));
    Ok(())
}

fn probes_and_waiting(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let code = |arguments: &[&str]| Ok::<_, anyhow::Error>(world.run(&node, arguments)?.exit);
    let (yes, no) = (Some(Exit::Code(0)), Some(Exit::Code(3)));

    assert_eq!(code(&["status", "--check", "live"])?, no);
    let waiting = node.spawn(world.agent(&node, &["wait-online", "--network", "office", "--timeout", "60"]))?;
    let service = world.serve(&node, &[])?;
    assert_eq!((code(&["status", "--check", "live"])?, code(&["status", "--check", "ready"])?), (yes, no));
    assert_eq!(code(&["wait-online", "--timeout", "1"])?, no);
    let key = world.key("team", &["office"], 1)?;
    assert_eq!(node.run(world.agent(&node, &["join", "-"]).stdin(&*key), DONE)?.exit, yes);
    assert_eq!(waiting.wait(DONE)?.exit, yes);
    assert_eq!(code(&["status", "--check", "ready"])?, yes);
    assert_eq!(code(&["wait-online", "--network", "plant-a", "--timeout", "1"])?, Some(Exit::Code(7)));

    let schema: Value = serde_json::from_str(&world.run(&node, &["status", "--schema"])?.stdout.join("\n"))?;
    let report = report(&world, &node)?;
    let known = schema["properties"].as_object().context("no schema")?;
    assert!(report.as_object().context("no report")?.keys().all(|key| known.contains_key(key)), "{report}");
    assert_eq!(report["version"], 1);
    for command in ["networks", "peers"] {
        let listed = world.run(&node, &[command])?;
        assert_eq!(listed.exit, yes, "{listed:?}");
    }
    stop(&service)
}

fn a_damaged_membership(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    stop(&service)?;
    let damaged = world.own(&node).join("state/other.example.net");
    fs::create_dir(&damaged)?;
    fs::write(damaged.join("membership.json"), "{\"version\":2,")?;

    let service = world.serve(&node, &[])?;

    wait_up(&world, &node)?;
    let report = report(&world, &node)?;
    assert_eq!(report["broken"][0]["server"], "other.example.net");
    assert!(report["broken"][0]["error"]["message"].as_str().is_some_and(|text| text.contains("is damaged")));
    assert_eq!(fs::read_to_string(damaged.join("membership.json"))?, "{\"version\":2,");
    assert_eq!(world.run(&node, &["status"])?.exit, Some(Exit::Code(1)));
    stop(&service)
}

fn a_deleted_interface_comes_back(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_peer, first) = world.join(&one, &key, &[])?;
    let service = world.enrolled(&two, &key)?;

    two.delete_interface("enroll0")?;

    // The next regular look would be ten minutes away.
    let replies = two.ping(address(&first, "office", 0)?, 3, NOTICED)?.replies.len();
    ensure!(replies >= 3, "{replies} replies; {:?} {:?}", service.output()?, membership(&world, &two)?);
    stop(&service)
}

fn a_machine_that_moves(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    wait_for(&world, &node, "a first round", |status| status["contact"]["online"] == true)?;
    let check_ins = || {
        let observed = world.server.faults().observed();
        observed.iter().filter(|seen| seen.path.contains("/fallback/host/")).count()
    };
    let before = check_ins();

    node.add_address("192.168.77.5/24".parse()?)?;

    // The next regular one would be two minutes away.
    eventually("a check-in from there", Duration::from_secs(10), || (check_ins() > before).then_some(()))?;
    let told = String::from_utf8(world.server.faults().observed().pop().context("no request")?.body)?;
    let host = world.server.hosts()?;
    let interfaces = serde_json::to_string(&host[0].interfaces)?;
    assert!(interfaces.contains("192.168.77.5"), "{interfaces} {told}");
    stop(&service)
}

fn a_new_configuration(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.serve(&node, &[])?;
    let key = world.key("team", &["office"], 1)?;
    world.configure(&node, &format!("key = \"{key}\"\nports = 7\n"))?;

    service.signal(Signal::SIGHUP)?;
    eventually("the complaint", NOTICED, || {
        service.output().ok()?.stderr.iter().any(|line| line.contains("unknown field `ports`")).then_some(())
    })?;
    world.configure(&node, &format!("key = \"{key}\"\n"))?;
    service.signal(Signal::SIGHUP)?;

    wait_up(&world, &node)?;
    let said = service.output()?.stderr.join("\n");
    assert!(!said.contains(&key), "{said}");
    stop(&service)
}

fn the_socket_is_open_to_others(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let socket = world.own(&node).join("run/agent.sock");
    let mode = || Ok::<_, anyhow::Error>(fs::metadata(&socket)?.permissions().mode() & 0o777);

    let service = world.serve(&node, &[])?;
    assert_eq!(mode()?, 0o660);
    let second = node.run(world.agent(&node, &["run"]), DONE)?;
    ended_with(&second, 1, "another agent already serves");
    stop(&service)?;
    let service = world.serve(&node, &["--open-status"])?;
    assert_eq!(mode()?, 0o666);
    stop(&service)
}

/// A world whose server pushes.
fn with_broker(lab: &Lab, scheme: Scheme) -> Result<World> {
    let inside = Inside { listen: (Lab::V4, 0).into(), scheme, login: Login::Shared };
    World::with(lab, Options { broker: Some(Broker::Inside(inside)), ..Options::default() })
}

fn bad_gateway() -> Fault {
    Fault::Status { status: 502, body: String::new(), content_type: "text/plain".into() }
}

fn report(world: &World, node: &Node) -> Result<Value> {
    let output = world.run(node, &["status", "--json"])?;
    serde_json::from_str(&output.stdout.join("\n")).with_context(|| format!("{output:?}"))
}

fn membership(world: &World, node: &Node) -> Result<Value> {
    let report = report(world, node)?;
    ensure!(report["memberships"][0].is_object(), "no membership: {report}");
    Ok(report["memberships"][0].clone())
}

/// Waits until the only membership is as `is_it` wants it.
fn wait_for(world: &World, node: &Node, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = None;
    let found = eventually(what, DONE, || {
        let status = membership(world, node);
        let found = status.as_ref().ok().filter(|status| is_it(status)).cloned();
        last = Some(status);
        found
    });
    found.with_context(|| format!("{last:?}"))
}

fn wait_up(world: &World, node: &Node) -> Result<Value> {
    wait_for(world, node, "the interface", |status| status["state"] == "up")
}

fn wait_pushed(world: &World, node: &Node) -> Result<Value> {
    wait_for(world, node, "push", |status| status["contact"]["push"]["state"] == "connected")
}

fn peers(status: &Value) -> usize {
    status["peers"].as_array().map_or(0, Vec::len)
}

fn host_id(status: &Value) -> Result<Uuid> {
    Ok(status["host_id"].as_str().context("no host id")?.parse()?)
}

fn node_id(status: &Value) -> Result<Uuid> {
    Ok(status["networks"]["office"]["node_id"].as_str().context("no node id")?.parse()?)
}

fn stop(service: &Process) -> Result<()> {
    service.signal(Signal::SIGTERM)?;
    let output = service.wait(DONE)?;
    ensure!(output.exit == Some(Exit::Code(0)), "{output:?}");
    Ok(())
}

/// What a process holds.
#[derive(Debug)]
struct Footprint {
    files: usize,
    kilobytes: u64,
}

fn footprint(process: &Process) -> Result<Footprint> {
    let files = fs::read_dir(format!("/proc/{}/fd", process.pid()))?.count();
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no resident size")?;
    Ok(Footprint { files, kilobytes: resident.trim().trim_end_matches(" kB").parse()? })
}

/// Each takes about two seconds.
const FLAPS: usize = 20;
