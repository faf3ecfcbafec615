//! The service as a process: its socket, its signals, what it tells the service manager and its log.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    time::Duration,
};

use anyhow::{Context, Result};
use enroll_agent::mock_server::Fault;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    lab::{Case, Exit, Lab, eventually},
    status::{report, stop, wait_up},
    world::{DONE, NOTICED, World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_service_joins_for_others", a_service_joins_for_others),
        ("a_service_ends_within_two_seconds", a_service_ends_within_two_seconds),
        ("probes_and_waiting_tell_by_exit_code", probes_and_waiting),
        ("a_new_configuration_is_read_on_demand", a_new_configuration),
        ("the_socket_is_open_to_others_only_if_told_so", the_socket_is_open_to_others),
        ("the_service_manager_is_told", the_service_manager_is_told),
        ("a_log_of_json_lines_holds_no_secret", a_log_of_json_lines),
        ("work_beside_a_service_is_refused_and_harmless", work_beside_a_service),
    ]
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

fn the_service_manager_is_told(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let manager = UnixDatagram::bind(world.folder.path().join("notify"))?;
    manager.set_read_timeout(Some(NOTICED))?;
    let told = |what: &str| -> Result<()> {
        let mut message = [0; 512];
        loop {
            let length = manager.recv(&mut message).with_context(|| format!("never told {what}"))?;
            if String::from_utf8_lossy(&message[..length]).lines().any(|line| line.starts_with(what)) {
                return Ok(());
            }
        }
    };
    world.configure(&node, "")?;
    let program = world
        .agent(&node, &["run"])
        .env("ENROLL_AGENT_CONFIG", world.own(&node).join("agent.toml"))
        .env("NOTIFY_SOCKET", world.folder.path().join("notify"))
        .env("WATCHDOG_USEC", "300000");

    let service = node.spawn(program)?;

    told("READY=1")?;
    assert!(world.own(&node).join("run/agent.sock").exists(), "ready means that the socket answers");
    told("WATCHDOG=1")?;
    let key = world.key("team", &["office"], 1)?;
    assert_eq!(node.run(world.agent(&node, &["join", "-"]).stdin(&*key), DONE)?.exit, Some(Exit::Code(0)));
    told("STATUS=1 networks, 0 peers; in step with ")?;
    service.signal(Signal::SIGHUP)?;
    told("RELOADING=1")?;
    told("READY=1")?;
    service.signal(Signal::SIGTERM)?;
    told("STOPPING=1")?;
    assert_eq!(service.wait(DONE)?.exit, Some(Exit::Code(0)));
    Ok(())
}

fn a_log_of_json_lines(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    world.configure(&node, &format!("key = \"{key}\"\n"))?;

    let service = world.serve(&node, &["--log-format", "json", "-vv"])?;
    wait_up(&world, &node)?;
    stop(&service)?;

    let lines = service.output()?.stderr;
    assert!(lines.iter().any(|line| line.contains("changing the interface")), "{lines:?}");
    let saved = &world.saved(&node)?[0]["identity"];
    let secret = |name: &str| saved[name].as_str().map(str::to_owned).context("no such secret");
    for secret in [key, secret("password")?, secret("private_key")?] {
        assert!(!lines.iter().any(|line| line.contains(&secret)), "a secret is logged");
    }
    for line in &lines {
        serde_json::from_str::<Value>(line).with_context(|| line.clone())?;
    }
    Ok(())
}

fn work_beside_a_service(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;

    for command in ["sync", "down", "rotate-keys", "leave"] {
        let beside = world.run(&node, &["--standalone", command])?;
        ended_with(&beside, 1, "another agent is working on the membership");
    }

    wait_up(&world, &node)?;
    assert_eq!(world.server.hosts()?.len(), 1);
    stop(&service)
}
