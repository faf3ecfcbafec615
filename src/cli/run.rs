//! `agent run`: the service.

use std::{path::PathBuf, process::ExitCode};

use tokio::sync::mpsc;

use super::{
    Common,
    failure::Failure,
    hands,
    stop::{Stop, hangup},
};
use crate::{
    config::{Config, Flags, KeyFlags, RunFlags, WantedMembership},
    daemon::{self, Enrollment, Settings, Start},
    ipc::{Listener, Rights},
    membership::{Hands, JoinRequest},
};

/// Serve every membership of this device until stopped.
///
/// Interfaces are brought up from what is saved before any server is asked. With a key in the configuration, and not
/// enrolled yet, the device enrolls by itself and tries until it works. SIGHUP reads the configuration again.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// File that holds an enrollment key; nobody else may be able to read it
    #[arg(long, env = "ENROLL_AGENT_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Inherited descriptor of a key that came by environment
    #[arg(long, env = crate::config::VARIABLE_FD_VARIABLE, hide = true)]
    variable_fd: Option<i32>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    service: RunFlags,
}

impl Run {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = self.config(common)?;
        let strangers = if config.service.open_status { Rights::Look } else { Rights::None };
        let listener = Listener::open(&config.runtime_dir, strangers)?;
        let keys = KeyFlags { file: self.key_file.clone(), variable_fd: self.variable_fd, ..KeyFlags::default() };
        let start = Start {
            enrollments: enrollments(&config, &keys),
            // Whom to trust is a setting of each membership.
            hands: Hands { ca_file: None, ..hands(&config) },
            listener: Some(listener),
            only: None,
            settings: settings(&config),
        };
        let (mut stop, mut hangup) = (Stop::listen()?, hangup()?);
        let (reload, reloads) = mpsc::unbounded_channel();
        // The key that came by environment was read above, and is not there a second time.
        let inherited = start.enrollments.first().cloned().filter(|_| self.variable_fd.is_some());
        let keys = KeyFlags { file: self.key_file.clone(), ..KeyFlags::default() };
        let until = async {
            loop {
                tokio::select! {
                    () = stop.wait() => return,
                    _ = hangup.recv() => match self.config(common) {
                        Ok(config) => {
                            let mut enrollments = enrollments(&config, &keys);
                            let is_there = |kept: &Enrollment| enrollments.iter().any(|new| new.server == kept.server);
                            enrollments.extend(inherited.clone().filter(|kept| !is_there(kept)));
                            drop(reload.send((settings(&config), enrollments)));
                        }
                        Err(failure) => tracing::error!("the configuration stays as it was: {}", failure.message()),
                    },
                }
            }
        };
        daemon::run(start, reloads, until).await;
        Ok(ExitCode::SUCCESS)
    }

    fn config(&self, common: &Common) -> Result<Config, Failure> {
        Ok(Config::for_service(&common.places, &self.flags, &self.service)?)
    }
}

/// How the service behaves.
pub(super) fn settings(config: &Config) -> Settings {
    let crate::config::ServiceConfig { open_status: _, poll, reenroll, spread } = config.service;
    Settings { backend: config.backend, overrides: config.overrides.clone(), poll, reenroll, spread }
}

/// One that cannot be used is told and left out: an enrolled device must not suffer from a dead key.
fn enrollments(config: &Config, keys: &KeyFlags) -> Vec<Enrollment> {
    let usable = |wanted| match wanted {
        Ok(WantedMembership { backend, interface, overrides, timeout, token }) => {
            let server = crate::model::Token::server(&token).clone();
            let request =
                JoinRequest { backend, choice: None, interface, overrides, server: None, timeout, token: Some(token) };
            Some(Enrollment { request, server })
        }
        Err(error) => {
            tracing::error!("a configured key is left out: {}", Failure::from(error).message());
            None
        }
    };
    config.wanted(keys).into_iter().filter_map(usable).collect()
}
