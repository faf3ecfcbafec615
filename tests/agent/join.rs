//! From a key to a working tunnel.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use enroll_agent::mock_server::{Fault, NewKey, Options, Tls};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    lab::{Case, Exit, Lab, eventually},
    world::{DONE, JOINED, World, address, ended_with, new_key},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_key_becomes_a_working_tunnel", a_key_becomes_a_working_tunnel),
        ("a_relay_forwards_for_those_the_key_gives_it", a_relay_forwards),
        ("only_public_facts_leave_the_device", only_public_facts_leave_the_device),
        ("the_key_comes_from_wherever_it_is", the_key_comes_from_wherever_it_is),
        ("a_person_is_told_what_happens_and_what_came_of_it", a_person_is_told),
        ("a_key_does_not_stay_visible", a_key_does_not_stay_visible),
        ("joining_again_spends_nothing", joining_again_spends_nothing),
        ("a_further_key_adds_its_networks", a_further_key_adds_its_networks),
        ("a_lost_answer_costs_one_use", a_lost_answer_costs_one_use),
        ("a_kill_in_the_middle_costs_one_use", a_kill_in_the_middle_costs_one_use),
        ("nodes_may_come_late", nodes_may_come_late),
        ("two_pulls_that_agree_end_a_join_with_the_real_server", two_pulls_that_agree_end_a_join),
        ("a_second_key_after_a_crash_keeps_the_identity", a_second_key_after_a_crash_keeps_the_identity),
        ("a_further_key_reaches_the_serving_agent", a_further_key_reaches_the_serving_agent),
        ("a_flag_goes_before_the_environment", a_flag_goes_before_the_environment),
        ("no_answer_at_all_costs_one_use", no_answer_at_all_costs_one_use),
        ("the_identity_is_saved_before_the_first_byte", the_identity_is_saved_before_the_first_byte),
        ("an_api_address_that_leads_nowhere_is_passed_over", an_api_address_that_leads_nowhere),
        ("no_network_by_the_deadline_is_waiting", no_network_by_the_deadline_is_waiting),
        ("a_rehearsal_changes_nothing", a_rehearsal_changes_nothing),
        ("settings_are_what_the_interface_gets", settings_are_what_the_interface_gets),
    ]
}

fn a_key_becomes_a_working_tunnel(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office", "plant-a"], 2)?;

    let (_serving, first) = world.join(&one, &key, &[])?;
    let (_serving_too, second) = world.join(&two, &key, &[])?;

    assert_eq!(second["result"], "enrolled");
    assert_eq!(second["state"], "up");
    assert_eq!(second["backend"], "userspace");
    for (network, index) in [("office", 0), ("office", 1), ("plant-a", 0)] {
        let there = address(&first, network, index)?;
        let pings = two.ping(there, 3, PINGED)?;
        ensure!(pings.replies.len() >= 3, "{there} in {network}: {pings:?}");
    }
    for stage in ["prepare", "redeem", "authenticate", "networks", "interface", "save"] {
        ensure!(second["timings_ms"][stage].is_f64(), "no time for {stage}: {second}");
    }
    assert_eq!(world.uses_left("team")?, 0);
    Ok(())
}

