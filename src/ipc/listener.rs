//! The side that answers.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{self, Gid, Group, Uid, User};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::UCred},
    time::timeout,
};

use super::{Answer, GROUP, IpcError, Request, SOCKET, line};

/// The socket of a serving agent; it goes with this value.
#[derive(Debug)]
pub struct Listener {
    group: Option<Gid>,
    /// Held as long as this agent serves.
    _lock: File,
    path: PathBuf,
    socket: UnixListener,
    /// What those get who are neither root, nor the agent's user, nor of its group.
    strangers: Rights,
}

/// What somebody may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    All,
    /// How things are.
    Look,
    /// Nothing.
    None,
}

/// Somebody who asks.
#[derive(Debug)]
pub struct Call {
    rights: Rights,
    stream: BufReader<UnixStream>,
}

impl Listener {
    /// Opens the socket in `folder`; one that a dead agent left behind is replaced.
    ///
    /// # Errors
    /// [`IpcError::Taken`] if an agent serves there.
    pub fn open(folder: &Path, strangers: Rights) -> Result<Self, IpcError> {
        let path = folder.join(SOCKET);
        let failed = |source| IpcError::Socket { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
        let lock = folder.join(".agent.lock");
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(IpcError::Taken(path)),
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let group = Group::from_name(GROUP).ok().flatten().map(|group| group.gid);
        let socket = bind(&path, group, strangers).map_err(failed)?;
        Ok(Self { group, _lock: lock, path, socket, strangers })
    }

    /// Waits for somebody who asks.
    pub async fn accept(&self) -> io::Result<Call> {
        let (stream, _) = self.socket.accept().await?;
        let rights = self.rights(&stream.peer_cred()?);
        Ok(Call { rights, stream: BufReader::new(stream) })
    }

    fn rights(&self, caller: &UCred) -> Rights {
        let user = Uid::from_raw(caller.uid());
        let is_in = |group| belongs(user, Gid::from_raw(caller.gid()), group);
        if user.is_root() || user == unistd::geteuid() || self.group.is_some_and(is_in) {
            Rights::All
        } else {
            self.strangers
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket is gone already");
        }
    }
}

impl Call {
    /// What this caller may ask for.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Reads the request.
    ///
    /// # Errors
    /// If none came in time, or something that is none.
    pub async fn request(&mut self) -> io::Result<Request> {
        let mut text = String::new();
        let read = async { (&mut self.stream).take(MAX_REQUEST).read_line(&mut text).await };
        timeout(REQUEST_PATIENCE, read).await.map_err(|_| io::ErrorKind::TimedOut)??;
        serde_json::from_str(&text).map_err(io::Error::from)
    }

    /// Answers; gives up on those who do not read.
    pub async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let write = async { self.stream.get_mut().write_all(&line(answer)?).await };
        timeout(ANSWER_PATIENCE, write).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Waits until the other side hangs up.
    pub async fn hung_up(&mut self) {
        let mut rest = [0; 64];
        while !matches!(self.stream.read(&mut rest).await, Ok(0) | Err(_)) {}
    }
}

/// Makes the socket beside its place, so that nobody ever finds it with other rights than it should have.
fn bind(path: &Path, group: Option<Gid>, strangers: Rights) -> io::Result<UnixListener> {
    let beside = path.with_extension("new");
    for stale in [&beside, path] {
        match fs::remove_file(stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let listener = UnixListener::bind(&beside)?;
    if let Some(group) = group
        && let Err(error) = unistd::chown(&beside, None, Some(group))
    {
        tracing::debug!(%error, "the control socket keeps its group");
    }
    let mode = match strangers {
        Rights::None => 0o660,
        Rights::All | Rights::Look => 0o666,
    };
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    fs::rename(&beside, path)?;
    Ok(listener)
}

fn belongs(user: Uid, primary: Gid, group: Gid) -> bool {
    if primary == group {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(user) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    unistd::getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

/// A key has 8 KiB at most.
const MAX_REQUEST: u64 = 32 << 10;

/// A request is sent at once, or never.
const REQUEST_PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer waits to be read.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
