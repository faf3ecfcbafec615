//! Bad input: a clear message, the exit code of its class, nothing lost and nothing half done.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result};
use data_encoding::BASE64;
use enroll_agent::mock_server::{Fault, Flaw, NewKey, Options, Tls};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::{
    lab::{Case, Lab, Node, Output},
    world::{DONE, World, ended_with, new_key},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_malformed_key_is_refused_before_anything_happens", a_malformed_key_is_refused),
        ("a_key_the_server_refuses_leaves_nothing", a_key_the_server_refuses_leaves_nothing),
        ("a_server_that_cannot_be_reached_costs_nothing", a_server_that_cannot_be_reached),
        ("a_server_that_answers_nonsense_is_temporary", a_server_that_answers_nonsense),
        ("a_lost_question_about_a_key_is_asked_again", a_lost_question_about_a_key),
        ("a_certificate_that_does_not_convince_costs_nothing", a_certificate_that_does_not_convince),
        ("an_interface_of_somebody_else_is_left_alone", an_interface_of_somebody_else),
        ("a_machine_without_any_backend_spends_nothing", a_machine_without_any_backend),
        ("a_port_of_somebody_else_is_noticed_first", a_port_of_somebody_else_is_noticed_first),
        ("an_unusable_assignment_changes_nothing", an_unusable_assignment_changes_nothing),
        ("wrong_settings_are_named", wrong_settings_are_named),
        ("damaged_state_is_never_replaced", damaged_state_is_never_replaced),
    ]
}

