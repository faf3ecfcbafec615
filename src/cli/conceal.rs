//! Takes a key off the process's command line and out of its environment, where everybody or `/proc` could read it for
//! as long as the process runs: the key moves to a sealed-off memory file and the program starts itself once more.

use std::{
    convert::Infallible,
    env,
    fs::File,
    io::{self, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
};

use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    prctl,
    resource::{Resource, getrlimit, setrlimit},
};

use crate::{
    config::{ARGUMENT_FD_VARIABLE, KEY_VARIABLE, VARIABLE_FD_VARIABLE, key_variable},
    model::Secret,
};

/// Hides `argument` and the key in the environment. Returns if there is nothing to hide, or if this machine offers no
/// way to.
pub(super) fn hide_keys(argument: Option<&Secret>) {
    let variable = key_variable();
    if argument.is_none() && variable.is_none() {
        return;
    }
    match start_again(argument, variable.as_ref()) {
        Ok(never) => match never {},
        Err(error) => eprintln!("agent: the key stays visible in the process list while this runs: {error}"),
    }
}

fn start_again(argument: Option<&Secret>, variable: Option<&Secret>) -> io::Result<Infallible> {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "agent".into());
    let hidden = argument.map(Secret::expose);
    let kept = arguments.filter(|text| hidden.is_none_or(|hidden| text.to_str() != Some(hidden)));
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(kept).env_remove(KEY_VARIABLE);
    let mut files = Vec::new();
    for (key, place) in [(argument, ARGUMENT_FD_VARIABLE), (variable, VARIABLE_FD_VARIABLE)] {
        let Some(key) = key else { continue };
        // Not closed on execution: the next self reads it.
        let mut file = File::from(memfd_create("enrollment-key", MFdFlags::empty())?);
        file.write_all(key.expose().as_bytes())?;
        command.env(place, file.as_raw_fd().to_string());
        files.push(file);
    }
    Err(command.exec())
}

/// Keeps keys out of core files, whatever ends the process, and its memory from others of the same user.
pub(super) fn refuse_cores() {
    if let Err(error) = prctl::set_dumpable(false) {
        eprintln!("agent: other processes of this user may read keys from memory: {error}");
    }
    // A service manager that has done so already may not let us.
    if getrlimit(Resource::RLIMIT_CORE) == Ok((0, 0)) {
        return;
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        eprintln!("agent: a crash may leave keys in a core file: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_core_nor_another_process_shows_memory() {
        refuse_cores();

        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
        assert_eq!(prctl::get_dumpable(), Ok(false));
    }
}
