//! A fleet in the lab: the enrollment server in the hub, and machines that run the real `agent`, one per node.

#![expect(clippy::allow_attributes, reason = "an expectation would be unmet in the one program that uses everything")]
#![allow(dead_code, reason = "each test program uses its own part of the fleet")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::{IpAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use enroll_agent::mock_server::{self, Handle, Options};
use ipnet::IpNet;
use serde::Deserialize;
use uuid::Uuid;

use super::lab::{Exit, Lab, Node, Output, Process, Program, eventually};

/// The enrollment server, in the hub, with its state in memory.
pub(crate) struct Server {
    /// What an administrator may do.
    pub(crate) admin: Handle,
    /// The certificate authority to trust.
    pub(crate) ca_file: PathBuf,
}

impl Server {
    /// Starts the server where every node reaches it.
    ///
    /// # Errors
    /// If the port is taken or the server cannot start.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let listener = TcpListener::bind((Lab::V4, 0)).context("cannot listen in the hub")?;
        let options = Options { server_name: "lab".to_owned(), ..Options::default() };
        let admin = lab.block_on(mock_server::start(listener, options))?;
        let ca_file = lab.folder("server")?.join("ca.pem");
        fs::write(&ca_file, admin.ca_pem())?;
        Ok(Self { admin, ca_file })
    }
}

/// A machine with an agent, whose files are in a folder of its own.
pub(crate) struct Machine {
    /// Configuration, state, sockets and key of this machine.
    pub(crate) folder: PathBuf,
    /// Where it is.
    pub(crate) node: Node,
}

impl Machine {
    /// Adds a machine to the lab on which nothing is enrolled.
    ///
    /// # Errors
    /// If the lab cannot make a node, or the file system no folder.
    pub(crate) fn new(lab: &mut Lab, name: &str) -> Result<Self> {
        let folder = lab.folder(name)?;
        fs::write(folder.join("agent.toml"), "")?;
        Ok(Self { folder, node: lab.node(name)? })
    }

    /// Names the agent with a command and this machine's places.
    pub(crate) fn agent(&self, command: &str) -> Program {
        let places = [("config", "agent.toml"), ("runtime-dir", "run"), ("state-dir", "state")];
        let places = places.map(|(flag, name)| format!("--{flag}={}", self.folder.join(name).display()));
        Program::new(env!("CARGO_BIN_EXE_agent")).arg(command).arg("--json").args(places)
    }

    /// Starts `agent join` with a key on the embedded data plane; the process goes on serving when it has joined.
    ///
    /// # Errors
    /// If the key cannot be written or the node is gone.
    pub(crate) fn join(&self, server: &Server, token: &str) -> Result<Process> {
        let key_file = self.folder.join("key");
        fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&key_file)?
            .write_all(token.as_bytes())?;
        let flags = [
            ("backend", "userspace".to_owned()),
            ("ca-file", server.ca_file.display().to_string()),
            ("endpoint", self.node.v4.to_string()),
            ("interface", "enroll0".to_owned()),
            ("key-file", key_file.display().to_string()),
            ("name", self.node.name.clone()),
        ];
        self.node.spawn(self.agent("join").args(flags.map(|(flag, value)| format!("--{flag}={value}"))))
    }

    /// Asks the serving agent how things are.
    ///
    /// # Errors
    /// If it does not answer with exactly one membership.
    pub(crate) fn status(&self) -> Result<Status> {
        let Output { stdout, stderr, exit } = self.node.run(self.agent("status"), ANSWER)?;
        let context = || format!("agent status: {exit:?}\n{}\n{}", stdout.join("\n"), stderr.join("\n"));
        let Memberships { memberships: [status] } = serde_json::from_str(&stdout.join("\n")).with_context(context)?;
        Ok(status)
    }

    /// Waits until the agent has what `is_it` asks for, and returns how things are then.
    ///
    /// # Errors
    /// If that takes longer than `deadline`; the message has the last answer.
    pub(crate) fn wait_for(&self, what: &str, deadline: Duration, is_it: impl Fn(&Status) -> bool) -> Result<Status> {
        let mut last = None;
        let found = eventually(what, deadline, || {
            let status = self.status();
            let found = status.as_ref().is_ok_and(&is_it);
            last = Some(status);
            found.then(|| last.take()).flatten()
        });
        match found {
            Ok(status) => status,
            Err(error) => Err(error.context(format!("{}: last answer: {last:?}", self.node.name))),
        }
    }
}

/// Asks a serving agent to stop and waits until it has.
///
/// # Errors
/// If it does not, or not with success.
pub(crate) fn stop(agent: &Process) -> Result<()> {
    agent.signal(nix::sys::signal::Signal::SIGTERM)?;
    let output = agent.wait(ANSWER)?;
    anyhow::ensure!(output.exit == Some(Exit::Code(0)), "the agent did not end well: {output:?}");
    Ok(())
}

/// A membership as the agent tells it with `--json`; only what tests ask about.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) host_id: Uuid,
    pub(crate) networks: BTreeMap<String, Membership>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) public_key: String,
}

/// One network in a [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Membership {
    pub(crate) addresses: BTreeSet<IpNet>,
    pub(crate) node_id: Uuid,
    pub(crate) tags: BTreeSet<String>,
}

/// One peer in a [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Peer {
    pub(crate) allowed_ips: BTreeSet<IpNet>,
    pub(crate) public_key: String,
}

impl Status {
    /// This machine's address in a network, IPv4 or IPv6.
    ///
    /// # Errors
    /// If it has none.
    pub(crate) fn address(&self, network: &str, family: Family) -> Result<IpAddr> {
        let membership = self.networks.get(network).with_context(|| format!("not in {network}: {self:?}"))?;
        let mut addresses = membership.addresses.iter().map(IpNet::addr);
        let address = addresses.find(|address| address.is_ipv4() == (family == Family::V4));
        address.with_context(|| format!("no {family:?} address in {network}: {self:?}"))
    }

    /// The key of the peer that packets to an address go to: the one with the longest prefix around it.
    pub(crate) fn next_hop(&self, to: IpAddr) -> Option<&str> {
        let around = |peer: &Peer| peer.allowed_ips.iter().filter(|net| net.contains(&to)).map(IpNet::prefix_len).max();
        let peers = self.peers.iter().filter_map(|peer| Some((around(peer)?, peer)));
        peers.max_by_key(|(length, _)| *length).map(|(_, peer)| peer.public_key.as_str())
    }
}

/// A version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

#[derive(Deserialize)]
struct Memberships {
    memberships: [Status; 1],
}

/// How long a command may take that only asks or ends.
const ANSWER: Duration = Duration::from_secs(20);
