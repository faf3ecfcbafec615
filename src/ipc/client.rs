//! The side that asks.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{Answer, IpcError, Request, SOCKET, line};

/// A connection to a serving agent.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

/// Connects to the agent that serves in `folder`; `None` when none does.
pub async fn connect(folder: &Path) -> Result<Option<Client>, IpcError> {
    let path = folder.join(SOCKET);
    match UnixStream::connect(&path).await {
        Ok(stream) => {
            let (read, write) = stream.into_split();
            Ok(Some(Client { path, read: BufReader::new(read), write }))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(source) => Err(IpcError::Socket { path, source }),
    }
}

impl Client {
    /// Asks.
    pub async fn send(&mut self, request: &Request) -> Result<(), IpcError> {
        let sent = async { self.write.write_all(&line(request)?).await };
        sent.await.map_err(|source| IpcError::Socket { path: self.path.clone(), source })
    }

    /// Reads the next answer; `None` when the agent has ended the conversation.
    ///
    /// # Errors
    /// [`IpcError::Socket`] if none came within `patience`, or something that is none.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Answer>, IpcError> {
        let failed = |source| IpcError::Socket { path: self.path.clone(), source };
        let mut text = String::new();
        let read = async { (&mut self.read).take(MAX_LINE).read_line(&mut text).await };
        let length = timeout(patience, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match length.map_err(failed)? {
            0 => Ok(None),
            _ => serde_json::from_str(&text).map(Some).map_err(|error| failed(error.into())),
        }
    }

    /// Asks and reads the one answer.
    pub async fn ask(&mut self, request: &Request) -> Result<Answer, IpcError> {
        self.send(request).await?;
        let gone = || IpcError::Socket { path: self.path.clone(), source: io::ErrorKind::UnexpectedEof.into() };
        let gone = gone();
        self.next(PATIENCE).await?.ok_or(gone)
    }
}

/// A leave tells the server first, which may take a request's whole time.
const PATIENCE: Duration = Duration::from_secs(90);

/// A status of 10,000 peers is about 4 MiB.
const MAX_LINE: u64 = 64 << 20;
