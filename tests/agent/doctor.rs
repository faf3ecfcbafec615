//! What the doctor says of healthy and of broken hosts.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result};
use enroll_agent::mock_server::{Flaw, Trouble};
use serde_json::Value;

use crate::{
    lab::{Case, Exit, Lab, Missing, Output, Program, eventually},
    status::{check, json, stop, wait_for},
    world::{DONE, World},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_healthy_host_has_a_clean_bill", a_healthy_host_has_a_clean_bill),
        ("a_doctor_names_what_is_broken", a_doctor_names_what_is_broken),
        ("a_doctor_looks_as_far_as_its_rights_go", a_doctor_looks_as_far_as_its_rights_go),
        ("secrets_that_were_left_behind_are_found", secrets_that_were_left_behind_are_found),
    ]
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
    assert_eq!(hidden.exit, Some(Exit::Code(0)), "{hidden:?}");
    let (exit, told) = examine()?;
    assert_eq!((exit, verdict(&told, "firewall")?), (Some(Exit::Code(0)), "warning".into()), "{told}");

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

    let mut saved = fs::read_dir(&state)?.filter_map(Result::ok).map(|entry| entry.path().join("membership.json"));
    let saved = saved.find(|path| path.exists()).context("no membership")?;
    let good = fs::read(&saved)?;
    fs::write(&saved, "{}")?;
    let (exit, told) = examine()?;
    assert_eq!((exit, verdict(&told, "state")?), (Some(Exit::Code(1)), "failed".into()), "{told}");
    fs::write(&saved, good)?;

    let last = world.agent(&node, &["doctor", "--json"]);
    let World { server, folder: _folder } = world;
    lab.block_on(server.shutdown());
    let told = json(&node.run(last, DONE)?)?;
    let connection = check(&told, "connection")?;
    assert_eq!((&connection["verdict"], &connection["class"]), (&"failed".into(), &"temporary".into()), "{told}");
    assert_eq!(check(&told, "endpoint")?["verdict"], "unknown", "{told}");
    Ok(())
}

fn a_doctor_looks_as_far_as_its_rights_go(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.serve(&node, &["--open-status"])?;
    let key = world.key("team", &["office"], 1)?;
    let joined = node.run(world.agent(&node, &["join", "-"]).stdin(&key), DONE)?;
    assert_eq!(joined.exit, Some(Exit::Code(0)), "{joined:?}");
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755))?;
    let arguments =
        ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", env!("CARGO_BIN_EXE_agent"), "doctor"];
    let own = world.own(&node);
    let nobody = Program::new("setpriv").args(arguments).arg("--json").env("HOME", "/nonexistent");
    let nobody =
        nobody.env("ENROLL_AGENT_RUNTIME_DIR", own.join("run")).env("ENROLL_AGENT_STATE_DIR", own.join("state"));

    let output = node.run(nobody.env("ENROLL_AGENT_CA_FILE", world.folder.path().join("ca.pem")), DONE)?;

    if matches!(output.exit, Some(Exit::Code(126 | 127))) {
        return Err(Missing("needs a folder of the build that every user may enter".to_owned()).into());
    }
    let told = json(&output)?;
    assert_eq!(output.exit, Some(Exit::Code(0)), "what cannot be seen is no failure: {told}");
    for id in ["backend", "certificate", "endpoint", "forwarding"] {
        assert_eq!(check(&told, id)?["verdict"], "unknown", "{id}: {told}");
    }
    for id in ["service", "membership", "connection"] {
        assert_eq!(check(&told, id)?["verdict"], "ok", "{id}: {told}");
    }
    stop(&service)
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

pub(crate) fn key_value(key: &str) -> Result<String> {
    let inside: Value = serde_json::from_slice(&data_encoding::BASE64.decode(key.as_bytes())?)?;
    Ok(inside["value"].as_str().context("no value")?.to_owned())
}

/// Puts something that is no program over every nft there is.
pub(crate) const HIDE_NFT: &str = "for nft in /usr/sbin/nft /sbin/nft /usr/bin/nft /usr/local/sbin/nft; do
    [ -e $nft ] || continue; mount --bind /dev/null $nft || exit 1; done";

pub(crate) fn fingerprint(key: &str) -> Result<String> {
    Ok(key.parse::<enroll_agent::model::Token>()?.fingerprint())
}

/// Neither the key nor the value in it is in what was said.
pub(crate) fn reveals_nothing(output: &Output, key: &str) -> Result<()> {
    let said = format!("{output:?}");
    assert!(!said.contains(&key_value(key)?) && !said.contains(key), "{said}");
    Ok(())
}
