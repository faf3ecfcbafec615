//! No secret is seen where it does not belong: the exact bytes are searched in everything that an agent says, shows,
//! starts, saves and sends.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::{
    hooks::put,
    lab::{Case, Exit, Lab, Missing, Node, Output, Process, Program, eventually},
    status::{stop, wait_pushed, wait_up, with_broker},
    world::{DONE, JOINED, World, ended_with, new_key},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_whole_life_shows_no_secret", a_whole_life),
        ("no_source_of_a_key_shows_it", no_source_of_a_key),
        ("programs_that_the_agent_runs_see_no_secret", programs_that_the_agent_runs),
        ("what_is_saved_is_for_its_owner_alone", what_is_saved),
        ("a_crash_leaves_no_core", a_crash_leaves_no_core),
    ]
}

fn a_whole_life(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = with_broker(lab, enroll_agent::mock_server::Scheme::Mqtts)?;
    let (key, further) = (world.key("team", &["office"], 1)?, world.key("further", &["plant-a"], 1)?);
    let dead = world.server.create_key(new_key("dead", &["office"]))?;
    world.server.delete_key(dead.value.expose())?;
    let mut secrets = Secrets::default();
    for key in [&key, &further, dead.token.expose()] {
        secrets.add_key(key)?;
    }
    let seen = world.folder.path().join("seen");
    let place = seen.display();
    let watch = format!("#!/bin/sh\n{{ cat; cat /proc/$$/environ /proc/$$/cmdline; ls -l /proc/$$/fd; }} >>{place}\n");
    put(world.folder.path(), "10-see", 0o755, &watch)?;
    let service = node.spawn(loud(&world, &node, &["run", "--spread", "0", "--backend", "userspace"]))?;
    eventually("the service", DONE, || world.own(&node).join("run/agent.sock").exists().then_some(()))?;

    let mut said = Vec::new();
    let mut run = |arguments: &[&str], stdin: &str| -> Result<Output> {
        let output = node.run(loud(&world, &node, arguments).stdin(stdin), DONE)?;
        said.push(output.clone());
        Ok(output)
    };
    ended_with(&run(&["join", "-"], dead.token.expose())?, 5, "it does not exist");
    ended_with(&run(&["inspect", "-", "--online", "--json"], &key)?, 0, "");
    ended_with(&run(&["join", "-", "--dry-run", "--json"], &key)?, 0, "");
    ended_with(&run(&["join", "-"], &key)?, 0, "");
    wait_pushed(&world, &node)?;
    secrets.add_saved(&world, &node)?;
    secrets.add_proof(lab, &world, &node)?;
    ended_with(&run(&["join", "-"], &further)?, 0, "");
    secrets.refuse_in_process(&service)?;
    secrets.refuse("the socket", &ask(&world.own(&node), &json!({"verb": "status"}))?);
    let wrong = ask(&world.own(&node), &json!({"verb": "join", "token": key, "timeout": "soon"}))?;
    secrets.refuse("the socket", &wrong);
    for arguments in [
        &["status", "--json"][..],
        &["peers"],
        &["sync"],
        &["rotate-keys"],
        &["status"],
        &["down"],
        &["up"],
        &["doctor", "--json"],
        &["receipts", "--json"],
    ] {
        run(arguments, "")?;
        secrets.add_saved(&world, &node)?;
    }
    ended_with(&run(&["leave", "--json"], "")?, 0, "");
    stop(&service)?;

    said.push(service.output()?);
    for output in &said {
        secrets.refuse_in_output(output);
    }
    let log = service.output()?.stderr.join("\n");
    secrets.refuse("what hooks were given", &fs::read(&seen).context("no hook was run")?);
    secrets.refuse("receipts", &fs::read(world.own(&node).join("state/receipts.jsonl"))?);
    ensure!(log.contains("TRACE") && log.contains("pooling idle connection"), "libraries log nothing: {log}");
    secrets.refuse_in_requests(&world)
}

fn no_source_of_a_key(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let sources = ["argument", "input", "file", "variable", "by-variable", "credential", "dropped", "configured"];
    for source in sources {
        // The first one is good, the second unknown to the server, the third is cut off.
        let good = world.key(source, &["office"], 1)?;
        let token: Value = serde_json::from_slice(&BASE64.decode(good.as_bytes())?)?;
        let unknown = BASE64.encode(
            json!({"server": token["server"], "value": "UNKNOWNUNKNOWNUNKNOWNUNKNOWN1234"}).to_string().as_bytes(),
        );
        for (key, code) in [(&good, 0), (&unknown, 5), (&good[..=good.len() / 2].to_owned(), 5)] {
            let mut secrets = Secrets::default();
            secrets.add(key.as_bytes());
            drop(secrets.add_key(key));
            let process = node.spawn(given(&world, &node, source, key)?)?;
            if code == 0 {
                process.json(JOINED).with_context(|| source.to_owned())?;
                secrets.add_saved(&world, &node)?;
                secrets.refuse_in_process(&process).with_context(|| source.to_owned())?;
                secrets.refuse_in_output(&process.kill()?);
            } else {
                let output = process.wait(DONE)?;
                ensure!(output.exit != Some(Exit::Code(0)), "{source}: {output:?}");
                secrets.refuse_in_output(&output);
            }
            fs::remove_dir_all(world.own(&node))?;
        }
    }
    Ok(())
}

