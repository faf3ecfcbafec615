//! Where enrollment keys come from.

use std::{
    env, fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{Config, ConfigError, KeyFlags, key_variable};
use crate::model::Token;

impl Config {
    /// Finds and parses the enrollment key; `None` when nobody gave one.
    ///
    /// In this order: command line (or standard input for `-`), `--key-file` and its variable, [`KEY_VARIABLE`](super::KEY_VARIABLE), the systemd credential
    /// `enroll-agent.key`, `key` and `key_file` of the configuration file.
    pub fn token(&self, flags: &KeyFlags) -> Result<Option<Token>, ConfigError> {
        let KeyFlags { argument_fd, file, key, variable_fd } = flags;
        if let Some(fd) = variable_fd.filter(|_| argument_fd.is_some() || file.is_some() || key.is_some()) {
            // Nobody reads it, and no child shall inherit it.
            forget_hidden(fd)?;
        }
        if let Some(fd) = flags.argument_fd {
            return read_hidden(fd).map(Some);
        }
        if let Some(key) = &flags.key {
            if key.expose() != "-" {
                return Ok(Some(key.expose().parse()?));
            }
            let mut text = Zeroizing::new(String::new());
            let read = io::stdin().lock().take(MAX_KEY_FILE).read_to_string(&mut text);
            read.map_err(|source| ConfigError::Read { path: "standard input".into(), source })?;
            return Ok(Some(text.parse()?));
        }
        if let Some(path) = &flags.file {
            refuse_permissive(path)?;
            return Ok(Some(read_secret(path)?.parse()?));
        }
        if let Some(fd) = flags.variable_fd {
            return read_hidden(fd).map(Some);
        }
        // Still there only where it could not be hidden.
        if let Some(key) = key_variable() {
            return Ok(Some(key.expose().parse()?));
        }
        let credential =
            env::var_os("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join("enroll-agent.key"));
        if let Some(path) = credential.filter(|path| path.exists()) {
            return Ok(Some(read_secret(&path)?.parse()?));
        }
        if let Some(key) = &self.key {
            return Ok(Some(key.expose().parse()?));
        }
        match &self.key_file {
            Some(path) => {
                refuse_permissive(path)?;
                Ok(Some(read_secret(path)?.parse()?))
            }
            None => Ok(None),
        }
    }
}

impl Config {
    /// The hardware's UUID as systemd read it for a service that may not, in the credential `product-uuid`; `None` without.
    pub fn hardware_uuid(&self) -> Option<String> {
        let folder = env::var_os("CREDENTIALS_DIRECTORY")?;
        fs::read_to_string(PathBuf::from(folder).join("product-uuid")).ok()
    }
}

/// A key that the group or everybody can read is not a secret.
pub(super) fn refuse_permissive(path: &Path) -> Result<(), ConfigError> {
    let metadata = fs::metadata(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(ConfigError::Permissive { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Reads a hidden key and lets go of it.
fn read_hidden(fd: i32) -> Result<Token, ConfigError> {
    let text = read_secret(Path::new(&format!("/proc/self/fd/{fd}")))?;
    forget_hidden(fd)?;
    Ok(text.parse()?)
}

fn forget_hidden(fd: i32) -> Result<(), ConfigError> {
    nix::unistd::close(fd).map_err(|error| ConfigError::Read { path: "the hidden key".into(), source: error.into() })
}

pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = Zeroizing::new(String::new());
    fs::File::open(path).map_err(read)?.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(read)?;
    Ok(text)
}

/// Bytes; a key has 8 KiB at most.
const MAX_KEY_FILE: u64 = 64 << 10;
