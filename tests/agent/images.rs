//! Copies of a machine: an identity stays on its machine, and images have none.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    lab::{Case, Exit, Lab, Missing, Node, Program},
    status::{bad_gateway, host_id, membership, stop, wait_for, wait_up},
    world::{DONE, World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_copy_is_quiet_and_enrolls_as_a_new_host_with_a_key", a_copy_is_quiet),
        ("a_copy_of_a_service_with_a_key_enrolls_by_itself", a_copy_with_a_key),
        ("a_machine_that_lost_its_id_or_was_never_bound_keeps_its_identity", a_machine_that_lost_its_id),
        ("a_moved_disk_is_held_until_the_server_has_answered", a_moved_disk),
        ("a_copied_disk_with_its_original_alive_is_out_of_use", a_copied_disk),
        ("the_hardware_is_known_by_a_credential_of_the_unit", the_hardware_by_credential),
        ("an_identity_that_is_held_is_given_up_for_a_new_one", an_identity_is_given_up),
        ("nothing_of_an_identity_is_left_for_an_image", nothing_is_left_for_an_image),
    ]
}

fn a_copy_is_quiet(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    pose(&world, &one, 'a', Some('1'))?;
    pose(&world, &two, 'b', Some('2'))?;
    let original = world.enrolled(&one, &key)?;
    let before = host_id(&wait_up(&world, &one)?)?;
    stop(&original)?;
    copy_state(&world, &one, &two)?;
    ended_with(&world.run(&two, &["status"])?, 9, "");
    ended_with(&world.run(&two, &["join", "--dry-run"])?, 9, "is a copy");
    assert_eq!(world.saved(&two)?.len(), 1, "nothing was changed yet");
    let requests = world.server.faults().observed().len();

    let copy = world.serve(&two, &[])?;

    let status = wait_for(&world, &two, "the copy's state", |status| status["state"] == "clone")?;
    assert_eq!(host_id(&status)?, before, "whose it was is shown");
    assert_eq!(world.run(&two, &["status"])?.exit, Some(Exit::Code(9)));
    ended_with(&world.run(&two, &["join"])?, 9, "--keep-identity");
    ended_with(&world.run(&two, &["sync"])?, 9, "is a copy");
    assert_eq!(world.server.faults().observed().len(), requests, "nothing was said to the server");
    assert!(no_interface(&two)?);
    let aside = aside(&world, &two)?;
    assert_eq!(fs::metadata(&aside)?.permissions().mode() & 0o777, 0o600);
    stop(&copy)?;

    let original = world.serve(&one, &[])?;
    let copy = world.serve(&two, &[])?;
    let joined = two.run(world.agent(&two, &["join", "-"]).stdin(&key), DONE)?;
    assert_eq!(joined.exit, Some(Exit::Code(0)), "{joined:?}");
    let own = host_id(&wait_up(&world, &two)?)?;
    assert_ne!(own, before);
    assert_eq!((world.server.hosts()?.len(), world.uses_left("team")?), (2, 0));
    assert_eq!(world.run(&one, &["sync"])?.exit, Some(Exit::Code(0)));
    wait_for(&world, &one, "the new host", |status| status["peers"].as_array().is_some_and(|peers| peers.len() == 1))?;
    assert_eq!(host_id(&membership(&world, &one)?)?, before, "the original is what it was");
    assert!(aside.exists());
    assert_eq!(world.run(&two, &["leave"])?.exit, Some(Exit::Code(0)));
    assert!(!aside.exists());
    assert_eq!(world.server.hosts()?.len(), 1, "only the copy's own host has left");
    stop(&copy)?;
    stop(&original)
}

fn a_copy_with_a_key(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    pose(&world, &one, 'a', Some('1'))?;
    pose(&world, &two, 'b', Some('2'))?;
    for node in [&one, &two] {
        world.configure(node, &format!("key = \"{key}\"\n"))?;
    }
    let original = world.serve(&one, &[])?;
    let before = host_id(&wait_up(&world, &one)?)?;
    copy_state(&world, &one, &two)?;

    let copy = world.serve(&two, &[])?;

    assert_ne!(host_id(&wait_up(&world, &two)?)?, before);
    assert_eq!(host_id(&wait_up(&world, &one)?)?, before);
    assert_eq!((world.server.hosts()?.len(), world.uses_left("team")?), (2, 0));
    stop(&copy)?;
    stop(&original)
}

fn a_machine_that_lost_its_id(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    pose(&world, &node, 'a', Some('1'))?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    let before = host_id(&wait_up(&world, &node)?)?;
    stop(&service)?;

    for (id, hardware) in [('b', Some('1')), ('b', None), ('c', None), ('c', Some('1'))] {
        pose(&world, &node, id, hardware)?;
        let service = world.serve(&node, &[])?;
        assert_eq!(host_id(&wait_up(&world, &node)?)?, before, "{id} {hardware:?}");
        stop(&service)?;
    }

    edit_saved(&world, &node, |saved| {
        saved.remove("binding");
        saved.remove("last_check_in");
    })?;
    pose(&world, &node, 'd', Some('4'))?;
    let service = world.serve(&node, &[])?;
    assert_eq!(host_id(&wait_up(&world, &node)?)?, before, "an agent of before bound nothing");
    stop(&service)?;
    let saved = &world.saved(&node)?[0];
    assert!(saved["binding"]["hashes"]["hardware-uuid"].is_string(), "it is bound now");
    assert!(saved["last_check_in"].is_u64());
    assert!(!saved.to_string().contains(&uuid('4')) && !saved.to_string().contains(&machine_id('d')));
    Ok(())
}

