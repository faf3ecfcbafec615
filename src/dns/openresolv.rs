//! openresolv, which tells a local resolver as dnsmasq or unbound which server is for which domain (resolvconf(8)).

use std::{
    io::{self, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

use super::{DnsError, Wanted};
use crate::model::{DomainName, InterfaceName, is_reverse};

/// Finds out whether the program at `path` is openresolv: others go by the same name.
pub(super) fn is_openresolv(path: &Path) -> bool {
    let said = Command::new(path).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    said.is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"openresolv"))
}

/// What is kept for an interface.
#[derive(Debug)]
pub(super) struct Kept {
    /// Private servers are asked for their own domains alone.
    is_private: bool,
    text: String,
}

impl From<&Wanted<'_>> for Kept {
    fn from(wanted: &Wanted<'_>) -> Self {
        let Wanted { domains, everything, server } = *wanted;
        // All of them are searched as well: openresolv knows no other domains. So those of addresses are left out.
        let names = domains.keys().map(DomainName::as_str).filter(|name| !is_reverse(name));
        let names: Vec<_> = names.collect();
        // Part of the text, so that a change of it is one of the text.
        let scope = if everything { "for all names" } else { "for these names" };
        let text = format!("{MARK}\n# {scope}\nnameserver {}\nsearch {}\n", server.ip(), names.join(" "));
        Self { is_private: !everything, text }
    }
}

/// Makes what is kept for the interface what is wanted; returns whether that took anything.
pub(super) fn apply(path: &Path, interface: &InterfaceName, want: &Kept) -> Result<bool, DnsError> {
    let Kept { is_private, text } = want;
    if kept(path, interface)?.contains(text) {
        return Ok(false);
    }
    run(path, if *is_private { &["-p"] } else { &[] }, "-a", interface, text)?;
    Ok(true)
}

/// Takes back what we made of the interface; what others made of it stays. Returns whether there was anything.
pub(super) fn revert(path: &Path, interface: &InterfaceName) -> Result<bool, DnsError> {
    let is_ours = kept(path, interface)?.contains(MARK);
    if is_ours {
        run(path, &["-f"], "-d", interface, "")?;
    }
    Ok(is_ours)
}

/// What there is for the interface; empty if there is nothing.
fn kept(path: &Path, interface: &InterfaceName) -> Result<String, DnsError> {
    let output = Command::new(path).args(["-l", interface.as_str()]).stdin(Stdio::null()).output();
    let output = output.map_err(|source| DnsError::Run { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(path: &Path, flags: &[&str], verb: &str, interface: &InterfaceName, text: &str) -> Result<(), DnsError> {
    let mut command = Command::new(path);
    command.args(flags).args([verb, interface.as_str()]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = || -> io::Result<Output> {
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    };
    let failed = |source| DnsError::Run { path: path.to_owned(), source };
    let output = { run }().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(io::Error::other(said.lines().next().unwrap_or("it failed without a word").to_owned())))
}

/// First line of what is ours.
const MARK: &str = "# enroll-agent";
