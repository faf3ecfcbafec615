//! Settings: flags go before the environment, the environment before `agent.toml`, that before the defaults.
//!
//! This is the only reader of the environment. `clap` reads the variables named in [`Flags`].

#![expect(clippy::disallowed_methods, reason = "the only reader of the environment")]

mod file;
mod flags;
mod keys;
mod manual;
mod source;

use std::{
    env, io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};

use directories::ProjectDirs;
use nix::unistd;

use self::{
    file::{File, read_file},
    flags::Wanted,
    manual::{CONFIG_FILE, RUNTIME_DIR, STATE_DIR},
};
pub use self::{
    flags::{Ask, Flags, KeyFlags, Places, RunFlags},
    keys::{Keys, ask_for_keys},
    manual::{FILES, VARIABLES},
    source::{Source, Trace},
};
use crate::model::{Backend, InterfaceName, Overrides, Secret, TokenError};

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not root, and no home folder to keep state in.
    #[error("cannot tell where to keep state: no home folder")]
    Homeless,
    /// The configuration file is not what it should be.
    #[error("configuration file {path} is wrong: {message}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What the parser says, without the text of the line.
        message: String,
    },
    /// A file with a secret can be read by others.
    #[error("{path} holds a key and can be read by others (mode {mode:o})")]
    Permissive {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The key itself is malformed.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Everything decided.
#[derive(Clone, Debug)]
pub struct Config {
    /// `None` picks the kernel if it has WireGuard.
    pub backend: Option<Backend>,
    /// `None` takes the saved interface, else the first free `enrollN`.
    pub interface: Option<InterfaceName>,
    /// Settings of the membership that were given now.
    pub overrides: Overrides,
    /// Folder for sockets.
    pub runtime_dir: PathBuf,
    /// Folder for memberships.
    pub state_dir: PathBuf,
    /// How long a join may take.
    pub timeout: Duration,
    /// Settings of the service.
    pub service: ServiceConfig,
    memberships: Vec<Wanted>,
    own: Wanted,
    /// The configuration file, for messages.
    path: PathBuf,
}

/// How the service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Whether every user of this machine may see the status.
    pub open_status: bool,
    /// Time between pulls while nothing is pushed.
    pub poll: Duration,
    /// Whether a host that the server deleted enrolls again.
    pub reenroll: bool,
    /// Hosts that start together make their first contact within this time.
    pub spread: Duration,
}

/// A membership that the configuration asks for.
#[derive(Clone, Debug)]
pub struct WantedMembership {
    /// `None` picks the kernel if it has WireGuard.
    pub backend: Option<Backend>,
    /// `None` takes the first free `enrollN`.
    pub interface: Option<InterfaceName>,
    /// Its settings.
    pub overrides: Overrides,
    /// How long one attempt to join may take.
    pub timeout: Duration,
    /// Its keys.
    pub keys: Keys,
}

impl Config {
    /// Puts flags, environment, file and defaults together.
    pub fn load(places: &Places, flags: &Flags) -> Result<Self, ConfigError> {
        Self::for_service(places, flags, &RunFlags::default())
    }

    /// The same with the settings of the service.
    pub fn for_service(places: &Places, flags: &Flags, run: &RunFlags) -> Result<Self, ConfigError> {
        let folders = Folders::of_this_process(places)?;
        let path = places.config.clone().unwrap_or(folders.config);
        let File { memberships, own, run: saved_run } = read_file(&path, places.config.is_some())?;
        let Shared { backend, interface, overrides, timeout } = shared(flags.clone(), own.flags.clone(), &path)?;
        let seconds = |given: Option<u32>, saved: Option<u32>, default| {
            Duration::from_secs(given.or(saved).unwrap_or(default).into())
        };
        let service = ServiceConfig {
            open_status: run.open_status || saved_run.open_status,
            poll: seconds(run.poll, saved_run.poll, 120),
            reenroll: run.reenroll || saved_run.reenroll,
            spread: seconds(run.spread, saved_run.spread, 3),
        };
        if service.poll.is_zero() || service.poll > Duration::from_secs(120) {
            let message = "poll must be 1 to 120".to_owned();
            return Err(ConfigError::Invalid { path, message });
        }
        Ok(Self {
            backend,
            interface,
            memberships,
            overrides,
            own,
            path,
            runtime_dir: absolute(folders.runtime)?,
            service,
            state_dir: absolute(folders.state)?,
            timeout,
        })
    }

