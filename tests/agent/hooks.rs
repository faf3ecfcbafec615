//! Hooks: the owner's programs are told what happens, and cannot do harm to what they are told of.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use enroll_agent::mock_server::Scheme;
use serde_json::Value;

use crate::{
    lab::{Case, Lab, Process, eventually},
    status::{node_id, stop, wait_for, wait_pushed, wait_up, with_broker},
    world::{DONE, World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("hooks_of_a_service_are_told_what_happens", hooks_of_a_service),
        ("hooks_of_a_command_run_before_it_ends", hooks_of_a_command),
        ("hooks_that_others_could_have_written_are_not_run", hooks_of_others),
        ("a_hook_that_fails_or_hangs_holds_nothing_up", a_hook_that_fails_or_hangs),
    ]
}

fn hooks_of_a_service(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = with_broker(lab, Scheme::Mqtt)?;
    let folder = world.own(&one);
    put(&folder, "10-note", 0o755, &noting(&folder))?;
    let key = world.key("team", &["office"], 2)?;
    let relay = world.enrolled(&two, &key)?;
    let service = world.enrolled(&one, &key)?;
    let password = world.saved(&one)?[0]["identity"]["password"].as_str().context("no password")?.to_owned();
    let gateway = node_id(&wait_pushed(&world, &two)?)?;
    let own = node_id(&wait_pushed(&world, &one)?)?;
    world.server.make_gateway("office", gateway, &[])?;
    world.server.assign_gateway("office", own, gateway)?;
    wait_for(&world, &one, "the relay", |status| status["networks"]["office"]["relay"]["name"] == "two")?;
    ended_with(&world.run(&one, &["down"])?, 0, "");
    ended_with(&world.run(&one, &["up"])?, 0, "");
    ended_with(&world.run(&one, &["leave"])?, 0, "");
    wait_words(&folder, &["joined", "up", "gateway-changed", "down", "up", "down", "left"])?;

    let told = told(&folder)?;

    let changed = &told.iter().find(|(word, _)| word == "gateway-changed").context("no gateway")?.1;
    assert_eq!(changed["networks"]["office"]["gateway"]["node_id"], gateway.to_string());
    let (_, joined) = &told[0];
    let host = world.own(&one).join("state/receipts.jsonl");
    assert_eq!((&joined["version"], &joined["event"]), (&1.into(), &"joined".into()));
    assert_eq!(joined["server"], world.server.addr().to_string());
    assert_eq!(joined["host"]["name"], "one");
    assert!(joined["networks"]["office"]["addresses"][0].is_string(), "{joined}");
    assert!(fs::read_to_string(host)?.contains(joined["host"]["id"].as_str().context("no host")?));
    assert!(!serde_json::to_string(joined)?.contains(&password), "a secret is told");
    stop(&service)?;
    stop(&relay)
}

fn hooks_of_a_command(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    // Those next to the common configuration, which commands read here.
    put(world.folder.path(), "10-note", 0o755, &noting(world.folder.path()))?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    wait_words(world.folder.path(), &["joined", "up"])?;
    serving.kill()?;

    // The interface went with its process.
    ended_with(&world.run(&node, &["leave"])?, 0, "");

    let words: Vec<_> = told(world.folder.path())?.into_iter().map(|(word, _)| word).collect();
    assert_eq!(words, ["joined", "up", "left"], "nobody has to wait for the hooks of a command that has ended");
    Ok(())
}

fn hooks_of_others(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let folder = world.own(&node);
    let script = |name: &str| format!("#!/bin/sh\ntouch {}/{name}\n", folder.display());
    put(&folder, "10-writable", 0o777, &script("ran-writable"))?;
    put(&folder, "20-plain", 0o644, &script("ran-plain"))?;
    put(&folder, "30-good", 0o755, &script("ran-good"))?;
    std::os::unix::fs::symlink("30-good", folder.join("hooks.d/40-link"))?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;

    eventually("the good one", DONE, || folder.join("ran-good").exists().then_some(()))?;

    logged(&service, &["10-writable", "others may write to it"])?;
    assert!(!folder.join("ran-writable").exists() && !folder.join("ran-plain").exists());
    fs::set_permissions(folder.join("hooks.d"), fs::Permissions::from_mode(0o777))?;
    ended_with(&world.run(&node, &["down"])?, 0, "");
    logged(&service, &["hooks are not run", "others may write to it"])?;
    stop(&service)
}

fn a_hook_that_fails_or_hangs(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let folder = world.own(&node);
    put(&folder, "10-fails", 0o755, "#!/bin/sh\nexit 7\n")?;
    put(&folder, "20-hangs", 0o755, "#!/bin/sh\nexec sleep 600\n")?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;

    wait_up(&world, &node)?;
    ended_with(&world.run(&node, &["down"])?, 0, "");
    ended_with(&world.run(&node, &["up"])?, 0, "");

    wait_up(&world, &node)?;
    logged(&service, &["10-fails", "a hook failed"])?;
    stop(&service)
}

/// Waits for a line in the service's log with all of `parts`.
fn logged(service: &Process, parts: &[&str]) -> Result<()> {
    let found = eventually("the log", DONE, || {
        let output = service.output().ok()?;
        output.stderr.iter().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    });
    found.with_context(|| format!("{:?}", service.output()))
}

/// A hook that writes down what it is told.
fn noting(folder: &Path) -> String {
    format!("#!/bin/sh\n{{ printf '%s ' \"$1\"; cat; }} >> {}/told\n", folder.display())
}

/// Puts a hook beside the configuration in `folder`.
pub(crate) fn put(folder: &Path, name: &str, mode: u32, text: &str) -> Result<()> {
    let hooks = folder.join("hooks.d");
    fs::create_dir_all(&hooks)?;
    fs::set_permissions(&hooks, fs::Permissions::from_mode(0o755))?;
    fs::write(hooks.join(name), text)?;
    Ok(fs::set_permissions(hooks.join(name), fs::Permissions::from_mode(mode))?)
}

/// Waits until hooks were told of these events, in this order, and no others.
fn wait_words(folder: &Path, words: &[&str]) -> Result<()> {
    let now = || -> Option<Vec<String>> { Some(told(folder).ok()?.into_iter().map(|(word, _)| word).collect()) };
    let found = eventually("the hooks", DONE, || (now()?.len() >= words.len()).then_some(()));
    found.with_context(|| format!("{:?}", now()))?;
    assert_eq!(now().unwrap_or_default(), words);
    Ok(())
}

/// What [`noting`] wrote down.
fn told(folder: &Path) -> Result<Vec<(String, Value)>> {
    let text = fs::read_to_string(folder.join("told"))?;
    let told = text.lines().map(|line| {
        let (word, document) = line.split_once(' ').context("no word")?;
        Ok((word.to_owned(), serde_json::from_str(document)?))
    });
    told.collect()
}
