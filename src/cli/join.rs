//! `agent join`: from a key to a configured interface, and with the userspace backend to a serving process.

use std::{collections::BTreeMap, io::IsTerminal, process::ExitCode, time::Duration};

use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    Common,
    failure::Failure,
    hands,
    print::{self, print_json, print_text},
    progress::{self, Progress},
    prompt,
    rehearsal::rehearse,
    run::settings,
    serving::{serving, unexpected},
    stop::Stop,
};
use crate::{
    config::{Config, Flags, KeyFlags, Keys, Source, Trace, ask_for_keys},
    daemon::{self, Ended, Settings, Start},
    ipc::{Answer, Client, IpcError, JoinOrder, Listener, Request, Rights},
    membership::{self, Greeting, Hands, JoinRequest, Joined, MembershipError},
    model::{Backend, Chosen, Class, IdentityChoice, PassedOver, Secret, Stage, Status, Token},
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
        let (source, tokens) = self.keys(&config, &hands)?;
        let mut tokens = tokens.into_iter();
        let request = JoinRequest {
            backend: config.backend,
            choice: self.choice(),
            interface: config.interface.clone(),
            overrides: config.overrides.clone(),
            server: None,
            timeout: config.timeout,
            token: tokens.next(),
            spare: tokens.collect(),
        };
        if self.dry_run {
            return rehearse(&hands, &request, common.json).await;
        }
        if let Some(client) = serving(common, &config).await? {
            return by_the_serving(client, request, source.as_ref(), common.json).await;
        }
        self.here(common, &config, &hands, &request, source.as_ref()).await
    }

    /// Finds the keys and where they were, and says what is wrong with them.
    fn keys(&self, config: &Config, hands: &Hands) -> Result<(Option<Source>, Vec<Token>), Failure> {
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
        let Some(Keys { notes, source, tokens }) = found else { return Ok((None, Vec::new())) };
        for note in notes {
            eprintln!("agent: {note}");
        }
        if source == Source::Argument {
            eprintln!("agent: other users could see the key on the command line; --key-file or `join -` hides it");
        }
        Ok((Some(source), tokens))
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
        let progress = Progress::new();
        let mut report = |stage| progress.enter(stage);
        let joined = membership::join(hands, request, &mut report, stop.wait()).await;
        progress.finish();
        match &joined {
            Ok(_) | Err(MembershipError::NoNetworks { .. }) => clear(source),
            Err(_) => {}
        }
        finish(joined?, hands.clone(), settings(config), listener, common.json, stop).await
    }
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
            Some(_) | None => Ok(ExitCode::SUCCESS),
        };
    }
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

/// Has the serving agent join.
async fn by_the_serving(
    mut client: Client,
    request: JoinRequest,
    source: Option<&Source>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let JoinRequest { backend, choice, interface, overrides, server: _, spare, timeout, token } = request;
    let spare = spare.iter().map(|token| token.text().clone()).collect();
    let token = token.map(|token| token.text().clone());
    let order = JoinOrder { backend, choice, interface, overrides, spare, timeout, token };
    client.send(&Request::Join(Box::new(order))).await?;
    let progress = Progress::new();
    let answer = loop {
        match client.next(timeout + PATIENCE).await? {
            Some(Answer::Progress { stage }) => progress.enter(stage),
            Some(answer) => break answer,
            None => return Err(Failure::not_running()),
        }
    };
    progress.finish();
    match answer {
        Answer::Joined { chosen, failure, greeting, status, timings } => {
            clear(source);
            print(&greeting, &chosen, &status, timings.into_iter(), json);
            match failure.map(Failure::reported) {
                Some(failure) if !failure.is_temporary() => Err(failure),
                Some(_) | None => Ok(ExitCode::SUCCESS),
            }
        }
        Answer::Failed(failure) => {
            // Redeemed, and an administrator has to let the host in.
            if failure.class == Class::Waiting {
                clear(source);
            }
            Err(Failure::reported(failure))
        }
        Answer::Done { .. } | Answer::Progress { .. } | Answer::Report(_) => Err(unexpected()),
    }
}

/// Removes the copies of a key that the server has taken, and tells what became of them.
fn clear(source: Option<&Source>) {
    for trace in source.map(Source::clear).unwrap_or_default() {
        match trace {
            Trace::Removed(text) | Trace::Stays(text) => eprintln!("agent: {text}"),
        }
    }
}

fn print(
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

/// What an agent may take beyond the time that a join may.
const PATIENCE: Duration = Duration::from_secs(30);