/// A join that finds its key in one place.
fn given(world: &World, node: &Node, source: &str, key: &str) -> Result<Program> {
    let own = world.own(node);
    let file = |name: &str, text: &str| -> Result<_> {
        fs::create_dir_all(&own)?;
        fs::write(own.join(name), text)?;
        fs::set_permissions(own.join(name), fs::Permissions::from_mode(0o600))?;
        Ok(own.join(name))
    };
    file("agent.toml", "")?;
    let join = loud(world, node, &["join", "--json", "--timeout", "20"]);
    Ok(match source {
        "argument" => join.arg(key),
        "input" => join.arg("-").stdin(key),
        "file" => join.arg("--key-file").arg(file("given.key", key)?),
        "variable" => join.env("ENROLL_AGENT_KEY", key),
        "by-variable" => join.env("ENROLL_AGENT_KEY_FILE", file("given.key", key)?),
        "credential" => {
            file("enroll-agent.key", key)?;
            join.env("CREDENTIALS_DIRECTORY", &own)
        }
        "dropped" => {
            file("enroll.key", key)?;
            join
        }
        _ => {
            file("agent.toml", &format!("key = \"{key}\"\n"))?;
            join
        }
    })
}

fn programs_that_the_agent_runs(lab: &mut Lab) -> Result<()> {
    let nft = Path::new("/usr/sbin/nft");
    if !nft.exists() {
        return Err(Missing("needs nft".to_owned()).into());
    }
    let folder = lab.folder("nft")?;
    fs::copy(nft, folder.join("real"))?;
    let place = folder.display();
    let script = format!(
        "#!/bin/sh\n{{ cat /proc/$$/environ /proc/$$/cmdline; ls -l /proc/$$/fd; }} >>{place}/seen\n\
         tee -a {place}/seen | {place}/real \"$@\"\n"
    );
    fs::write(folder.join("nft"), script)?;
    fs::set_permissions(folder.join("nft"), fs::Permissions::from_mode(0o755))?;
    // The hub's mounts are its own, and the node shares them.
    mount(Some(&folder.join("nft")), nft, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let node = lab.node("one")?;
    let world = World::new(lab)?;

    for source in ["argument", "variable"] {
        let key = world.key(source, &["office"], 1)?;
        let mut secrets = Secrets::default();
        secrets.add_key(&key)?;
        let process = node.spawn(given(&world, &node, source, &key)?)?;
        process.json(JOINED)?;
        secrets.add_saved(&world, &node)?;
        process.kill()?;

        let seen = fs::read(folder.join("seen")).context("nft was not run")?;
        secrets.refuse("what nft was given", &seen);
        let text = String::from_utf8_lossy(&seen);
        ensure!(text.contains("nft") && !text.contains("memfd"), "nft inherited a key's memory file: {text}");
        fs::remove_dir_all(world.own(&node))?;
        fs::remove_file(folder.join("seen"))?;
    }
    Ok(())
}

fn what_is_saved(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let service = world.enrolled(&node, &key)?;
    wait_up(&world, &node)?;

    let mut files = 0;
    let mut folders = vec![world.own(&node).join("state")];
    while let Some(folder) = folders.pop() {
        ensure!(mode(&folder)? == 0o700, "{} has mode {:o}", folder.display(), mode(&folder)?);
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            ensure!(mode(&path)? == 0o600, "{} has mode {:o}", path.display(), mode(&path)?);
            let mut secrets = Secrets::default();
            secrets.add_key(&key)?;
            // Once it is redeemed it has no business there.
            secrets.refuse("a file", &fs::read(&path)?);
            files += 1;
        }
    }

    ensure!(files >= 2, "{files} files");
    stop(&service)
}

fn a_crash_leaves_no_core(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.serve(&node, &[])?;

    let limits = fs::read_to_string(format!("/proc/{}/limits", service.pid()))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no such limit")?;
    ensure!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    stop(&service)
}

/// A command that logs all that there is to log, of every library.
fn loud(world: &World, node: &Node, arguments: &[&str]) -> Program {
    let program = world.agent(node, arguments).arg("-vv");
    let program = program.env("ENROLL_AGENT_LOG", "trace").env("RUST_BACKTRACE", "full");
    let program = program.env("ENROLL_AGENT_ENDPOINT", node.v4.to_string());
    let own = world.own(node).join("agent.toml");
    if own.exists() { program.env("ENROLL_AGENT_CONFIG", own) } else { program }
}

