//! What packages need of the program when they are installed and removed.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::Result;

use crate::{
    lab::{Case, Lab, Program},
    status::{stop, wait_up},
    world::{DONE, World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_removed_package_leaves_memberships_that_its_next_installation_serves", a_removed_package),
        ("the_unit_says_where_the_configuration_is", the_unit_says_where),
    ]
}

fn a_removed_package(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    ended_with(&world.run(&node, &["down", "--until-start"])?, 0, "");
    assert!(world.saved(&node)?.is_empty());
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    ended_with(&world.run(&node, &["down", "--until-start"])?, 2, "an agent is serving");
    wait_up(&world, &node)?;
    stop(&service)?;
    let before = world.saved(&node)?;

    ended_with(&world.run(&node, &["down", "--until-start"])?, 0, "");

    assert_eq!(world.saved(&node)?, before);
    let service = world.serve(&node, &[])?;
    wait_up(&world, &node)?;
    stop(&service)
}

fn the_unit_says_where(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let folder = world.own(&node).join("etc");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("agent.toml"), "poll = 121\n")?;
    fs::set_permissions(folder.join("agent.toml"), fs::Permissions::from_mode(0o600))?;
    let run = Program::new(env!("CARGO_BIN_EXE_agent")).arg("run").env("CONFIGURATION_DIRECTORY", &folder);

    ended_with(&node.run(run, DONE)?, 78, "poll must be 1 to 120");
    Ok(())
}