fn a_relay_forwards(lab: &mut Lab) -> Result<()> {
    let (hub, one, two) = (lab.node("relay")?, lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let default = world.server.default_key("plant-a")?;
    let (_relaying, relay) = world.join(&hub, default.expose(), &[])?;
    let gateway = relay["networks"]["plant-a"]["node_id"].as_str().context("no node id")?.parse()?;
    world.server.make_gateway("plant-a", gateway, &[])?;
    let key = NewKey {
        groups: vec!["plant-a.plc".to_owned()],
        relay: Some(gateway),
        ..new_key("line3", &["plant-a", "office"])
    };
    let key = world.server.create_key(key)?;

    let (_one, first) = world.join(&one, key.token.expose(), &[])?;
    let (_two, second) = world.join(&two, key.token.expose(), &[])?;

    let there = address(&first, "plant-a", 0)?;
    assert!(two.ping(there, 3, PINGED)?.replies.len() >= 3, "through the relay");
    let there = address(&first, "office", 0)?;
    assert!(two.ping(there, 3, PINGED)?.replies.len() >= 3, "directly");
    assert_eq!(second["networks"]["plant-a"]["relay"]["name"], "relay");
    assert_eq!(second["networks"]["plant-a"]["relay"]["node_id"], gateway.to_string());
    assert_eq!(second["networks"]["office"]["relay"], Value::Null);
    assert_eq!(second["networks"]["office"]["tags"], serde_json::json!(["plant-a.plc"]));
    Ok(())
}

fn only_public_facts_leave_the_device(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;

    let (_serving, _) = world.join(&node, &key, &[])?;

    let observed = world.server.faults().observed();
    let register = observed.iter().find(|request| request.path.contains("register")).context("never registered")?;
    let sent: Value = serde_json::from_slice(&register.body)?;
    assert_eq!(sent["nodes"], Value::Null);
    assert_eq!(sent["isdefault"], false);
    assert_eq!(sent["publickey"].as_array().map(Vec::len), Some(32));
    assert!(sent.get("created_at").is_none() && sent.get("updated_at").is_none());
    let saved = &world.saved(&node)?[0];
    let private = saved["identity"]["private_key"].as_str().context("no key saved")?;
    let traffic = saved["identity"]["traffic"]["private_key"].as_str().context("no traffic key saved")?;
    for request in &observed {
        let body = String::from_utf8_lossy(&request.body);
        for secret in [private, traffic] {
            let bytes = data_encoding::BASE64.decode(secret.as_bytes())?;
            let numbers = serde_json::to_string(&bytes)?;
            assert!(!body.contains(secret) && !body.contains(&numbers), "{request:?} carries a private key");
        }
    }
    Ok(())
}

fn the_key_comes_from_wherever_it_is(lab: &mut Lab) -> Result<()> {
    let (one, two, three, four) = (lab.node("argv")?, lab.node("stdin")?, lab.node("env")?, lab.node("toml")?);
    let (fifth, sixth) = (lab.node("path")?, lab.node("credential")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 6)?;
    let credential = world.folder.path().join("enroll-agent.key");
    std::fs::write(&credential, &key)?;
    std::fs::set_permissions(&credential, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let pointing = world.folder.path().join("pointing.toml");
    std::fs::write(&pointing, format!("key_file = \"{}\"\n", credential.display()))?;
    let file = world.folder.path().join("keyed.toml");
    std::fs::write(&file, format!("key = \"{key}\"\n"))?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let wrapped = format!(" {}\n{}\n", &key[..20], &key[20..]);

    let programs = [
        (&one, world.agent(&one, &["join", "--json", &key])),
        (&two, world.agent(&two, &["join", "--json", "-"]).stdin(wrapped)),
        (&three, world.agent(&three, &["join", "--json"]).env("ENROLL_AGENT_KEY", &key)),
        (&four, world.agent(&four, &["join", "--json"]).env("ENROLL_AGENT_CONFIG", &file)),
        (&fifth, world.agent(&fifth, &["join", "--json"]).env("ENROLL_AGENT_CONFIG", &pointing)),
        (&sixth, world.agent(&sixth, &["join", "--json"]).env("CREDENTIALS_DIRECTORY", world.folder.path())),
    ];

    for (node, program) in programs {
        let process = node.spawn(program)?;
        assert_eq!(process.json(JOINED)?["result"], "enrolled", "by {}", node.name);
    }
    assert_eq!(world.uses_left("team")?, 0);
    Ok(())
}

fn a_person_is_told(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;

    let process = node.spawn(world.agent(&node, &["join", &key]))?;
    process.line(JOINED, |line| line.contains("prepare ") && line.contains("interface ") && line.contains(" ms"))?;

    let output = process.output()?;
    let (result, progress) = (output.stdout.join("\n"), output.stderr.join("\n"));
    for said in ["enrolled", "office", "10.202.0.1/24, fd00:202::1/64", "interface enroll0, userspace, port 51821"] {
        assert!(result.contains(said), "{result}");
    }
    for said in ["preparing", "redeeming the key", "waiting for the networks", "configuring the interface", "saving"] {
        assert!(progress.contains(said), "{progress}");
    }
    Ok(())
}

fn a_key_does_not_stay_visible(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("argv")?, lab.node("env")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;

    let by_argument = one.spawn(world.agent(&one, &["join", "--json", "-vv", &key]))?;
    let by_environment = two.spawn(world.agent(&two, &["join", "--json", "-vv"]).env("ENROLL_AGENT_KEY", &key))?;

    for process in [by_argument, by_environment] {
        process.json(JOINED)?;
        for place in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{}/{place}", process.pid()))?;
            assert!(!String::from_utf8_lossy(&text).contains(&key), "the key is in {place}");
        }
        let output = process.output()?;
        let said = [output.stdout, output.stderr].concat().join("\n");
        assert!(!said.contains(&key), "the key was printed");
        let value = data_encoding::BASE64.decode(key.as_bytes())?;
        let value: Value = serde_json::from_slice(&value)?;
        assert!(!said.contains(value["value"].as_str().context("no value")?), "the key's value was printed");
    }
    for node in [&one, &two] {
        assert!(!serde_json::to_string(&world.saved(node)?)?.contains(&key), "the key is still on disk");
    }
    Ok(())
}

fn joining_again_spends_nothing(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let (serving, first) = world.join(&node, &key, &[])?;

    let beside = world.run(&node, &["join", "--json", &key])?;
    serving.signal(Signal::SIGTERM)?;
    let stopped = serving.wait(DONE)?;
    let (_serving, again) = world.join(&node, &key, &[])?;

    assert_eq!(beside.exit, Some(Exit::Code(0)), "a serving agent answers for its own key: {beside:?}");
    assert_eq!(stopped.exit, Some(Exit::Code(0)), "{stopped:?}");
    assert_eq!(again["result"], "already-enrolled");
    assert_eq!(again["host_id"], first["host_id"]);
    assert_eq!(again["networks"], first["networks"]);
    assert_eq!(world.server.hosts()?.len(), 1);
    Ok(())
}

fn a_further_key_adds_its_networks(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    serving.signal(Signal::SIGTERM)?;
    serving.wait(DONE)?;

    let (_serving, further) = world.join(&node, &world.key("plant", &["plant-a"], 1)?, &[])?;

    assert_eq!(further["result"], "further-key-redeemed");
    let networks: Vec<_> = further["networks"].as_object().context("no networks")?.keys().cloned().collect();
    assert_eq!(networks, ["office", "plant-a"]);
    assert_eq!((world.uses_left("plant")?, world.server.hosts()?.len()), (0, 1));
    Ok(())
}

fn a_lost_answer_costs_one_use(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    world.server.faults().inject(1, "/api/v1/host/register", Fault::DropAfterCommit);

    let (_serving, joined) = world.join(&node, &key, &[])?;

    assert_eq!(joined["state"], "up");
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (1, 1));
    Ok(())
}

