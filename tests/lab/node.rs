//! The hub's hand on one node and on the programs it runs there.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Value};

use super::{
    eventually,
    ping::Pings,
    protocol::{Answer, Interface, Output, Program, Reached, Request, Spawned, Uplink},
    role::Role,
};

/// A machine of the lab; dropping it ends its programs and its namespace.
pub(crate) struct Node {
    /// As given to [`super::Lab::node`].
    pub(crate) name: String,
    /// Its IPv4 address, by which the hub and other nodes reach it.
    pub(crate) v4: Ipv4Addr,
    /// Its IPv6 address, by which the hub and other nodes reach it.
    pub(crate) v6: Ipv6Addr,
    helper: Arc<Mutex<Helper>>,
    number: u8,
    pid: u32,
    uplink: Uplink,
}

impl Node {
    pub(super) fn start(name: &str, number: u8, uplink: Uplink) -> Result<Self> {
        let mut child = Role::Helper.command()?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pid = child.id();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("standard output is piped")?);
        let mut helper = Helper { child, stdin, stdout };
        helper.answer()?;
        let helper = Arc::new(Mutex::new(helper));
        Ok(Self { name: name.to_owned(), v4: uplink.v4, v6: uplink.v6, helper, number, pid, uplink })
    }

    pub(super) fn configure(&self) -> Result<()> {
        self.ask(&Request::Configure(self.uplink))
    }

    pub(super) fn attach(&self, address: IpNet) -> Result<()> {
        self.ask(&Request::Attach(address))
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// The process that holds the node's namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts a program in the node.
    ///
    /// # Errors
    /// If the node is gone. A program that cannot be run ends with 127 and says why on standard error.
    pub(crate) fn spawn(&self, program: Program) -> Result<Process> {
        let what = format!("{} in {}", program.path, self.name);
        let Spawned { handle, pid } = self.ask(&Request::Spawn(program))?;
        Ok(Process { helper: Arc::clone(&self.helper), handle, pid, what })
    }

    /// Runs a program in the node to its end.
    ///
    /// # Errors
    /// If it has not ended by `deadline`; it is killed then.
    pub(crate) fn run(&self, program: Program, deadline: Duration) -> Result<Output> {
        self.spawn(program)?.wait(deadline)
    }

    /// Sends echo requests from the node until `replies` have come back or `deadline` has passed.
    ///
    /// # Errors
    /// If the node is gone; silence is an answer without replies.
    pub(crate) fn ping(&self, to: impl Into<IpAddr>, replies: usize, deadline: Duration) -> Result<Pings> {
        self.ask(&Request::Ping { to: to.into(), replies, deadline })
    }

    /// Opens a TCP connection from the node, and closes it.
    ///
    /// # Errors
    /// If the node is gone, or has no way there.
    pub(crate) fn connect(&self, to: SocketAddr, patience: Duration) -> Result<Reached> {
        self.ask(&Request::Connect { to, patience })
    }

    /// Gives the node a further address, as a machine gets one that comes to another network.
    ///
    /// # Errors
    /// If the node is gone or does not take it.
    pub(crate) fn add_address(&self, address: IpNet) -> Result<()> {
        self.ask(&Request::AddAddress(address))
    }

    /// Deletes one of the node's interfaces, as somebody else might.
    ///
    /// # Errors
    /// If the node is gone or has no such interface.
    pub(crate) fn delete_interface(&self, name: &str) -> Result<()> {
        self.ask(&Request::DeleteInterface(name.to_owned()))
    }

    /// Lists the node's interfaces by name.
    ///
    /// # Errors
    /// If the node is gone.
    pub(crate) fn interfaces(&self) -> Result<Vec<Interface>> {
        self.ask(&Request::Interfaces)
    }

    /// Describes everything about the node's network that an agent could change, in lines that can be compared.
    ///
    /// # Errors
    /// If the node is gone.
    pub(crate) fn snapshot(&self) -> Result<Vec<String>> {
        self.ask(&Request::Snapshot)
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        ask(&self.helper, request).with_context(|| format!("node {}", self.name))
    }
}

