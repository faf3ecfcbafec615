//! Looking without touching: `inspect`, `join --dry-run` and `doctor`.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result};
use enroll_agent::mock_server::{Flaw, NewKey, Trouble};
use serde_json::Value;

use crate::{
    lab::{Case, Exit, Lab, Missing, Output, Program, eventually},
    status::{stop, wait_for},
    world::{DONE, World, ended_with, new_key},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_key_is_inspected_without_its_server", a_key_is_inspected_without_its_server),
        ("a_server_is_asked_about_a_key_for_nothing", a_server_is_asked_about_a_key_for_nothing),
        ("a_rehearsal_tells_everything_and_leaves_nothing", a_rehearsal_tells_everything),
        ("a_rehearsal_names_what_is_in_the_way", a_rehearsal_names_what_is_in_the_way),
        ("a_healthy_host_has_a_clean_bill", a_healthy_host_has_a_clean_bill),
        ("a_doctor_names_what_is_broken", a_doctor_names_what_is_broken),
        ("a_doctor_looks_as_far_as_its_rights_go", a_doctor_looks_as_far_as_its_rights_go),
        ("secrets_that_were_left_behind_are_found", secrets_that_were_left_behind_are_found),
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
    assert_eq!(world.uses_left("again")?, 1);
    Ok(())
}

fn a_healthy_host_has_a_clean_bill(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let (first, _) = world.join(&one, &key, &[])?;
    let (second, _) = world.join(&two, &key, &[])?;
    wait_for(&world, &one, "the handshake", |status| status["peers"][0]["handshake_age"].is_u64())?;
    let before = one.snapshot()?;

    let healthy = world.run(&one, &["doctor", "--json"])?;

    let told = json(&healthy)?;
    assert_eq!((healthy.exit, &told["healthy"]), (Some(Exit::Code(0)), &true.into()), "{told}");
    for id in [
        "backend",
        "broker",
        "certificate",
        "clock",
        "connection",
        "endpoint",
        "firewall-rules",
        "forwarding",
        "handshake",
        "membership",
        "mtu",
        "names",
        "permissions",
        "resolve",
        "server",
        "service",
        "tun",
    ] {
        assert_eq!(check(&told, id)?["verdict"], "ok", "{id}: {told}");
    }
    for id in ["dns", "firewall", "leftovers"] {
        check(&told, id)?;
    }
    assert_eq!(one.snapshot()?.len(), before.len(), "nothing was changed");
    let text = world.run(&one, &["doctor"])?.stdout.join("\n");
    assert!(text.contains("ok        service: process") && text.contains(" checks: 0 failed"), "{text}");
    stop(&first)?;
    stop(&second)
}

