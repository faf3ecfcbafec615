//! The service through boots, outages and moves: `agent run` keeps what is saved in force.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use enroll_agent::mock_server::{Fault, Mistake, Options, Trouble};
use serde_json::Value;

use crate::{
    lab::{Case, Exit, Lab, eventually},
    status::{bad_gateway, membership, node_id, peers, report, stop, wait_for, wait_up},
    world::{DONE, NOTICED, World, address, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_service_without_a_key_waits_and_writes_nothing", a_service_without_a_key_waits),
        ("a_configured_key_enrolls_by_itself_and_is_forgotten", a_configured_key_enrolls_by_itself),
        ("a_boot_without_the_server_brings_the_tunnel_up", a_boot_without_the_server),
        ("a_dead_key_does_an_enrolled_host_no_harm", a_dead_key_does_no_harm),
        ("a_further_key_with_a_lost_answer_costs_one_use", a_further_key_with_a_lost_answer),
        ("a_key_that_is_refused_is_tried_again", a_key_that_is_refused_is_tried_again),
        ("a_server_that_forgot_everything_removes_nothing", a_server_that_forgot_everything),
        ("an_hour_without_the_server_costs_no_peer", an_hour_without_the_server),
        ("a_network_removed_while_offline_is_confirmed", a_network_removed_while_offline),
        ("an_underlay_of_ipv6_alone_is_enough", an_underlay_of_ipv6_alone),
        ("down_and_up_keep_the_membership", down_and_up),
        ("a_damaged_membership_is_told_and_hinders_no_other", a_damaged_membership),
        ("a_deleted_interface_comes_back", a_deleted_interface_comes_back),
        ("a_machine_that_moves_tells_the_server_at_once", a_machine_that_moves),
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

fn a_further_key_with_a_lost_answer(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    let further = world.key("more", &["plant-a"], 3)?;
    let again = || node.run(world.agent(&node, &["join", "--json", "-"]).stdin(&*further), DONE);
    // Like the real server, this one would take a use for every registration.
    world.server.faults().set_mistakes([Mistake::SpendAgain]);
    // It counts the key, says nothing, and is gone for whoever asks.
    world.server.faults().inject(1, "/api/v1/host/register", Fault::DropAfterCommit);
    world.server.faults().inject(1, "/api/v1/host", Fault::Delay(Duration::from_millis(1)));
    world.server.faults().inject(usize::MAX, "/api/", bad_gateway());

    // It goes through the service, which is killed meanwhile, and then finds the network by itself.
    let asked = node.spawn(world.agent(&node, &["join", "-"]).stdin(&*further))?;
    eventually("the use", NOTICED, || (world.uses_left("more").ok()? == 2).then_some(()))?;
    service.kill()?;
    asked.wait(DONE)?;
    world.server.faults().clear();
    world.server.faults().set_mistakes([Mistake::SpendAgain]);
    let service = world.serve(&node, &[])?;
    wait_for(&world, &node, "the network", |status| !status["networks"]["plant-a"].is_null())?;
    let first: Value = serde_json::from_str(&again()?.stdout.join("\n"))?;
    let second: Value = serde_json::from_str(&again()?.stdout.join("\n"))?;

    assert_eq!(world.uses_left("more")?, 2, "{first} {second}");
    assert_eq!(second["result"], "already-enrolled");
    let saved = serde_json::to_string(&world.saved(&node)?)?;
    assert!(!saved.contains(&further), "the key stays on disk");
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

fn an_hour_without_the_server(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_peer, first) = world.join(&one, &key, &[])?;
    let service = world.enrolled(&two, &key)?;
    let there = address(&first, "office", 0)?;
    assert!(!two.ping(there, 1, NOTICED)?.replies.is_empty());

    // By the server's clock nobody was heard of for two hours, and every token has run out.
    lab.block_on(world.server.make(Trouble::ClockSkew { seconds: 7200 }))?;

    assert_eq!(world.run(&two, &["sync"])?.exit, Some(Exit::Code(0)));
    assert_eq!(peers(&membership(&world, &two)?), 1);
    assert!(two.ping(there, 3, NOTICED)?.replies.len() >= 3);
    stop(&service)
}

fn a_network_removed_while_offline(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office", "plant-a"], 1)?)?;
    let office = node_id(&wait_up(&world, &node)?)?;
    stop(&service)?;
    world.server.mark_node_deleted(office)?;

    let service = world.serve(&node, &[])?;

    wait_for(&world, &node, "its end here", |status| status["networks"]["office"].is_null())?;
    eventually("the confirmation", NOTICED, || (world.server.nodes().ok()?.len() == 1).then_some(()))?;
    stop(&service)
}

fn an_underlay_of_ipv6_alone(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::at(lab, Lab::V6.into(), Options::default())?;
    let key = world.key("team", &["office"], 2)?;
    let endpoint = one.v6.to_string();
    let (_peer, first) = world.join(&one, &key, &["--endpoint", &endpoint])?;
    let (service, _) = world.join(&two, &key, &["--endpoint", &two.v6.to_string()])?;

    assert!(two.ping(address(&first, "office", 0)?, 3, NOTICED)?.replies.len() >= 3);
    let status = membership(&world, &two)?;
    assert!(status["peers"][0]["endpoint"].as_str().is_some_and(|text| text.contains(&endpoint)), "{status}");
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
    eventually("what it says", NOTICED, || {
        serde_json::to_string(&world.server.hosts().ok()?[0].interfaces).ok()?.contains("192.168.77.5").then_some(())
    })?;
    stop(&service)
}
