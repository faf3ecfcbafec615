//! One enrollment that ends at a system call, one start after it, and what must be true then.

use std::{
    fs,
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use enroll_agent::mock_server::{Handle, NewKey, NewNetwork, start};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::{
    disk::{Disk, Loss},
    lab::{Lab, eventually},
    process::{Process, WhenJoined},
    tracer::{self, Trace},
    troubles::{REGISTER, Trouble},
};

/// Where a join ends, and what goes wrong beside.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// The system call that it is killed at, counted from 1; beyond the last it is killed when it has joined.
    pub(crate) at: u64,
    /// What becomes of the state folder then.
    pub(crate) loss: Loss,
    pub(crate) trouble: &'static Trouble,
    pub(crate) verb: Verb,
}

/// Which command enrolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `agent join`, which goes on serving.
    Join,
    /// `agent run` with a key.
    Run,
}

/// What an attempt saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// System calls that the first process began.
    pub(crate) calls: u64,
    /// Whether it was killed at the call that was planned, and not later.
    pub(crate) as_planned: bool,
    /// Whether the server had counted the key when the process had ended.
    pub(crate) was_counted: bool,
}

impl Plan {
    /// Carries it out in a fresh world.
    ///
    /// # Errors
    /// What is not as it must be.
    pub(crate) fn carry_out(&self, lab: &Lab) -> Result<Seen> {
        let world = World::new(lab, self.trouble)?;
        let mut disk = Disk::new(&world.folder)?;
        self.trouble.begin(&world.server);

        let trace = world.killed(self.verb, self.at, &mut disk)?;
        disk.cut(self.loss)?;
        world.await_commit()?;
        let before = world.known()?;
        world.let_doubt_pass()?;
        self.trouble.end(&world.server);
        let joined = world.second(self.verb)?;

        world.judge(&before, &joined)?;
        world.leave(lab, joined)?;
        let seen = Seen { calls: trace.calls, as_planned: trace.killed_at.is_some(), was_counted: before.hosts == 1 };
        Ok(seen)
    }
}

/// A server, a key with a few uses, and the folders of one agent.
struct World {
    server: Handle,
    folder: PathBuf,
}

/// What was known when the first process had ended.
struct Known {
    hosts: usize,
    /// Registrations that the server had heard.
    registrations: usize,
    /// The host that the state folder had.
    host: Option<String>,
}

/// A process that has joined, and its result.
struct Joined {
    process: Process,
    result: Value,
}

impl World {
    fn new(lab: &Lab, trouble: &Trouble) -> Result<Self> {
        let listener = TcpListener::bind((IpAddr::from(Lab::V4), 0))?;
        let server = lab.block_on(start(listener, trouble.options()))?;
        server.create_network(&NewNetwork {
            name: "office".to_owned(),
            range4: Some("10.202.0.0/24".parse()?),
            range6: None,
        })?;
        let key = server.create_key(NewKey {
            name: "team".to_owned(),
            note: String::new(),
            networks: vec!["office".to_owned()],
            uses: Some(USES),
            expiration: None,
            unlimited: false,
            groups: Vec::new(),
            relay: None,
            auto_assign_gateway: false,
        })?;
        let folder = lab.folder("crash")?;
        fs::write(folder.join("ca.pem"), server.ca_pem())?;
        fs::write(folder.join("agent.toml"), "")?;
        fs::write(folder.join("given.key"), key.token.expose())?;
        fs::set_permissions(folder.join("given.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(Self { server, folder })
    }

    fn configure<'a>(&self, command: &'a mut Command, arguments: &[&str]) -> &'a mut Command {
        command
            .args(arguments)
            .env("ENROLL_AGENT_BACKEND", "userspace")
            .env("ENROLL_AGENT_CA_FILE", self.folder.join("ca.pem"))
            .env("ENROLL_AGENT_CONFIG", self.folder.join("agent.toml"))
            .env("ENROLL_AGENT_ENDPOINT", Lab::V4.to_string())
            .env("ENROLL_AGENT_JSON", "true")
            .env("ENROLL_AGENT_NAME", "one")
            .env("ENROLL_AGENT_RUNTIME_DIR", self.folder.join("run"))
            .env("ENROLL_AGENT_STATE_DIR", self.state())
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn enroll(&self, verb: Verb, command: &mut Command) {
        let arguments: &[&str] = match verb {
            Verb::Join => &["join"],
            Verb::Run => &["run", "--spread", "0"],
        };
        self.configure(command, arguments).env("ENROLL_AGENT_KEY_FILE", self.folder.join("given.key"));
    }

    /// Enrolls, and dies at a call, or once that is done, or after a while of waiting.
    fn killed(&self, verb: Verb, at: u64, disk: &mut Disk) -> Result<Trace> {
        let mut command = tracer::traceable(AGENT)?;
        self.enroll(verb, &mut command);
        let process = Process::start(&mut command, WhenJoined::Kill)?;
        thread::scope(|scope| {
            let (ended, end) = mpsc::channel::<()>();
            // The service says nothing when it has joined.
            let file = self.state().join(self.server.api()).join("membership.json");
            let watch = move || {
                while end.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    if fs::read_to_string(&file).is_ok_and(|text| text.contains("\"phase\": \"enrolled\"")) {
                        let _ = kill(process.pid, Signal::SIGKILL);
                    }
                }
            };
            if verb == Verb::Run {
                scope.spawn(watch);
            }
            let trace = tracer::trace(process.pid, at, BEFORE_DOUBT, disk);
            drop(ended);
            trace
        })
    }

