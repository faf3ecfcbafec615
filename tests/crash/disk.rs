//! What a power cut leaves of a folder: only what was synced.
//!
//! A file has the bytes that it had when it was last synced, a folder the names that it had when it was last synced
//! (POSIX promises no more). What real file systems lose is between this and nothing.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What becomes of a folder that was not synced to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Names as they were last synced, with the bytes that were last synced.
    All,
    /// All names, with the bytes that were last synced: files that are empty although they have their name.
    Bytes,
    /// Nothing: only the process ends.
    None,
}

/// What is on the disk of a folder, by inode numbers, beside what programs see.
pub(crate) struct Disk {
    root: PathBuf,
    durable: BTreeMap<u64, Kept>,
}

/// A file or folder as it was last synced.
#[derive(Clone)]
pub(crate) enum Kept {
    File(Vec<u8>),
    Folder(BTreeMap<String, u64>),
}

/// A state of one file or folder that is about to be synced.
pub(crate) type Written = (u64, Kept);

impl Disk {
    /// Begins with everything in `root` synced.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let mut disk = Self { root: root.to_owned(), durable: BTreeMap::new() };
        disk.sync_all(root)?;
        Ok(disk)
    }

    fn sync_all(&mut self, path: &Path) -> io::Result<()> {
        let (inode, kept) = kept(path)?;
        if let Kept::Folder(names) = &kept {
            for name in names.keys() {
                self.sync_all(&path.join(name))?;
            }
        }
        self.durable.insert(inode, kept);
        Ok(())
    }

    /// Reads what a sync of `path` will have made durable once it is done; `None` for what is elsewhere.
    pub(crate) fn written(&self, path: &Path) -> Option<Written> {
        if path.starts_with(&self.root) { kept(path).ok() } else { None }
    }

    /// Notes that a sync is done.
    pub(crate) fn synced(&mut self, (inode, kept): Written) {
        self.durable.insert(inode, kept);
    }

    /// Leaves in the folder what a cut with this loss leaves.
    pub(crate) fn cut(&self, loss: Loss) -> io::Result<()> {
        match loss {
            Loss::All => {
                let root = fs::metadata(&self.root)?.ino();
                let mut modes = BTreeMap::new();
                modes_below(&self.root, &mut modes)?;
                empty(&self.root)?;
                self.restore(root, &self.root, &modes)
            }
            Loss::Bytes => self.truncate(&self.root),
            Loss::None => Ok(()),
        }
    }

    fn restore(&self, inode: u64, path: &Path, modes: &BTreeMap<u64, u32>) -> io::Result<()> {
        // What was removed since has no mode any more; it was a file, for its owner alone.
        let mode = modes.get(&inode).copied().unwrap_or(FILE | 0o600);
        let is_folder = mode & KIND == FOLDER;
        match self.durable.get(&inode) {
            Some(Kept::File(bytes)) => fs::write(path, bytes)?,
            Some(Kept::Folder(names)) => {
                fs::create_dir_all(path)?;
                for (name, inode) in names {
                    self.restore(*inode, &path.join(name), modes)?;
                }
            }
            // Its name was synced and it was not.
            None if is_folder => fs::create_dir_all(path)?,
            None => fs::write(path, [])?,
        }
        fs::set_permissions(path, Permissions::from_mode(mode & 0o777))
    }

    fn truncate(&self, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            let found = fs::symlink_metadata(&path)?;
            if found.is_dir() {
                self.truncate(&path)?;
            } else if found.is_file() {
                match self.durable.get(&found.ino()) {
                    Some(Kept::File(bytes)) => fs::write(&path, bytes)?,
                    Some(Kept::Folder(_)) | None => fs::write(&path, [])?,
                }
            }
        }
        Ok(())
    }
}

fn kept(path: &Path) -> io::Result<Written> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        // A socket is its name alone.
        let bytes = if found.is_file() { fs::read(path)? } else { Vec::new() };
        return Ok((found.ino(), Kept::File(bytes)));
    }
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        names.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.ino());
    }
    Ok((found.ino(), Kept::Folder(names)))
}

fn modes_below(path: &Path, modes: &mut BTreeMap<u64, u32>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        modes.insert(found.ino(), found.mode());
        if found.is_dir() {
            modes_below(&path, modes)?;
        }
    }
    Ok(())
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}

/// The bits of a mode that tell what it is of (inode(7)).
const KIND: u32 = 0o170_000;

const FILE: u32 = 0o100_000;

const FOLDER: u32 = 0o040_000;
