//! One hook: whether it may be run, and running it.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, geteuid},
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

/// How long a hook may take before its process group is killed.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The only variable that a hook gets.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lists the hooks in `folder` that may be run, in the order of their names; tells of those that may not.
pub(super) fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = match listed(folder) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "hooks are not run");
            return Vec::new();
        }
    };
    let judge = |path: &Path| fit(&fs::symlink_metadata(path).map_err(|error| error.to_string())?);
    let is_fit = |path: &PathBuf| match judge(path) {
        Ok(()) => true,
        Err(why) => {
            tracing::warn!(hook = %path.display(), why, "a hook is passed over");
            false
        }
    };
    entries.into_iter().filter(is_fit).collect()
}

fn listed(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let metadata = fs::metadata(folder)?;
    if let Some(why) = unsafe_owner(&metadata) {
        return Err(io::Error::other(why));
    }
    let entries: io::Result<Vec<_>> = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut entries = entries?;
    entries.sort();
    Ok(entries)
}

/// Whether a file may be run as a hook, else why not.
fn fit(metadata: &Metadata) -> Result<(), String> {
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if metadata.mode() & 0o111 == 0 {
        return Err("it is not executable".to_owned());
    }
    unsafe_owner(metadata).map_or(Ok(()), |why| Err(why.to_owned()))
}

/// Why others could have put something there; `None` if only root and this user can.
fn unsafe_owner(metadata: &Metadata) -> Option<&'static str> {
    if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
        return Some("it belongs neither to root nor to the agent's user");
    }
    (metadata.mode() & 0o022 != 0).then_some("others may write to it")
}

/// Runs a hook to its end, to the end of its time, or until `is_over` says so; what becomes of it is logged.
pub(super) async fn run(hook: &Path, event: &str, document: &str, limit: Duration, mut is_over: watch::Receiver<bool>) {
    let mut child = match start(hook, event) {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(hook = %hook.display(), event, %error, "a hook cannot be run");
            return;
        }
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let told = async {
        tokio::select! {
            told = converse(&mut child, document) => Some(told),
            Ok(_) = is_over.wait_for(|is_over| *is_over) => None,
        }
    };
    match timeout(limit, told).await.ok().flatten() {
        Some(Ok(status)) if status.success() => tracing::debug!(hook = %hook.display(), event, "a hook was told"),
        Some(Ok(status)) => tracing::warn!(hook = %hook.display(), event, %status, "a hook failed"),
        Some(Err(error)) => tracing::warn!(hook = %hook.display(), event, %error, "a hook failed"),
        None => {
            tracing::warn!(hook = %hook.display(), event, ?limit, "a hook took too long and was killed");
            if let Some(group) = group
                && let Err(error) = killpg(Pid::from_raw(group), Signal::SIGKILL)
            {
                tracing::warn!(%error, "a hook goes on");
            }
            if let Err(error) = child.wait().await {
                tracing::debug!(%error, "the end of a hook was not seen");
            }
        }
    }
}

fn start(hook: &Path, event: &str) -> io::Result<Child> {
    let mut command = Command::new(hook);
    command.arg(event).env_clear().env("PATH", PATH).current_dir("/").process_group(0);
    // What it says goes where the agent's own log does; standard output is for the agent's results.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command.spawn()
}

async fn converse(child: &mut Child, document: &str) -> io::Result<std::process::ExitStatus> {
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(format!("{document}\n").as_bytes()).await {
            // A hook need not read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    child.wait().await
}
