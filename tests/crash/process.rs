//! An agent that runs, and what it says.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::lab::eventually;

/// What becomes of a process that has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenJoined {
    GoOn,
    Kill,
}

/// A running agent; dropping it kills it.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) pid: Pid,
    result: Arc<Mutex<Option<Value>>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command, then: WhenJoined) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let (result, stderr): (Arc<Mutex<_>>, Arc<Mutex<String>>) = (Arc::default(), Arc::default());
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut errors = child.stderr.take().context("standard error is piped")?;
        let (found, said) = (Arc::clone(&result), Arc::clone(&stderr));
        let reads_result = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(document) = serde_json::from_str(&line) else { continue };
                *lock(&found) = Some(document);
                if then == WhenJoined::Kill {
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
        });
        let reads_errors = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = errors.read_to_end(&mut bytes);
            lock(&said).push_str(&String::from_utf8_lossy(&bytes));
        });
        Ok(Self { child, pid, result, stderr, readers: vec![reads_result, reads_errors] })
    }

    pub(crate) fn result(&self) -> Option<Value> {
        lock(&self.result).clone()
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let ended = eventually("the agent's end", STOPPED, || self.child.try_wait().transpose())??;
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
        Ok(ended)
    }

    /// What it has said, once it has ended; kills it for that.
    pub(crate) fn said(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
        format!("stdout: {:?}\nstderr: {}", self.result(), lock(&self.stderr))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An agent stops within moments, unless the machine is very busy.
const STOPPED: Duration = Duration::from_secs(60);
