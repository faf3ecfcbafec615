//! Networks that a host has to be in: what a join says of each, how long it waits, and what becomes of the rest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use enroll_agent::mock_server::{Edition, Fault, NodeCreation, Options};
use serde_json::{Value, json};

use crate::{
    lab::{Case, Exit, Lab, eventually},
    status::{host_id, json, membership, report, stop, wait_for, wait_up},
    world::{DONE, World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_required_network_that_does_not_come_is_partial", a_required_network_that_does_not_come),
        ("a_required_network_that_comes_later_completes", a_required_network_that_comes_later),
        ("a_join_waits_for_approval_as_long_as_it_is_told", a_join_waits_for_approval),
        ("a_new_host_without_a_required_network_leaves_again", a_new_host_leaves_again),
        ("a_host_that_was_there_before_never_leaves_again", a_host_that_was_there_before),
        ("a_join_without_a_service_waits_by_itself", a_join_without_a_service),
        ("a_service_is_ready_with_every_required_network", a_service_is_ready),
        ("a_key_sent_before_is_settled_before_another", a_key_sent_before_is_settled),
    ]
}

fn a_required_network_that_does_not_come(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.serve(&node, &[])?;
    let key = world.key("team", &["office"], 1)?;

    let joined = world.run(&node, &["join", "--json", "--require", "office,plant-a", "--wait", "1s", &key])?;

    ended_with(&joined, 8, "required networks are missing: plant-a (not assigned)");
    ended_with(&joined, 8, "the host stays enrolled");
    let said = json(&joined)?;
    assert_eq!(said["required"], json!({ "office": "joined", "plant-a": "missing" }));
    assert_eq!((&said["result"], &said["state"]), (&json!("enrolled"), &json!("up")));
    let status = world.run(&node, &["status"])?;
    assert_eq!(status.exit, Some(Exit::Code(8)), "{status:?}");
    ensure!(status.stdout.join("\n").contains("required networks missing: plant-a (not assigned)"), "{status:?}");
    assert_eq!(world.uses_left("team")?, 0);
    stop(&service)
}

fn a_required_network_that_comes_later(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.serve(&node, &["--poll", "1"])?;
    let key = world.key("team", &["office"], 1)?;
    let join = ["join", "--json", "--require", "office,plant-a", "--timeout", "5", "--wait", "forever", &key];

    let joining = node.spawn(world.agent(&node, &join))?;
    // Beyond the time that the agent itself gives a join.
    let status = wait_up(&world, &node)?;
    world.server.add_to_network(host_id(&status)?, "plant-a")?;

    let joined = joining.wait(DONE)?;
    assert_eq!(joined.exit, Some(Exit::Code(0)), "{joined:?}");
    assert_eq!(json(&joined)?["required"], json!({ "office": "joined", "plant-a": "joined" }));
    stop(&service)
}

fn a_join_waits_for_approval(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::with(lab, Options { edition: Edition::Pro, ..Options::default() })?;
    world.server.faults().set_node_creation(NodeCreation::Pending);
    let service = world.serve(&node, &["--poll", "1"])?;
    let key = world.key("team", &["office", "plant-a"], 1)?;

    let at_once = world.run(&node, &["join", "--require", "office", "--wait", "0", &key])?;
    let waiting = node.spawn(world.agent(&node, &["join", "--json", "--wait", "1h", "--require", "office", &key]))?;
    approve(lab, &world, "office")?;

    ended_with(&at_once, 7, "no network was assigned");
    let joined = waiting.wait(DONE)?;
    // The setting is saved, and the other network was promised and is not required.
    assert_eq!(joined.exit, Some(Exit::Code(0)), "{joined:?}");
    assert_eq!(json(&joined)?["required"], json!({ "office": "joined" }));
    let both = world.run(&node, &["join", "--json", "--wait", "0", "--require", "office,plant-a", &key])?;
    ended_with(&both, 8, "plant-a (granted, not assigned yet)");
    assert_eq!(json(&both)?["required"]["plant-a"], "waiting");
    approve(lab, &world, "plant-a")?;
    wait_for(&world, &node, "plant-a", |status| status["required"]["plant-a"] == "joined")?;
    assert_eq!(world.uses_left("team")?, 0);
    stop(&service)
}

fn a_new_host_leaves_again(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let service = world.serve(&one, &[])?;
    let key = world.key("team", &["office"], 3)?;
    let join = ["join", "--require", "office,plant-a", "--wait", "1", "--on-partial", "rollback"];

    let served = world.run(&one, &[&join[..], &[&key]].concat())?;
    let alone = world.run(&two, &[&join[..], &["--backend", "userspace", &key]].concat())?;
    world.server.faults().set_node_creation(NodeCreation::Refused);
    let nothing = world.run(&one, &[&join[..], &[&key]].concat())?;

    for output in [&served, &alone] {
        ended_with(output, 8, "left again, since required networks were missing: plant-a (not assigned)");
        ended_with(output, 8, "a use of the key is spent");
    }
    ended_with(&nothing, 7, "left again, since required networks were missing: no network was assigned");
    assert!(world.server.hosts()?.is_empty(), "a host stayed");
    for node in [&one, &two] {
        assert!(world.saved(node)?.is_empty(), "state stayed");
        assert!(!node.interfaces()?.iter().any(|interface| interface.name.starts_with("enroll")));
    }
    stop(&service)
}