fn a_moved_disk(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    pose(&world, &node, 'a', Some('1'))?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    let before = host_id(&wait_up(&world, &node)?)?;
    let check_in = || anyhow::Ok(world.saved(&node)?[0]["last_check_in"].as_u64().context("no check-in")?);
    let first = check_in()?;
    world.server.faults().set_clock_skew(time::Duration::minutes(10));
    assert_eq!(world.run(&node, &["sync"])?.exit, Some(Exit::Code(0)));
    assert_eq!(check_in()?, first, "it is not written each time");
    stop(&service)?;
    assert!(check_in()? >= first + 600, "it is in the end");
    pose(&world, &node, 'a', Some('2'))?;
    world.server.faults().inject(usize::MAX, "/", bad_gateway());

    let service = world.serve(&node, &[])?;

    let held = wait_for(&world, &node, "the hold", |status| status["state"] == "held")?;
    assert_eq!(held["last_error"]["class"], "held", "{held}");
    assert!(no_interface(&node)?);
    assert_eq!(world.run(&node, &["status"])?.exit, Some(Exit::Code(9)));
    ended_with(&world.run(&node, &["join"])?, 9, "--keep-identity");
    ended_with(&world.run(&node, &["leave"])?, 9, "may be a copy");

    world.server.faults().clear();

    assert_eq!(host_id(&wait_up(&world, &node)?)?, before);
    stop(&service)?;
    world.server.faults().inject(usize::MAX, "/", bad_gateway());
    let service = world.serve(&node, &[])?;
    wait_up(&world, &node).context("it is bound to the new hardware")?;
    stop(&service)?;

    pose(&world, &node, 'a', Some('3'))?;
    let service = world.serve(&node, &[])?;
    wait_for(&world, &node, "the hold", |status| status["state"] == "held")?;
    let kept = world.run(&node, &["join", "--keep-identity"])?;
    assert_eq!(kept.exit, Some(Exit::Code(0)), "the owner decides without the server: {kept:?}");
    assert_eq!(host_id(&wait_up(&world, &node)?)?, before);
    stop(&service)
}

fn a_copied_disk(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    pose(&world, &one, 'a', Some('1'))?;
    pose(&world, &two, 'a', Some('2'))?;
    let original = world.enrolled(&one, &key)?;
    let before = host_id(&wait_up(&world, &one)?)?;
    copy_state(&world, &one, &two)?;
    // The original checks in long after the copy was made.
    world.server.faults().set_clock_skew(time::Duration::hours(2));
    assert_eq!(world.run(&one, &["sync"])?.exit, Some(Exit::Code(0)));

    let copy = world.serve(&two, &[])?;

    wait_for(&world, &two, "the copy's state", |status| status["state"] == "clone")?;
    assert!(no_interface(&two)?);
    assert_eq!(host_id(&wait_up(&world, &one)?)?, before);
    let spoken = world.server.faults().observed();
    let registered = spoken.iter().filter(|request| request.path.contains("/host/register")).count();
    assert_eq!(registered, 1, "{spoken:?}");
    stop(&original)?;

    // The owner knows better.
    let kept = world.run(&two, &["join", "--keep-identity"])?;
    assert_eq!(kept.exit, Some(Exit::Code(0)), "{kept:?}");
    assert_eq!(host_id(&wait_up(&world, &two)?)?, before);
    stop(&copy)?;
    let copy = world.serve(&two, &[])?;
    wait_up(&world, &two).context("that holds on")?;
    stop(&copy)
}

fn the_hardware_by_credential(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    pose(&world, &node, 'a', Some('1'))?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    stop(&service)?;
    pose(&world, &node, 'b', None)?;
    let credentials = world.own(&node).join("credentials");
    fs::create_dir_all(&credentials)?;
    let sync = |text: &str| {
        fs::write(credentials.join("product-uuid"), text)?;
        node.run(world.agent(&node, &["sync"]).env("CREDENTIALS_DIRECTORY", &credentials), DONE)
    };

    for known in ["unknown".to_owned(), uuid('1')] {
        // The machine is right, and userspace interfaces take an agent that serves.
        ended_with(&sync(&known)?, 3, "no agent is serving");
    }
    pose(&world, &node, 'c', None)?;
    ended_with(&sync(&uuid('2'))?, 9, "is a copy");
    Ok(())
}

