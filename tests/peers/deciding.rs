//! What is decided without touching anything: from the server's document to a plan.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use enroll_agent::{
    control::{self, wire::HostPull},
    model::{Assignment, Device, Identity, InterfaceName, Policy, Surroundings},
    plan,
};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Costs, SIZES, assignment, key, membership};

/// Prints a table: reading the document, and planning from it without a change and with one.
pub(super) fn print() -> Result<()> {
    println!("deciding, milliseconds, median [min-max]; \"behind\" has a network behind every peer");
    for (count, rounds) in SIZES {
        let costs = measure(count, rounds)?;
        println!("{count:>6} peers");
        for (what, samples) in &costs.0 {
            println!("  {what:<8} {samples}");
        }
    }
    Ok(())
}

fn measure(count: u16, rounds: usize) -> Result<Costs> {
    let identity = membership().identity;
    let text = document(&assignment(count), &identity)?;
    let mut behind = assignment(count);
    for (number, peer) in (0_u16..).zip(behind.peers.values_mut()) {
        let [high, low] = number.to_be_bytes();
        peer.allowed_ips.insert(IpNet::new([10, 110 + high, low, 0].into(), 24)?);
    }
    let mut costs = Costs::default();
    for _ in 0..rounds {
        let start = Instant::now();
        let pull: HostPull = serde_json::from_slice(&text)?;
        let mut read = control::assignment(&pull, &identity)?;
        costs.add(vec![("read", start.elapsed())]);
        ensure!(read.peers.len() == usize::from(count), "{} peers of {count} were read", read.peers.len());
        for (what, assignment) in [("plan", &mut read), ("behind", &mut behind.clone())] {
            let have = plan(assignment, &identity)?;
            let start = Instant::now();
            let want = plan(assignment, &identity)?;
            let changes = plan::diff(Some(&have), &want);
            costs.add(vec![(what, start.elapsed())]);
            ensure!(changes.is_empty());
            let peer = assignment.peers.get_mut(&key(count / 2)).context("there is a peer in the middle")?;
            peer.persistent_keepalive = 25.try_into().ok();
            let start = Instant::now();
            let want = plan(assignment, &identity)?;
            let changes = plan::diff(Some(&have), &want);
            costs.add(vec![(if what == "plan" { "plan 1" } else { "behind 1" }, start.elapsed())]);
            ensure!(changes.len() == 1, "{} changes for one peer", changes.len());
        }
    }
    Ok(costs)
}

fn plan(assignment: &Assignment, identity: &Identity) -> Result<Device> {
    let (interface, surroundings) = (InterfaceName::numbered(0), Surroundings::default());
    let target = plan::target(assignment, &Policy::default(), &interface, &identity.private_key, &surroundings)?;
    Ok(plan::settle(target.device, None, None))
}

/// The recorded pull with these peers in it.
fn document(assignment: &Assignment, identity: &Identity) -> Result<Vec<u8>> {
    let mut pull: Value = serde_json::from_str(include_str!("../wire-examples/host-pull.json"))?;
    pull["host"]["id"] = json!(identity.host_id);
    pull["host"]["publickey"] = json!(identity.private_key.public_key().0);
    for node in pull["nodes"].as_array_mut().context("nodes")? {
        node["hostid"] = json!(identity.host_id);
    }
    let peers = assignment.peers.iter().map(|(public_key, peer)| {
        let allowed: Vec<_> =
            peer.allowed_ips.iter().map(|net| json!({"IP": net.addr(), "Mask": "/////w=="})).collect();
        let endpoint = peer.endpoint.map(|endpoint| json!({"IP": endpoint.ip(), "Port": endpoint.port(), "Zone": ""}));
        json!({
            "PublicKey": public_key.0, "Remove": false, "UpdateOnly": false, "PresharedKey": null, "Endpoint": endpoint,
            "PersistentKeepaliveInterval": null, "ReplaceAllowedIPs": true, "AllowedIPs": allowed,
        })
    });
    pull["peers"] = peers.collect();
    Ok(serde_json::to_vec(&pull)?)
}