    /// Returns what the service should be enrolled with: the keys of this process, and the memberships of the file.
    ///
    /// One that cannot be used hinders no other.
    pub fn wanted(&self, keys: &KeyFlags) -> Vec<Result<WantedMembership, ConfigError>> {
        let own = self.keys(keys).transpose().map(|keys| {
            Ok(WantedMembership {
                backend: self.backend,
                interface: self.interface.clone(),
                overrides: self.overrides.clone(),
                timeout: self.timeout,
                keys: keys?,
            })
        });
        let listed = self.memberships.iter().map(|wanted| {
            let Some(keys) = wanted.keys(&self.path)? else {
                let message = "a membership needs key, keys, key_file or key_files".to_owned();
                return Err(ConfigError::Invalid { path: self.path.clone(), message });
            };
            // What is not said here holds for all.
            let Shared { backend, interface, overrides, timeout } =
                shared(wanted.flags.clone(), Flags::default(), &self.path)?;
            let timeout = if wanted.flags.timeout.is_some() { timeout } else { self.timeout };
            Ok(WantedMembership {
                backend: backend.or(self.backend),
                interface,
                // Two interfaces cannot share a port.
                overrides: overrides.or(Overrides { listen_port: None, ..self.overrides.clone() }),
                timeout,
                keys,
            })
        });
        own.into_iter().chain(listed).collect()
    }
}

/// Name of the variable that carries a key; its value never stays in the environment.
pub const KEY_VARIABLE: &str = "ENROLL_AGENT_KEY";

/// Name of the variable that tells the number of the memory file a key on the command line was moved to.
pub const ARGUMENT_FD_VARIABLE: &str = "ENROLL_AGENT_ARGUMENT_FD";

/// The same for a key in the environment.
pub const VARIABLE_FD_VARIABLE: &str = "ENROLL_AGENT_VARIABLE_FD";

/// Returns the key that came by environment; `None` if [`KEY_VARIABLE`] is unset or empty.
pub fn key_variable() -> Option<Secret> {
    let value = env::var_os(KEY_VARIABLE)?.into_string().ok()?;
    (!value.is_empty()).then(|| Secret::from(value))
}

/// Returns the device and inode of the journal's socket, if systemd connected our output to it.
pub fn journal_stream() -> Option<String> {
    env::var_os("JOURNAL_STREAM")?.into_string().ok()
}

/// Returns the log filter that the environment asks for.
pub fn log_filter() -> Option<String> {
    env::var_os("ENROLL_AGENT_LOG")?.into_string().ok()
}

/// What every membership has.
struct Shared {
    backend: Option<Backend>,
    interface: Option<InterfaceName>,
    overrides: Overrides,
    timeout: Duration,
}

/// Puts settings together: `given` goes before `saved`, which is from the file at `path`.
fn shared(given: Flags, saved: Flags, path: &Path) -> Result<Shared, ConfigError> {
    let listen_port = given.port.or(saved.port);
    let endpoint = match given.endpoint.or(saved.endpoint) {
        Some(text) => Some(parse_endpoint(&text, listen_port).ok_or_else(|| ConfigError::Invalid {
            path: "--endpoint".into(),
            message: format!("{text:?} is not IP or IP:PORT"),
        })?),
        None => None,
    };
    // Saved with the membership, so it has to mean the same from every folder.
    let ca_file = given.ca_file.or(saved.ca_file).map(absolute).transpose()?;
    let mtu = given.mtu.or(saved.mtu);
    if mtu.is_some_and(|mtu| !(1280..=9000).contains(&mtu)) {
        let message = "mtu must be 1280 to 9000".to_owned();
        return Err(ConfigError::Invalid { path: path.to_owned(), message });
    }
    let firewall = given.firewall.or(saved.firewall);
    Ok(Shared {
        backend: given.backend.or(saved.backend),
        interface: given.interface.or(saved.interface),
        overrides: Overrides {
            accept_default_route: given.accept_default_route.or(saved.accept_default_route),
            allowed_prefixes: given.allowed_prefixes.or(saved.allowed_prefixes),
            ca_file,
            dns: given.dns.or(saved.dns),
            endpoint,
            firewall,
            listen_port,
            mtu,
            name: given.name.or(saved.name),
            overlap: given.overlap.or(saved.overlap),
            stun: given.stun.or(saved.stun),
        },
        timeout: Duration::from_secs(given.timeout.or(saved.timeout).unwrap_or(120).into()),
    })
}

