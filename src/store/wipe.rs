//! Nothing of this machine's: what an image of it must not carry to others.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{ASIDE, Store, StoreError, inherited::INHERITED, leaving, receipts, sync_folder};
use crate::model::Server;

impl Store {
    /// Lists whatever is in the state folder, in order.
    pub fn contents(&self) -> Result<Vec<PathBuf>, StoreError> {
        let read = |source| StoreError::Read { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(read(source)),
        };
        let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.map_err(read)?;
        paths.sort();
        Ok(paths)
    }

    /// Destroys all memberships, those out of use too, sign-offs that wait, receipts and locks; what is not the agent's
    /// stays.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another process works on one; nothing was destroyed then.
    pub fn wipe(&self) -> Result<(), StoreError> {
        let servers = self.servers()?;
        let locks = servers.iter().map(|server| self.lock(server)).collect::<Result<Vec<_>, _>>()?;
        for path in self.contents()? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let removed = if path.is_dir() && holds_membership(&name) {
                fs::remove_dir_all(&path)
            } else if path.is_file() && is_ours(&path, &name) {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
            removed.map_err(|source| StoreError::Write { path, source })?;
        }
        drop(locks);
        if self.folder.is_dir() { sync_folder(&self.folder) } else { Ok(()) }
    }
}

fn holds_membership(name: &str) -> bool {
    let bare = name.strip_prefix(ASIDE).or_else(|| name.strip_prefix(INHERITED)).unwrap_or(name);
    bare.parse::<Server>().is_ok()
}

fn is_ours(path: &Path, name: &str) -> bool {
    let bare = name.strip_suffix(".new").unwrap_or(name);
    path.extension().is_some_and(|extension| extension == "lock")
        || leaving::is_queued(bare)
        || receipts::is_receipts(name)
}
