//! A network namespace for one process.

use std::fs;

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

/// Moves this process, which has one thread, into a fresh network namespace; without root, as root of a fresh user
/// namespace.
pub(crate) fn enter() -> Result<(), String> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())?;
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ];
    maps.into_iter().try_for_each(|(path, text)| fs::write(path, text).map_err(|error| format!("{path}: {error}")))
}
