//! The local socket of a serving agent: one JSON line asks, one JSON line answers.
//!
//! The socket is named after the interface, in a folder that only its owner can enter.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::model::{InterfaceName, NetworkName, Secret, Status};

/// What can be asked of a serving agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verb")]
pub enum Request {
    /// Redeem a further key.
    Join {
        /// The key as it is pasted.
        token: Secret,
    },
    /// Leave the server, or one network of it.
    Leave {
        /// `None` is the whole membership, which also ends the serving process.
        network: Option<NetworkName>,
    },
    /// Tell how things are.
    Status,
    /// Do one round with the server now.
    Sync,
}

/// What a serving agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "answer")]
pub enum Answer {
    /// A further key is in force, or was before.
    Joined {
        /// Whether it was redeemed now.
        redeemed: bool,
        /// How things are since.
        status: Box<Status>,
    },
    /// Done, with what did not work on the way.
    Done {
        /// Empty when everything did.
        failures: Vec<Failure>,
    },
    /// Not done.
    Failed(Failure),
    /// How things are.
    Status(Box<Status>),
}

/// A failure as it crosses the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Exit code of its class.
    pub code: u8,
    /// What happened, with its causes.
    pub message: String,
}

/// Why a socket could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// The socket cannot be made, or the agent behind it does not answer.
    #[error("cannot use the control socket {path}")]
    Socket {
        /// Which socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another agent serves this interface.
    #[error("another agent already serves {0}")]
    Taken(InterfaceName),
}

/// Makes sure that a socket for `interface` could be opened, before anything depends on it.
pub fn prepare(folder: &Path, interface: &InterfaceName) -> Result<(), IpcError> {
    let path = folder.join(format!(".{interface}.{}", std::process::id()));
    let failed = |source| IpcError::Socket { path: path.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    std::os::unix::net::UnixListener::bind(&path).map_err(failed)?;
    fs::remove_file(&path).map_err(failed)
}

/// Opens the socket of the agent that serves `interface`; a socket that a dead process left behind is replaced.
pub async fn listen(folder: &Path, interface: &InterfaceName) -> Result<UnixListener, IpcError> {
    let path = path(folder, interface);
    let failed = |source| IpcError::Socket { path: path.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    if UnixStream::connect(&path).await.is_ok() {
        return Err(IpcError::Taken(interface.clone()));
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Removes the socket of an agent that stops serving.
pub fn close(folder: &Path, interface: &InterfaceName) {
    if let Err(error) = fs::remove_file(path(folder, interface)) {
        tracing::debug!(%error, "the control socket is gone already");
    }
}

/// Asks the agent that serves `interface`; `None` when nobody does.
pub async fn ask(folder: &Path, interface: &InterfaceName, request: &Request) -> Result<Option<Answer>, IpcError> {
    let path = path(folder, interface);
    let failed = |source| IpcError::Socket { path: path.clone(), source };
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(source) => return Err(failed(source)),
    };
    let exchange = async {
        let (read, mut write) = stream.into_split();
        write.write_all(&line(request)?).await?;
        let mut text = String::new();
        BufReader::new(read).take(MAX_LINE).read_line(&mut text).await?;
        serde_json::from_str(&text).map_err(io::Error::from)
    };
    match timeout(PATIENCE, exchange).await {
        Ok(answer) => answer.map(Some).map_err(failed),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// Reads the one request of a connection.
pub async fn receive(stream: &mut UnixStream) -> io::Result<Request> {
    let mut text = String::new();
    let read = async { BufReader::new(stream).take(MAX_REQUEST).read_line(&mut text).await };
    timeout(Duration::from_secs(2), read).await.map_err(|_| io::ErrorKind::TimedOut)??;
    serde_json::from_str(&text).map_err(io::Error::from)
}

/// Sends the one answer of a connection.
pub async fn reply(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    stream.write_all(&line(answer)?).await
}

fn path(folder: &Path, interface: &InterfaceName) -> PathBuf {
    folder.join(format!("{interface}.sock"))
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text)
}

/// A leave tells the server first, which may take a request's whole time.
const PATIENCE: Duration = Duration::from_secs(90);

/// A key has 8 KiB at most.
const MAX_REQUEST: u64 = 16 << 10;

/// A status of 10,000 peers is about 4 MiB.
const MAX_LINE: u64 = 64 << 20;