/// A program that runs in a node; dropping it kills it.
pub(crate) struct Process {
    helper: Arc<Mutex<Helper>>,
    handle: usize,
    pid: u32,
    what: String,
}

impl Process {
    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns what it has said so far.
    ///
    /// # Errors
    /// If the node is gone.
    pub(crate) fn output(&self) -> Result<Output> {
        ask(&self.helper, &Request::Output { handle: self.handle })
    }

    /// Waits for its end, and for the end of whatever it left holding its output.
    ///
    /// # Errors
    /// If that takes longer than `deadline`; the message has what it said.
    pub(crate) fn wait(&self, deadline: Duration) -> Result<Output> {
        self.find("its end", deadline, |output| output.exit.is_some().then(|| output.clone()))
    }

    /// Waits for a line of standard output that `is_it` accepts.
    ///
    /// # Errors
    /// If there is none by `deadline`, or the program ends without one; the message has what it said.
    pub(crate) fn line(&self, deadline: Duration, is_it: impl Fn(&str) -> bool) -> Result<String> {
        self.find("a line of output", deadline, |output| output.stdout.iter().find(|line| is_it(line)).cloned())
    }

    /// Waits for the first JSON document on standard output, over as many lines as it takes.
    ///
    /// # Errors
    /// If there is none by `deadline`, or the program ends without one; the message has what it said.
    pub(crate) fn json(&self, deadline: Duration) -> Result<Value> {
        self.find("a JSON document", deadline, |output| {
            Deserializer::from_str(&output.stdout.join("\n")).into_iter().next()?.ok()
        })
    }

    /// Sends it a signal, unless it has ended.
    ///
    /// # Errors
    /// If the node is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        ask(&self.helper, &Request::Signal { handle: self.handle, signal: signal as i32 })
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    /// If the node is gone, or something else holds its output open.
    pub(crate) fn kill(&self) -> Result<Output> {
        self.signal(Signal::SIGKILL)?;
        self.wait(KILLED)
    }

    fn find<T>(&self, fact: &str, deadline: Duration, look: impl Fn(&Output) -> Option<T>) -> Result<T> {
        let mut last = None;
        let found = eventually(fact, deadline, || match self.output() {
            Ok(output) => {
                let found = look(&output).map(Ok);
                let ended = output.exit.map(|exit| Err(anyhow!("ended without {fact}: {exit:?}")));
                last = Some(output);
                found.or(ended)
            }
            Err(error) => Some(Err(error)),
        });
        found.and_then(|found| found).with_context(|| match &last {
            Some(Output { stdout, stderr, exit: _ }) => {
                format!("{}\nstdout:\n{}\nstderr:\n{}\n", self.what, stdout.join("\n"), stderr.join("\n"))
            }
            None => self.what.clone(),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.signal(Signal::SIGKILL) {
            eprintln!("lab: cannot kill {}: {error:#}", self.what);
        }
    }
}

struct Helper {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Helper {
    fn ask(&mut self, request: &Request) -> Result<Value> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stdin.as_mut().context("the helper's standard input is open")?.write_all(&line)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("the helper has ended; standard error tells why");
        }
        serde_json::from_str::<Answer>(&line)?.map_err(|message| anyhow!(message))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let ended = eventually("the helper's end", KILLED, || self.child.try_wait().transpose());
        if let Err(error) = ended.and_then(|ended| ended.map_err(Into::into)) {
            eprintln!("lab: {error:#}");
        }
    }
}

fn ask<T: DeserializeOwned>(helper: &Mutex<Helper>, request: &Request) -> Result<T> {
    let answer = helper.lock().unwrap_or_else(PoisonError::into_inner).ask(request)?;
    Ok(serde_json::from_value(answer)?)
}

/// A killed process is gone within moments, unless the machine is very busy.
const KILLED: Duration = Duration::from_secs(10);
