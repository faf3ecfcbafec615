//! The process that holds a node's namespace open and acts in it for the hub.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use ipnet::IpNet;
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime;

use super::{
    hub::Forwarding,
    netlink,
    ping::ping,
    protocol::{Answer, Exit, Output, Program, Reached, Request, Spawned, Uplink},
    role::{self, Role},
    snapshot::snapshot,
};

/// Serves the hub until it closes our standard input, then kills what is left.
pub(super) fn serve() -> Result<()> {
    role::die_with_parent()?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("cannot enter a namespace of its own")?;
    netlink::forward(Forwarding::On)?;
    let mut helper = Helper::default();
    answer(&Ok(Value::Null))?;
    for line in io::stdin().lines() {
        let request = serde_json::from_str(&line?)?;
        answer(&helper.handle(request).map_err(|error| format!("{error:#}")))?;
    }
    Ok(())
}

fn answer(answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    io::stdout().write_all(&line)?;
    Ok(io::stdout().flush()?)
}

#[derive(Default)]
struct Helper {
    pings: u16,
    running: Vec<Running>,
}

struct Running {
    child: Child,
    exit: Option<Exit>,
    stdout: Lines,
    stderr: Lines,
}

impl Helper {
    fn handle(&mut self, request: Request) -> Result<Value> {
        match request {
            Request::AddAddress(net) => value(with_netlink(async |handle| {
                netlink::add_address(handle, "eth0", net.addr(), net.prefix_len()).await
            })?),
            Request::Attach(net) => value(attach(net)?),
            Request::Connect { to, patience } => value(connect(to, patience)?),
            Request::Configure(uplink) => value(configure(uplink)?),
            Request::DeleteInterface(name) => value(with_netlink(async |handle| netlink::delete(handle, &name).await)?),
            Request::Interfaces => value(netlink::interfaces()?),
            Request::Output { handle } => value(self.running(handle)?.output()?),
            Request::Ping { to, replies, deadline } => {
                self.pings = self.pings.wrapping_add(1);
                value(ping(to, replies, deadline, self.pings)?)
            }
            Request::Snapshot => value(with_netlink(async |handle| snapshot(handle).await)?),
            Request::Signal { handle, signal } => value(self.running(handle)?.signal(signal)?),
            Request::Spawn(program) => {
                let running = Running::start(program)?;
                let spawned = Spawned { handle: self.running.len(), pid: running.child.id() };
                self.running.push(running);
                value(spawned)
            }
        }
    }

    fn running(&mut self, handle: usize) -> Result<&mut Running> {
        self.running.get_mut(handle).with_context(|| format!("there is no process {handle}"))
    }
}

impl Running {
    fn start(program: Program) -> Result<Self> {
        let Program { path, args, env, stdin } = program;
        let mut command = Role::Program.command()?;
        command.arg(path).args(args);
        for (name, value) in env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), stdin) {
            // A program may end without reading what it was given, which is its own business.
            thread::spawn(move || pipe.write_all(text.as_bytes()));
        }
        let stdout = Lines::of(child.stdout.take().context("standard output is piped")?);
        let stderr = Lines::of(child.stderr.take().context("standard error is piped")?);
        Ok(Self { child, exit: None, stdout, stderr })
    }

    fn output(&mut self) -> Result<Output> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait()?.map(exit);
        }
        // Read before the lines, so that an exit is only told together with all of them.
        let complete = self.stdout.ended() && self.stderr.ended();
        let exit = self.exit.filter(|_| complete);
        Ok(Output { stdout: self.stdout.get(), stderr: self.stderr.get(), exit })
    }

    fn signal(&mut self, signal: i32) -> Result<()> {
        // A process that has ended keeps its number until it is waited for, so this cannot hit another one.
        if self.exit.is_none() {
            let pid = Pid::from_raw(i32::try_from(self.child.id())?);
            signal::kill(pid, Signal::try_from(signal)?)?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("lab helper: cannot end process {}: {error}", self.child.id());
        }
    }
}

/// The lines somebody has said so far, gathered by a thread.
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    thread: thread::JoinHandle<()>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::default();
        let thread = thread::spawn({
            let lines = Arc::clone(&lines);
            move || gather(pipe, &lines)
        });
        Self { lines, thread }
    }

    fn get(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ended(&self) -> bool {
        self.thread.is_finished()
    }
}

fn gather(pipe: impl Read, lines: &Mutex<Vec<String>>) {
    for line in BufReader::new(pipe).split(b'\n') {
        let Ok(line) = line else { return eprintln!("lab helper: cannot read a program's output") };
        let line = String::from_utf8_lossy(&line).into_owned();
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

fn connect(to: SocketAddr, patience: Duration) -> io::Result<Reached> {
    match TcpStream::connect_timeout(&to, patience) {
        Ok(_) => Ok(Reached::Listener),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Reached::Machine),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Reached::Nothing),
        Err(error) => Err(error),
    }
}

fn configure(uplink: Uplink) -> Result<()> {
    let Uplink { v4, v4_gateway, v6, v6_gateway } = uplink;
    netlink::trust_addresses("eth0")?;
    with_netlink(async |handle| {
        netlink::up(handle, "lo").await?;
        netlink::add_address(handle, "eth0", IpAddr::V4(v4), 30).await?;
        netlink::add_address(handle, "eth0", IpAddr::V6(v6), 126).await?;
        netlink::up(handle, "eth0").await?;
        netlink::add_default_routes(handle, v4_gateway, v6_gateway).await
    })
}

fn attach(net: IpNet) -> Result<()> {
    netlink::trust_addresses("lan0")?;
    with_netlink(async |handle| {
        netlink::add_address(handle, "lan0", net.addr(), net.prefix_len()).await?;
        netlink::up(handle, "lan0").await
    })
}

fn with_netlink<T>(ask: impl AsyncFnOnce(&rtnetlink::Handle) -> Result<T>) -> Result<T> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let handle = netlink::connect()?;
        ask(&handle).await
    })
}

fn exit(status: ExitStatus) -> Exit {
    // A process that has not exited by itself was killed; stopped ones are not reported here.
    status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or_default()), Exit::Code)
}

fn value(value: impl Serialize) -> Result<Value> {
    Ok(serde_json::to_value(value)?)
}