fn a_kill_in_the_middle_costs_one_use(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let options = Options { node_delay: Duration::from_secs(1), ..Options::default() };
    let world = World::with(lab, options)?;
    let key = world.key("team", &["office"], 2)?;
    let doomed = world.start_join(&node, &key, &[])?;
    eventually("the registration", JOINED, || world.server.hosts().ok()?.pop())?;
    doomed.kill()?;
    let before = world.saved(&node)?;

    let (_serving, joined) = world.join(&node, &key, &[])?;

    assert_eq!(before[0]["identity"]["host_id"], joined["host_id"], "the identity survived");
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (1, 1));
    Ok(())
}

fn nodes_may_come_late(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let options = Options { node_delay: Duration::from_secs(2), ..Options::default() };
    let world = World::with(lab, options)?;

    let (_serving, joined) = world.join(&node, &world.key("team", &["office", "plant-a"], 1)?, &[])?;

    assert_eq!(joined["networks"].as_object().map(serde_json::Map::len), Some(2));
    Ok(())
}

fn two_pulls_that_agree_end_a_join(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let options = Options { announce_networks: false, node_delay: Duration::from_millis(300), ..Options::default() };
    let world = World::with(lab, options)?;
    let key = world.key("team", &["office", "plant-a"], 2)?;

    let (_serving, first) = world.join(&one, &key, &[])?;
    let (_serving_too, second) = world.join(&two, &key, &[])?;

    for result in [&first, &second] {
        assert_eq!(result["networks"].as_object().map(serde_json::Map::len), Some(2));
    }
    assert!(two.ping(address(&first, "office", 0)?, 1, PINGED)?.replies.len() == 1);
    Ok(())
}

