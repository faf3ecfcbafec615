//! Where keys come from, what becomes of them, and several that stand in for each other.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use enroll_agent::{mock_server::Fault, model::Token};
use nix::{
    mount::{MsFlags, mount},
    pty::openpty,
};
use serde_json::Value;

use crate::{
    lab::{Case, Lab, Output, Program, eventually},
    status::{report, stop, wait_up},
    world::{DONE, World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("keys_come_from_the_first_place_that_has_one", places_in_order),
        ("a_key_file_that_others_can_read_has_to_be_meant", a_permissive_key_file),
        ("a_container_secret_is_taken_and_removed", a_container_secret),
        ("a_terminal_is_asked_and_shows_nothing", a_terminal_is_asked),
        ("a_running_service_takes_a_dropped_key", a_running_service_takes_a_dropped_key),
        ("a_dropped_key_that_is_no_key_hinders_nothing", a_dropped_key_that_is_no_key),
        ("the_next_key_is_tried_when_one_is_dead", the_next_key_is_tried),
        ("the_network_is_no_reason_for_the_next_key", the_network_is_no_reason),
        ("a_half_sent_key_is_resolved_before_another", a_half_sent_key_is_resolved),
        ("a_service_tries_keys_of_its_configuration_in_order", a_service_tries_keys_in_order),
    ]
}

fn places_in_order(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let names = ["argument", "file", "descriptor", "variable", "by-variable", "credential", "dropped", "configured"];
    let keys = names.map(|name| world.key(name, &["office"], 1));
    let keys = keys.into_iter().collect::<Result<Vec<_>>>()?;
    let [argument, file, fd, variable, by_variable, credential, dropped, configured] = &keys[..] else {
        anyhow::bail!("eight keys")
    };
    world.configure(&node, &format!("key = \"{configured}\"\n"))?;
    let own = world.own(&node);
    let place = |name: &str, key: &str| private(&own.join(name), key);
    place("given.key", file)?;
    place("fd.key", fd)?;
    place("by-variable.key", by_variable)?;
    place("enroll-agent.key", credential)?;
    place("enroll.key", dropped)?;
    let agent = world.agent(&node, &["join", "--json", "--dry-run"]);
    let mut program = agent.env("ENROLL_AGENT_CONFIG", own.join("agent.toml")).env("CREDENTIALS_DIRECTORY", &own);
    program = program.env("ENROLL_AGENT_KEY", variable).env("ENROLL_AGENT_KEY_FILE", own.join("by-variable.key"));
    let taken = |program: Program, key: &str| -> Result<Output> {
        let output = node.run(program, DONE)?;
        let said: Value = serde_json::from_str(&output.stdout.join("\n")).with_context(|| format!("{output:?}"))?;
        assert_eq!(said["key"], fingerprint(key)?, "{output:?}");
        Ok(output)
    };

    let by_argument = taken(program.clone().arg(argument).arg("--key-file").arg(own.join("given.key")), argument)?;
    taken(program.clone().arg("--key-file").arg(own.join("given.key")), file)?;
    let shell = format!("exec \"$0\" join --json --dry-run --key-fd 9 9<{}", own.join("fd.key").display());
    let by_fd = Program::new("sh").args(["-c", &shell, env!("CARGO_BIN_EXE_agent")]);
    let by_fd = by_fd.env("ENROLL_AGENT_CA_FILE", world.folder.path().join("ca.pem"));
    let by_fd = by_fd.env("ENROLL_AGENT_CONFIG", own.join("agent.toml")).env("ENROLL_AGENT_KEY", variable);
    let by_fd = by_fd.env("ENROLL_AGENT_STATE_DIR", own.join("state")).env("ENROLL_AGENT_RUNTIME_DIR", own.join("run"));
    taken(by_fd, fd)?;
    taken(program.clone(), variable)?;
    program = program.env_remove("ENROLL_AGENT_KEY");
    taken(program.clone(), by_variable)?;
    program = program.env_remove("ENROLL_AGENT_KEY_FILE");
    taken(program.clone(), credential)?;
    program = program.env_remove("CREDENTIALS_DIRECTORY");
    taken(program.clone(), dropped)?;
    fs::remove_file(own.join("enroll.key"))?;
    taken(program, configured)?;

    let hint = "agent: other users could see the key on the command line; --key-file or `join -` hides it";
    assert_eq!(by_argument.stderr, [hint]);
    Ok(())
}

fn a_permissive_key_file(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let file = world.folder.path().join("open.key");
    private(&file, &world.key("team", &["office"], 1)?)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let path = file.display().to_string();

    let refused = world.run(&node, &["join", "--dry-run", "--key-file", &path])?;
    let meant = world.run(&node, &["join", "--dry-run", "--insecure-key-file", "--key-file", &path])?;

    ended_with(&refused, 78, &format!("{path} holds a key and can be read by others (mode 644)"));
    ended_with(&meant, 0, &format!("{path} holds a key and can be read by others (mode 644)"));
    Ok(())
}

