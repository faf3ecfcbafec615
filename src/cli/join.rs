//! `agent join`: from a key to a configured interface, and with the userspace backend to a serving process.

use std::{collections::BTreeMap, io::IsTerminal, process::ExitCode, time::Duration};

use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    Common,
    failure::Failure,
    hands, join_served,
    partial::{self, Ending},
    print::{self, print_json, print_text},
    progress::{self, Progress},
    prompt,
    rehearsal::rehearse,
    run::settings,
    serving::serving,
    stop::Stop,
};
use crate::{
    config::{Config, Flags, KeyFlags, Keys, Source, Trace, ask_for_keys},
    daemon::{self, Ended, Settings, Start},
    ipc::{IpcError, Listener, Rights},
    membership::{self, Greeting, Hands, JoinRequest, Joined, MembershipError, SignOff},
    model::{Backend, Chosen, IdentityChoice, Overrides, PassedOver, Secret, Stage, Status, Token},
};

/// Redeem an enrollment key and configure this device's networks.
///
/// With kernel WireGuard the command ends and the interface stays. With the userspace backend this process carries the
/// interface: it prints its result and keeps serving until it is stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Join {
    /// The enrollment key, or - to read it from standard input; without any key at all a terminal is asked for it
    #[arg(value_name = "KEY", value_parser = secret)]
    key: Option<Secret>,
    #[command(flatten)]
    keys: KeyFlags,
    /// Say what would happen; spend, save and change nothing
    #[arg(long, env = "ENROLL_AGENT_DRY_RUN")]
    dry_run: bool,
    /// This is the machine that the saved identity was made on, whatever hardware it has now
    #[arg(long, env = "ENROLL_AGENT_KEEP_IDENTITY", conflicts_with = "new_identity")]
    keep_identity: bool,
    /// Keep the saved identity aside and enroll as a new host
    #[arg(long, env = "ENROLL_AGENT_NEW_IDENTITY")]
    new_identity: bool,
    #[command(flatten)]
    flags: Flags,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report<'a> {
    chosen: &'a Chosen,
    result: &'a str,
    #[serde(flatten)]
    status: &'a Status,
    timings_ms: BTreeMap<&'static str, f64>,
}

impl Join {
    /// The key on the command line, which must not stay there.
    pub(super) fn key(&self) -> Option<&Secret> {
        self.key.as_ref().filter(|key| key.expose() != "-")
    }

    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&self.flags)?;
        let hands = hands(&config);
        let (source, tokens, overrides) = self.keys(&config, &hands)?;
        let mut tokens = tokens.into_iter();
        let request = JoinRequest {
            backend: config.backend,
            choice: self.choice(),
            interface: config.interface.clone(),
            overrides,
            server: None,
            timeout: config.timeout,
            token: tokens.next(),
            spare: tokens.collect(),
            wait: Some(config.wait),
        };
        if self.dry_run {
            return rehearse(&hands, &request, common.json).await;
        }
        if let Some(client) = serving(common, &config).await? {
            return join_served::join(&config, client, request, source.as_ref(), common.json).await;
        }
        self.here(common, &config, &hands, &request, source.as_ref()).await
    }

    /// Finds the keys, where they were and the settings beside them, and says what is wrong with them.
    fn keys(&self, config: &Config, hands: &Hands) -> Result<(Option<Source>, Vec<Token>, Overrides), Failure> {
        let found =
            match config.keys(&KeyFlags { ask: Some(prompt::ask), key: self.key.clone(), ..self.keys.clone() })? {
                None if matches!(hands.only_server(), Err(MembershipError::NotEnrolled)) => {
                    Some(ask_for_keys(prompt::ask)?.ok_or_else(|| {
                        Failure::usage(
                            "no enrollment key given",
                            "run `agent join <key>`, or give --key-file, ENROLL_AGENT_KEY, or `key_file` in agent.toml",
                        )
                    })?)
                }
                found => found,
            };
        let Some(keys) = found else { return Ok((None, Vec::new(), config.overrides.clone())) };
        let overrides = keys.settle(config.overrides.clone());
        let Keys { notes, pins: _, source, tokens } = keys;
        for note in notes {
            eprintln!("agent: {note}");
        }
        if source == Source::Argument {
            eprintln!("agent: other users could see the key on the command line; --key-file or `join -` hides it");
        }
        Ok((Some(source), tokens, overrides))
    }

    /// Whose the identity is, if somebody says so.
    fn choice(&self) -> Option<IdentityChoice> {
        match (self.keep_identity, self.new_identity) {
            (true, _) => Some(IdentityChoice::Keep),
            (false, true) => Some(IdentityChoice::New),
            (false, false) => None,
        }
    }

    /// Joins in this process, which has to be one that could also serve.
    async fn here(
        &self,
        common: &Common,
        config: &Config,
        hands: &Hands,
        request: &JoinRequest,
        source: Option<&Source>,
    ) -> Result<ExitCode, Failure> {
        let mut stop = Stop::listen()?;
        // A userspace interface is served over a socket, which must not fail only after a key was spent.
        let listener = match config.backend {
            Some(Backend::Kernel) => None,
            Some(Backend::Userspace) | None => listen(common, config)?,
        };
        let ending = Ending::new(config, is_new_here(hands, request));
        let progress = Progress::new();
        let mut report = |stage| progress.enter(stage);
        let joined = membership::join(hands, request, &mut report, stop.wait()).await;
        progress.finish();
        match &joined {
            Ok(_) | Err(MembershipError::NoNetworks { .. }) => clear(source),
            Err(_) => {}
        }
        match joined {
            Ok(joined) if ending.is_rolled_back(Some(&joined.work.recent_status())) => {
                let Joined { mut work, .. } = joined;
                let unmet = print::unmet(&work.recent_status());
                Err(partial::rolled_back(unmet, &work.leave_server(SignOff::Tell).await))
            }
            Err(MembershipError::NoNetworks { server, .. }) if ending.is_rolled_back(None) => {
                let farewell = membership::leave(hands, &server, None, config.backend, SignOff::Tell).await?;
                Err(partial::rolled_back(None, &farewell))
            }
            joined => finish(joined?, hands.clone(), settings(config), listener, common.json, stop).await,
        }
    }
}

