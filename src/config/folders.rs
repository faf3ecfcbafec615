//! Where things are by default.

use std::{
    env,
    path::{Path, PathBuf},
};

use directories::ProjectDirs;
use nix::unistd;

use super::{
    ConfigError,
    flags::Places,
    manual::{CONFIG_FILE, RUNTIME_DIR, STATE_DIR},
};

/// Folders of this process, and its configuration file.
pub(super) struct Folders {
    pub(super) config: PathBuf,
    pub(super) runtime: PathBuf,
    pub(super) state: PathBuf,
}

impl Folders {
    /// Flags first, then what the unit says, then root's folders or the user's.
    pub(super) fn of_this_process(places: &Places) -> Result<Self, ConfigError> {
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

/// The same path from every folder.
pub(super) fn absolute(path: PathBuf) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Read { path: "the current folder".into(), source })
}