struct Folders {
    config: PathBuf,
    runtime: PathBuf,
    state: PathBuf,
}

impl Folders {
    /// Flags first, then what the unit says, then root's folders or the user's.
    fn of_this_process(places: &Places) -> Result<Self, ConfigError> {
        let systemd = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = places.state_dir.clone().or_else(|| systemd("STATE_DIRECTORY"));
        let runtime = places.runtime_dir.clone().or_else(|| systemd("RUNTIME_DIRECTORY"));
        let config = systemd("CONFIGURATION_DIRECTORY").map(|folder| folder.join("agent.toml"));
        if unistd::geteuid().is_root() {
            return Ok(Self {
                config: config.unwrap_or_else(|| CONFIG_FILE.into()),
                runtime: runtime.unwrap_or_else(|| RUNTIME_DIR.into()),
                state: state.unwrap_or_else(|| STATE_DIR.into()),
            });
        }
        let home = ProjectDirs::from("", "", "enroll-agent").ok_or(ConfigError::Homeless)?;
        let own_state = home.state_dir().unwrap_or(home.data_local_dir()).to_owned();
        let own_runtime = home.runtime_dir().map_or_else(|| own_state.join("run"), Path::to_owned);
        Ok(Self {
            config: config.unwrap_or_else(|| home.config_dir().join("agent.toml")),
            runtime: runtime.unwrap_or(own_runtime),
            state: state.unwrap_or(own_state),
        })
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Read { path: "the current folder".into(), source })
}

/// Port 0 stands for "the listen port".
fn parse_endpoint(text: &str, listen_port: Option<NonZeroU16>) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, listen_port.map_or(0, NonZeroU16::get))),
        Err(_) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn an_endpoint_may_leave_its_port_to_the_listen_port() {
        let port = NonZeroU16::new(51830);

        assert_eq!(parse_endpoint("192.0.2.7", port), "192.0.2.7:51830".parse().ok());
        assert_eq!(parse_endpoint("192.0.2.7:7000", port), "192.0.2.7:7000".parse().ok());
        assert_eq!(parse_endpoint("2001:db8::7", None), "[2001:db8::7]:0".parse().ok());
        assert_eq!(parse_endpoint("[2001:db8::7]:9", None), "[2001:db8::7]:9".parse().ok());
        assert_eq!(parse_endpoint("example.net:9", None), None);
    }

    #[test]
    fn relative_folders_are_those_of_the_current_one() {
        let places = Places { config: None, runtime_dir: Some("run".into()), state_dir: Some("state".into()) };
        let flags = Flags { ca_file: Some("ca.pem".into()), ..Flags::default() };

        let config = Config::load(&places, &flags).unwrap();

        let here = env::current_dir().unwrap();
        assert_eq!((config.runtime_dir, config.state_dir), (here.join("run"), here.join("state")));
        assert_eq!(config.overrides.ca_file, Some(here.join("ca.pem")));
    }

    #[test]
    fn a_wrong_file_is_named_and_its_text_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, "key = \"SECRET\"\nports = 7\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

        let Err(error) = read_file(&path, true) else { panic!("a wrong field was accepted") };

        assert!(error.to_string().contains("agent.toml"), "{error}");
        assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
    }

    #[test]
    fn the_packaged_example_names_real_settings() {
        let example = include_str!("../../packaging/agent.toml");
        let is_setting = |line: &&str| line.starts_with('#') && line.contains(" = ") && !line.starts_with("# ");
        let settings: Vec<_> = example.lines().filter(is_setting).map(|line| &line[1..]).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, settings.join("\n")).unwrap();

        let file = read_file(&path, true).unwrap();

        assert_eq!(settings.len(), 20);
        assert_eq!(file.own.flags.port, NonZeroU16::new(51821));
        assert!(!file.own.key_files.is_empty());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, "key = \"SECRET\"\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

        assert!(matches!(read_file(&path, true), Err(ConfigError::Permissive { mode: 0o640, .. })));
    }

    #[test]
    fn only_a_default_file_may_be_missing() {
        let path = Path::new("/nonexistent/agent.toml");

        assert!(read_file(path, false).is_ok());
        assert!(matches!(read_file(path, true), Err(ConfigError::Read { .. })));
    }
}