    /// Enrolls to the end; the process goes on.
    fn second(&self, verb: Verb) -> Result<Joined> {
        let mut command = Command::new(AGENT);
        self.enroll(verb, &mut command);
        let mut process = Process::start(&mut command, WhenJoined::GoOn)?;
        let result = eventually("the end of the second start", JOINED, || {
            let found = match verb {
                Verb::Join => process.result(),
                Verb::Run => self.status(),
            };
            found.map(Ok).or_else(|| match process.child.try_wait() {
                Ok(Some(status)) => Some(Err(anyhow!("the second start failed: {status}"))),
                Ok(None) => None,
                Err(error) => Some(Err(error.into())),
            })
        });
        let result = result.and_then(|result| result).with_context(|| process.said())?;
        ensure!(result.get("error").is_none(), "the second start failed: {result}");
        Ok(Joined { process, result })
    }

    /// What the service tells of its membership, once that is up.
    fn status(&self) -> Option<Value> {
        self.saved().ok()?.filter(|saved| saved["phase"]["phase"] == "enrolled")?;
        let output = self.configure(&mut Command::new(AGENT), &["status"]).output().ok()?;
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(status["memberships"][0].clone()).filter(|membership| membership["state"] == "up")
    }

    /// A request that was sent may be counted a moment after its sender's end.
    fn await_commit(&self) -> Result<()> {
        if self.server.hosts()?.is_empty() && self.saved()?.is_some() {
            // Whether it comes or not, both are judged.
            drop(eventually("the host", COMMITTED, || self.server.hosts().ok().filter(|hosts| !hosts.is_empty())));
        }
        Ok(())
    }

    fn registrations(&self) -> usize {
        let observed = self.server.faults().observed();
        observed.iter().filter(|request| request.path.starts_with(REGISTER)).count()
    }

    fn known(&self) -> Result<Known> {
        let host = self.saved()?.and_then(|saved| saved["identity"]["host_id"].as_str().map(str::to_owned));
        Ok(Known { hosts: self.server.hosts()?.len(), registrations: self.registrations(), host })
    }

    fn uses_left(&self) -> Result<i64> {
        let keys = self.server.keys()?;
        let team = |names: &Option<Vec<String>>| names.iter().flatten().any(|name| name == "team");
        Ok(keys.iter().find(|key| team(&key.names)).context("the key is gone")?.uses_remaining)
    }

    /// The saved membership; an error if there is one that cannot be read.
    fn saved(&self) -> Result<Option<Value>> {
        match self.membership_file() {
            Some(file) => {
                let text = fs::read(&file)?;
                Ok(Some(
                    serde_json::from_slice(&text).with_context(|| {
                        format!("{} is damaged: {:?}", file.display(), String::from_utf8_lossy(&text))
                    })?,
                ))
            }
            None => Ok(None),
        }
    }

    fn membership_file(&self) -> Option<PathBuf> {
        let file = self.state().join(self.server.api()).join("membership.json");
        file.exists().then_some(file)
    }

    /// Has the key sent half a minute earlier, so that nobody has to wait until no request can be on its way any more.
    fn let_doubt_pass(&self) -> Result<()> {
        let (Some(mut saved), Some(file)) = (self.saved()?, self.membership_file()) else { return Ok(()) };
        if let Some(sent_at) = saved["phase"]["redeeming"]["sent_at"].as_u64() {
            saved["phase"]["redeeming"]["sent_at"] = (sent_at - DOUBT).into();
            fs::write(file, saved.to_string())?;
        }
        Ok(())
    }

