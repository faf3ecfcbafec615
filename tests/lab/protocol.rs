//! What the hub and a node's helper say to each other: one JSON document a line, a request and then its answer.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What the helper answers: the value its request promises, or what went wrong.
pub(super) type Answer = Result<serde_json::Value, String>;

/// What the hub asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Gives eth0 a further address; answers nothing.
    AddAddress(IpNet),
    /// Brings up lan0 with this address; answers nothing.
    Attach(IpNet),
    /// Brings up lo and eth0 with these addresses; answers nothing.
    Configure(Uplink),
    /// Answers [`Reached`].
    Connect { to: SocketAddr, patience: Duration },
    /// Deletes an interface; answers nothing.
    DeleteInterface(String),
    /// Answers `Vec<Interface>`.
    Interfaces,
    /// Answers [`Output`] so far.
    Output { handle: usize },
    /// Answers [`super::Pings`].
    Ping { to: IpAddr, replies: usize, deadline: Duration },
    /// Answers `Vec<String>`, what a machine's network looks like.
    Snapshot,
    /// Sends a signal by its number, unless the process has ended; answers nothing.
    Signal { handle: usize, signal: i32 },
    /// Answers [`Spawned`].
    Spawn(Program),
}

/// The node's side of its cable to the hub.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Uplink {
    pub(super) v4: Ipv4Addr,
    pub(super) v4_gateway: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
    pub(super) v6_gateway: Ipv6Addr,
}

/// A process the helper has started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Spawned {
    pub(super) handle: usize,
    pub(super) pid: u32,
}

/// A program to run in a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(super) path: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, Option<String>>,
    pub(super) stdin: Option<String>,
}

impl Program {
    /// Names a program by its path.
    pub(crate) fn new(path: impl AsRef<OsStr>) -> Self {
        Self { path: text(path), args: Vec::new(), env: BTreeMap::new(), stdin: None }
    }

    /// Adds one argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(text(arg));
        self
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(text));
        self
    }

    /// Sets an environment variable; the others are those of the test program.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.to_owned(), Some(text(value)));
        self
    }

    /// Takes an environment variable away.
    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.env.insert(name.to_owned(), None);
        self
    }

    /// Gives the program this text on standard input, and then its end; without it standard input is empty.
    pub(crate) fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    /// It ended by itself with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// What a process has said, line by line, and how it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    /// Lines of standard output.
    pub(crate) stdout: Vec<String>,
    /// Lines of standard error.
    pub(crate) stderr: Vec<String>,
    /// `None` while it runs, or while somebody still holds its output open.
    pub(crate) exit: Option<Exit>,
}

/// What came of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reached {
    /// Somebody listens there.
    Listener,
    /// The machine answers, and nobody listens there.
    Machine,
    /// Nothing came back.
    Nothing,
}

/// A network interface of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    /// As `eth0`.
    pub(crate) name: String,
    /// Addresses with their prefix lengths, link-local ones included, in order.
    pub(crate) addresses: Vec<IpNet>,
    /// Whether it is set up, not whether packets pass.
    pub(crate) up: bool,
}

/// Paths and arguments in tests are text; one that is not would make a test no reader could repeat.
fn text(text: impl AsRef<OsStr>) -> String {
    text.as_ref().to_string_lossy().into_owned()
}
