//! After the join: what changes on the server changes here, and an outage changes nothing.

use anyhow::{Context, Result};
use enroll_agent::mock_server::Fault;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    lab::{Case, Exit, Lab, Node, eventually},
    world::{DONE, NOTICED, World, address},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_new_and_a_deleted_peer_are_noticed", a_new_and_a_deleted_peer_are_noticed),
        ("a_network_taken_away_is_confirmed_and_removed", a_network_taken_away_is_confirmed_and_removed),
        ("an_outage_leaves_everything_up", an_outage_leaves_everything_up),
        ("a_rejoin_without_the_server_uses_what_is_saved", a_rejoin_without_the_server_uses_what_is_saved),
        ("one_answer_that_the_host_is_gone_removes_nothing", one_answer_that_the_host_is_gone_removes_nothing),
        ("a_rejoin_keeps_the_tunnel_whatever_the_server_says", a_rejoin_keeps_the_tunnel),
        ("an_answer_without_anything_in_it_takes_nothing_down", an_answer_without_anything_in_it),
        ("a_server_cannot_take_the_machines_routes", a_server_cannot_take_the_machines_routes),
        ("sync_does_one_round", sync_does_one_round),
        ("status_tells_what_is_there", status_tells_what_is_there),
    ]
}

fn a_new_and_a_deleted_peer_are_noticed(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_serving, _) = world.join(&one, &key, &[])?;
    let (_two, second) = world.join(&two, &key, &[])?;

    let peers = |count: usize| (status(&world, &one).ok()?["peers"].as_array()?.len() == count).then_some(());
    eventually("the new peer", NOTICED, || peers(1))?;
    world.server.delete_host(second["host_id"].as_str().context("no host id")?.parse()?)?;
    eventually("the peer's removal", NOTICED, || peers(0))
}

fn a_network_taken_away_is_confirmed_and_removed(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (_serving, joined) = world.join(&node, &world.key("team", &["office", "plant-a"], 1)?, &[])?;
    let gone = joined["networks"]["office"]["node_id"].as_str().context("no node id")?.parse()?;

    world.server.mark_node_deleted(gone)?;

    eventually("the confirmation", NOTICED, || (world.server.nodes().ok()?.len() == 1).then_some(()))?;
    eventually("the address's removal", NOTICED, || {
        let interface = node.interfaces().ok()?.into_iter().find(|interface| interface.name == "enroll0")?;
        let left: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
        (left.iter().any(|net| net.starts_with("10.101.")) && !left.iter().any(|net| net.starts_with("10.202.")))
            .then_some(())
    })
}

fn an_outage_leaves_everything_up(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_serving, first) = world.join(&one, &key, &[])?;
    let (_two, _) = world.join(&two, &key, &[])?;
    let there = address(&first, "office", 0)?;
    assert!(!two.ping(there, 1, NOTICED)?.replies.is_empty(), "before the outage");
    let html = Fault::Status { status: 502, body: "<html>down</html>".into(), content_type: "text/html".into() };
    world.server.faults().inject(usize::MAX, "/", html);

    let noticed = eventually("the failure in the status", NOTICED, || {
        let status = status(&world, &two).ok()?;
        status["last_error"]["message"].as_str().map(ToOwned::to_owned)
    })?;

    assert!(noticed.contains("502"), "{noticed}");
    assert!(two.ping(there, 3, NOTICED)?.replies.len() >= 3);
    world.server.faults().clear();
    eventually("the recovery", DONE, || status(&world, &two).ok()?["last_error"].is_null().then_some(()))
}

fn a_rejoin_without_the_server_uses_what_is_saved(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_serving, first) = world.join(&one, &key, &[])?;
    let (serving, _) = world.join(&two, &key, &[])?;
    let there = address(&first, "office", 0)?;
    assert!(!two.ping(there, 1, NOTICED)?.replies.is_empty(), "before the outage");
    serving.signal(Signal::SIGTERM)?;
    serving.wait(DONE)?;
    let html = Fault::Status { status: 503, body: String::new(), content_type: "text/plain".into() };
    world.server.faults().inject(usize::MAX, "/", html);

    let (_again, result) = world.join(&two, &key, &[])?;

    assert_eq!(result["result"], "already-enrolled-offline");
    assert!(two.ping(there, 3, NOTICED)?.replies.len() >= 3);
    Ok(())
}

fn one_answer_that_the_host_is_gone_removes_nothing(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (_serving, joined) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;

    world.server.delete_host(joined["host_id"].as_str().context("no host id")?.parse()?)?;

    eventually("the answer", NOTICED, || {
        status(&world, &node).ok()?["last_error"]["message"].as_str()?.contains("has deleted this host").then_some(())
    })?;
    assert_eq!(status(&world, &node)?["state"], "up");
    assert!(node.interfaces()?.iter().any(|interface| interface.name == "enroll0" && interface.up));
    Ok(())
}

