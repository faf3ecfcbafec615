//! What `wg` from wireguard-tools takes for the same.

use std::{
    fmt::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use enroll_agent::model::Assignment;
use rtnetlink::{Handle, LinkUnspec, LinkWireguard};

use super::key;

/// An interface that only `wg` configures.
pub(super) struct Reference(Handle);

impl Reference {
    /// Goes through what one round of ours does.
    pub(super) async fn round(assignment: &Assignment) -> Result<Vec<(&'static str, Duration)>> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        handle.link().add(LinkWireguard::new(NAME).build()).execute().await?;
        let reference = Self(handle);
        let file = std::env::temp_dir().join("peers.conf");
        std::fs::write(&file, configuration(assignment))?;
        let file = file.to_str().context("a path in UTF-8")?;
        let changed = key(u16::try_from(assignment.peers.len() / 2)?).to_string();
        let mut costs = vec![("setconf", wg(&["setconf", NAME, file])?)];
        let up = LinkUnspec::new_with_name(NAME).up().build();
        reference.0.link().set(up).execute().await?;
        costs.push(("syncconf", wg(&["syncconf", NAME, file])?));
        costs.push(("set", wg(&["set", NAME, "peer", &changed, "endpoint", "198.51.100.1:1"])?));
        costs.push(("dump", wg(&["show", NAME, "dump"])?));
        // With its peers on it the interface would take minutes to go.
        costs.push(("clear", wg(&["setconf", NAME, "/dev/null"])?));
        reference.0.link().del_with_message(LinkUnspec::new_with_name(NAME).build()).execute().await?;
        Ok(costs)
    }
}

fn wg(arguments: &[&str]) -> Result<Duration> {
    let start = Instant::now();
    let status = Command::new("wg").args(arguments).stdout(Stdio::null()).status().context("wg is not installed")?;
    ensure!(status.success(), "wg {arguments:?}: {status}");
    Ok(start.elapsed())
}

fn configuration(assignment: &Assignment) -> String {
    let mut text = format!("[Interface]\nPrivateKey = {}\nListenPort = 51999\n", BASE64.encode(&[8; 32]));
    for (public_key, peer) in &assignment.peers {
        let allowed: Vec<_> = peer.allowed_ips.iter().map(ToString::to_string).collect();
        let endpoint = peer.endpoint.map_or_else(String::new, |endpoint| format!("Endpoint = {endpoint}\n"));
        let allowed = allowed.join(", ");
        let written = write!(text, "[Peer]\nPublicKey = {public_key}\nAllowedIPs = {allowed}\n{endpoint}");
        written.expect("a string takes everything");
    }
    text
}

const NAME: &str = "wgref0";