fn a_second_key_after_a_crash_keeps_the_identity(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let options = Options { node_delay: Duration::from_secs(2), ..Options::default() };
    let world = World::with(lab, options)?;
    let key = world.key("team", &["office"], 2)?;
    let deleted = world.server.create_key(new_key("deleted", &["office"]))?;
    world.server.delete_key(deleted.value.expose())?;
    let doomed = world.start_join(&node, &key, &[])?;
    eventually("the registration", JOINED, || world.server.hosts().ok()?.pop())?;
    doomed.kill()?;
    let before = world.saved(&node)?;

    let other = world.run(&node, &["join", deleted.token.expose()])?;
    let (_serving, joined) = world.join(&node, &key, &[])?;

    ended_with(&other, 5, "it does not exist");
    assert_eq!(before[0]["identity"]["host_id"], joined["host_id"], "the identity survived");
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (1, 1));
    Ok(())
}

fn a_further_key_reaches_the_serving_agent(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    let further = world.key("plant", &["plant-a"], 1)?;
    let spent = world.key("spent", &["plant-a"], 1)?;
    world.join(&lab.node("two")?, &spent, &[])?;

    let refused = world.run(&node, &["join", &spent])?;
    let joined = world.run(&node, &["join", "--json", &further])?;

    ended_with(&refused, 5, "used as often as it may be");
    assert_eq!(joined.exit, Some(Exit::Code(0)), "{joined:?}");
    let result: Value = serde_json::from_str(&joined.stdout[0])?;
    assert_eq!(result["result"], "further-key-redeemed");
    assert_eq!(result["networks"].as_object().map(serde_json::Map::len), Some(2));
    assert!(serving.output()?.exit.is_none(), "it goes on serving");
    assert_eq!((world.uses_left("plant")?, world.server.hosts()?.len()), (0, 2));
    Ok(())
}

fn a_flag_goes_before_the_environment(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (good, other) = (world.key("good", &["office"], 1)?, world.key("other", &["office"], 1)?);
    let file = world.folder.path().join("good.key");
    std::fs::write(&file, &good)?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let program = world.agent(&node, &["join", "--json", "--key-file"]).arg(&file).env("ENROLL_AGENT_KEY", &other);

    let process = node.spawn(program)?;
    process.json(JOINED)?;

    assert_eq!((world.uses_left("good")?, world.uses_left("other")?), (0, 1));
    Ok(())
}

fn no_answer_at_all_costs_one_use(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let html = Fault::Status { status: 502, body: "<html>down</html>".into(), content_type: "text/html".into() };
    world.server.faults().inject(1, "/api/v1/host/register", html);

    let process = world.start_join(&node, &key, &[])?;
    let joined = process.json(DONE)?;

    assert_eq!(joined["result"], "enrolled");
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (1, 1));
    Ok(())
}