/// What must not be seen, in every form that it could be printed in.
#[derive(Default)]
struct Secrets {
    all: BTreeSet<Vec<u8>>,
    private_keys: BTreeSet<Vec<u8>>,
}

impl Secrets {
    fn add(&mut self, secret: &[u8]) {
        self.all.insert(secret.to_vec());
    }

    /// A token, and the value in it.
    fn add_key(&mut self, token: &str) -> Result<()> {
        self.add(token.as_bytes());
        self.add(token.trim_end_matches('=').as_bytes());
        let parsed: Value = serde_json::from_slice(&BASE64.decode(token.as_bytes())?)?;
        self.add(parsed["value"].as_str().context("no value")?.as_bytes());
        Ok(())
    }

    /// The private keys and the password of what is saved now.
    fn add_saved(&mut self, world: &World, node: &Node) -> Result<()> {
        for saved in world.saved(node)? {
            let identity = &saved["identity"];
            self.add(identity["password"].as_str().context("no password")?.as_bytes());
            let keys = [&identity["private_key"], &identity["traffic"]["private_key"], &identity["next_key"]];
            for key in keys.into_iter().filter(|key| !key.is_null()) {
                self.add_private_key(key.as_str().context("a key is no text")?)?;
            }
        }
        Ok(())
    }

    fn add_private_key(&mut self, text: &str) -> Result<()> {
        let raw = BASE64.decode(text.as_bytes())?;
        let numbers: Vec<_> = raw.iter().map(u8::to_string).collect();
        let texts = [
            text.to_owned(),
            text.trim_end_matches('=').to_owned(),
            BASE64URL_NOPAD.encode(&raw),
            HEXLOWER.encode(&raw),
            numbers.join(","),
            numbers.join(", "),
        ];
        for form in texts.into_iter().map(String::into_bytes).chain([raw]) {
            self.all.insert(form.clone());
            self.private_keys.insert(form);
        }
        Ok(())
    }

    /// The beginning that all of the server's proofs (JWT) have in common.
    fn add_proof(&mut self, lab: &Lab, world: &World, node: &Node) -> Result<()> {
        let saved = world.saved(node)?;
        let identity = &saved.first().context("nothing saved")?["identity"];
        let asked = json!({"hostid": identity["host_id"], "id": identity["host_id"], "password": identity["password"]});
        let (_, answer) = world.answer(lab, "POST", "/api/hosts/adm/authenticate", &asked)?;
        let proof = answer["Response"]["AuthToken"].as_str().with_context(|| format!("no proof: {answer}"))?;
        let (head, _) = proof.split_once('.').context("no JWT")?;
        self.add(head.as_bytes());
        Ok(())
    }

    #[track_caller]
    fn refuse(&self, place: &str, text: &[u8]) {
        assert!(!self.all.is_empty());
        for secret in &self.all {
            if let Some(at) = find(text, secret) {
                let around = String::from_utf8_lossy(&text[at.saturating_sub(200)..(at + 20).min(text.len())]);
                panic!("{place} shows a secret: {around}");
            }
        }
    }

    #[track_caller]
    fn refuse_in_output(&self, output: &Output) {
        self.refuse("standard output", output.stdout.join("\n").as_bytes());
        self.refuse("standard error", output.stderr.join("\n").as_bytes());
    }

    /// Searches what the system tells of a process.
    fn refuse_in_process(&self, process: &Process) -> Result<()> {
        let folder = format!("/proc/{}", process.pid());
        for place in ["cmdline", "environ", "comm", "maps"] {
            self.refuse(place, &fs::read(format!("{folder}/{place}"))?);
        }
        for entry in fs::read_dir(format!("{folder}/fd"))? {
            // Some are gone by now.
            let Ok(target) = fs::read_link(entry?.path()) else { continue };
            ensure!(!target.to_string_lossy().contains("enrollment-key"), "the key's memory file is open");
        }
        Ok(())
    }

    /// Private keys are in no request; nor is any secret where servers log.
    fn refuse_in_requests(&self, world: &World) -> Result<()> {
        let only = Self { all: self.private_keys.clone(), private_keys: BTreeSet::new() };
        let observed = world.server.faults().observed();
        ensure!(observed.len() > 5, "{observed:?}");
        for request in observed {
            only.refuse("a request", &request.body);
            self.refuse("a path", request.path.as_bytes());
        }
        Ok(())
    }
}

fn find(text: &[u8], secret: &[u8]) -> Option<usize> {
    text.windows(secret.len()).position(|window| window == secret)
}

/// What the control socket answers to a line.
fn ask(own: &Path, request: &Value) -> Result<Vec<u8>> {
    let mut socket = UnixStream::connect(own.join("run/agent.sock"))?;
    writeln!(socket, "{request}")?;
    let mut answer = Vec::new();
    BufReader::new(socket).read_until(b'\n', &mut answer)?;
    ensure!(!answer.is_empty() || request["verb"] != "status", "no answer");
    Ok(answer)
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}
