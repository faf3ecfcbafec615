//! Memberships on disk: one folder per server, readable by its owner alone, replaced whole or not at all.
//!
//! ```text
//! <state>/                       0700
//!   <server>/membership.json     0600, {"version":2, …}
//!   .deleted-<server>/…          the server ended it
//!   .inherited-<server>/…        another machine's, of which this one is a copy
//!   .leaving-<host id>.json      0600, left here, and the server does not know yet
//!   receipts.jsonl               0600, what happened, one line each
//!   <server>.lock                held by the process that works on this membership
//! ```

mod inherited;
mod leaving;
mod receipts;
mod wipe;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::receipts::{Receipt, ReceiptError, Receipts};
use crate::model::{Membership, Server};

/// Why a membership could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process works on this membership.
    #[error("another agent is working on the membership with {server}")]
    Busy {
        /// Which membership.
        server: Server,
    },
    /// The file is there and is not a membership.
    #[error("state file {path} is damaged")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What the parser says; it never quotes values.
        #[source]
        source: serde_json::Error,
    },
    /// The file was written by a later version of the agent.
    #[error("state file {path} has format {version}; this agent knows up to {VERSION}")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The version it says.
        version: u32,
    },
    /// The file was written by a version of the agent that this one does not know any more.
    #[error("state file {path} has format {version}, which this agent does not know any more")]
    Older {
        /// Which file.
        path: PathBuf,
        /// The version it says.
        version: u32,
    },
    /// Reading failed.
    #[error("cannot read state file {path}")]
    Read {
        /// Which file or folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Writing failed; what was there before still is.
    #[error("cannot write state file {path}")]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// The folder that holds all memberships.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// The right to change one membership; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// A store in `folder`, which is made on the first write.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Takes the right to change the membership with `server`, without waiting.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another process has it.
    pub fn lock(&self, server: &Server) -> Result<Lock, StoreError> {
        let (path, file) = self.lock_file(&format!("{server}.lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy { server: server.clone() }),
            Err(TryLockError::Error(source)) => Err(StoreError::Write { path, source }),
        }
    }

    /// Whether another process works on the membership with `server`; nothing is made or changed.
    pub fn is_busy(&self, server: &Server) -> bool {
        let lock = File::open(self.folder.join(format!("{server}.lock")));
        lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The folder of everything that is saved.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the right to choose an interface name, until the choice is saved; waits for others who choose.
    pub fn lock_names(&self) -> Result<Lock, StoreError> {
        let (path, file) = self.lock_file(".interfaces.lock")?;
        match file.lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), StoreError> {
        make_folder(&self.folder)?;
        let path = self.folder.join(name);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        match opened {
            Ok(file) => Ok((path, file)),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// Reads the membership with `server`; `None` when there never was one or it was left.
    pub fn load(&self, server: &Server) -> Result<Option<Membership>, StoreError> {
        read(self.path(server))
    }

    /// Saves a membership durably: after this returns, a power cut does not lose it.
    pub fn save(&self, membership: &Membership) -> Result<(), StoreError> {
        let path = self.path(&membership.server);
        let folder = self.folder.join(membership.server.to_string());
        make_folder(&self.folder)?;
        make_folder(&folder)?;
        let written = |source| StoreError::Write { path: path.clone(), source };
        let saved = Saved { version: VERSION, membership: membership.clone() };
        let text = Zeroizing::new(serde_json::to_vec_pretty(&saved).map_err(|error| written(error.into()))?);
        write_whole(&path, &text).and_then(|()| File::open(&self.folder)?.sync_all()).map_err(written)
    }

    /// Forgets the membership with `server`, one set aside too; none there is success.
    pub fn remove(&self, server: &Server) -> Result<(), StoreError> {
        for folder in [self.folder.join(server.to_string()), self.aside(server)] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StoreError::Write { path: folder, source }),
                Ok(()) => sync_folder(&self.folder)?,
            }
        }
        Ok(())
    }

    /// Tells whether a membership with `server` was set aside and not forgotten since.
    pub fn is_set_aside(&self, server: &Server) -> bool {
        self.aside(server).exists()
    }

    fn aside(&self, server: &Server) -> PathBuf {
        self.folder.join(format!("{ASIDE}{server}"))
    }

    /// Takes the membership with `server` out of sight without destroying it; one set aside earlier is replaced.
    pub fn set_aside(&self, server: &Server) -> Result<(), StoreError> {
        let aside = self.aside(server);
        let written = |source| StoreError::Write { path: aside.clone(), source };
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(written(error)),
            Ok(()) | Err(_) => {}
        }
        fs::rename(self.folder.join(server.to_string()), &aside).map_err(written)?;
        sync_folder(&self.folder)
    }

    /// Lists the servers whose membership was set aside and not forgotten since, in order.
    pub fn servers_aside(&self) -> Result<Vec<Server>, StoreError> {
        let mut servers = self.folders(|name| name.strip_prefix(ASIDE)?.parse().ok())?;
        servers.sort();
        Ok(servers)
    }

    /// Reads a membership that was set aside.
    pub fn load_aside(&self, server: &Server) -> Result<Option<Membership>, StoreError> {
        read(self.aside(server).join(FILE))
    }

    /// Lists the servers this host has a membership with, in order.
    pub fn servers(&self) -> Result<Vec<Server>, StoreError> {
        let mut servers = self.folders(|name| name.parse().ok())?;
        servers.sort();
        Ok(servers)
    }

    /// Lists what `parse` makes of the names of folders that hold a membership.
    fn folders(&self, parse: impl Fn(&str) -> Option<Server>) -> Result<Vec<Server>, StoreError> {
        let read = |source| StoreError::Read { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(read(source)),
        };
        let mut servers = Vec::new();
        for entry in entries {
            let entry = entry.map_err(read)?;
            if !entry.file_type().map_err(read)?.is_dir() {
                continue;
            }
            let name = entry.file_name();
            let Some(server) = name.to_str().and_then(&parse) else { continue };
            if entry.path().join(FILE).try_exists().map_err(read)? {
                servers.push(server);
            }
        }
        Ok(servers)
    }

    fn path(&self, server: &Server) -> PathBuf {
        self.folder.join(server.to_string()).join(FILE)
    }
}