fn a_malformed_key_is_refused(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let without_server = BASE64.encode(br#"{"value":"AAAA"}"#);
    let without_value = BASE64.encode(br#"{"server":"a.example"}"#);

    for (key, said) in [
        ("no*base64", "not base64 at character 3"),
        ("aGVsbG8gd29ybGQ=", "does not hold a JSON object"),
        (without_server.as_str(), "has no \"server\" in it"),
        (without_value.as_str(), "has no \"value\" in it"),
        (&key[..key.len() / 2], "cut off"),
    ] {
        let output = world.run(&node, &["join", key])?;

        ended_with(&output, 5, said);
        ended_with(&output, 5, "ask your administrator");
    }
    assert!(world.saved(&node)?.is_empty() && world.server.faults().observed().is_empty());
    Ok(())
}

fn a_key_the_server_refuses_leaves_nothing(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let used_up = world.key("single", &["office"], 1)?;
    let (_serving, _) = world.join(&one, &used_up, &[])?;
    let deleted = world.server.create_key(new_key("deleted", &["office"]))?;
    world.server.delete_key(deleted.value.expose())?;
    let soon = enroll_agent::daemon::clock::unix_seconds() + 1;
    let expiring =
        NewKey { expiration: Some(i64::try_from(soon)?), unlimited: false, ..new_key("expiring", &["office"]) };
    let expiring = world.server.create_key(expiring)?;
    crate::lab::eventually("the key's end", DONE, || {
        (enroll_agent::daemon::clock::unix_seconds() > soon).then_some(())
    })?;

    for (key, said) in [
        (used_up.as_str(), "expired or was used as often as it may be"),
        (deleted.token.expose(), "it does not exist"),
        (expiring.token.expose(), "expired or was used as often as it may be"),
    ] {
        ended_with(&world.run(&two, &["join", key])?, 5, said);
        assert!(world.saved(&two)?.is_empty(), "an identity was left behind");
        assert_eq!(ours(&two)?, 0);
    }
    assert_eq!(world.server.hosts()?.len(), 1);
    Ok(())
}

fn a_server_that_cannot_be_reached(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = |server: &str| BASE64.encode(json!({"server": server, "value": "AAAA"}).to_string().as_bytes());
    let real = world.key("team", &["office"], 1)?;

    ended_with(&world.run(&node, &["join", &key("nowhere.invalid")])?, 75, "cannot resolve the name nowhere.invalid");
    ended_with(&world.run(&node, &["join", &key("10.213.0.1:9")])?, 75, "cannot connect to 10.213.0.1:9");
    world.server.faults().inject(1, "/api/v1/host/register", Fault::Delay(DONE));
    let slow = world.run(&node, &["join", "--timeout", "2", &real])?;
    ended_with(&slow, 75, "did not take this host in within 2 s");
    assert_eq!(ours(&node)?, 0);
    Ok(())
}

fn a_server_that_answers_nonsense(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let html = |status| Fault::Status { status, body: "<html>hi</html>".into(), content_type: "text/html".into() };
    let pull = "/api/v1/host?";

    for (path, fault, said) in [
        (pull, html(502), "answered 502"),
        (pull, html(200), "a web page instead of data"),
        (pull, html(403), "answered 403"),
        (pull, Fault::Truncate(40), "broke before the whole answer came"),
        (pull, Fault::EmptyOk, "an empty body"),
    ] {
        world.server.faults().inject(usize::MAX, path, fault);
        let output = world.run(&node, &["join", "--timeout", "3", &key])?;
        ended_with(&output, 75, said);
        world.server.faults().clear();
    }
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (0, 1));
    let (_serving, joined) = world.join(&node, &key, &[])?;
    assert_eq!(joined["state"], "up", "nothing was lost");
    Ok(())
}

fn a_lost_question_about_a_key(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;
    world.server.faults().inject(1, "/api/v1/host/register", Fault::DropBeforeCommit);
    let unclear = world.run(&node, &["join", "--timeout", "1", &key])?;
    // As if that were so long ago that the key may be sent at once, if only the server says that it has no such host.
    let file = world.own(&node).join("state").join(world.server.api()).join("membership.json");
    let mut saved: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    let sent_at = saved["phase"]["redeeming"]["sent_at"].as_u64().context("never sent")?;
    saved["phase"]["redeeming"]["sent_at"] = (sent_at - 60).into();
    fs::write(&file, saved.to_string())?;
    world.server.faults().inject(1, "/api/hosts/adm/authenticate", Fault::DropBeforeCommit);

    let (_serving, joined) = world.join(&node, &key, &[])?;

    ended_with(&unclear, 75, "did not take this host in");
    assert_eq!((joined["state"].as_str(), world.uses_left("team")?), (Some("up"), 1));
    Ok(())
}

fn a_certificate_that_does_not_convince(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    for (flaw, said) in [
        (Flaw::Expired, "has expired"),
        (Flaw::NotYetValid, "not valid yet by this machine's clock"),
        (Flaw::WrongName, "is for another name"),
        (Flaw::None, "signed by nobody this machine trusts"),
    ] {
        let world = World::with(lab, Options { tls: Tls { flaw, ..Tls::default() }, ..Options::default() })?;
        let key = world.key("team", &["office"], 1)?;
        if flaw == Flaw::None {
            let other = World::new(lab)?;
            fs::write(world.folder.path().join("ca.pem"), other.server.ca_pem())?;
        }

        let output = world.run(&node, &["join", "--timeout", "2", &key])?;

        ended_with(&output, 75, said);
        ended_with(&output, 75, "nothing was sent");
        assert_eq!((world.uses_left("team")?, world.saved(&node)?.len()), (1, 0));
    }
    Ok(())
}

fn an_interface_of_somebody_else(lab: &mut Lab) -> Result<()> {
    let (node, other) = (lab.node("one")?, lab.node("two")?);
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 2)?;

    let cable = world.run(&node, &["join", "--interface", "eth0", &key])?;
    let name = world.run(&node, &["join", "--interface", "a/b", &key])?;
    let (_serving, joined) = world.join(&other, &key, &[])?;
    let second = World::new(lab)?;
    let second_key = second.key("team", &["plant-a"], 1)?;
    let taken = second.run(&other, &["join", "--interface", "enroll0", &second_key])?;

    ended_with(&cable, 6, "interface eth0 belongs to something else");
    ended_with(&name, 2, "interface name");
    assert_eq!(joined["interface"], "enroll0");
    ended_with(&taken, 6, "interface enroll0 belongs to something else");
    assert_eq!((world.uses_left("team")?, second.uses_left("team")?), (1, 1));
    assert!(!node.ping(other.v4, 1, DONE)?.replies.is_empty(), "eth0 still works");
    Ok(())
}