fn a_host_that_was_there_before(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    let more = world.key("more", &["office"], 1)?;

    let join = ["join", "--require", "plant-a", "--wait", "0", "--on-partial", "rollback", &more];
    let joined = world.run(&node, &join)?;

    ended_with(&joined, 8, "required networks are missing: plant-a (not assigned)");
    assert_eq!(world.server.hosts()?.len(), 1);
    assert_eq!(membership(&world, &node)?["state"], "up");
    stop(&service)
}

fn a_join_without_a_service(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let joining = world.start_join(&node, &key, &["--require", "plant-a", "--timeout", "4", "--wait", "forever"])?;
    let host = eventually("the host", DONE, || world.server.hosts().ok()?.first().map(|host| host.id))?;
    // What is there is in force meanwhile.
    eventually("the first network", DONE, || {
        world.saved(&node).ok()?.first().filter(|saved| !saved["membership"].is_null() || !saved.is_null()).map(|_| ())
    })?;
    // Three seconds apart: beyond the time that the join had for its key.
    let pulls = || world.server.faults().observed().iter().filter(|seen| seen.path == "/api/v1/host").count();
    let before = pulls();
    eventually("more pulls", DONE, || (pulls() >= before + 2).then_some(()))?;

    world.server.add_to_network(host, "plant-a")?;

    let result = joining.json(DONE)?;
    assert_eq!(result["required"], json!({ "plant-a": "joined" }), "{result}");
    assert_eq!(result["networks"].as_object().map(serde_json::Map::len), Some(2));
    Ok(())
}

fn a_service_is_ready(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    world.configure(&node, &format!("key = \"{key}\"\nrequire = [\"office\", \"plant-a\"]\npoll = 1\n"))?;
    let service = world.serve(&node, &[])?;
    let status = wait_up(&world, &node)?;
    let run = |arguments: &[&str]| world.run(&node, arguments);

    let partial = run(&["status", "--check", "ready"])?;
    let waiting = run(&["wait-online", "--timeout", "1"])?;
    world.server.add_to_network(host_id(&status)?, "plant-a")?;
    let online = run(&["wait-online"])?;

    assert_eq!(partial.exit, Some(Exit::Code(3)));
    ended_with(&waiting, 8, "required networks are missing: plant-a (not assigned)");
    assert_eq!(online.exit, Some(Exit::Code(0)), "{online:?}");
    assert_eq!(run(&["status", "--check", "ready"])?.exit, Some(Exit::Code(0)));
    stop(&service)?;
    let said = service.output()?.stderr.join("\n");
    ensure!(said.contains("required networks are missing"), "{said}");
    ensure!(said.contains("this host is in all required networks"), "{said}");
    Ok(())
}

fn a_key_sent_before_is_settled(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    let (half, other) = (world.key("half", &["plant-a"], 1)?, world.key("other", &["office"], 1)?);
    world.server.faults().inject(1, "/api/v1/host/register", Fault::SlowBody(Duration::from_secs(3)));
    ended_with(&world.run(&node, &["join", "--timeout", "2", &half])?, 75, "2 s");

    let joined = world.run(&node, &["join", "--json", &other])?;

    assert_eq!(joined.exit, Some(Exit::Code(0)), "{joined:?}");
    let keys = membership(&world, &node)?["keys"].clone();
    assert_eq!(keys.as_array().map(Vec::len), Some(3), "{keys}");
    let again = json(&world.run(&node, &["join", "--json", &half])?)?;
    assert_eq!(again["result"], "already-enrolled", "it is known to be redeemed");
    assert_eq!((world.uses_left("half")?, world.uses_left("other")?), (0, 0));
    assert_eq!(report(&world, &node)?["enrolling"], json!([]));
    stop(&service)
}

/// Lets every host into a network that asked for it, as soon as one has.
fn approve(lab: &Lab, world: &World, network: &str) -> Result<()> {
    let pending = eventually("the request", DONE, || {
        let path = format!("/api/v1/pending_hosts?network={network}");
        let (_, answer) = world.answer(lab, "GET", &path, &Value::Null).ok()?;
        let list = answer["Response"].as_array().or(answer.as_array())?.clone();
        (!list.is_empty()).then_some(list)
    })?;
    for asked in pending {
        let path = format!("/api/v1/pending_hosts/approve/{}", asked["id"].as_str().context("no id")?);
        assert_eq!(world.admin(lab, "POST", &path, &json!({}))?, 200);
    }
    Ok(())
}
