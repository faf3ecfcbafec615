//! Leaving: the server, the interface, the state.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    lab::{Case, Exit, Lab, Node, eventually},
    status::{bad_gateway, report, stop},
    world::{DONE, World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("leaving_ends_everywhere", leaving_ends_everywhere),
        ("leaving_one_network_keeps_the_other", leaving_one_network_keeps_the_other),
        ("leaving_without_a_serving_agent", leaving_without_a_serving_agent),
        ("leaving_goes_on_without_the_server", leaving_goes_on_without_the_server),
        ("a_service_signs_off_when_the_server_is_back_over_restarts", a_service_signs_off),
        ("a_sign_off_without_a_service_is_made_by_the_next_command", a_sign_off_without_a_service),
        ("a_sign_off_can_be_dropped", a_sign_off_can_be_dropped),
        ("joining_after_leaving_offline_is_a_new_host", joining_after_leaving_offline),
        ("a_leave_that_was_interrupted_is_finished", a_leave_that_was_interrupted),
        ("a_host_that_the_server_does_not_know_is_signed_off", a_host_that_the_server_does_not_know),
        ("leaving_nothing_is_not_enrolled", leaving_nothing_is_not_enrolled),
    ]
}

fn leaving_ends_everywhere(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;

    let left = world.run(&node, &["leave"])?;

    assert_eq!(left.exit, Some(Exit::Code(0)), "{left:?}");
    assert_eq!(serving.wait(DONE)?.exit, Some(Exit::Code(0)));
    assert_eq!((world.server.hosts()?.len(), world.saved(&node)?.len(), interfaces(&node)?), (0, 0, 0));
    Ok(())
}