/// The file in a membership's folder.
const FILE: &str = "membership.json";

/// Names of folders that are out of sight begin with this.
const ASIDE: &str = ".deleted-";

/// Reads the membership in the file at `path`; `None` when there is none.
fn read(path: PathBuf) -> Result<Option<Membership>, StoreError> {
    let text = match fs::read(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Read { path, source }),
    };
    let corrupt = |source| StoreError::Corrupt { path: path.clone(), source };
    let Version { version } = serde_json::from_slice(&text).map_err(corrupt)?;
    let saved = match version {
        0 => return Err(StoreError::Older { path, version }),
        1 => serde_json::from_slice(&text).and_then(|document| serde_json::from_value(since_version_1(document))),
        VERSION => serde_json::from_slice(&text),
        _ => return Err(StoreError::Newer { path, version }),
    };
    let Saved { membership, .. } = saved.map_err(corrupt)?;
    Ok(Some(membership))
}

/// Version of the file format.
const VERSION: u32 = 2;

/// Adds to a document of version 1 what version 2 has more: nothing was switched off or rotated then.
fn since_version_1(mut document: serde_json::Value) -> serde_json::Value {
    if let Some(fields) = document.as_object_mut() {
        fields.insert("switch".to_owned(), "on".into());
        fields.entry("sent").or_insert_with(|| serde_json::json!([]));
        if let Some(redeeming) = fields.get_mut("redeeming").and_then(serde_json::Value::as_object_mut) {
            redeeming.insert("baseline".to_owned(), serde_json::Value::Null);
        }
        if let Some(identity) = fields.get_mut("identity").and_then(serde_json::Value::as_object_mut) {
            identity.insert("former_key".to_owned(), serde_json::Value::Null);
            identity.insert("next_key".to_owned(), serde_json::Value::Null);
        }
    }
    document
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    #[serde(flatten)]
    membership: Membership,
}

/// Replaces the file at `path` whole or not at all, durably.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let name = name.to_string_lossy();
    let beside = folder.join(format!(".{}.new", name.trim_start_matches('.')));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let written = |source| StoreError::Write { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(written)?;
    match path.parent() {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let written = |source| StoreError::Write { path: path.to_owned(), source };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(written)
}

#[cfg(test)]
mod tests;
