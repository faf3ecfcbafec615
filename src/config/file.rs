//! The configuration file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    ConfigError,
    flags::{Flags, RunFlags, Wanted},
    keys::refuse_permissive,
};
use crate::model::Secret;

/// What it says.
#[derive(Default)]
pub(super) struct File {
    pub(super) flags: Flags,
    pub(super) key: Option<Secret>,
    pub(super) memberships: Vec<Wanted>,
    pub(super) path_of_key: Option<PathBuf>,
    pub(super) run: RunFlags,
}

/// Reads it; only a default one may be missing.
pub(super) fn read_file(path: &Path, required: bool) -> Result<File, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => return Ok(File::default()),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    let wrong = |message: &str| ConfigError::Invalid { path: path.to_owned(), message: message.to_owned() };
    // The parser's own rendering quotes the line, which may hold the key.
    let mut table: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.message()))?;
    let listed = match table.remove("membership") {
        None => Vec::new(),
        Some(toml::Value::Array(listed)) => listed,
        Some(_) => return Err(wrong("memberships are written as [[membership]]")),
    };
    let mut run = toml::Table::new();
    for name in ["open_status", "poll", "reenroll", "spread"] {
        run.extend(table.remove(name).map(|value| (name.to_owned(), value)));
    }
    let run = run.try_into().map_err(|error: toml::de::Error| wrong(error.message()))?;
    let Wanted { flags, key, key_file } = wanted(table).map_err(|message| wrong(&message))?;
    let memberships = listed.into_iter().map(|listed| {
        let toml::Value::Table(table) = listed else { return Err(wrong("memberships are written as [[membership]]")) };
        wanted(table).map_err(|message| wrong(&format!("membership: {message}")))
    });
    let memberships = memberships.collect::<Result<Vec<_>, _>>()?;
    if key.is_some() || memberships.iter().any(|wanted| wanted.key.is_some()) {
        refuse_permissive(path)?;
    }
    Ok(File { flags, key, memberships, path_of_key: key_file, run })
}

/// Reads where a key is and what goes with it.
fn wanted(mut table: toml::Table) -> Result<Wanted, String> {
    let mut text = |name: &str| match table.remove(name) {
        None => Ok(None),
        Some(toml::Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} must be a text")),
    };
    let key = text("key")?.map(Secret::from);
    let key_file = text("key_file")?.map(PathBuf::from);
    let flags = table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
    Ok(Wanted { flags, key, key_file })
}
