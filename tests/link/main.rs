//! One behavioural suite, run on every link this machine can have: memory, userspace, kernel WireGuard.
//!
//! A trial on a real interface runs in a process of its own, in a network namespace of its own: the test program starts
//! itself again with the trial's name and enters the namespace before it has a second thread. Kernel trials are listed
//! where the kernel has WireGuard, or where `ENROLL_AGENT_TEST_BACKENDS` names `kernel`.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod cases;
mod kernel;
mod large;
mod namespace;
mod session;
mod tools;
mod tunnel;
mod userspace;

use std::{env, fmt, future::Future, pin::Pin, process::Command, time::Duration};

use libtest_mimic::{Arguments, Failed, Trial};

/// What a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Kernel,
    Memory,
    Userspace,
}

/// A behaviour and how to see it.
pub(crate) struct Case {
    name: &'static str,
    run: fn(On) -> Pin<Box<dyn Future<Output = ()>>>,
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Memory => "memory",
            Self::Userspace => "userspace",
        })
    }
}

fn main() {
    if let Some(trial) = variable("ENROLL_AGENT_TEST_TRIAL") {
        return run_as_child(&trial);
    }
    let mut trials = Vec::new();
    for case in cases::EVERYWHERE.iter().chain(large::CASES) {
        let run = || {
            block_on((case.run)(On::Memory));
            Ok(())
        };
        trials.push(Trial::test(format!("memory::{}", case.name), run));
    }
    let userspace = child("probe::userspace").err();
    let groups = [cases::EVERYWHERE, large::CASES, cases::REAL, session::CASES, tunnel::CASES, userspace::CASES];
    list(On::Userspace, &groups, userspace.as_deref(), &mut trials);
    let named =
        variable("ENROLL_AGENT_TEST_BACKENDS").is_some_and(|names| names.split(',').any(|name| name == "kernel"));
    let kernel = child("probe::kernel").err();
    if named || kernel.is_none() {
        // A kernel that was asked for and is missing fails instead of being ignored.
        let groups = [cases::EVERYWHERE, large::CASES, cases::REAL, session::CASES, tunnel::CASES, kernel::CASES];
        list(On::Kernel, &groups, None, &mut trials);
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn list(on: On, groups: &[&'static [Case]], missing: Option<&str>, trials: &mut Vec<Trial>) {
    for case in groups.iter().copied().flatten() {
        let name = format!("{on}::{}", case.name);
        let again = name.clone();
        let trial = Trial::test(name, move || child(&again).map_err(Failed::from));
        trials.push(match missing {
            Some(reason) => trial.with_kind(format!("ignored: {reason}")).with_ignored_flag(true),
            None => trial,
        });
    }
}

/// Runs a trial in another process and returns what it complained about.
fn child(trial: &str) -> Result<(), String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program).env("ENROLL_AGENT_TEST_TRIAL", trial).env("RUST_BACKTRACE", "0").output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if text.is_empty() { output.status.to_string() } else { text })
}

fn run_as_child(trial: &str) {
    if let Err(reason) = namespace::enter() {
        eprintln!("no network namespace: {reason}");
        std::process::exit(1);
    }
    let (on, name) = trial.split_once("::").expect("a trial is named backend::case");
    match (on, name) {
        ("probe", "kernel") => finish(userspace::probe(On::Kernel)),
        ("probe", _) => finish(userspace::probe(On::Userspace)),
        ("kernel", _) => block_on((find(name).run)(On::Kernel)),
        (_, _) => block_on((find(name).run)(On::Userspace)),
    }
}

fn finish(outcome: impl Future<Output = Result<(), String>>) {
    block_on(async {
        if let Err(reason) = outcome.await {
            eprintln!("{reason}");
            std::process::exit(1);
        }
    });
}

fn find(name: &str) -> &'static Case {
    let real = [cases::EVERYWHERE, large::CASES, cases::REAL, session::CASES, tunnel::CASES];
    let own = [userspace::CASES, kernel::CASES];
    let mut all = real.into_iter().chain(own).flatten();
    all.find(|case| case.name == name).expect("the parent lists only cases there are")
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(LIMIT, future).await };
    runtime.block_on(limited).expect("the case ends in time");
}

#[expect(clippy::disallowed_methods, reason = "switches of the suite, not of the program")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

const LIMIT: Duration = Duration::from_mins(2);
