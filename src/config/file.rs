//! The configuration file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    ConfigError,
    flags::{RunFlags, Wanted},
    keys::refuse_permissive,
};
use crate::model::Secret;

/// What it says.
#[derive(Default)]
pub(super) struct File {
    pub(super) memberships: Vec<Wanted>,
    /// What holds for this device, and its own keys.
    pub(super) own: Wanted,
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
    let own = wanted(table).map_err(|message| wrong(&message))?;
    let memberships = listed.into_iter().map(|listed| {
        let toml::Value::Table(table) = listed else { return Err(wrong("memberships are written as [[membership]]")) };
        wanted(table).map_err(|message| wrong(&format!("membership: {message}")))
    });
    let memberships = memberships.collect::<Result<Vec<_>, _>>()?;
    if memberships.iter().chain([&own]).any(|wanted| !wanted.keys.is_empty()) {
        refuse_permissive(path)?;
    }
    Ok(File { memberships, own, run })
}

/// Reads where the keys are and what goes with them.
fn wanted(mut table: toml::Table) -> Result<Wanted, String> {
    let mut texts = |one: &str, several: &str| -> Result<Vec<String>, String> {
        let mut texts = Vec::new();
        match table.remove(one) {
            None => {}
            Some(toml::Value::String(text)) => texts.push(text),
            Some(_) => return Err(format!("{one} must be a text")),
        }
        match table.remove(several).map(toml::Value::try_into::<Vec<String>>) {
            None => {}
            Some(Ok(more)) => texts.extend(more),
            // The parser's own message quotes the value.
            Some(Err(_)) => return Err(format!("{several} must be a list of texts")),
        }
        Ok(texts)
    };
    let keys = texts("key", "keys")?.into_iter().map(Secret::from).collect();
    let key_files = texts("key_file", "key_files")?.into_iter().map(PathBuf::from).collect();
    let flags = table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
    Ok(Wanted { flags, key_files, keys })
}