fn a_doctor_names_what_is_broken(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let examine = || {
        let output = world.run(&node, &["doctor", "--json"])?;
        let told = json(&output)?;
        Ok::<_, anyhow::Error>((output.exit, told))
    };
    let flawed = |flaw| lab.block_on(world.server.make(Trouble::Certificate { flaw }));
    let verdict = |told: &Value, id: &str| Ok::<_, anyhow::Error>(check(told, id)?["verdict"].clone());

    let (exit, told) = examine()?;
    assert_eq!((exit, verdict(&told, "membership")?), (Some(Exit::Code(0)), "warning".into()), "not enrolled: {told}");

    let service = world.enrolled(&node, &key)?;
    let state = world.own(&node).join("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755))?;
    let (exit, told) = examine()?;
    assert_eq!((exit, verdict(&told, "permissions")?), (Some(Exit::Code(1)), "failed".into()), "{told}");
    let advice = check(&told, "permissions")?["advice"].clone();
    assert_eq!(advice, format!("run `chmod 700 {}`", state.display()));
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;

    flawed(Flaw::WrongName)?;
    let (exit, told) = examine()?;
    assert_eq!((exit, verdict(&told, "certificate")?), (Some(Exit::Code(1)), "failed".into()), "{told}");
    flawed(Flaw::None)?;

    let hidden = node.run(Program::new("sh").args(["-c", HIDE_NFT]), DONE)?;
    if hidden.exit == Some(Exit::Code(0)) {
        let (exit, told) = examine()?;
        assert_eq!((exit, verdict(&told, "firewall")?), (Some(Exit::Code(0)), "warning".into()), "{told}");
    }

    stop(&service)?;
    let (exit, told) = examine()?;
    assert_eq!((exit, verdict(&told, "service")?), (Some(Exit::Code(1)), "failed".into()), "{told}");
    assert_eq!(verdict(&told, "membership")?, "failed", "the interface is gone");
    assert_eq!(verdict(&told, "endpoint")?, "ok", "the server was asked all the same: {told}");

    world.configure(&node, "ports = 7\n")?;
    let wrong = node.run(
        world.agent(&node, &["doctor", "--json"]).env("ENROLL_AGENT_CONFIG", world.own(&node).join("agent.toml")),
        DONE,
    )?;
    assert_eq!((wrong.exit, verdict(&json(&wrong)?, "configuration")?), (Some(Exit::Code(1)), "failed".into()));

    let last = world.agent(&node, &["doctor", "--json"]);
    let World { server, folder: _folder } = world;
    lab.block_on(server.shutdown());
    let told = json(&node.run(last, DONE)?)?;
    let connection = check(&told, "connection")?;
    assert_eq!((&connection["verdict"], &connection["class"]), (&"failed".into(), &"temporary".into()), "{told}");
    Ok(())
}

fn a_doctor_looks_as_far_as_its_rights_go(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let arguments =
        ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", env!("CARGO_BIN_EXE_agent"), "doctor"];
    let nobody = Program::new("setpriv").args(arguments).arg("--json").env("HOME", "/nonexistent");

    let output = node.run(nobody, DONE)?;

    if matches!(output.exit, Some(Exit::Code(126 | 127))) {
        return Err(Missing("needs a folder of the build that every user may enter".to_owned()).into());
    }
    let told = json(&output)?;
    assert_eq!(output.exit, Some(Exit::Code(0)), "what cannot be seen is no failure: {told}");
    assert_eq!(check(&told, "backend")?["verdict"], "unknown", "{told}");
    Ok(())
}

fn secrets_that_were_left_behind_are_found(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (typed, given, written, old) = (
        world.key("typed", &["office"], 1)?,
        world.key("given", &["office"], 1)?,
        world.key("written", &["office"], 1)?,
        world.key("old", &["office"], 1)?,
    );
    world.configure(&node, &format!("key = \"{written}\"\n"))?;
    let planted = world.own(&node).join("history");
    fs::write(&planted, format!("ls\nagent join {old}\n"))?;
    let passwd = world.own(&node).join("passwd");
    fs::write(&passwd, format!("somebody:x:0:0::{}:/bin/sh\n", world.own(&node).join("home").display()))?;
    fs::create_dir_all(world.own(&node).join("home"))?;
    fs::copy(&planted, world.own(&node).join("home/.bash_history"))?;
    let mounted = node.run(Program::new("mount").args(["--bind"]).arg(&passwd).arg("/etc/passwd"), DONE)?;
    assert_eq!(mounted.exit, Some(Exit::Code(0)), "{mounted:?}");
    // It stays, with the key where everybody can see it.
    let pipe = world.own(&node).join("pipe");
    let script = "mkfifo \"$1\"; exec 3<>\"$1\"; read -r line <&3";
    let careless = Program::new("sh").args(["-c", script, &typed]).arg(&pipe).env("SOME_KEY", &given);
    let careless = node.spawn(careless)?;
    eventually("the process with the key", DONE, || pipe.exists().then_some(()))?;
    let search = || {
        node.run(
            world
                .agent(&node, &["doctor", "--secrets", "--json"])
                .env("ENROLL_AGENT_CONFIG", world.own(&node).join("agent.toml")),
            DONE,
        )
    };

    let output = search()?;

    let told = json(&output)?;
    assert_eq!(output.exit, Some(Exit::Code(1)), "{told}");
    let pid = careless.pid();
    for (key, place) in [
        (&typed, format!("on the command line of process {pid} ")),
        (&given, format!("in the environment of process {pid} ")),
        (&written, "agent.toml, line 1".to_owned()),
        (&old, ".bash_history, line 2".to_owned()),
    ] {
        let fingerprint = fingerprint(key)?;
        let checks = told["checks"].as_array().context("no checks")?;
        let says = |check: &&Value| {
            let detail = check["detail"].as_str().unwrap_or_default();
            check["id"] == "secrets" && detail.contains(&fingerprint) && detail.contains(&place)
        };
        let found = checks.iter().find(says).with_context(|| format!("{place}{fingerprint}: {told}"))?;
        assert!(found["advice"].is_string(), "{found}");
        reveals_nothing(&output, key)?;
    }
    careless.kill()?;
    Ok(())
}

/// The first check of that name.
fn check<'a>(told: &'a Value, id: &str) -> Result<&'a Value> {
    let checks = told["checks"].as_array().with_context(|| format!("no checks: {told}"))?;
    checks.iter().find(|check| check["id"] == id).with_context(|| format!("no check {id}: {told}"))
}

fn key_value(key: &str) -> Result<String> {
    let inside: Value = serde_json::from_slice(&data_encoding::BASE64.decode(key.as_bytes())?)?;
    Ok(inside["value"].as_str().context("no value")?.to_owned())
}

/// Puts something that is no program over every nft there is.
const HIDE_NFT: &str = "for nft in /usr/sbin/nft /sbin/nft /usr/bin/nft /usr/local/sbin/nft; do
    [ -e $nft ] || continue; mount --bind /dev/null $nft || exit 1; done";

fn json(output: &Output) -> Result<Value> {
    serde_json::from_str(&output.stdout.join("\n")).with_context(|| format!("{output:?}"))
}

fn fingerprint(key: &str) -> Result<String> {
    Ok(key.parse::<enroll_agent::model::Token>()?.fingerprint())
}

/// Neither the key nor the value in it is in what was said.
fn reveals_nothing(output: &Output, key: &str) -> Result<()> {
    let said = format!("{output:?}");
    assert!(!said.contains(&key_value(key)?) && !said.contains(key), "{said}");
    Ok(())
}
