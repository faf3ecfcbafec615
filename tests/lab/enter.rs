//! The way into fresh namespaces, with or without root.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io,
    path::PathBuf,
    process,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

use super::{
    helper,
    hub::Lab,
    role::{self, Role},
};

/// What this machine lacks for the lab, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Moves this process into fresh namespaces and sets the hub up in them. Has to be the first thing in `main`.
///
/// A process that plays a node's part instead stays in here until its end.
///
/// # Errors
/// [`Missing`] if the machine allows no namespaces, no TUN device, or no forwarding.
pub(crate) fn enter() -> Result<Lab, Missing> {
    play_node_parts();
    namespaces()?;
    tun()?;
    let scratch = scratch()?;
    Lab::open(scratch).map_err(|error| Missing(format!("{error:#}")))
}

/// Never returns in a process that is a node's helper or a program of it.
pub(crate) fn play_node_parts() {
    match Role::current() {
        Role::Helper => {
            if let Err(error) = helper::serve() {
                eprintln!("lab helper: {error:#}");
                process::exit(1);
            }
            process::exit(0);
        }
        Role::Program => {
            eprintln!("lab: {}", role::become_program());
            // What a shell answers for a program that cannot be run.
            process::exit(127);
        }
        Role::Hub(_) | Role::Probe | Role::Runner => {}
    }
}

fn namespaces() -> Result<(), Missing> {
    let (user, group) = (geteuid(), getegid());
    match unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(refused)?;
            // The kernel takes a group map from an unprivileged process only once it has given up setgroups.
            map("setgroups", "deny")?;
            map("uid_map", &format!("0 {user} 1"))?;
            map("gid_map", &format!("0 {group} 1"))?;
        }
        Err(error) => return Err(refused(error)),
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|error| Missing(format!("cannot make the mounts private: {}", io::Error::from(error))))
}

fn refused(error: Errno) -> Missing {
    let source = io::Error::from(error);
    if error == Errno::EPERM || error == Errno::ENOSPC {
        return Missing(format!(
            "needs root or unprivileged user namespaces, and this machine allows neither ({source}); see the settings \
             user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns"
        ));
    }
    Missing(format!("this kernel makes no network namespaces ({source})"))
}

fn map(file: &str, line: &str) -> Result<(), Missing> {
    fs::write(format!("/proc/self/{file}"), line).map_err(|error| {
        Missing(format!("needs root or unprivileged user namespaces: cannot write /proc/self/{file} ({error})"))
    })
}

/// Covers an empty folder with memory, so that files end with the hub, however it ends.
fn scratch() -> Result<PathBuf, Missing> {
    let is_empty = |folder: &PathBuf| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    let folder = ["/mnt", "/media", "/srv", "/dev/shm"].map(PathBuf::from).into_iter().find(is_empty);
    let folder = folder.ok_or_else(|| Missing("needs an empty folder: /mnt, /media, /srv or /dev/shm".to_owned()))?;
    mount(Some("lab"), &folder, Some("tmpfs"), MsFlags::MS_NODEV | MsFlags::MS_NOSUID, Some("mode=755")).map_err(
        |error| Missing(format!("cannot keep its files in memory at {}: {}", folder.display(), io::Error::from(error))),
    )?;
    Ok(folder)
}

fn tun() -> Result<(), Missing> {
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Ok(()),
        Err(error) => Err(Missing(format!("needs a TUN device: cannot open /dev/net/tun ({error})"))),
    }
}
