//! Receipts: what happened is kept, nothing secret is, and who changes it is found out.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    lab::{Case, Lab, Node},
    status::bad_gateway,
    world::{World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("receipts_tell_the_whole_story", receipts_tell_the_whole_story),
        ("a_changed_receipt_is_found", a_changed_receipt_is_found),
        ("a_receipt_torn_by_a_crash_is_repaired", a_torn_receipt_is_repaired),
        ("an_image_carries_no_receipts", an_image_carries_no_receipts),
    ]
}

fn receipts_tell_the_whole_story(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (dead, spare) = (world.key("dead", &["office"], 1)?, world.key("team", &["office"], 1)?);
    world.server.disable_key(&world.key_id("dead")?)?;
    let refused = world.start_join(&node, &dead, &[])?.wait(crate::world::DONE)?;
    ended_with(&refused, 5, "refused");
    let (serving, joined) = world.join(&node, &spare, &[])?;
    let further = world.key("further", &["plant-a"], 1)?;
    let (_, _) = world.join(&node, &further, &[])?;
    let saved = world.saved(&node)?;
    ended_with(&world.run(&node, &["rotate-keys"])?, 0, "");
    world.server.faults().inject(usize::MAX, "/", bad_gateway());
    ended_with(&world.run(&node, &["leave"])?, 0, "told later");
    world.server.faults().clear();
    ended_with(&world.run(&node, &["leave"])?, 0, "");
    drop(serving);

    let receipts = receipts(&world, &node)?;

    let words: Vec<_> = receipts.iter().filter_map(|receipt| receipt["event"].as_str()).collect();
    let told = ["refused", "joined", "key-redeemed", "networks-changed", "keys-rotated", "left", "signed-off"];
    assert_eq!(words, told);
    assert_eq!(receipts[1]["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(receipts[1]["networks"]["office"]["addresses"], joined["networks"]["office"]["addresses"]);
    assert_eq!(receipts[3]["networks"].as_object().map(serde_json::Map::len), Some(2));
    let file = fs::read_to_string(path(&world, &node))?;
    let mode = fs::metadata(path(&world, &node))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let identity = &saved[0]["identity"];
    let secrets = [&identity["password"], &identity["private_key"], &identity["traffic"]["private_key"]];
    for secret in secrets.into_iter().filter_map(Value::as_str).chain([&*dead, &*spare, &*further]) {
        assert!(!file.contains(secret), "a secret is kept");
    }
    ended_with(&world.run(&node, &["receipts", "--verify"])?, 0, "");
    Ok(())
}

fn a_changed_receipt_is_found(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    ended_with(&world.run(&node, &["leave"])?, 0, "");
    serving.wait(crate::world::DONE)?;
    let good = fs::read_to_string(path(&world, &node))?;

    fs::write(path(&world, &node), good.replacen("\"event\":\"left\"", "\"event\":\"held\"", 1))?;
    let changed = world.run(&node, &["receipts", "--verify"])?;
    let first = good.find('\n').context("no line")? + 1;
    let second = first + good[first..].find('\n').context("one line only")? + 1;
    fs::write(path(&world, &node), format!("{}{}", &good[..first], &good[second..]))?;
    let removed = world.run(&node, &["receipts", "--verify", "--json"])?;

    ended_with(&changed, 1, "line 2 of receipts.jsonl was changed");
    ended_with(&removed, 1, "line 2 of receipts.jsonl does not follow the one before");
    let said: Value = serde_json::from_str(&removed.stdout.join("\n"))?;
    assert_eq!(said["broken"], "line 2 of receipts.jsonl does not follow the one before");
    Ok(())
}

fn a_torn_receipt_is_repaired(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    let good = fs::read_to_string(path(&world, &node))?;
    fs::write(path(&world, &node), format!("{good}{}", &good[..good.len() / 2]))?;

    ended_with(&world.run(&node, &["receipts", "--verify"])?, 0, "");
    ended_with(&world.run(&node, &["leave"])?, 0, "");
    serving.wait(crate::world::DONE)?;

    ended_with(&world.run(&node, &["receipts", "--verify"])?, 0, "");
    let words: Vec<_> = receipts(&world, &node)?.iter().map(|receipt| receipt["event"].clone()).collect();
    assert_eq!(words, ["joined", "left", "signed-off"]);
    Ok(())
}

fn an_image_carries_no_receipts(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let (serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &[])?;
    serving.kill()?;
    world.server.faults().inject(usize::MAX, "/", bad_gateway());
    ended_with(&world.run(&node, &["leave"])?, 0, "told later");
    ended_with(&world.run(&node, &["prepare-image", "--check"])?, 1, "");

    let prepared = world.run(&node, &["prepare-image"])?;

    ended_with(&prepared, 0, "still lists this host");
    assert_eq!(fs::read_dir(world.own(&node).join("state"))?.count(), 0);
    Ok(())
}

fn receipts(world: &World, node: &Node) -> Result<Vec<Value>> {
    let output = world.run(node, &["receipts", "--json"])?;
    let document: Value = serde_json::from_str(&output.stdout.join("\n")).with_context(|| format!("{output:?}"))?;
    Ok(document["receipts"].as_array().context("no receipts")?.clone())
}

fn path(world: &World, node: &Node) -> PathBuf {
    world.own(node).join("state/receipts.jsonl")
}