fn a_container_secret(lab: &mut Lab) -> Result<()> {
    // The hub's mounts are its own, and the node shares them.
    mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let secret = Path::new("/run/secrets/enroll-agent.key");
    fs::create_dir("/run/secrets")?;
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    private(secret, &world.key("team", &["office"], 1)?)?;
    fs::set_permissions(secret, fs::Permissions::from_mode(0o444))?;

    let service = world.serve(&node, &[])?;

    wait_up(&world, &node)?;
    eventually("the end of the secret", DONE, || (!secret.exists()).then_some(()))?;
    stop(&service)?;
    let said = service.output()?.stderr.join("\n");
    for line in ["/run/secrets/enroll-agent.key holds a key and can be read by others (mode 444)", REMOVED] {
        ensure!(said.contains(line), "{said}");
    }
    Ok(())
}

fn a_terminal_is_asked(lab: &mut Lab) -> Result<()> {
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let asked = |typed: &str| -> Result<(i32, String, String)> {
        let pty = openpty(None, None)?;
        let mut terminal = fs::File::from(pty.master);
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
        command.args(["join", "--json", "--dry-run"]).stdin(pty.slave.try_clone()?).stderr(pty.slave);
        command.env("ENROLL_AGENT_CA_FILE", world.folder.path().join("ca.pem"));
        command.env("ENROLL_AGENT_CONFIG", world.folder.path().join("agent.toml"));
        command.env("ENROLL_AGENT_STATE_DIR", world.folder.path().join("state"));
        let child = command.stdout(std::process::Stdio::piped()).spawn()?;
        drop(command);
        let mut shown = Vec::new();
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&shown).contains("(not shown): ") {
            let read = terminal.read(&mut buffer)?;
            shown.extend_from_slice(&buffer[..read]);
        }
        terminal.write_all(typed.as_bytes())?;
        // A terminal that nobody has open any more is an error.
        while let Ok(read @ 1..) = terminal.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..read]);
        }
        let output = child.wait_with_output()?;
        let code = output.status.code().context("killed")?;
        Ok((code, String::from_utf8(output.stdout)?, String::from_utf8(shown)?))
    };

    let (code, said, shown) = asked(&format!("{key}\n"))?;
    let (given_up, _, interrupted) = asked("\u{3}")?;

    assert_eq!(code, 0, "{said}{shown}");
    ensure!(said.contains(&fingerprint(&key)?), "{said}");
    assert_eq!(shown, "Enrollment key (not shown): \r\n");
    assert_eq!(given_up, 78);
    ensure!(interrupted.contains("cannot read the terminal: given up"), "{interrupted}");
    Ok(())
}

fn a_running_service_takes_a_dropped_key(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.serve(&node, &[])?;
    let dropped = world.own(&node).join("enroll.key");

    fs::write(&dropped, world.key("team", &["office"], 1)?)?;

    wait_up(&world, &node)?;
    eventually("the end of the file", DONE, || (!dropped.exists()).then_some(()))?;
    assert_eq!(world.uses_left("team")?, 0);
    let second = world.key("more", &["plant-a"], 1)?;
    private(&dropped, &second)?;
    let program = world.agent(&node, &["join"]).env("ENROLL_AGENT_CONFIG", world.own(&node).join("agent.toml"));
    let further = node.run(program, DONE)?;
    ended_with(&further, 0, &format!("agent: the key was removed from {}", dropped.display()));
    assert_eq!(world.uses_left("more")?, 0);
    stop(&service)?;
    let said = service.output()?.stderr.join("\n");
    ensure!(said.contains(&format!("the key was removed from {}", dropped.display())), "{said}");
    Ok(())
}

fn a_dropped_key_that_is_no_key(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    world.configure(&node, &format!("key = \"{}\"\n", world.key("team", &["office"], 1)?))?;
    let dropped = world.own(&node).join("enroll.key");
    private(&dropped, "no*base64")?;

    let service = world.serve(&node, &[])?;

    wait_up(&world, &node)?;
    ensure!(dropped.exists(), "what was not taken stays");
    stop(&service)?;
    let said = service.output()?.stderr.join("\n");
    let left_out = format!("the key in {} is left out: enrollment key is not base64 at character 3", dropped.display());
    ensure!(said.contains(&left_out), "{said}");
    Ok(())
}

