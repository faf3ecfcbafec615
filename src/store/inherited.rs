//! Memberships that belong to another machine, of which this one is a copy: kept out of use, not destroyed.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf};

use super::{FILE, Store, StoreError, read, sync_folder};
use crate::model::{Membership, Server};

impl Store {
    /// Takes the membership with `server` out of use; one from before is replaced.
    pub fn quarantine(&self, server: &Server) -> Result<(), StoreError> {
        let there = self.inherited(server);
        let written = |source| StoreError::Write { path: there.clone(), source };
        self.forget_inherited(server)?;
        fs::rename(self.folder.join(server.to_string()), &there).map_err(written)?;
        sync_folder(&self.folder)?;
        // Whoever copied it may have been careless.
        fs::set_permissions(&there, fs::Permissions::from_mode(0o700)).map_err(written)?;
        fs::set_permissions(there.join(FILE), fs::Permissions::from_mode(0o600)).map_err(written)
    }

    /// Puts a membership back in use that is this machine's after all.
    pub fn release(&self, server: &Server) -> Result<(), StoreError> {
        let back = self.folder.join(server.to_string());
        let renamed = fs::rename(self.inherited(server), &back);
        renamed.map_err(|source| StoreError::Write { path: back, source })?;
        sync_folder(&self.folder)
    }

    /// Tells whether a membership with `server` is out of use and was not forgotten since.
    pub fn is_inherited(&self, server: &Server) -> bool {
        self.inherited(server).join(FILE).exists()
    }

    /// Lists the servers of memberships that are out of use, in order.
    pub fn servers_inherited(&self) -> Result<Vec<Server>, StoreError> {
        let mut servers = self.folders(|name| name.strip_prefix(INHERITED)?.parse().ok())?;
        servers.sort();
        Ok(servers)
    }

    /// Reads a membership that is out of use.
    pub fn load_inherited(&self, server: &Server) -> Result<Option<Membership>, StoreError> {
        read(self.inherited(server).join(FILE))
    }

    /// Destroys a membership that is out of use; none there is success.
    pub fn forget_inherited(&self, server: &Server) -> Result<(), StoreError> {
        let folder = self.inherited(server);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::Write { path: folder, source }),
            Ok(()) => sync_folder(&self.folder),
        }
    }

    fn inherited(&self, server: &Server) -> PathBuf {
        self.folder.join(format!("{INHERITED}{server}"))
    }
}

/// Names of folders that hold what another machine left begin with this.
pub(super) const INHERITED: &str = ".inherited-";