    fn judge(&self, before: &Known, joined: &Joined) -> Result<()> {
        let hosts = self.server.hosts()?;
        ensure!(hosts.len() == 1, "{} hosts", hosts.len());
        let left = self.uses_left()?;
        ensure!(left == i64::from(USES) - 1, "{} uses are spent", i64::from(USES) - left);
        let id = joined.result["host_id"].as_str().context("no host id")?;
        ensure!(hosts[0].id.to_string() == id, "the server knows {}, the agent is {id}", hosts[0].id);
        if let Some(host) = &before.host {
            ensure!(host == id, "the identity was {host} and is {id}");
        }
        let again = self.registrations() - before.registrations;
        ensure!(before.hosts == 0 || again == 0, "a host that was known registered again");
        ensure!(again <= 1, "the second start registered {again} times");
        ensure!(joined.result["state"] == "up", "not up: {}", joined.result);
        let saved = self.saved()?.context("nothing is saved")?;
        ensure!(saved["phase"]["phase"] == "enrolled", "saved as {}", saved["phase"]["phase"]);
        ensure!(saved["sent"].as_array().is_some_and(Vec::is_empty), "keys are on their way: {}", saved["sent"]);
        let api = self.server.api();
        let expected = [
            ".interfaces.lock".to_owned(),
            api.clone(),
            format!("{api}.lock"),
            format!("{api}/membership.json"),
            RECEIPTS.to_owned(),
        ];
        ensure!(contents(&self.state())? == expected, "state: {:?}", contents(&self.state())?);
        Ok(())
    }

    /// Ends the process and the membership, and looks for what is left.
    fn leave(&self, lab: &Lab, joined: Joined) -> Result<()> {
        let mut process = joined.process;
        kill(process.pid, Signal::SIGTERM)?;
        let status = process.wait()?;
        ensure!(status.success(), "stopping ended with {status}: {}", process.said());
        refuse_interfaces(lab)?;
        let mut command = Command::new(AGENT);
        let output = self.configure(&mut command, &["leave"]).output()?;
        ensure!(output.status.success(), "leaving failed: {output:?}");
        ensure!(self.server.hosts()?.is_empty(), "the host is still there");
        refuse_interfaces(lab)?;
        let mut command = Command::new(AGENT);
        let output = self.configure(&mut command, &["receipts", "--verify"]).output()?;
        ensure!(output.status.success(), "the receipts are damaged: {output:?}");
        let expected = [".interfaces.lock".to_owned(), format!("{}.lock", self.server.api()), RECEIPTS.to_owned()];
        ensure!(contents(&self.state())? == expected, "state after leaving: {:?}", contents(&self.state())?);
        let run = contents(&self.folder.join("run"))?;
        ensure!(
            run.iter().all(|name| Path::new(name).extension().is_some_and(|kind| kind == "lock")),
            "left in the runtime folder: {run:?}"
        );
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Of a failed attempt too.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const RECEIPTS: &str = "receipts.jsonl";

fn refuse_interfaces(lab: &Lab) -> Result<()> {
    let stray = lab.interfaces()?.into_iter().find(|interface| interface.name.starts_with("enroll"));
    match stray {
        Some(interface) => bail!("interface {} is still there", interface.name),
        None => Ok(()),
    }
}

/// Paths of everything in a folder, in order; none if there is no folder.
fn contents(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            found.extend(contents(&entry.path())?.into_iter().map(|below| format!("{name}/{below}")));
        }
        found.push(name);
    }
    found.sort();
    Ok(found)
}

const AGENT: &str = env!("CARGO_BIN_EXE_agent");

/// Enough that a use too many is counted and not refused.
const USES: u32 = 5;

/// Between two looks at the state folder.
const LOOK: Duration = Duration::from_millis(5);

/// A join that waits this long waits out its doubt, and is killed in it.
const BEFORE_DOUBT: Duration = Duration::from_millis(2500);

/// Seconds for which a request may be on its way, as the agent has it.
const DOUBT: u64 = 31;

/// A request that has arrived is counted in milliseconds, a delayed one in 150.
const COMMITTED: Duration = Duration::from_millis(250);

/// A join takes milliseconds, on a busy machine seconds.
const JOINED: Duration = Duration::from_secs(60);
