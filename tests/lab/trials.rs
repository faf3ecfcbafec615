//! Runs each trial in a process, and so in a hub, of its own.

use std::{
    io::{self, Read},
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::{
    enter::{self, Missing, enter},
    eventually,
    hub::Lab,
    role::{self, Role},
};

/// One trial: a rule as its name, and how it is tried. A panic fails it as an error does; [`Missing`] has it ignored.
pub(crate) type Case = (&'static str, fn(&mut Lab) -> Result<()>);

/// The `main` of a test program with trials in the lab; where the machine forbids the lab they are ignored.
pub(crate) fn trials(cases: Vec<Case>) -> ExitCode {
    enter::play_node_parts();
    match Role::current() {
        Role::Hub(name) => return hub(&name, &cases),
        Role::Probe => return probe(),
        Role::Helper | Role::Program | Role::Runner => {}
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(THREADS).min(THREADS));
    let missing = if arguments.list { None } else { missing() };
    let trials = cases.into_iter().map(|(name, _)| {
        let missing = missing.clone();
        Trial::ignorable_test(name, move || match missing {
            Some(Missing(reason)) => Ok(Completion::ignored_with(reason)),
            None => run(name),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn hub(name: &str, cases: &[Case]) -> ExitCode {
    let ready = (|| {
        let lab = enter()?;
        role::die_with_parent()?;
        let (_, case) = cases.iter().find(|(case, _)| *case == name).context("there is no trial of this name")?;
        Ok((lab, case))
    })();
    match ready.map(|(mut lab, case)| case(&mut lab)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) if error.is::<Missing>() => {
            println!("{error}");
            ExitCode::from(IGNORED)
        }
        Ok(Err(error)) | Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Says on standard output what is missing; a whole node is tried, since kernels without veth exist.
fn probe() -> ExitCode {
    let tried = enter().and_then(|mut lab| lab.node("probe").map(drop).map_err(|error| Missing(format!("{error:#}"))));
    match tried {
        Ok(()) => ExitCode::SUCCESS,
        Err(missing) => {
            println!("{missing}");
            ExitCode::FAILURE
        }
    }
}

fn missing() -> Option<Missing> {
    let output = match Role::Probe.command().and_then(|mut command| command.stdin(Stdio::null()).output()) {
        Ok(output) if output.status.success() => return None,
        Ok(output) => [output.stdout, output.stderr].concat(),
        Err(error) => error.to_string().into_bytes(),
    };
    Some(Missing(String::from_utf8_lossy(&output).trim().to_owned()))
}

fn run(name: &str) -> Result<Completion, Failed> {
    match supervise(Role::Hub(name.to_owned()).command()?) {
        Ok((status, _)) if status.success() => Ok(Completion::Completed),
        Ok((status, output)) if status.code() == Some(IGNORED.into()) => {
            Ok(Completion::ignored_with(output.lines().last().unwrap_or_default()))
        }
        Ok((status, output)) => Err(format!("{status}\n{output}").into()),
        Err(error) => Err(format!("{error:#}").into()),
    }
}

/// Runs the hub to its end, or to the end of our patience, and returns all it has said.
fn supervise(mut command: Command) -> Result<(ExitStatus, String)> {
    let (mut reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // The command holds the pipe's other end, and reading ends only when nobody does.
    drop(command);
    let reader = thread::spawn(move || {
        let mut output = Vec::new();
        reader.read_to_end(&mut output).map(|_| String::from_utf8_lossy(&output).into_owned())
    });
    let ended = eventually("the trial's end", PATIENCE, || child.try_wait().transpose());
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let output = reader.join().map_err(|_| anyhow!("the reader of a trial's output panicked"))??;
    Ok((ended.with_context(|| output.clone())??, output))
}

/// How a trial says that the machine lacks something for it (as in automake's tests).
const IGNORED: u8 = 77;

/// Every trial runs several busy processes; more at a time only makes them wait for each other.
const THREADS: usize = 2;

/// Far above what any trial needs, since the machine may be busy building.
const PATIENCE: Duration = Duration::from_mins(3);
