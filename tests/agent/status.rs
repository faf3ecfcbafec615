//! Asking a serving agent, and waiting for what it should say.

use std::fs;

use anyhow::{Context, Result, ensure};
use enroll_agent::mock_server::{Broker, Fault, Inside, Login, Options, Scheme};
use nix::sys::signal::Signal;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    lab::{Exit, Lab, Node, Output, Process, eventually},
    world::{DONE, World},
};

/// A world whose server pushes.
pub(crate) fn with_broker(lab: &Lab, scheme: Scheme) -> Result<World> {
    let inside = Inside { listen: (Lab::V4, 0).into(), scheme, login: Login::Shared };
    World::with(lab, Options { broker: Some(Broker::Inside(inside)), ..Options::default() })
}

pub(crate) fn bad_gateway() -> Fault {
    Fault::Status { status: 502, body: String::new(), content_type: "text/plain".into() }
}

pub(crate) fn report(world: &World, node: &Node) -> Result<Value> {
    let output = world.run(node, &["status", "--json"])?;
    serde_json::from_str(&output.stdout.join("\n")).with_context(|| format!("{output:?}"))
}

pub(crate) fn membership(world: &World, node: &Node) -> Result<Value> {
    let report = report(world, node)?;
    ensure!(report["memberships"][0].is_object(), "no membership: {report}");
    Ok(report["memberships"][0].clone())
}

/// Waits until the only membership is as `is_it` wants it.
pub(crate) fn wait_for(world: &World, node: &Node, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = None;
    let found = eventually(what, DONE, || {
        let status = membership(world, node);
        let found = status.as_ref().ok().filter(|status| is_it(status)).cloned();
        last = Some(status);
        found
    });
    found.with_context(|| format!("{last:?}"))
}

pub(crate) fn wait_up(world: &World, node: &Node) -> Result<Value> {
    wait_for(world, node, "the interface", |status| status["state"] == "up")
}

pub(crate) fn wait_pushed(world: &World, node: &Node) -> Result<Value> {
    wait_for(world, node, "push", |status| status["contact"]["push"]["state"] == "connected")
}

pub(crate) fn peers(status: &Value) -> usize {
    status["peers"].as_array().map_or(0, Vec::len)
}

pub(crate) fn host_id(status: &Value) -> Result<Uuid> {
    Ok(status["host_id"].as_str().context("no host id")?.parse()?)
}

pub(crate) fn node_id(status: &Value) -> Result<Uuid> {
    Ok(status["networks"]["office"]["node_id"].as_str().context("no node id")?.parse()?)
}

pub(crate) fn stop(service: &Process) -> Result<()> {
    service.signal(Signal::SIGTERM)?;
    let output = service.wait(DONE)?;
    ensure!(output.exit == Some(Exit::Code(0)), "{output:?}");
    Ok(())
}

/// What a process holds.
#[derive(Debug)]
pub(crate) struct Footprint {
    pub(crate) files: usize,
    pub(crate) kilobytes: u64,
}

pub(crate) fn footprint(process: &Process) -> Result<Footprint> {
    let files = fs::read_dir(format!("/proc/{}/fd", process.pid()))?.count();
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no resident size")?;
    Ok(Footprint { files, kilobytes: resident.trim().trim_end_matches(" kB").parse()? })
}

/// What the doctor says in `node` about one thing.
pub(crate) fn verdict(world: &World, node: &Node, id: &str) -> Result<Value> {
    let told = json(&world.run(node, &["doctor", "--json"])?)?;
    Ok(check(&told, id)?["verdict"].clone())
}

/// The first check of that name.
pub(crate) fn check<'a>(told: &'a Value, id: &str) -> Result<&'a Value> {
    let checks = told["checks"].as_array().with_context(|| format!("no checks: {told}"))?;
    checks.iter().find(|check| check["id"] == id).with_context(|| format!("no check {id}: {told}"))
}

/// What a command printed.
pub(crate) fn json(output: &Output) -> Result<Value> {
    serde_json::from_str(&output.stdout.join("\n")).with_context(|| format!("{output:?}"))
}