fn leaving_one_network_keeps_the_other(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (_serving, _) = world.join(&node, &world.key("team", &["office", "plant-a"], 1)?, &[])?;

    let left = world.run(&node, &["leave", "office"])?;
    let unknown = world.run(&node, &["leave", "office"])?;

    assert_eq!(left.exit, Some(Exit::Code(0)), "{left:?}");
    ended_with(&unknown, 3, "not in network office");
    let nodes: Vec<_> = world.server.nodes()?.into_iter().map(|node| node.network).collect();
    assert_eq!(nodes, ["plant-a"]);
    let networks: Vec<_> = world.saved(&node)?[0]["phase"]["assignment"]["nodes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(networks, ["plant-a"]);
    Ok(())
}

fn leaving_without_a_serving_agent(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    serving.kill()?;

    // What was given to join is saved with the membership.
    let left = node.run(world.agent(&node, &["leave"]).env_remove("ENROLL_AGENT_CA_FILE"), DONE)?;

    assert_eq!(left.exit, Some(Exit::Code(0)), "{left:?}");
    assert_eq!((world.server.hosts()?.len(), world.saved(&node)?.len(), interfaces(&node)?), (0, 0, 0));
    Ok(())
}

fn leaving_goes_on_without_the_server(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    world.server.faults().inject(usize::MAX, "/", bad_gateway());

    let left = world.run(&node, &["leave"])?;

    ended_with(&left, 0, "it is told later that host");
    assert_eq!(serving.wait(DONE)?.exit, Some(Exit::Code(0)));
    assert_eq!((world.server.hosts()?.len(), world.saved(&node)?.len(), interfaces(&node)?), (1, 0, 0));
    let shown = report(&world, &node)?;
    assert_eq!(shown["leaving"][0]["server"], world.server.addr().to_string(), "{shown}");
    assert_eq!(queued(&world, &node)?.len(), 1);
    Ok(())
}

fn a_service_signs_off(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    world.server.faults().inject(usize::MAX, "/", bad_gateway());

    let left = world.run(&node, &["leave"])?;

    ended_with(&left, 0, "it is told later that host");
    assert_eq!((world.saved(&node)?.len(), interfaces(&node)?), (0, 0));
    let again = world.run(&node, &["leave"])?;
    ended_with(&again, 0, "it is told later that host");
    eventually("a failed attempt", DONE, || {
        let shown = report(&world, &node).ok()?;
        shown["leaving"][0]["last_error"].is_object().then_some(())
    })?;
    service.kill()?;
    let service = world.serve(&node, &[])?;
    assert_eq!(queued(&world, &node)?.len(), 1, "it is still to be done");
    assert_eq!(world.server.hosts()?.len(), 1);
    world.server.faults().clear();
    eventually("the sign-off", DONE, || {
        (world.server.hosts().ok()?.is_empty() && queued(&world, &node).ok()?.is_empty()).then_some(())
    })?;
    ended_with(&world.run(&node, &["status"])?, 3, "not enrolled");
    ended_with(&world.run(&node, &["leave"])?, 3, "not enrolled");
    stop(&service)
}

fn a_sign_off_without_a_service(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let password = left_offline(&world, &node)?;
    let [file] = &queued(&world, &node)?[..] else { anyhow::bail!("not queued") };
    let text = fs::read_to_string(file)?;
    assert!(text.contains(&password) && !text.contains("private_key"), "no more than it takes: {text}");
    assert_eq!(fs::metadata(file)?.permissions().mode() & 0o777, 0o600);

    let still = world.run(&node, &["sync"])?;
    world.server.faults().clear();
    let synced = world.run(&node, &["sync"])?;

    ended_with(&still, 75, "");
    ended_with(&synced, 0, "");
    assert_eq!((world.server.hosts()?.len(), queued(&world, &node)?.len()), (0, 0));
    Ok(())
}

fn a_sign_off_can_be_dropped(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    left_offline(&world, &one)?;
    world.server.faults().clear();

    let dropped = world.run(&one, &["leave", "--forget"])?;
    let key = world.key("other", &["office"], 1)?;
    let service = world.enrolled(&two, &key)?;
    let forgotten = world.run(&two, &["leave", "--forget"])?;

    for output in [&dropped, &forgotten] {
        ended_with(output, 0, "its administrator has to remove it there");
    }
    assert_eq!((queued(&world, &one)?.len(), queued(&world, &two)?.len()), (0, 0));
    assert_eq!((world.saved(&two)?.len(), interfaces(&two)?), (0, 0));
    assert_eq!(world.server.hosts()?.len(), 2, "nobody was told");
    ended_with(&world.run(&one, &["leave"])?, 3, "not enrolled");
    stop(&service)
}

fn joining_after_leaving_offline(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let hosts = |world: &World| -> Result<Vec<_>> { Ok(world.server.hosts()?.iter().map(|host| host.id).collect()) };
    left_offline(&world, &node)?;
    let first = hosts(&world)?;
    world.server.faults().clear();

    // The server takes this host in, and does not take leave of the one before.
    world.server.faults().inject(usize::MAX, &format!("/api/hosts/{}", first[0]), bad_gateway());
    let (serving, _) = world.join(&node, &world.key("second", &["office"], 1)?, &[])?;
    serving.kill()?;
    let both = hosts(&world)?;
    let waiting = queued(&world, &node)?.len();
    world.server.faults().clear();
    let (serving, _) = world.join(&node, &world.key("third", &["office"], 1)?, &[])?;
    serving.kill()?;
    let last = hosts(&world)?;

    assert_eq!((both.len(), waiting), (2, 1), "an identity of its own");
    assert_eq!((last.len(), last.contains(&first[0]), queued(&world, &node)?.len()), (1, false, 0));
    assert!(both.contains(&last[0]), "the second host is the one that stays");
    Ok(())
}

fn a_leave_that_was_interrupted(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    serving.kill()?;
    let server = world.server.addr().to_string();
    let folder = world.own(&node).join("state").join(&server);
    let saved = fs::read(folder.join("membership.json"))?;
    world.server.faults().inject(usize::MAX, "/", bad_gateway());
    ended_with(&world.run(&node, &["leave"])?, 0, "it is told later");

    // As if the process had been killed between the queue and the end of what is saved.
    fs::create_dir(&folder)?;
    fs::write(folder.join("membership.json"), &saved)?;
    let shown = report(&world, &node)?;
    assert_eq!(shown["memberships"].as_array().map(Vec::len), Some(0), "it is not enrolled any more: {shown}");
    let service = world.serve(&node, &[])?;

    assert_eq!((world.saved(&node)?.len(), interfaces(&node)?), (0, 0));
    world.server.faults().clear();
    eventually("the sign-off", DONE, || world.server.hosts().ok()?.is_empty().then_some(()))?;
    stop(&service)
}

fn a_host_that_the_server_does_not_know(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    left_offline(&world, &node)?;
    let host = world.server.hosts()?.first().context("no host")?.id;
    world.server.delete_host(host)?;
    world.server.faults().clear();

    let left = world.run(&node, &["leave"])?;

    ended_with(&left, 0, "");
    assert_eq!(queued(&world, &node)?.len(), 0);
    Ok(())
}

fn leaving_nothing_is_not_enrolled(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;

    ended_with(&world.run(&node, &["leave"])?, 3, "not enrolled");
    Ok(())
}

fn interfaces(node: &Node) -> Result<usize> {
    Ok(node.interfaces()?.iter().filter(|interface| interface.name.starts_with("enroll")).count())
}

/// Joins and leaves while the server is away, and nobody serves; returns the host's password.
fn left_offline(world: &World, node: &Node) -> Result<String> {
    let (serving, _) = world.join(node, &world.key(&node.name, &["office"], 1)?, &[])?;
    let password = world.saved(node)?[0]["identity"]["password"].as_str().context("no password")?.to_owned();
    serving.kill()?;
    world.server.faults().inject(usize::MAX, "/", bad_gateway());
    ended_with(&world.run(node, &["leave"])?, 0, "it is told later that host");
    Ok(password)
}

/// The sign-offs that wait in `node`.
fn queued(world: &World, node: &Node) -> Result<Vec<PathBuf>> {
    let entries: Vec<_> = fs::read_dir(world.own(node).join("state"))?.collect::<Result<_, _>>()?;
    let paths = entries.into_iter().map(|entry| entry.path());
    let is_leaving = |path: &PathBuf| path.to_string_lossy().contains("/.leaving-");
    Ok(paths.filter(is_leaving).collect())
}
