//! A program that ends at its n-th system call.
//!
//! All its threads and children are followed (ptrace(2)); the count goes over all of them, from the program's first
//! instruction on, and the program is killed before the kernel carries that call out.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{self, Command},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::disk::{Disk, Written};

/// How far a program came.
#[derive(Debug)]
pub(crate) struct Trace {
    /// System calls it began.
    pub(crate) calls: u64,
    /// Number of the system call it was killed at; `None` if it ended otherwise.
    pub(crate) killed_at: Option<i64>,
}

/// Becomes the program in the arguments if this process is to be traced.
pub(crate) fn become_traced() {
    if env::var_os(TRACED).is_none() {
        return;
    }
    let mut arguments = env::args_os().skip(1);
    let error = match (prctl::set_pdeathsig(Signal::SIGKILL).and_then(|()| ptrace::traceme()), arguments.next()) {
        (Ok(()), Some(program)) => Command::new(program).args(arguments).env_remove(TRACED).exec(),
        (Ok(()), None) => io::Error::other("no program was named"),
        (Err(error), _) => error.into(),
    };
    eprintln!("crash: cannot start the program: {error}");
    process::exit(127);
}

/// A command that [`trace`] can follow: `program` with nothing but this process's environment yet.
pub(crate) fn traceable(program: &str) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.env(TRACED, "1").arg(program);
    Ok(command)
}

/// Follows a program that this thread started until all of it has ended, and kills it at its call `at` (1 is the
/// first), or `patience` after its start.
pub(crate) fn trace(pid: Pid, at: u64, patience: Duration, disk: &mut Disk) -> Result<Trace> {
    let started = waitpid(pid, Some(WaitPidFlag::__WALL))?;
    if started != WaitStatus::Stopped(pid, Signal::SIGTRAP) {
        bail!("the program did not start: {started:?}");
    }
    ptrace::setoptions(pid, FOLLOWED)?;
    let (ended, end) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if end.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let mut tracer =
        Tracer { pid, at, calls: 0, killed_at: None, seen: BTreeSet::from([pid]), syncing: BTreeMap::new() };
    go_on(pid, None)?;
    let followed = tracer.follow(disk);
    drop(ended);
    watchdog.join().ok().context("the watchdog panicked")?;
    followed?;
    Ok(Trace { calls: tracer.calls, killed_at: tracer.killed_at })
}

struct Tracer {
    pid: Pid,
    at: u64,
    calls: u64,
    killed_at: Option<i64>,
    /// Threads that have stopped for the first time, which means nothing.
    seen: BTreeSet<Pid>,
    /// What threads are syncing.
    syncing: BTreeMap<Pid, Written>,
}

impl Tracer {
    fn follow(&mut self, disk: &mut Disk) -> Result<()> {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceSyscall(thread)) => self.call(thread, disk)?,
                Ok(WaitStatus::PtraceEvent(thread, _, _)) => go_on(thread, None)?,
                Ok(WaitStatus::Stopped(thread, signal)) => {
                    let is_first = self.seen.insert(thread);
                    go_on(thread, Some(signal).filter(|signal| !(is_first && *signal == Signal::SIGSTOP)))?;
                }
                Ok(
                    WaitStatus::Exited(..)
                    | WaitStatus::Signaled(..)
                    | WaitStatus::Continued(_)
                    | WaitStatus::StillAlive,
                )
                | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn call(&mut self, thread: Pid, disk: &mut Disk) -> Result<()> {
        // A thread of a program that was killed may be gone by now.
        let Ok(stop) = ptrace::syscall_info(thread) else { return Ok(()) };
        if stop.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            if let Some(written) = self.syncing.remove(&thread) {
                disk.synced(written);
            }
            return go_on(thread, None);
        }
        self.calls += 1;
        let Some((number, first)) = current(thread) else { return go_on(thread, None) };
        if self.calls == self.at {
            self.killed_at = Some(number);
            kill(self.pid, Signal::SIGKILL)?;
            // It may be a child's call, and a child goes on.
            return go_on(thread, None);
        }
        if [libc::SYS_fsync, libc::SYS_fdatasync].contains(&number)
            && let Ok(path) = fs::read_link(format!("/proc/{thread}/fd/{first}"))
            && let Some(written) = disk.written(&path)
        {
            self.syncing.insert(thread, written);
        }
        go_on(thread, None)
    }
}

/// The number and the first argument of the call that a stopped thread is about to make.
fn current(thread: Pid) -> Option<(i64, u64)> {
    let text = fs::read_to_string(PathBuf::from(format!("/proc/{thread}/syscall"))).ok()?;
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let first = words.next()?.strip_prefix("0x")?;
    Some((number, u64::from_str_radix(first, 16).ok()?))
}

/// Lets a thread go to its next stop; one that was killed meanwhile has none.
fn go_on(thread: Pid, signal: Option<Signal>) -> Result<()> {
    match ptrace::syscall(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

const FOLLOWED: Options = Options::PTRACE_O_TRACESYSGOOD
    .union(Options::PTRACE_O_TRACECLONE)
    .union(Options::PTRACE_O_TRACEFORK)
    .union(Options::PTRACE_O_TRACEVFORK)
    .union(Options::PTRACE_O_TRACEEXEC)
    .union(Options::PTRACE_O_EXITKILL);

const TRACED: &str = "ENROLL_AGENT_TEST_TRACED";
