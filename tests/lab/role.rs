//! The part this process has to play, told by its environment.

use std::{env, io, os::unix::process, process::Command};

use nix::{
    sys::{prctl, signal::Signal},
    unistd,
};

/// A part in the lab; see the drawing in the module's docs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs one trial in namespaces of its own.
    Hub(String),
    /// Carries out what the hub asks for, inside the namespace of one node.
    Helper,
    /// Finds out whether this machine allows the lab.
    Probe,
    /// Becomes another program, which will die with the helper.
    Program,
    /// Started by a person or by cargo.
    Runner,
}

impl Role {
    /// Reads the part from the environment; everything unknown is a runner.
    pub(crate) fn current() -> Self {
        let Ok(text) = env::var(ROLE) else { return Self::Runner };
        match text.split_once(':') {
            Some(("hub", case)) => Self::Hub(case.to_owned()),
            Some(("helper", _)) => Self::Helper,
            Some(("probe", _)) => Self::Probe,
            Some(("program", _)) => Self::Program,
            Some(_) | None => Self::Runner,
        }
    }

    /// Returns a command that starts this program again in this part.
    ///
    /// # Errors
    /// If the program's own file cannot be told.
    pub(crate) fn command(&self) -> io::Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command.env(ROLE, self.text()).env(PARENT, unistd::getpid().to_string());
        Ok(command)
    }

    fn text(&self) -> String {
        match self {
            Self::Hub(case) => format!("hub:{case}"),
            Self::Helper => "helper:".to_owned(),
            Self::Probe => "probe:".to_owned(),
            Self::Program => "program:".to_owned(),
            Self::Runner => "runner:".to_owned(),
        }
    }
}

/// Has the kernel kill this process when the thread that started it ends; ends at once if that has happened.
///
/// # Errors
/// If the kernel refuses, which no Linux does.
pub(crate) fn die_with_parent() -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if env::var(PARENT).is_ok_and(|parent| parent != unistd::getppid().to_string()) {
        return Err(io::Error::other("the process that started this one is gone"));
    }
    Ok(())
}

/// Replaces this process by the program named in its arguments; returns only if that fails.
pub(crate) fn become_program() -> io::Error {
    if let Err(error) = die_with_parent() {
        return error;
    }
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else { return io::Error::other("no program was named") };
    let error = process::CommandExt::exec(Command::new(&program).args(arguments).env_remove(ROLE).env_remove(PARENT));
    io::Error::new(error.kind(), format!("cannot run {}: {error}", program.display()))
}

const ROLE: &str = "LAB_ROLE";
const PARENT: &str = "LAB_PARENT";
