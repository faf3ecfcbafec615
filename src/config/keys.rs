//! Where enrollment keys come from.
//!
//! ```text
//! argument or - ─► --key-file ─► --key-fd ─► environment ─► credential ─► container secret ─► dropped ─► agent.toml
//! ```
//!
//! The first place that has a usable key is the only one. What was said on purpose has to be right; a place that is only
//! looked at, as the dropped file, is told and passed over if it cannot be used.

use std::{
    env, fs,
    io::{self, IsTerminal, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    Config, ConfigError, KEY_VARIABLE, KeyFlags,
    flags::{Ask, Wanted},
    key_variable,
    pins::without_pins,
    source::Source,
};
use crate::model::{Pin, Token, TokenError};

/// Keys of one place, in the order in which they are to be tried.
#[derive(Clone, Debug)]
pub struct Keys {
    /// What was left out, and what somebody should look at; never with any of a key's text.
    pub notes: Vec<String>,
    /// Pins of the server, beside the keys: lines that begin with `pin:`.
    pub pins: Vec<Pin>,
    /// Where they were.
    pub source: Source,
    /// Keys of one server, one at least.
    pub tokens: Vec<Token>,
}

impl Config {
    /// Finds and parses the enrollment keys; `None` when nobody gave one.
    ///
    /// # Errors
    /// If a place that was named on purpose cannot be read, or if no place has a usable key and one has an unusable one.
    pub fn keys(&self, flags: &KeyFlags) -> Result<Option<Keys>, ConfigError> {
        let KeyFlags { argument_fd, ask, fd, fds_are_read, files, insecure_key_file, key, variable_fd } = flags;
        let unread = |fd: &Option<i32>| fd.filter(|_| !fds_are_read);
        let (argument_fd, fd, variable_fd) = (unread(argument_fd), unread(fd), unread(variable_fd));
        let is_said = argument_fd.is_some() || fd.is_some() || !files.is_empty() || key.is_some();
        if let Some(fd) = variable_fd.filter(|_| is_said) {
            // Nobody reads it, and no child shall inherit it.
            close(fd)?;
        }
        if let Some(fd) = argument_fd {
            return keys_of(Source::Argument, [(String::new(), read_fd(fd)?)]).map(Some);
        }
        if let Some(key) = key {
            if key.expose() != "-" {
                return keys_of(Source::Argument, [(String::new(), Zeroizing::new(key.expose().to_owned()))]).map(Some);
            }
            return keys_of(Source::Input, [("standard input".to_owned(), read_input(*ask)?)]).map(Some);
        }
        let permissive = if *insecure_key_file { Permissive::Told } else { Permissive::Refused };
        if !files.is_empty() {
            return read_files(Source::Files(files.clone()), files, permissive).map(Some);
        }
        if let Some(fd) = fd {
            return keys_of(Source::Descriptor, [(format!("descriptor {fd}"), read_fd(fd)?)]).map(Some);
        }
        if let Some(keys) = from_environment(variable_fd, permissive, *fds_are_read)? {
            return Ok(Some(keys));
        }
        self.looked_for()
    }

    /// The file next to the configuration file that somebody may drop a key into at any time.
    pub fn dropped_key(&self) -> PathBuf {
        self.path.with_file_name("enroll.key")
    }

    /// The folder with programs that are told what happens, next to the configuration file.
    pub fn hooks_dir(&self) -> PathBuf {
        self.path.with_file_name("hooks.d")
    }

    /// Places that are looked at without being named.
    fn looked_for(&self) -> Result<Option<Keys>, ConfigError> {
        let credential = env::var_os("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(CREDENTIAL));
        let secret = Path::new("/run/secrets").join(CREDENTIAL);
        let places = [credential.map(Source::Credential), Some(Source::secret(secret)), Some(self.dropped())];
        let mut unusable = None;
        let mut notes = Vec::new();
        let mut found = None;
        for source in places.into_iter().flatten() {
            let Some(path) = source.path().filter(|path| path.exists()).map(Path::to_owned) else { continue };
            match read_files(source, std::slice::from_ref(&path), Permissive::Told) {
                Ok(keys) => {
                    found = Some(keys);
                    break;
                }
                Err(error) => {
                    notes.push(format!("the key in {} is left out: {}", path.display(), describe(&error)));
                    unusable = unusable.or(Some(error));
                }
            }
        }
        if found.is_none() {
            found = self.own.keys(&self.path)?;
        }
        match (found, unusable) {
            (Some(mut keys), _) => {
                notes.append(&mut keys.notes);
                Ok(Some(Keys { notes, ..keys }))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    fn dropped(&self) -> Source {
        Source::dropped(self.dropped_key())
    }
}

impl Wanted {
    /// The keys that a table of the configuration file at `path` has or names; `None` if it does neither.
    pub(super) fn keys(&self, path: &Path) -> Result<Option<Keys>, ConfigError> {
        let Self { flags: _, key_files, keys } = self;
        if keys.is_empty() && key_files.is_empty() {
            return Ok(None);
        }
        let name = |number| format!("{}, key {number}", path.display());
        let mut texts: Vec<_> =
            (1..).map(name).zip(keys.iter().map(|key| Zeroizing::new(key.expose().into()))).collect();
        for file in key_files {
            refuse_permissive(file)?;
            texts.push((file.display().to_string(), read_secret(file)?));
        }
        keys_of(Source::Configuration(path.to_owned()), texts).map(Some)
    }
}

/// Asks for a key at the terminal; `None` where there is none.
pub fn ask_for_keys(ask: Ask) -> Result<Option<Keys>, ConfigError> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    keys_of(Source::Input, [("the terminal".to_owned(), asked(ask)?)]).map(Some)
}

/// What becomes of a file that others can read.
#[derive(Clone, Copy)]
enum Permissive {
    Refused,
    Told,
}

fn from_environment(
    variable_fd: Option<i32>,
    permissive: Permissive,
    fds_are_read: bool,
) -> Result<Option<Keys>, ConfigError> {
    if let Some(fd) = variable_fd {
        return keys_of(Source::Variable, [(KEY_VARIABLE.to_owned(), read_fd(fd)?)]).map(Some);
    }
    // Still there only where it could not be hidden.
    if let Some(key) = key_variable() {
        let text = Zeroizing::new(key.expose().to_owned());
        return keys_of(Source::Variable, [(KEY_VARIABLE.to_owned(), text)]).map(Some);
    }
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = set("ENROLL_AGENT_KEY_FILE").map(PathBuf::from) {
        return read_files(Source::Files(vec![path.clone()]), &[path], permissive).map(Some);
    }
    let Some(fd) = set(FD_VARIABLE).filter(|_| !fds_are_read) else { return Ok(None) };
    let Some(fd) = fd.to_str().and_then(|text| text.parse().ok()).filter(|fd| *fd > 2) else {
        let message = "it must be the number of an inherited descriptor, 3 or more".to_owned();
        return Err(ConfigError::Invalid { path: FD_VARIABLE.into(), message });
    };
    keys_of(Source::Descriptor, [(format!("descriptor {fd}"), read_fd(fd)?)]).map(Some)
}

fn read_files(source: Source, files: &[PathBuf], permissive: Permissive) -> Result<Keys, ConfigError> {
    let mut warnings = Vec::new();
    let mut texts = Vec::new();
    for file in files {
        match (refuse_permissive(file), permissive) {
            (Ok(()), _) => {}
            (Err(error @ ConfigError::Permissive { .. }), Permissive::Told) => warnings.push(error.to_string()),
            (Err(error), _) => return Err(error),
        }
        texts.push((file.display().to_string(), read_secret(file)?));
    }
    let mut keys = keys_of(source, texts)?;
    keys.notes.splice(0..0, warnings);
    Ok(keys)
}

/// Parses what was read, each text with the name of its place, and sorts out what cannot be tried.
fn keys_of(source: Source, texts: impl IntoIterator<Item = (String, Zeroizing<String>)>) -> Result<Keys, ConfigError> {
    let mut keys = Keys { notes: Vec::new(), pins: Vec::new(), source, tokens: Vec::<Token>::new() };
    let mut first = None;
    for (place, text) in texts {
        let (text, pins) = without_pins(&text)?;
        keys.pins.extend(pins);
        for (line, parsed) in split(&text) {
            let token = match parsed {
                Ok(token) => token,
                Err(error) => {
                    let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
                    keys.notes.push(format!("a key is left out ({place}{line}): {}", describe(&error)));
                    first = first.or(Some(error));
                    continue;
                }
            };
            match keys.tokens.first() {
                Some(known) if known.server() != token.server() => keys.notes.push(format!(
                    "key {} is left out: it is for {}, and keys that stand in for each other are for one server",
                    token.fingerprint(),
                    token.server()
                )),
                Some(_) if keys.tokens.iter().any(|known| known.fingerprint() == token.fingerprint()) => {}
                Some(_) | None => keys.tokens.push(token),
            }
        }
    }
    if keys.tokens.is_empty() {
        return Err(first.unwrap_or(TokenError::Empty).into());
    }
    Ok(keys)
}

/// One key, however it is wrapped, or one on each line; lines are counted from 1, and `None` stands for all.
fn split(text: &str) -> Vec<(Option<usize>, Result<Token, TokenError>)> {
    let whole = text.parse::<Token>();
    let is_key = |line: &str| !line.is_empty() && !line.starts_with('#');
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| is_key(line));
    let lines: Vec<_> = lines.map(|(index, line)| (Some(index + 1), line.parse::<Token>())).collect();
    if whole.is_ok() || lines.iter().all(|(_, parsed)| parsed.is_err()) {
        return vec![(None, whole)];
    }
    lines
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

fn asked(ask: Ask) -> Result<Zeroizing<String>, ConfigError> {
    ask().map_err(|source| ConfigError::Read { path: "the terminal".into(), source })
}

fn read_input(ask: Option<Ask>) -> Result<Zeroizing<String>, ConfigError> {
    if let Some(ask) = ask.filter(|_| io::stdin().is_terminal()) {
        return asked(ask);
    }
    let mut text = Zeroizing::new(String::new());
    let read = io::stdin().lock().take(MAX_KEY_FILE).read_to_string(&mut text);
    read.map_err(|source| ConfigError::Read { path: "standard input".into(), source })?;
    Ok(text)
}

/// Reads an inherited descriptor and lets go of it.
fn read_fd(fd: i32) -> Result<Zeroizing<String>, ConfigError> {
    let text = read_secret(Path::new(&format!("/proc/self/fd/{fd}")))?;
    close(fd)?;
    Ok(text)
}

fn close(fd: i32) -> Result<(), ConfigError> {
    let path = || format!("descriptor {fd}").into();
    nix::unistd::close(fd).map_err(|error| ConfigError::Read { path: path(), source: error.into() })
}

fn read_secret(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = Zeroizing::new(String::new());
    fs::File::open(path).map_err(read)?.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(read)?;
    Ok(text)
}

/// The message with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

/// Name of the systemd credential and of the container secret.
const CREDENTIAL: &str = "enroll-agent.key";

/// `--key-fd` by environment.
const FD_VARIABLE: &str = "ENROLL_AGENT_KEY_FD";

/// Bytes; a key has 8 KiB at most.
const MAX_KEY_FILE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;
    use crate::model::{Overrides, Pins};

    #[test]
    fn a_file_has_one_wrapped_key_or_one_on_each_line() {
        let (a, b) = (key("a.example", "A"), key("a.example", "B"));
        let wrapped = format!("{}\n{}\n", &a[..20], &a[20..]);
        let listed = format!("# two keys\n{a}\n\n  {b}\r\n");

        assert_eq!(fingerprints(&wrapped), [fingerprint(&a)]);
        assert_eq!(fingerprints(&listed), [fingerprint(&a), fingerprint(&b)]);
        assert_eq!(fingerprints(&format!("{a}\n{a}\n")), [fingerprint(&a)], "the same key twice is one");
    }

    #[test]
    fn a_key_that_cannot_be_tried_is_told_and_left_out() {
        let (a, cut, other) = (key("a.example", "A"), &key("a.example", "B")[..24], key("b.example", "C"));

        let keys = read(&format!("{cut}\n{a}\n{other}\n")).unwrap();

        assert_eq!(keys.tokens, [a.parse().unwrap()]);
        assert_eq!(keys.notes[0], "a key is left out (here, line 1): enrollment key is cut off at the end");
        let left_out = format!(
            "key {} is left out: it is for b.example, and keys that stand in for each other are for one server",
            fingerprint(&other)
        );
        assert_eq!(keys.notes[1..], [left_out]);
    }

    #[test]
    fn a_pin_beside_the_key_counts_unless_one_is_set() {
        let pin = Pin::new([7; 32]);
        let (a, b) = (key("a.example", "A"), key("a.example", "B"));

        let keys = read(&format!("pin: {pin}\n{a}\nno*base64\n{b}\n")).unwrap();

        assert_eq!((keys.pins.as_slice(), keys.tokens.len()), (&[pin][..], 2));
        assert_eq!(keys.notes, ["a key is left out (here, line 3): enrollment key is not base64 at character 3"]);
        assert_eq!(keys.settle(Overrides::default()).pins, Some([pin].into_iter().collect()));
        let set = Overrides { pins: Some(Pins::default()), ..Overrides::default() };
        assert_eq!(keys.settle(set.clone()), set);
        assert!(matches!(read(&format!("pin: sha256//AAAA\n{a}\n")), Err(ConfigError::Pin(_))));
    }

    #[test]
    fn without_any_usable_key_the_first_mistake_is_told() {
        let cut = &key("a.example", "B")[..24];

        assert!(matches!(read(cut), Err(ConfigError::Token(TokenError::Truncated))));
        assert!(matches!(read("\n"), Err(ConfigError::Token(TokenError::Empty))));
    }

    fn key(server: &str, value: &str) -> String {
        BASE64.encode(format!(r#"{{"server":"{server}","value":"{value}"}}"#).as_bytes())
    }

    fn read(text: &str) -> Result<Keys, ConfigError> {
        keys_of(Source::Input, [("here".to_owned(), Zeroizing::new(text.to_owned()))])
    }

    fn fingerprints(text: &str) -> Vec<String> {
        read(text).unwrap().tokens.iter().map(Token::fingerprint).collect()
    }

    fn fingerprint(key: &str) -> String {
        key.parse::<Token>().unwrap().fingerprint()
    }
}
