//! Looking before joining: `inspect` and `join --dry-run`.

use anyhow::Result;
use enroll_agent::mock_server::{Flaw, NewKey, Options, Trouble};
use serde_json::Value;

use crate::{
    doctor::{HIDE_NFT, fingerprint, key_value, reveals_nothing},
    lab::{Case, Exit, Lab, Program},
    status::{check, json, stop},
    world::{DONE, World, ended_with, new_key},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_key_is_inspected_without_its_server", a_key_is_inspected_without_its_server),
        ("a_server_is_asked_about_a_key_for_nothing", a_server_is_asked_about_a_key_for_nothing),
        ("a_rehearsal_tells_everything_and_leaves_nothing", a_rehearsal_tells_everything),
        ("a_rehearsal_names_what_is_in_the_way", a_rehearsal_names_what_is_in_the_way),
    ]
}

fn a_key_is_inspected_without_its_server(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let before = node.snapshot()?;

    let by_argument = world.run(&node, &["inspect", &key])?;
    let by_input = node.run(world.agent(&node, &["inspect", "--json", "-"]).stdin(&key), DONE)?;
    let cut = world.run(&node, &["inspect", "--json", &key[..key.len() / 2]])?;
    world.configure(&node, &format!("key = \"{key}\"\n"))?;
    let config = world.own(&node).join("agent.toml");
    let configured = node.run(world.agent(&node, &["inspect", "--json"]).env("ENROLL_AGENT_CONFIG", config), DONE)?;
    // Nobody in particular, without any right here.
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", env!("CARGO_BIN_EXE_agent")];
    let nobody = node.run(
        Program::new("setpriv").args(nobody).args(["inspect", "-"]).env("HOME", "/nonexistent").stdin(&key),
        DONE,
    )?;

    assert_eq!(by_argument.exit, Some(Exit::Code(0)), "{by_argument:?}");
    let said = by_argument.stdout.join("\n");
    assert!(said.contains("well formed") && said.contains(&format!("port {}", world.server.addr().port())), "{said}");
    let told = json(&by_input)?;
    assert_eq!(told["keys"][0]["fingerprint"], fingerprint(&key)?);
    assert_eq!(told["keys"][0]["shape"]["usual"], true, "{told}");
    assert_eq!(json(&configured)?, told, "every place that a join looks at");
    assert!(told["keys"][0].get("online").is_none(), "{told}");
    ended_with(&cut, 5, "cut off at the end");
    assert_eq!(json(&cut)?["error"]["code"], 5);
    ended_with(&world.run(&node, &["inspect"])?, 2, "no enrollment key given");
    match nobody.exit {
        // Where the test's own folder is closed to others they cannot start the program.
        Some(Exit::Code(126 | 127)) => {}
        _ => assert_eq!(nobody.exit, Some(Exit::Code(0)), "{nobody:?}"),
    }
    assert!(world.server.faults().observed().is_empty(), "no server was asked");
    assert!(!world.own(&node).join("state").exists() && node.snapshot()? == before);
    for output in [by_argument, by_input, cut] {
        reveals_nothing(&output, &key)?;
    }
    Ok(())
}

fn a_server_is_asked_about_a_key_for_nothing(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let tagged = NewKey {
        uses: Some(3),
        unlimited: false,
        groups: vec!["office.line3".to_owned()],
        ..new_key("team", &["office", "plant-a"])
    };
    let key = world.server.create_key(tagged)?.token.expose().to_owned();
    let online = |key: &str| world.run(&node, &["inspect", "--online", "--json", key]);

    let good = online(&key)?;
    let told = json(&good)?["keys"][0]["online"].clone();
    assert_eq!(good.exit, Some(Exit::Code(0)), "{good:?}");
    assert_eq!((&told["known"], &told["standing"]), (&true.into(), &"good".into()), "{told}");
    assert_eq!(told["facts"]["networks"], serde_json::json!(["office", "plant-a"]));
    assert_eq!((&told["facts"]["tags"][0], &told["facts"]["uses_left"]), (&"office.line3".into(), &3.into()));
    let text = world.run(&node, &["inspect", "--online", &key])?.stdout.join("\n");
    assert!(text.contains("networks office, plant-a; tags office.line3; 3 uses left"), "{text}");
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (3, 0), "nothing was spent or made");

    let soon = NewKey { expiration: Some(4_000_000_000), unlimited: false, ..new_key("until", &["office"]) };
    let until = world.server.create_key(soon)?.token.expose().to_owned();
    assert_eq!(json(&online(&until)?)?["keys"][0]["online"]["facts"]["expires_at"], 4_000_000_000_u64);
    world.server.faults().set_clock_skew(time::Duration::weeks(60 * 52));
    ended_with(&online(&key)?, 0, "");
    world.server.faults().set_clock_skew(time::Duration::ZERO);
    let single = world.key("single", &["office"], 1)?;
    let (serving, _) = world.join(&node, &single, &[])?;
    let spent = online(&single)?;
    ended_with(&spent, 5, "used as often as it may be");
    assert_eq!(json(&spent)?["keys"][0]["online"]["standing"], "used-up");
    assert_eq!(world.server.hosts()?.len(), 1);
    drop(serving);

    let terse = World::with(lab, Options { announce_networks: false, ..Options::default() })?;
    let known = terse.run(&node, &["inspect", "--online", &terse.key("team", &["office"], 1)?])?;
    ended_with(&known, 0, "");
    assert!(known.stdout.join("\n").contains("only joining tells"), "{known:?}");
    assert_eq!((terse.uses_left("team")?, terse.server.hosts()?.len()), (1, 0));

    let gone = world.server.create_key(new_key("gone", &["office"]))?;
    world.server.delete_key(gone.value.expose())?;
    let unknown = online(gone.token.expose())?;
    ended_with(&unknown, 5, "it does not exist");
    assert_eq!(json(&unknown)?["keys"][0]["online"]["known"], false);
    let nowhere = data_encoding::BASE64.encode(br#"{"server":"127.0.0.1:9","value":"AAAA"}"#);
    let nowhere = online(&nowhere)?;
    ended_with(&nowhere, 75, "cannot connect");
    assert_eq!(json(&nowhere)?["keys"][0]["online"]["known"], Value::Null);
    Ok(())
}