fn an_identity_is_given_up(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    pose(&world, &node, 'a', Some('1'))?;
    let service = world.enrolled(&node, &key)?;
    let before = host_id(&wait_up(&world, &node)?)?;
    stop(&service)?;
    pose(&world, &node, 'a', Some('2'))?;
    world.server.faults().inject(usize::MAX, "/api/hosts/adm/authenticate", bad_gateway());
    ended_with(&world.start_join(&node, &key, &[])?.wait(DONE)?, 9, "may be a copy");
    world.server.faults().clear();

    let (serving, joined) = world.join(&node, &key, &["--new-identity"])?;

    assert_ne!(host_id(&joined)?, before);
    assert_eq!((world.server.hosts()?.len(), world.uses_left("team")?), (2, 0));
    assert!(aside(&world, &node)?.exists());
    stop(&serving)
}

fn nothing_is_left_for_an_image(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    let fresh = world.run(&node, &["prepare-image", "--check"])?;
    assert_eq!(fresh.exit, Some(Exit::Code(0)), "{fresh:?}");
    let service = world.enrolled(&node, &key)?;
    let before = host_id(&wait_up(&world, &node)?)?;
    ended_with(&world.run(&node, &["prepare-image"])?, 2, "stop it first");
    stop(&service)?;
    let aside = world.own(&node).join("state").join(".inherited-gone.example.net");
    fs::create_dir(&aside)?;
    fs::write(aside.join("membership.json"), "{}")?;
    let foreign = world.own(&node).join("state/notes.txt");
    fs::write(&foreign, "")?;
    let full = world.run(&node, &["prepare-image", "--check"])?;
    assert_eq!(full.exit, Some(Exit::Code(1)), "{full:?}");
    assert!(full.stdout.iter().any(|line| line.contains(&world.server.addr().port().to_string())), "{full:?}");

    let prepared = world.run(&node, &["prepare-image"])?;

    assert_eq!(prepared.exit, Some(Exit::Code(1)), "somebody's file is there: {prepared:?}");
    assert_eq!(prepared.stdout, [foreign.display().to_string()]);
    assert!(prepared.stderr.join("\n").contains("still lists this host"), "{prepared:?}");
    fs::remove_file(&foreign)?;
    assert_eq!(world.run(&node, &["prepare-image"])?.exit, Some(Exit::Code(0)));
    assert_eq!(world.run(&node, &["prepare-image", "--check"])?.exit, Some(Exit::Code(0)));
    let (serving, joined) = world.join(&node, &key, &[])?;
    assert_ne!(host_id(&joined)?, before);
    stop(&serving)
}

/// Gives the node's programs a machine-id and a hardware UUID to see; `None` hides the hardware.
fn pose(world: &World, node: &Node, id: char, hardware: Option<char>) -> Result<()> {
    let file = Path::new("/etc/machine-id");
    if !file.exists() {
        return Err(Missing("needs a machine-id to put another one over it".to_owned()).into());
    }
    let own = world.own(node);
    fs::create_dir_all(&own)?;
    let shown = own.join(format!("machine-id-{id}"));
    fs::write(&shown, format!("{}\n", machine_id(id)))?;
    let hardware = hardware.map_or_else(String::new, |sign| {
        format!("mkdir -p /sys/class/dmi/id; echo {} > /sys/class/dmi/id/product_uuid", uuid(sign))
    });
    let id = format!("mount --bind {} {}", shown.display(), file.display());
    let script = format!("{id}\nmount -t tmpfs none /sys/class\n{hardware}");
    let posed = node.run(Program::new("sh").args(["-e", "-c", &script]), DONE)?;
    ensure!(posed.exit == Some(Exit::Code(0)), "{posed:?}");
    Ok(())
}

fn machine_id(sign: char) -> String {
    format!("0123456789abcdef0123456789abcde{sign}")
}

fn uuid(sign: char) -> String {
    format!("4c4c4544-0042-3510-8052-b4c04f4d313{sign}")
}

/// Copies what an image of `from` would bring to `to`.
fn copy_state(world: &World, from: &Node, to: &Node) -> Result<()> {
    let (from, to) = (world.own(from).join("state"), world.own(to).join("state"));
    for entry in fs::read_dir(&from)? {
        let entry = entry?;
        let file = entry.path().join("membership.json");
        if file.exists() {
            let there = to.join(entry.file_name());
            fs::create_dir_all(&there)?;
            fs::copy(&file, there.join("membership.json"))?;
            // As by somebody careless.
            fs::set_permissions(there.join("membership.json"), fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// The file with what is out of use.
fn aside(world: &World, node: &Node) -> Result<std::path::PathBuf> {
    let folders = fs::read_dir(world.own(node).join("state"))?.filter_map(Result::ok);
    let mut aside = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with(".inherited-"));
    Ok(aside.next().context("nothing is kept aside")?.path().join("membership.json"))
}

fn edit_saved(world: &World, node: &Node, edit: impl Fn(&mut serde_json::Map<String, Value>)) -> Result<()> {
    for entry in fs::read_dir(world.own(node).join("state"))? {
        let file = entry?.path().join("membership.json");
        if file.exists() {
            let mut saved: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
            edit(saved.as_object_mut().context("no object")?);
            fs::write(&file, saved.to_string())?;
        }
    }
    Ok(())
}

fn no_interface(node: &Node) -> Result<bool> {
    Ok(node.interfaces()?.iter().all(|interface| !interface.name.starts_with("enroll")))
}
