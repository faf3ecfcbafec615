//! The program `nft`, run for moments, with nothing of ours but what it is told.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};

use super::FirewallError;

/// Where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program(&'static str);

impl Program {
    /// Finds it where systems have it: a service's search path often lacks those folders, and a user's has others.
    pub(super) fn find() -> Option<Self> {
        let is_program = |path: &&&str| {
            Path::new(path).metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        PLACES.iter().find(is_program).map(|path| Self(path))
    }

    /// Lists the tables of our family.
    pub(super) async fn tables(self) -> Result<String, FirewallError> {
        self.run(&["-j", "list", "tables", "inet"], "").await
    }

    /// Returns what it answers to a document.
    pub(super) async fn answer(self, document: &str) -> Result<String, FirewallError> {
        // What `-` means to it is `/dev/stdin`, which small systems lack.
        self.run(&["-j", "-f", "/proc/self/fd/0"], document).await
    }

    async fn run(self, arguments: &[&str], input: &str) -> Result<String, FirewallError> {
        let Self(program) = self;
        let failed = |source| FirewallError::Run { program, source };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(failed)?;
        let Ok(output) = timeout(PATIENCE, converse(child, input)).await else {
            return Err(FirewallError::Slow(program));
        };
        let output = output.map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why").trim();
        Err(FirewallError::Refused { program, said: said.chars().filter(|c| !c.is_control()).take(200).collect() })
    }
}

/// Writes and reads at once, since neither side has room for everything.
async fn converse(mut child: Child, input: &str) -> std::io::Result<std::process::Output> {
    let mut stdin = child.stdin.take();
    let write = async move {
        if let Some(pipe) = &mut stdin {
            // A program that ends before it has read everything says why by its exit.
            drop(pipe.write_all(input.as_bytes()).await);
        }
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    output
}

/// In this order.
const PLACES: &[&str] =
    &["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft", "/run/current-system/sw/bin/nft"];

/// Far above the milliseconds that it takes, and above the seconds that thousands of rules do.
const PATIENCE: Duration = Duration::from_secs(30);