fn a_rehearsal_tells_everything(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let before = node.snapshot()?;

    let rehearsed = world.run(&node, &["join", "--dry-run", "--json", &key])?;

    assert_eq!(rehearsed.exit, Some(Exit::Code(0)), "{rehearsed:?}");
    let told = json(&rehearsed)?;
    for id in [
        "backend",
        "certificate",
        "clock",
        "connection",
        "interface",
        "key",
        "name",
        "overlaps",
        "port",
        "server",
        "tun",
    ] {
        assert_eq!(check(&told, id)?["verdict"], "ok", "{id}: {told}");
    }
    for id in ["dns", "firewall", "resolve", "udp"] {
        check(&told, id)?;
    }
    assert!(check(&told, "name")?["detail"].as_str().is_some_and(|detail| detail.ends_with(&node.name)), "{told}");
    assert_eq!((told["spends_a_use"].as_bool(), &told["interface"]), (Some(true), &"enroll0".into()));
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (1, 0), "nothing was spent or made");
    assert!(!world.own(&node).join("state").exists(), "nothing was saved");
    assert_eq!(node.snapshot()?, before, "nothing was changed");
    let text = world.run(&node, &["join", "--dry-run", &key])?.stdout.join("\n");
    assert!(text.contains("ok        key: ") && text.contains("it grants office"), "{text}");

    let service = world.enrolled(&node, &key)?;
    let beside = json(&world.run(&node, &["join", "--dry-run", "--json", &key])?)?;
    assert!(check(&beside, "interface")?["detail"].as_str().is_some_and(|said| said.contains("serves")), "{beside}");
    assert_eq!((&beside["changes"], &beside["spends_a_use"]), (&serde_json::json!([]), &false.into()));
    stop(&service)
}

fn a_rehearsal_names_what_is_in_the_way(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let rehearse = |more: &[&str]| {
        let output = world.run(&node, &[&["join", "--dry-run", "--json"], more].concat())?;
        let told = json(&output)?;
        Ok::<_, anyhow::Error>((output.exit, told))
    };
    let flawed = |flaw| lab.block_on(world.server.make(Trouble::Certificate { flaw }));
    let failed = |told: &Value, id: &str, class: &str| -> Result<()> {
        let check = check(told, id)?;
        assert_eq!((&check["verdict"], &check["class"]), (&"failed".into(), &class.into()), "{told}");
        assert!(check["advice"].is_string(), "{check}");
        Ok(())
    };

    let nowhere = data_encoding::BASE64.encode(br#"{"server":"127.0.0.1:9","value":"AAAA"}"#);
    let (exit, told) = rehearse(&[&nowhere])?;
    assert_eq!(exit, Some(Exit::Code(75)));
    failed(&told, "connection", "temporary")?;
    assert!(check(&told, "key").is_err(), "the key was not shown: {told}");

    let (exit, told) = rehearse(&["--interface", "eth0", &key])?;
    assert_eq!(exit, Some(Exit::Code(6)), "{told}");
    failed(&told, "interface", "foreign")?;

    let second = World::new(lab)?;
    let (serving, _) = second.join(&node, &second.key("team", &["plant-a"], 1)?, &["--port", "40000"])?;
    let (exit, told) = rehearse(&["--port", "40000", &key])?;
    assert_eq!(exit, Some(Exit::Code(1)), "{told}");
    failed(&told, "port", "other")?;
    stop(&serving)?;

    let (exit, told) = rehearse(&["--stun", "127.0.0.1:9", &key])?;
    assert_eq!((exit, &check(&told, "udp")?["verdict"]), (Some(Exit::Code(0)), &"warning".into()), "{told}");

    world.server.delete_key(&key_value(&key)?)?;
    let (exit, told) = rehearse(&[&key])?;
    assert_eq!(exit, Some(Exit::Code(5)), "{told}");
    failed(&told, "key", "refused")?;

    let key = world.key("again", &["office"], 1)?;
    world.server.faults().set_clock_skew(time::Duration::minutes(10));
    let (exit, told) = rehearse(&[&key])?;
    assert_eq!((exit, &check(&told, "clock")?["verdict"]), (Some(Exit::Code(0)), &"warning".into()), "{told}");
    world.server.faults().set_clock_skew(time::Duration::ZERO);

    node.add_address("10.202.0.77/24".parse()?)?;
    let (exit, told) = rehearse(&[&key])?;
    assert_eq!((exit, &check(&told, "overlaps")?["verdict"]), (Some(Exit::Code(0)), &"warning".into()), "{told}");

    flawed(Flaw::Expired)?;
    let (exit, told) = rehearse(&[&key])?;
    assert_eq!(exit, Some(Exit::Code(75)), "{told}");
    failed(&told, "certificate", "temporary")?;
    flawed(Flaw::None)?;

    let hidden = node.run(Program::new("sh").args(["-c", HIDE_NFT]), DONE)?;
    assert_eq!(hidden.exit, Some(Exit::Code(0)), "{hidden:?}");
    let (exit, told) = rehearse(&["--firewall", "enforce", &key])?;
    assert_eq!(exit, Some(Exit::Code(1)), "{told}");
    failed(&told, "firewall", "other")?;
    assert_eq!(world.uses_left("again")?, 1);
    Ok(())
}
