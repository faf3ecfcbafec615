//! Looking without touching: `inspect`, `join --dry-run` and `doctor`.

use anyhow::{Context, Result};
use enroll_agent::mock_server::NewKey;
use serde_json::Value;

use crate::{
    lab::{Case, Exit, Lab, Output, Program},
    world::{DONE, World, ended_with, new_key},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_key_is_inspected_without_its_server", a_key_is_inspected_without_its_server),
        ("a_server_is_asked_about_a_key_for_nothing", a_server_is_asked_about_a_key_for_nothing),
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

fn json(output: &Output) -> Result<Value> {
    serde_json::from_str(&output.stdout.join("\n")).with_context(|| format!("{output:?}"))
}

fn fingerprint(key: &str) -> Result<String> {
    Ok(key.parse::<enroll_agent::model::Token>()?.fingerprint())
}

/// Neither the key nor the value in it is in what was said.
fn reveals_nothing(output: &Output, key: &str) -> Result<()> {
    let inside: Value = serde_json::from_slice(&data_encoding::BASE64.decode(key.as_bytes())?)?;
    let value = inside["value"].as_str().context("no value")?;
    let said = format!("{output:?}");
    assert!(!said.contains(value) && !said.contains(key), "{said}");
    Ok(())
}