fn a_machine_without_any_backend(lab: &mut Lab) -> Result<()> {
    // The hub's mounts are its own, and the node shares them.
    mount(Some("none"), "/dev/net", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;

    let output = world.run(&node, &["join", "--backend", "userspace", &key])?;

    ended_with(&output, 1, "no TUN device");
    ended_with(&output, 1, "/dev/net/tun");
    assert_eq!((world.uses_left("team")?, world.saved(&node)?.len()), (1, 0));
    Ok(())
}

fn a_port_of_somebody_else_is_noticed_first(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let (world, second) = (World::new(lab)?, World::new(lab)?);
    let key = second.key("team", &["plant-a"], 1)?;
    let (_serving, _) = world.join(&node, &world.key("team", &["office"], 1)?, &["--port", "40000"])?;

    let output = second.run(&node, &["join", "--port", "40000", &key])?;

    ended_with(&output, 1, "UDP port 40000 is in use");
    assert_eq!((second.uses_left("team")?, second.saved(&node)?.len()), (1, 0));
    let (_both, joined) = second.join(&node, &key, &[])?;
    assert_eq!((joined["interface"].as_str(), joined["state"].as_str()), (Some("enroll1"), Some("up")));
    Ok(())
}

fn an_unusable_assignment_changes_nothing(lab: &mut Lab) -> Result<()> {
    type Spoil = fn(&mut Value);
    let node = lab.node("one")?;
    let peer = lab.node("two")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office", "plant-a"], 2)?;
    let (_serving, _) = world.join(&peer, &key, &[])?;
    let cases: [(Spoil, &str); 7] = [
        (|pull| pull["nodes"][0]["address"]["IP"] = json!("300.1.1.1"), "invalid IP address: 300.1.1.1"),
        (|pull| pull["nodes"][0]["address"]["IP"] = json!("127.0.0.1"), "address 127.0.0.1"),
        (|pull| pull["nodes"][0]["address"] = pull["nodes"][1]["address"].clone(), "overlap"),
        (|pull| pull["host"]["mtu"] = json!(12), "MTU 12 is outside"),
        (|pull| pull["host"]["listenport"] = json!(70_000), "listen port 70000 is outside"),
        (|pull| pull["peers"][0]["Endpoint"]["Port"] = json!(-1), "port -1"),
        (two_peers_with_one_allowed_ip, "both claim"),
    ];
    for (spoil, said) in cases {
        world.server.faults().edit_pull(spoil);

        let output = world.run(&node, &["join", &key])?;

        ended_with(&output, 1, said);
        assert_eq!(ours(&node)?, 0, "an interface was left behind");
    }
    world.server.faults().edit_pull(|pull| {
        let own = pull["host"]["publickey"].clone();
        let mut mirror = pull["peers"][0].clone();
        mirror["PublicKey"] = own;
        pull["peers"].as_array_mut().expect("peers is a list").push(mirror);
    });
    let (_serving, joined) = world.join(&node, &key, &[])?;
    assert_eq!(joined["peers"].as_array().map(Vec::len), Some(1));
    let remark = joined["remarks"][0].as_str().context("no remark")?;
    assert!(remark.contains("own key"), "{remark}");
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (0, 2), "all of it was one enrollment");
    Ok(())
}

fn two_peers_with_one_allowed_ip(pull: &mut Value) {
    let mut twin = pull["peers"][0].clone();
    twin["PublicKey"] = json!(vec![7; 32]);
    pull["peers"].as_array_mut().expect("peers is a list").push(twin);
}

fn wrong_settings_are_named(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let open = world.folder.path().join("open.key");
    fs::write(&open, &key)?;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644))?;
    let wrong = world.folder.path().join("wrong.toml");
    fs::write(&wrong, "prot = 7\n")?;
    let open = open.to_string_lossy();
    let wrong = wrong.to_string_lossy();
    let run = |arguments: &[&str]| -> Result<Output> { world.run(&node, arguments) };

    ended_with(&run(&["join", "--key-file", &open])?, 78, "chmod 600");
    ended_with(&run(&["join", "--key-file", "/nonexistent"])?, 78, "cannot read /nonexistent");
    ended_with(&run(&["join", "--config", &wrong, &key])?, 78, "unknown field `prot`");
    ended_with(&run(&["join", "--ca-file", "/nonexistent", &key])?, 78, "/nonexistent");
    ended_with(&run(&["join", "--ca-file", &open, &key])?, 78, "holds no PEM certificate");
    ended_with(&run(&["join", "--mtu", "100", &key])?, 2, "100");
    ended_with(&run(&["join", "--port", "0", &key])?, 2, "0");
    ended_with(&run(&["join", "--endpoint", "example.net", &key])?, 78, "is not IP or IP:PORT");
    ended_with(&run(&["join"])?, 2, "no enrollment key given");
    ended_with(&run(&["joyn", &key])?, 2, "joyn");
    let misplaced = run(&[&key])?;
    assert!(!misplaced.stderr.join("\n").contains(&key), "the key was repeated");
    assert_eq!((world.uses_left("team")?, world.saved(&node)?.len()), (1, 0));
    Ok(())
}

fn damaged_state_is_never_replaced(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let (serving, _) = world.join(&node, &key, &[])?;
    serving.kill()?;
    let file = world.folder.path().join("one/state").join(world.server.api()).join("membership.json");

    for (text, said) in [("{\"version\":1", "is damaged"), ("{\"version\":99}", "has format 99")] {
        fs::write(&file, text)?;

        ended_with(&world.run(&node, &["join", &key])?, 1, said);
        assert_eq!(fs::read_to_string(&file)?, text);
    }
    Ok(())
}

fn ours(node: &Node) -> Result<usize> {
    Ok(node.interfaces()?.iter().filter(|interface| interface.name.starts_with("enroll")).count())
}
