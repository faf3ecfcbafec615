//! Leaving: the server, the interface, the state.

use anyhow::Result;
use enroll_agent::mock_server::Fault;

use crate::{
    lab::{Case, Exit, Lab, Node},
    world::{DONE, World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("leaving_ends_everywhere", leaving_ends_everywhere),
        ("leaving_one_network_keeps_the_other", leaving_one_network_keeps_the_other),
        ("leaving_without_a_serving_agent", leaving_without_a_serving_agent),
        ("leaving_goes_on_without_the_server", leaving_goes_on_without_the_server),
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
    let down = Fault::Status { status: 503, body: String::new(), content_type: "text/plain".into() };
    world.server.faults().inject(usize::MAX, "/", down);

    let left = world.run(&node, &["leave"])?;

    ended_with(&left, 75, "could not tell the server");
    assert_eq!(serving.wait(DONE)?.exit, Some(Exit::Code(0)));
    assert_eq!((world.server.hosts()?.len(), world.saved(&node)?.len(), interfaces(&node)?), (1, 0, 0));
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
