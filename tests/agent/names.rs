//! Names of the networks, on machines whose programs have nobody to ask for them.
//!
//! The lab has no resolver of its own: `.ci/names` tries the agent with systemd-resolved.

use anyhow::{Result, ensure};
use enroll_agent::mock_server::{Broker, Inside, Login, Names, Options, Scheme};
use serde_json::{Value, json};

use crate::{
    lab::{Case, Exit, Lab},
    status::{membership, peers, stop, wait_for, wait_pushed},
    world::World,
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("names_are_told_where_the_broker_pushes_them_and_where_it_does_not", names_are_told),
        ("domains_that_would_take_a_machine_over_are_refused", domains_are_refused),
        ("nothing_is_said_about_names_where_the_server_manages_none", nothing_is_said),
    ]
}

fn names_are_told(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    for broker in [true, false] {
        let world = managed(lab, broker)?;
        let key = world.key("team", &["office"], 2)?;
        let service = world.serve(&one, &["--poll", "1"])?;
        let joined = one.run(world.agent(&one, &["join", "-"]).stdin(&key), crate::world::DONE)?;
        ensure!(joined.exit == Some(Exit::Code(0)), "{joined:?}");
        if broker {
            wait_pushed(&world, &one)?;
        }

        let (second, _) = world.join(&two, &key, &[])?;

        let status = wait_for(&world, &one, "both names", |status| status["dns"]["hosts"] == 2 && peers(status) == 1)?;
        let domains = ["0.202.10.in-addr.arpa", "0.0.0.0.0.0.0.0.2.0.2.0.0.0.d.f.ip6.arpa", "office.nm.internal"];
        let listed = status["dns"]["domains"].as_array().cloned().unwrap_or_default();
        ensure!(domains.iter().all(|domain| listed.contains(&json!(domain))), "{status}");
        // Nobody asks for them here, and nothing else suffers from it.
        ensure!(status["dns"]["manager"].is_null() && status["state"] == "up", "{status}");
        let text = world.run(&one, &["status"])?;
        ensure!(text.exit == Some(Exit::Code(0)), "{text:?}");
        let note = "names: names are not resolved here: neither systemd-resolved nor openresolv serves this machine";
        ensure!(text.stdout.iter().any(|line| line == note), "{text:?}");
        second.kill()?;
        stop(&service)?;
        for node in [&one, &two] {
            std::fs::remove_dir_all(world.own(node))?;
        }
    }
    Ok(())
}

fn domains_are_refused(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = managed(lab, true)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;
    wait_pushed(&world, &node)?;
    let domains = ["corp.example", "com"].map(|domain| json!({ "domain": domain }));
    let servers = json!({
        "name": "corp", "network_id": "office", "servers": ["10.202.0.53"], "domains": domains, "tags": { "*": {} },
    });

    let answer = world.admin(lab, "POST", "/api/v1/nameserver", &servers)?;
    ensure!(answer == 200, "the server says {answer}");

    let has = |status: &Value, domain: &str| {
        status["dns"]["domains"].as_array().is_some_and(|domains| domains.contains(&json!(domain)))
    };
    let status = wait_for(&world, &node, "the domain", |status| has(status, "corp.example"))?;
    ensure!(!has(&status, "com") && status["dns"]["everything"] == false, "{status}");
    let remarks = status["remarks"].to_string();
    ensure!(remarks.contains("names in com are not asked where the server says"), "{remarks}");
    stop(&service)?;

    let service = world.serve(&node, &["--dns", "off"])?;
    let status =
        wait_for(&world, &node, "nothing", |status| status["dns"]["mode"] == "off" && status["state"] == "up")?;
    ensure!(status["dns"]["domains"] == json!([]) && status["remarks"] == json!([]), "{status}");
    stop(&service)
}

fn nothing_is_said(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let service = world.enrolled(&node, &world.key("team", &["office"], 1)?)?;

    ensure!(membership(&world, &node)?["dns"].is_null());
    // What a unit does after its service finds nothing to do.
    let released = world.run(&node, &["release-names"])?;
    ensure!(released.exit == Some(Exit::Code(0)), "{released:?}");
    stop(&service)
}

/// A world whose server tells names.
fn managed(lab: &Lab, broker: bool) -> Result<World> {
    let inside = Inside { listen: (Lab::V4, 0).into(), scheme: Scheme::Mqtt, login: Login::Shared };
    let broker = broker.then_some(Broker::Inside(inside));
    World::with(lab, Options { broker, names: Names::Managed, ..Options::default() })
}
