//! What becomes of the place a key came from, once the server has taken the key.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::KEY_VARIABLE;

/// Where keys were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// On the command line.
    Argument,
    /// In the configuration file at this path, or in files that it names.
    Configuration(PathBuf),
    /// In this file, where systemd put a credential.
    Credential(PathBuf),
    /// In an inherited descriptor.
    Descriptor,
    /// In a file that is ours to remove.
    Drop {
        /// Which file.
        path: PathBuf,
        /// By what it is known again; `None` if it could not be looked at.
        stamp: Option<Stamp>,
    },
    /// In these files, which the owner of the machine named.
    Files(Vec<PathBuf>),
    /// On standard input, or typed.
    Input,
    /// In the environment.
    Variable,
}

/// One content of a file: its device, inode, and the second and nanosecond of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64, u64, i64, i64);

/// What happened to one copy of a key; the texts are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It is gone.
    Removed(String),
    /// It is still there, and the agent cannot or may not change that.
    Stays(String),
}

impl Source {
    /// A file that somebody drops for us.
    pub(super) fn dropped(path: PathBuf) -> Self {
        Self::Drop { stamp: stamp(&path).ok(), path }
    }

    /// A container's secret, which is removed like a dropped file where the mount lets us.
    pub(super) fn secret(path: PathBuf) -> Self {
        Self::dropped(path)
    }

    /// The file of a place that is looked at without being named.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Credential(path) | Self::Drop { path, .. } => Some(path),
            Self::Argument
            | Self::Configuration(_)
            | Self::Descriptor
            | Self::Files(_)
            | Self::Input
            | Self::Variable => None,
        }
    }

    /// Removes the copies that are ours to remove, and names the others.
    pub fn clear(&self) -> Vec<Trace> {
        self.clear_below(Path::new("/"))
    }

    fn clear_below(&self, root: &Path) -> Vec<Trace> {
        match self {
            Self::Argument | Self::Descriptor | Self::Input => Vec::new(),
            Self::Configuration(path) => {
                vec![Trace::Stays(format!("the key stays in {} or where it says", path.display()))]
            }
            Self::Credential(path) => {
                let until = format!("the key stays in {} until the service ends", path.display());
                let originals = CREDENTIAL_STORES.iter().filter_map(|store| remove_if_there(&root.join(store)));
                originals.chain([Trace::Stays(until)]).collect()
            }
            Self::Drop { path, stamp: read } => match stamp(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Ok(now) if Some(now) != *read => vec![Trace::Stays(format!("{} changed and stays", path.display()))],
                Ok(_) | Err(_) => vec![remove(path)],
            },
            Self::Files(paths) => {
                paths.iter().map(|path| Trace::Stays(format!("the key stays in {}", path.display()))).collect()
            }
            Self::Variable => vec![Trace::Stays(format!("the key stays wherever {KEY_VARIABLE} is set"))],
        }
    }
}

fn remove(path: &Path) -> Trace {
    match fs::remove_file(path) {
        Ok(()) => Trace::Removed(format!("the key was removed from {}", path.display())),
        Err(error) => Trace::Stays(format!("the key stays in {}: {error}", path.display())),
    }
}

/// Removes a file that may be there; a folder that only root may look into could have it.
fn remove_if_there(path: &Path) -> Option<Trace> {
    match path.try_exists() {
        Ok(true) => Some(remove(path)),
        Ok(false) => None,
        Err(error) => Some(Trace::Stays(format!("if the key is in {}, it stays: {error}", path.display()))),
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(Stamp(metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// Where systemd takes credentials of that name from (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL_STORES: [&str; 4] = [
    "etc/credstore/enroll-agent.key",
    "etc/credstore.encrypted/enroll-agent.key",
    "run/credstore/enroll-agent.key",
    "run/credstore.encrypted/enroll-agent.key",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_file_goes_unless_another_one_came_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enroll.key");
        fs::write(&path, "one").unwrap();
        let old = Source::dropped(path.clone());
        fs::write(folder.path().join("new"), "two").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        let new = Source::dropped(path.clone());

        assert_eq!(old.clear(), [Trace::Stays(format!("{} changed and stays", path.display()))]);
        assert_eq!(new.clear(), [Trace::Removed(format!("the key was removed from {}", path.display()))]);
        assert_eq!(new.clear(), [], "what is gone needs no word");
        assert!(!path.exists());
    }

    #[test]
    fn a_credential_goes_from_the_store_and_stays_in_the_service() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join(CREDENTIAL_STORES[0]);
        fs::create_dir_all(store.parent().unwrap()).unwrap();
        fs::write(&store, "key").unwrap();

        let traces = Source::Credential("/c/enroll-agent.key".into()).clear_below(root.path());

        let removed = format!("the key was removed from {}", store.display());
        let stays = "the key stays in /c/enroll-agent.key until the service ends".to_owned();
        assert_eq!(traces, [Trace::Removed(removed), Trace::Stays(stays)]);
        assert!(!store.exists());
    }

    #[test]
    fn what_is_not_ours_is_named() {
        let stays = |source: Source, text: &str| assert_eq!(source.clear(), [Trace::Stays(text.to_owned())]);

        stays(Source::Files(vec!["/a.key".into()]), "the key stays in /a.key");
        stays(Source::Configuration("/a.toml".into()), "the key stays in /a.toml or where it says");
        stays(Source::Variable, "the key stays wherever ENROLL_AGENT_KEY is set");
        for source in [Source::Argument, Source::Descriptor, Source::Input] {
            assert_eq!(source.clear(), []);
        }
    }
}