fn a_rejoin_keeps_the_tunnel(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_serving, first) = world.join(&one, &key, &[])?;
    let there = address(&first, "office", 0)?;
    let (mut serving, _) = world.join(&two, &key, &[])?;
    assert!(!two.ping(there, 1, NOTICED)?.replies.is_empty(), "before the trouble");
    let answer = |status, body: &str| Fault::Status { status, body: body.into(), content_type: "text/html".into() };
    let unauthorized = r#"{"Code":401,"Message":"unauthorized","Response":null}"#;

    for (path, fault, said) in [
        ("/api/v1/host?", answer(502, "<html>"), "502"),
        ("/api/v1/host?", answer(403, "<html>blocked"), "403"),
        ("/api/hosts/adm/authenticate", answer(401, unauthorized), "another password"),
    ] {
        serving.signal(Signal::SIGTERM)?;
        serving.wait(DONE)?;
        world.server.faults().inject(usize::MAX, path, fault);
        let (process, result) = world.join(&two, &key, &[])?;
        assert_eq!(result["result"], "already-enrolled-offline");
        assert!(result["last_error"]["message"].as_str().is_some_and(|error| error.contains(said)), "{result}");
        assert!(!two.ping(there, 1, NOTICED)?.replies.is_empty(), "{said}");
        world.server.faults().clear();
        serving = process;
    }
    Ok(())
}

fn an_answer_without_anything_in_it(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_serving, _) = world.join(&one, &key, &[])?;
    let (_two, _) = world.join(&two, &key, &[])?;

    world.server.faults().edit_pull(|pull| *pull = serde_json::json!({}));

    eventually("the refusal", NOTICED, || {
        status(&world, &two).ok()?["last_error"]["message"].as_str().map(ToOwned::to_owned)
    })?;
    let status = status(&world, &two)?;
    assert_eq!((status["state"].as_str(), status["peers"].as_array().map(Vec::len)), (Some("up"), Some(1)));
    assert!(!world.saved(&two)?[0]["phase"]["assignment"]["peers"].as_object().context("none saved")?.is_empty());
    Ok(())
}

fn a_server_cannot_take_the_machines_routes(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (_serving, _) = world.join(&one, &key, &[])?;
    world.server.faults().edit_pull(|pull| {
        let nets = [
            ("0.0.0.0", "AAAAAA=="),
            ("128.0.0.0", "gAAAAA=="),
            ("10.213.0.0", "//8AAA=="),
            ("169.254.169.254", "/////w=="),
            ("192.168.40.0", "////AA=="),
        ];
        for (address, mask) in nets {
            let net = serde_json::json!({"IP": address, "Mask": mask});
            if let Some(allowed) = pull["peers"][0]["AllowedIPs"].as_array_mut() {
                allowed.push(net);
            }
        }
    });

    let (serving, joined) = world.join(&two, &key, &[])?;

    assert_eq!(joined["state"], "up");
    // /proc writes addresses as hexadecimal numbers of the machine's byte order.
    let table = std::fs::read_to_string(format!("/proc/{}/net/route", serving.pid()))?;
    let ours: Vec<_> = table.lines().filter(|line| line.starts_with("enroll0")).collect();
    let to = |destination: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(destination));
    assert!(ours.iter().any(|line| line.contains(&to([192, 168, 40, 0]))), "{table}");
    assert_eq!(ours.len(), 2, "the network's own and the one behind the peer: {table}");
    Ok(())
}

fn sync_does_one_round(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    let check_ins = || {
        let observed = world.server.faults().observed();
        observed.iter().filter(|request| request.path.contains("/fallback/host/")).count()
    };
    assert_eq!(check_ins(), 0);

    let synced = world.run(&node, &["sync"])?;
    serving.kill()?;
    let unserved = world.run(&node, &["sync", "--json"])?;

    assert_eq!(synced.exit, Some(Exit::Code(0)), "{synced:?}");
    assert_eq!(check_ins(), 1);
    assert_eq!(unserved.exit, Some(Exit::Code(3)), "{unserved:?}");
    Ok(())
}

fn status_tells_what_is_there(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let absent = world.run(&node, &["status"])?;
    let (serving, joined) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    let up = world.run(&node, &["status"])?;
    serving.kill()?;
    let down = world.run(&node, &["status"])?;

    assert_eq!(absent.exit, Some(Exit::Code(3)), "{absent:?}");
    assert_eq!(up.exit, Some(Exit::Code(0)), "{up:?}");
    let said = up.stdout.join("\n");
    let address = joined["networks"]["office"]["addresses"][0].as_str().context("no address")?;
    assert!(said.contains(address) && said.contains("enroll0, userspace"), "{said}");
    assert_eq!(down.exit, Some(Exit::Code(3)), "{down:?}");
    assert!(down.stdout.join("\n").contains("interface down"), "{down:?}");
    Ok(())
}

fn status(world: &World, node: &Node) -> Result<Value> {
    let output = world.run(node, &["status", "--json"])?;
    let all: Value = serde_json::from_str(output.stdout.first().context("said nothing")?)?;
    Ok(all["memberships"][0].clone())
}
