//! Sign-offs that wait for their servers: one small file each, apart from the memberships.

use std::{fs, io};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Store, StoreError, make_folder, sync_folder, write_whole};
use crate::model::{Leaving, Server};

impl Store {
    /// Queues a sign-off durably.
    pub fn queue(&self, leaving: &Leaving) -> Result<(), StoreError> {
        make_folder(&self.folder)?;
        let path = self.folder.join(name(leaving.host_id));
        let saved = Saved { version: VERSION, leaving: leaving.clone() };
        let written = |source| StoreError::Write { path: path.clone(), source };
        let text = Zeroizing::new(serde_json::to_vec_pretty(&saved).map_err(|error| written(error.into()))?);
        write_whole(&path, &text).map_err(written)
    }

    /// Takes a sign-off off the queue; none there is success.
    pub fn unqueue(&self, host_id: Uuid) -> Result<(), StoreError> {
        let path = self.folder.join(name(host_id));
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::Write { path, source }),
            Ok(()) => sync_folder(&self.folder),
        }
    }

    /// Lists the sign-offs that wait, the oldest first.
    pub fn queued(&self) -> Result<Vec<Leaving>, StoreError> {
        let mut queued = Vec::new();
        for path in self.contents()? {
            let Some(file) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if !is_queued(file) {
                continue;
            }
            let text = match fs::read(&path) {
                Ok(text) => Zeroizing::new(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(StoreError::Read { path, source }),
            };
            match serde_json::from_slice(&text) {
                Ok(Saved { version: VERSION, leaving }) => queued.push(leaving),
                Ok(Saved { version, .. }) => return Err(StoreError::Newer { path, version }),
                Err(source) => return Err(StoreError::Corrupt { path, source }),
            }
        }
        queued.sort_by_key(|leaving| (leaving.since, leaving.host_id));
        Ok(queued)
    }

    /// Lists those for `server`.
    pub fn queued_for(&self, server: &Server) -> Result<Vec<Leaving>, StoreError> {
        let mut queued = self.queued()?;
        queued.retain(|leaving| leaving.server == *server);
        Ok(queued)
    }

    /// Tells whether the host was left: whatever is saved of it is not to be used any more.
    pub fn is_queued(&self, host_id: Uuid) -> bool {
        self.folder.join(name(host_id)).exists()
    }
}

fn name(host_id: Uuid) -> String {
    format!("{PREFIX}{host_id}{SUFFIX}")
}

/// Tells whether a file of this name is a sign-off.
pub(super) fn is_queued(file: &str) -> bool {
    let host_id = file.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    host_id.is_some_and(|host_id| host_id.parse::<Uuid>().is_ok())
}

const PREFIX: &str = ".leaving-";
const SUFFIX: &str = ".json";

/// Version of the file format.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    #[serde(flatten)]
    leaving: Leaving,
}
