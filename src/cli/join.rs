//! `agent join`: from a key to a configured interface, and with the userspace backend to a serving process.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Common, ask,
    failure::{self, Failure},
    hands, print,
    progress::{self, Progress},
};
use crate::{
    config::{Config, Flags, KeyFlags},
    daemon::{self, Ended},
    ipc::{self, Answer, Request},
    membership::{self, Greeting, Hands, JoinRequest, Joined, MembershipError, Rehearsal, Spending},
    model::{Backend, InterfaceName, Secret, Server, Status, Token},
    store::StoreError,
};

/// Redeem an enrollment key and configure this device's networks.
///
/// With kernel WireGuard the command ends and the interface stays. With the userspace backend this process carries the
/// interface: it prints its result and keeps serving until it is stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Join {
    /// The enrollment key, or - to read it from standard input
    #[arg(value_name = "KEY", value_parser = secret)]
    key: Option<Secret>,
    /// File that holds the key; nobody else may be able to read it
    #[arg(long, env = "ENROLL_AGENT_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Inherited descriptor of a file that holds the key
    #[arg(long, env = crate::config::KEY_FD_VARIABLE, hide = true)]
    key_fd: Option<i32>,
    /// The same for a key that came by environment
    #[arg(long, env = crate::config::VARIABLE_FD_VARIABLE, hide = true)]
    variable_fd: Option<i32>,
    /// Say what would happen; spend, save and change nothing
    #[arg(long, env = "ENROLL_AGENT_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    flags: Flags,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report<'a> {
    result: &'static str,
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
        let keys = KeyFlags {
            argument_fd: self.key_fd,
            file: self.key_file.clone(),
            key: self.key.clone(),
            variable_fd: self.variable_fd,
        };
        let request = JoinRequest {
            backend: config.backend,
            interface: config.interface.clone(),
            overrides: config.overrides.clone(),
            timeout: config.timeout,
            token: config.token(&keys)?,
        };
        let hands = hands(&config);
        if request.token.is_none() && hands.store.servers()?.is_empty() {
            return Err(Failure::usage(
                "no enrollment key given",
                "run `agent join <key>`, or give --key-file, ENROLL_AGENT_KEY, or `key_file` in agent.toml",
            ));
        }
        if self.dry_run {
            return rehearse(&hands, &request, common.json).await;
        }
        let mut stop = Stop::listen()?;
        let progress = Progress::new();
        let mut report = |stage| progress.enter(stage);
        let joined = match refuse_unusable_socket(&config) {
            Ok(()) => membership::join(&hands, &request, &mut report, stop.wait()).await,
            Err(failure) => return Err(failure),
        };
        progress.finish();
        match joined {
            Ok(joined) => finish(joined, &config, common.json, stop).await,
            Err(MembershipError::Store(StoreError::Busy { server })) => {
                ask_the_serving(&hands, &config, &server, request.token.as_ref(), common.json).await
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A userspace interface is served over a socket, which must not fail only after a key was spent.
fn refuse_unusable_socket(config: &Config) -> Result<(), Failure> {
    if config.backend == Some(Backend::Kernel) {
        return Ok(());
    }
    let longest = config.interface.clone().unwrap_or_else(|| InterfaceName::numbered(u16::MAX));
    Ok(ipc::prepare(&config.runtime_dir, &longest)?)
}

/// Prints the result, and goes on serving where the interface lives in this process.
async fn finish(joined: Joined, config: &Config, json: bool, mut stop: Stop) -> Result<ExitCode, Failure> {
    let Joined { failure, greeting, mut session, timings } = joined;
    let status = session.status().await;
    let serving = match session.backend() {
        Backend::Kernel => None,
        Backend::Userspace => Some(ipc::listen(&config.runtime_dir, &status.interface).await?),
    };
    if json {
        let timings_ms = timings.iter().map(|(stage, took)| (progress::name(*stage), took.as_secs_f64() * 1000.0));
        print_json(&Report { result: word(greeting), status: &status, timings_ms: timings_ms.collect() });
    } else {
        let steps: Vec<_> = timings
            .iter()
            .map(|(stage, took)| format!("{} {}", progress::name(*stage), print::millis(*took)))
            .collect();
        print_text(&format!("{}\n{}\n{}\n", sentence(greeting), print::status(&status), steps.join(", ")));
    }
    let Some(listener) = serving else {
        // The tunnel is up; trouble that passes is for the next sync.
        return match failure.map(Failure::from) {
            Some(failure) if !failure.is_temporary() => Err(failure),
            Some(_) | None => Ok(ExitCode::SUCCESS),
        };
    };
    if std::io::stderr().is_terminal() {
        eprintln!("agent: serving {} until stopped (Ctrl-C)", status.interface);
    }
    let ended = daemon::serve(session, listener, failure::code, stop.wait()).await;
    ipc::close(&config.runtime_dir, &status.interface);
    match ended? {
        Ended::Deleted => Err(MembershipError::Deleted(
            status.server.parse().map_err(|_| Failure::other("the server deleted this host"))?,
        )
        .into()),
        Ended::Left | Ended::Stopped => Ok(ExitCode::SUCCESS),
    }
}

/// Another process holds the membership: it is asked to take the key, or how things are when it has it already.
async fn ask_the_serving(
    hands: &Hands,
    config: &Config,
    server: &Server,
    token: Option<&Token>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let busy = || MembershipError::from(StoreError::Busy { server: server.clone() });
    let membership = hands.store.load(server)?.ok_or_else(busy)?;
    let request = match token {
        Some(token) => Request::Join { token: token.text().clone() },
        None => Request::Status,
    };
    let (greeting, status) = match ask(&config.runtime_dir, &membership.interface, &request).await? {
        Some(Answer::Joined { redeemed: true, status }) => (Greeting::Further, status),
        Some(Answer::Joined { redeemed: false, status } | Answer::Status(status)) => (Greeting::Again, status),
        Some(Answer::Failed(failure)) => return Err(Failure::reported(failure)),
        Some(Answer::Done { .. }) | None => return Err(busy().into()),
    };
    if json {
        print_json(&Report { result: word(greeting), status: &status, timings_ms: BTreeMap::new() });
    } else {
        print_text(&format!("{}\n{}", sentence(greeting), print::status(&status)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn rehearse(hands: &Hands, request: &JoinRequest, json: bool) -> Result<ExitCode, Failure> {
    let Rehearsal { backend, changes, interface, spends, server, status } =
        membership::rehearse(hands, request).await?;
    let key = request.token.as_ref().map(Token::fingerprint);
    let changes: Vec<_> = changes.iter().map(|change| format!("{change:?}")).collect();
    let spends_a_use = spends == Spending::Key;
    if json {
        print_json(&serde_json::json!({
            "result": "dry-run", "backend": backend, "changes": changes, "interface": interface, "key": key,
            "server": server, "spends_a_use": spends_a_use, "status": status,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let mut text =
        format!("dry run: nothing was spent, saved or changed\nserver {server}, interface {interface} ({backend})\n");
    match spends {
        Spending::Key => text.push_str("the server knows the key; joining redeems it and then learns the networks\n"),
        Spending::Nothing => text.push_str("this host is enrolled already; joining spends nothing\n"),
    }
    for change in changes {
        text.extend(["would: ", &change, "\n"]);
    }
    if let Some(status) = status {
        text.extend(["\n", &print::status(&status)]);
    }
    print_text(&text);
    Ok(ExitCode::SUCCESS)
}

/// The signals that end a serving process.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::other(format!("cannot watch signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn word(greeting: Greeting) -> &'static str {
    match greeting {
        Greeting::Again => "already-enrolled",
        Greeting::Further => "further-key-redeemed",
        Greeting::New => "enrolled",
        Greeting::Offline => "already-enrolled-offline",
    }
}

fn sentence(greeting: Greeting) -> &'static str {
    match greeting {
        Greeting::Again => "already enrolled with this key: nothing was spent",
        Greeting::Further => "already enrolled; this further key was redeemed and may have cost a use",
        Greeting::New => "enrolled",
        Greeting::Offline => {
            "already enrolled; the server did not confirm it now, so what it last assigned is in force"
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "clap's value parsers return results")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::from(text))
}

/// One line, complete when it is seen: a program may wait for it while this process goes on.
pub(super) fn print_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => print_text(&format!("{text}\n")),
        Err(error) => tracing::error!(%error, "cannot write the result as JSON"),
    }
}

pub(super) fn print_text(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads the result");
    }
}