fn the_identity_is_saved_before_the_first_byte(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    world.server.faults().inject(1, "/api/v1/host/register", Fault::Delay(DONE));

    let process = world.start_join(&node, &key, &[])?;
    eventually("the registration", JOINED, || {
        world.server.faults().observed().iter().any(|request| request.path.contains("register")).then_some(())
    })?;
    let saved = world.saved(&node)?;
    process.kill()?;

    assert_eq!(saved[0]["phase"]["phase"], "pending");
    let observed = world.server.faults().observed();
    let sent: Value = serde_json::from_slice(&observed[0].body)?;
    assert_eq!(sent["id"], saved[0]["identity"]["host_id"]);
    Ok(())
}

fn an_api_address_that_leads_nowhere(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let tls = Tls { names: vec![Lab::V4.to_string()], ..Tls::default() };
    let options = Options { api: Some("api.elsewhere.invalid:443".to_owned()), tls, ..Options::default() };
    let world = World::with(lab, options)?;
    let token = data_encoding::BASE64.decode(world.key("team", &["office"], 1)?.as_bytes())?;
    let mut token: Value = serde_json::from_slice(&token)?;
    token["server"] = world.server.addr().to_string().into();

    let (_serving, joined) = world.join(&node, &data_encoding::BASE64.encode(token.to_string().as_bytes()), &[])?;

    assert_eq!(joined["state"], "up");
    assert_eq!(world.saved(&node)?[0]["phase"]["api"], world.server.addr().to_string());
    Ok(())
}

fn no_network_by_the_deadline_is_waiting(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    // Only the real server takes a key for a network that does not exist.
    let world = World::with(lab, Options { netmaker_compat: true, ..Options::default() })?;
    let key = world.key("nowhere", &["not-made-yet"], 1)?;

    let waiting = world.start_join(&node, &key, &["--timeout", "2"])?.wait(DONE)?;

    ended_with(&waiting, 7, "no network was assigned within 2 s");
    let again = world.start_join(&node, &key, &["--timeout", "2"])?.wait(DONE)?;
    ended_with(&again, 7, "no network was assigned within 2 s");
    let status = world.run(&node, &["status"])?;
    assert_eq!(status.exit, Some(Exit::Code(7)), "{status:?}");
    assert_eq!(node.interfaces()?.iter().filter(|interface| interface.name.starts_with("enroll")).count(), 0);
    Ok(())
}

fn a_rehearsal_changes_nothing(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;

    let before = world.run(&node, &["join", "--dry-run", "--json", &key])?;
    assert_eq!(before.exit, Some(Exit::Code(0)), "{before:?}");
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len(), world.saved(&node)?.len()), (1, 0, 0));
    let (serving, _) = world.join(&node, &key, &[])?;
    serving.signal(Signal::SIGTERM)?;
    serving.wait(DONE)?;
    let after = world.run(&node, &["join", "--dry-run", &key])?;

    assert_eq!(after.exit, Some(Exit::Code(0)), "{after:?}");
    let said = after.stdout.join("\n");
    assert!(said.contains("joining spends nothing") && said.contains("CreateInterface"), "{said}");
    assert!(!node.interfaces()?.iter().any(|interface| interface.name == "enroll0"));
    Ok(())
}

fn settings_are_what_the_interface_gets(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let settings = ["--interface", "wg-test", "--port", "40000", "--mtu", "1300", "--name", "renamed"];

    let (serving, joined) = world.join(&node, &key, &settings)?;
    let devices = std::fs::read_to_string(format!("/proc/{}/net/dev", serving.pid()))?;
    serving.signal(Signal::SIGTERM)?;
    serving.wait(DONE)?;
    let (_serving, again) = world.join(&node, &key, &[])?;

    assert!(devices.contains("wg-test"), "{devices}");
    assert_eq!(joined["name"], "renamed");
    for result in [joined, again] {
        assert_eq!(result["interface"], "wg-test");
        assert_eq!(result["listen_port"], 40000);
    }
    let host = &world.server.hosts()?[0];
    assert_eq!((host.listen_port, host.mtu, host.is_static_port), (40000, 1300, true));
    // The harness gives the name of the node each time: the server has to hear of it.
    assert_eq!(host.name, "one");
    Ok(())
}

/// A first ping includes the handshake.
const PINGED: Duration = Duration::from_secs(20);
