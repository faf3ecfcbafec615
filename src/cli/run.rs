//! `agent run`: the service.

use std::process::ExitCode;

use tokio::sync::mpsc;

use super::{
    Common,
    drops::Drops,
    failure::Failure,
    hands,
    stop::{Stop, hangup},
};
use crate::{
    config::{Config, Flags, KeyFlags, Keys, RunFlags, Source, Trace, WantedMembership},
    daemon::{self, Enrollment, Settings, Start},
    ipc::{Listener, Rights},
    membership::{Hands, JoinRequest},
};

/// Serve every membership of this device until stopped.
///
/// Interfaces are brought up from what is saved before any server is asked. With a key in the configuration, and not
/// enrolled yet, the device enrolls by itself and tries until it works; a key that is dropped next to the configuration
/// file, as `enroll.key`, is noticed. SIGHUP reads the configuration again.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    keys: KeyFlags,
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
        let (taken, mut news) = mpsc::unbounded_channel();
        let (mut source, begun) = enrollments(&config, &self.keys, &taken);
        // What came by a descriptor was read above, and is not there a second time.
        let is_inherited = matches!(source, Some(Source::Descriptor | Source::Variable));
        let inherited = begun.first().cloned().filter(|_| is_inherited);
        let start = Start {
            enrollments: begun,
            // Whom to trust is a setting of each membership.
            hands: Hands { ca_file: None, ..hands(&config) },
            listener: Some(listener),
            only: None,
            settings: settings(&config),
        };
        let (mut stop, mut hangup) = (Stop::listen()?, hangup()?);
        let drops = Drops::watch(config.dropped_key());
        let mut drops = drops.map_err(|error| Failure::other(format!("cannot watch for keys: {error}")))?;
        let (reload, reloads) = mpsc::unbounded_channel();
        let keys = KeyFlags { fds_are_read: true, ..self.keys.clone() };
        let until = async {
            loop {
                let is_drop = tokio::select! {
                    () = stop.wait() => return,
                    Some(()) = news.recv() => {
                        clear(source.as_ref());
                        continue;
                    }
                    _ = hangup.recv() => false,
                    () = drops.next() => true,
                };
                let config = match self.config(common) {
                    Ok(config) => config,
                    Err(failure) => {
                        tracing::error!("the configuration stays as it was: {}", failure.message());
                        continue;
                    }
                };
                let (found, mut enrollments) = enrollments(&config, &keys, &taken);
                if is_drop && found == source {
                    continue;
                }
                let is_there = |kept: &Enrollment| enrollments.iter().any(|new| new.server == kept.server);
                enrollments.extend(inherited.clone().filter(|kept| !is_there(kept)));
                source = found.or_else(|| source.clone().filter(|_| inherited.is_some()));
                drop(reload.send((settings(&config), enrollments)));
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

/// Returns what is to be enrolled with, and where the first keys come from if that is not the configuration itself;
/// `taken` is told when one of those was taken.
///
/// One that cannot be used is told and left out: an enrolled device must not suffer from a dead key.
fn enrollments(
    config: &Config,
    flags: &KeyFlags,
    taken: &mpsc::UnboundedSender<()>,
) -> (Option<Source>, Vec<Enrollment>) {
    let mut from = None;
    let usable = |wanted| match wanted {
        Ok(WantedMembership {
            backend,
            interface,
            overrides,
            timeout,
            keys: Keys { notes, pins: _, source, tokens },
        }) => {
            for note in notes {
                tracing::warn!("{note}");
            }
            let mut all = tokens.into_iter();
            let first = all.next()?;
            let server = first.server().clone();
            let spare = all.collect();
            let request = JoinRequest {
                backend,
                choice: None,
                interface,
                overrides,
                server: None,
                spare,
                timeout,
                token: Some(first),
                // What is missing may come while it is served.
                wait: None,
            };
            // Those of the configuration stay there on purpose.
            let is_ours = !matches!(source, Source::Configuration(_));
            if is_ours {
                from = Some(source);
            }
            Some(Enrollment { request, server, taken: is_ours.then(|| taken.clone()) })
        }
        Err(error) => {
            tracing::error!("a configured key is left out: {}", Failure::from(error).message());
            None
        }
    };
    let enrollments = config.wanted(flags).into_iter().filter_map(usable).collect();
    (from, enrollments)
}

/// Removes the copies of a key that the server has taken, and tells what became of them.
fn clear(source: Option<&Source>) {
    for trace in source.map(Source::clear).unwrap_or_default() {
        match trace {
            Trace::Removed(text) => tracing::info!("{text}"),
            Trace::Stays(text) => tracing::warn!("{text}"),
        }
    }
}