/// Whether a join enrolls this host; otherwise it is enrolled with that server already.
fn is_new_here(hands: &Hands, request: &JoinRequest) -> bool {
    let server = request.token.as_ref().map_or_else(|| hands.only_server(), |token| Ok(token.server().clone()));
    let saved = server.and_then(|server| Ok(hands.store.load(&server)?));
    let is_enrolled = saved.is_ok_and(|saved| saved.is_some_and(|saved| saved.enrolled().is_some()));
    !is_enrolled || request.choice == Some(IdentityChoice::New)
}

/// Opens the socket; beside a service that is not to be asked there is none.
fn listen(common: &Common, config: &Config) -> Result<Option<Listener>, Failure> {
    match Listener::open(&config.runtime_dir, Rights::None) {
        Ok(listener) => Ok(Some(listener)),
        Err(IpcError::Taken(_)) if common.standalone => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Prints the result, and goes on serving where the interface lives in this process.
async fn finish(
    joined: Joined,
    hands: Hands,
    settings: Settings,
    listener: Option<Listener>,
    json: bool,
    mut stop: Stop,
) -> Result<ExitCode, Failure> {
    let Joined { chosen, failure, greeting, mut work, timings } = joined;
    let status = work.status().await;
    let stays = work.backend() == Backend::Userspace;
    let listener = listener.filter(|_| stays);
    print(greeting.word(), &chosen, &status, timings.iter().copied(), json);
    if !stays {
        // The tunnel is up; trouble that passes is for the next sync.
        return match failure.map(Failure::from) {
            Some(failure) if !failure.is_temporary() => Err(failure),
            Some(_) | None => Ok(partial::verdict(&status)),
        };
    }
    partial::verdict(&status);
    if std::io::stderr().is_terminal() {
        eprintln!("agent: serving {} until stopped (Ctrl-C)", status.interface);
    }
    // Somebody watches: without push a change is noticed within seconds.
    let settings = Settings { poll: FOREGROUND_POLL, ..settings };
    let start = Start { enrollments: Vec::new(), hands, listener, only: Some(Box::new(work)), settings };
    let (_, reloads) = mpsc::unbounded_channel();
    match daemon::run(start, reloads, stop.wait()).await {
        Ended::Deleted(by) => Err(MembershipError::Deleted(by).into()),
        Ended::Left | Ended::Stopped => Ok(ExitCode::SUCCESS),
    }
}

/// Removes the copies of a key that the server has taken, and tells what became of them.
pub(super) fn clear(source: Option<&Source>) {
    for trace in source.map(Source::clear).unwrap_or_default() {
        match trace {
            Trace::Removed(text) | Trace::Stays(text) => eprintln!("agent: {text}"),
        }
    }
}

/// Prints how the join went.
pub(super) fn print(
    greeting: &str,
    chosen: &Chosen,
    status: &Status,
    timings: impl Iterator<Item = (Stage, Duration)>,
    json: bool,
) {
    if json {
        let timings_ms = timings.map(|(stage, took)| (progress::name(stage), took.as_secs_f64() * 1000.0));
        print_json(&Report { chosen, result: greeting, status, timings_ms: timings_ms.collect() });
        return;
    }
    let steps: Vec<_> =
        timings.map(|(stage, took)| format!("{} {}", progress::name(stage), print::millis(took))).collect();
    let steps = if steps.is_empty() { String::new() } else { format!("{}\n", steps.join(", ")) };
    let taken = match (&chosen.key, chosen.passed_over.as_slice()) {
        (Some(key), [_, ..]) => {
            format!("key {key} was taken, others were not: {}\n", PassedOver::list(&chosen.passed_over))
        }
        (Some(_) | None, _) => String::new(),
    };
    print_text(&format!("{}\n{taken}{}\n{steps}", sentence(greeting), print::status(status)));
}

fn sentence(greeting: &str) -> &str {
    const SENTENCES: [(Greeting, &str); 4] = [
        (Greeting::Again, "already enrolled with this key: nothing was spent"),
        (Greeting::Further, "already enrolled; this further key was redeemed and may have cost a use"),
        (Greeting::New, "enrolled"),
        (
            Greeting::Offline,
            "already enrolled; the server did not confirm it now, so what it last assigned is in force",
        ),
    ];
    SENTENCES.iter().find(|(known, _)| known.word() == greeting).map_or(greeting, |(_, sentence)| sentence)
}

#[expect(clippy::unnecessary_wraps, reason = "clap's value parsers return results")]
pub(super) fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::from(text))
}

/// How often a serving `agent join` pulls while nothing is pushed.
const FOREGROUND_POLL: Duration = Duration::from_secs(3);
