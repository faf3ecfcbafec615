//! `agent status`: every membership of this device.

use std::{process::ExitCode, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    Common,
    failure::{self, Failure},
    print::{self, print_json, print_text},
    serving::{self, unexpected},
};
use crate::{
    config::{Config, Flags},
    ipc::{Answer, Request},
    membership::{self, MembershipError, describe},
    model::{Broken, Class, ErrorReport, Leaving, REPORT_VERSION, Report, State, Status},
    store::Store,
};

/// Show this device's memberships: networks, addresses, gateways and peers.
///
/// Ends with 0 when every interface is up, with 3 when this device is not enrolled or an interface is down, with 7
/// when a membership still waits for a network, with 8 when a required network is missing, and with 9 when this device is
/// a copy of another one or may be.
#[derive(Debug, clap::Args)]
pub(super) struct StatusCommand {
    /// Answer one question with the exit code: live (an agent serves), ready (every interface is up, and no required network is
    /// missing), startup (every
    /// saved membership was put in order once); 3 is no
    #[arg(long, value_enum, value_name = "QUESTION", env = "ENROLL_AGENT_CHECK")]
    check: Option<Check>,
    /// Print the JSON Schema of `--json`
    #[arg(long, conflicts_with_all = ["check", "watch"])]
    schema: bool,
    /// Show it again whenever it changes, until stopped
    #[arg(long, env = "ENROLL_AGENT_WATCH")]
    watch: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Check {
    Live,
    Ready,
    Startup,
}

impl StatusCommand {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        if self.schema {
            print_json(&schemars::schema_for!(Report));
            return Ok(ExitCode::SUCCESS);
        }
        let config = common.config(&Flags::default())?;
        if self.watch {
            return watch(common, &config).await;
        }
        let report = report(common, &config).await?;
        if let Some(check) = self.check {
            return Ok(check.answer(&report, common.json));
        }
        show(&report, common.json)?;
        Ok(code(&report))
    }
}

impl Check {
    fn answer(self, report: &Report, json: bool) -> ExitCode {
        let yes = match self {
            Self::Live => report.agent.is_some(),
            Self::Ready => {
                let ready = |status: &Status| status.state == State::Up && status.unmet().next().is_none();
                !report.memberships.is_empty() && report.memberships.iter().all(ready)
            }
            Self::Startup => report.agent.as_ref().is_some_and(|agent| agent.started),
        };
        if json {
            print_json(&serde_json::json!({ "check": format!("{self:?}").to_lowercase(), "answer": yes }));
        } else {
            print_text(if yes { "yes\n" } else { "no\n" });
        }
        if yes { ExitCode::SUCCESS } else { failure::not_serving() }
    }
}

/// Asks the serving agent, or looks at what is saved where none serves.
pub(super) async fn report(common: &Common, config: &Config) -> Result<Report, Failure> {
    if let Some(mut client) = serving::serving(common, config).await? {
        return match client.ask(&Request::Status).await? {
            Answer::Report(report) => Ok(*report),
            Answer::Failed(failure) => Err(Failure::reported(failure)),
            Answer::Done { .. } | Answer::Joined { .. } | Answer::Progress { .. } => Err(unexpected()),
        };
    }
    saved(config).await
}

/// What can be seen of the memberships from outside.
async fn saved(config: &Config) -> Result<Report, Failure> {
    let store = Store::new(config.state_dir.clone());
    let mut report = Report {
        agent: None,
        broken: Vec::new(),
        enrolling: Vec::new(),
        leaving: store.queued()?.iter().map(Leaving::status).collect(),
        memberships: Vec::new(),
        version: REPORT_VERSION,
    };
    for server in store.servers()? {
        match membership::status(&store, &server).await {
            Ok(status) => report.memberships.extend(status),
            // One damaged membership hides no other.
            Err(error) => {
                let error = ErrorReport {
                    at: crate::daemon::clock::unix_seconds(),
                    class: error.class(),
                    message: describe(&error),
                };
                report.broken.push(Broken { error, server: server.to_string() });
            }
        }
    }
    for server in store.servers_aside()? {
        report.memberships.extend(membership::deleted(&store, &server)?);
    }
    for server in store.servers_inherited()? {
        report.memberships.extend(membership::inherited(&store, &server)?);
    }
    Ok(report)
}

/// Shows the report again whenever it changes.
async fn watch(common: &Common, config: &Config) -> Result<ExitCode, Failure> {
    let mut last = None;
    if let Some(mut client) = serving::serving(common, config).await? {
        client.send(&Request::Watch).await?;
        loop {
            match client.next(FOR_EVER).await? {
                Some(Answer::Report(report)) => show_again(*report, &mut last, common.json),
                Some(Answer::Failed(failure)) => return Err(Failure::reported(failure)),
                Some(Answer::Done { .. } | Answer::Joined { .. } | Answer::Progress { .. }) => return Err(unexpected()),
                None => return Err(Failure::not_running()),
            }
        }
    }
    let mut again = interval(LOOK);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        show_again(saved(config).await?, &mut last, common.json);
    }
}

fn show_again(report: Report, last: &mut Option<Report>, json: bool) {
    if last.as_ref() == Some(&report) {
        return;
    }
    if !json && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        // Clears the screen (ECMA-48, ED and CUP).
        print_text("\x1b[2J\x1b[H");
    }
    match show(&report, json) {
        // Nothing enrolled yet is no reason to stop watching.
        Err(failure) if !json => print_text(&format!("{}\n", failure.message())),
        Err(_) => print_json(&report),
        Ok(()) => {}
    }
    *last = Some(report);
}

fn show(report: &Report, json: bool) -> Result<(), Failure> {
    let Report { agent, broken, enrolling, leaving, memberships, version: _ } = report;
    if json && (agent.is_some() || !memberships.is_empty() || !broken.is_empty() || !leaving.is_empty()) {
        print_json(report);
        return Ok(());
    }
    for Broken { error, server } in broken {
        Failure::broken(error, server).report(false);
    }
    if memberships.is_empty() && broken.is_empty() && enrolling.is_empty() && leaving.is_empty() {
        return Err(MembershipError::NotEnrolled.into());
    }
    let mut texts: Vec<_> = memberships.iter().map(print::status).collect();
    texts.extend(enrolling.iter().map(print::enrolling));
    texts.extend(leaving.iter().map(print::leaving));
    print_text(&texts.join("\n"));
    Ok(())
}

/// The worst of what there is.
pub(super) fn code(report: &Report) -> ExitCode {
    if let Some(broken) = report.broken.first() {
        return failure::exit(broken.error.class);
    }
    let memberships = report.memberships.iter().map(|status| match status.state {
        State::Up => status.unmet().next().map(|_| Class::Partial),
        State::Clone | State::Held => Some(Class::Held),
        State::Down | State::Off | State::Revoked => Some(Class::NotEnrolled),
        State::Pending | State::Waiting => Some(Class::Waiting),
    });
    let worst = memberships
        .flatten()
        .max_by_key(|class| (*class == Class::Held, *class == Class::Waiting, *class == Class::NotEnrolled));
    match worst {
        Some(class) => failure::exit(class),
        None if report.memberships.is_empty() => failure::exit(Class::NotEnrolled),
        None => ExitCode::SUCCESS,
    }
}

/// A report comes when something changes, which may take days.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Without an agent nobody tells of changes.
const LOOK: Duration = Duration::from_secs(1);