fn the_next_key_is_tried(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let keys = Several::new(&world)?;
    let Several { disabled, unknown, good, unused } = &keys;
    let (first, second) = (world.folder.path().join("first.key"), world.folder.path().join("second.key"));
    private(&first, &format!("{disabled}\nno*base64\n{unknown}\n"))?;
    private(&second, &format!("{good}\n{unused}\n"))?;
    let (one, two) = (first.display().to_string(), second.display().to_string());
    let service = world.serve(&node, &[])?;

    let joined = world.run(&node, &["join", "--key-file", &one, "--key-file", &two])?;
    let again = world.run(&node, &["join", "--json", "--key-file", &one, "--key-file", &two])?;
    let refused = world.run(&node, &["join", "--key-file", &one])?;

    let reasons = format!("{}: it is disabled; {}: it does not exist", fingerprint(disabled)?, fingerprint(unknown)?);
    let taken = format!("key {} was taken, others were not: {reasons}", fingerprint(good)?);
    ensure!(joined.stdout.contains(&taken), "{joined:?}");
    let left_out = "agent: a key is left out";
    ended_with(&joined, 0, &format!("{left_out} ({one}, line 2): enrollment key is not base64 at character 3"));
    ended_with(&joined, 0, &format!("agent: the key stays in {two}"));
    let again: Value = serde_json::from_str(&again.stdout.join("\n"))?;
    assert_eq!((&again["result"], &again["chosen"]["key"]), (&"already-enrolled".into(), &fingerprint(good)?.into()));
    ended_with(&refused, 5, &format!("refused every enrollment key: {reasons}"));
    assert_eq!((world.uses_left("good")?, world.uses_left("unused")?), (0, 1));
    stop(&service)
}

fn the_network_is_no_reason(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (first, second) = (world.key("first", &["office"], 1)?, world.key("second", &["office"], 1)?);
    let file = world.folder.path().join("several.key");
    private(&file, &format!("{first}\n{second}\n"))?;
    world.server.faults().inject(usize::MAX, "/api/v1/host/register", Fault::Delay(DONE));

    let slow = world.run(&node, &["join", "--timeout", "2", "--key-file", &file.display().to_string()])?;

    ended_with(&slow, 75, "did not take this host in within 2 s");
    assert_eq!(world.uses_left("second")?, 1);
    Ok(())
}

fn a_half_sent_key_is_resolved(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (other, half) = (world.key("other", &["office"], 1)?, world.key("half", &["office"], 1)?);
    world.server.faults().inject(1, "/api/v1/host/register", Fault::Delay(DONE));
    let (file, alone) = (world.folder.path().join("several.key"), world.folder.path().join("half.key"));
    private(&alone, &half)?;
    private(&file, &format!("{other}\n{half}\n"))?;
    ended_with(&world.run(&node, &["join", "--timeout", "2", "--key-file", &alone.display().to_string()])?, 75, "2 s");
    let service = world.serve(&node, &[])?;

    let joined = world.run(&node, &["join", "--json", "--key-file", &file.display().to_string()])?;

    let said: Value = serde_json::from_str(&joined.stdout.join("\n")).with_context(|| format!("{joined:?}"))?;
    assert_eq!(said["chosen"]["key"], fingerprint(&half)?);
    assert_eq!((world.uses_left("other")?, world.uses_left("half")?), (1, 0));
    stop(&service)
}

fn a_service_tries_keys_in_order(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let Several { disabled, unknown, good, unused } = &Several::new(&world)?;
    let spare = world.folder.path().join("spare.key");
    private(&spare, &format!("{good}\n{unused}\n"))?;
    let text = format!("keys = [\"{disabled}\", \"{unknown}\"]\nkey_files = [\"{}\"]\n", spare.display());
    world.configure(&node, &text)?;

    let service = world.serve(&node, &[])?;

    wait_up(&world, &node)?;
    assert_eq!(report(&world, &node)?["enrolling"], serde_json::json!([]));
    assert_eq!((world.uses_left("good")?, world.uses_left("unused")?), (0, 1));
    stop(&service)?;
    let said = service.output()?.stderr.join("\n");
    for key in [disabled, unknown, good] {
        ensure!(said.contains(&fingerprint(key)?) && !said.contains(key), "{said}");
    }
    Ok(())
}

/// Two keys that are good for nothing, and two that are.
struct Several {
    disabled: String,
    unknown: String,
    good: String,
    unused: String,
}

impl Several {
    fn new(world: &World) -> Result<Self> {
        let (disabled, unknown) = (world.key("disabled", &["office"], 1)?, world.key("unknown", &["office"], 1)?);
        world.server.disable_key(&world.key_id("disabled")?)?;
        world.server.delete_key(&world.key_id("unknown")?)?;
        let (good, unused) = (world.key("good", &["office"], 1)?, world.key("unused", &["office"], 1)?);
        Ok(Self { disabled, unknown, good, unused })
    }
}

/// Writes a file that its owner alone can read, in one step.
fn private(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    Ok(fs::rename(new, path)?)
}

fn fingerprint(key: &str) -> Result<String> {
    Ok(key.parse::<Token>()?.fingerprint())
}

const REMOVED: &str = "the key was removed from /run/secrets/enroll-agent.key";
