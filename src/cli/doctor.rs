//! `agent doctor`: whether everything is as it should be, and what to do where it is not.

use std::process::ExitCode;

use super::{
    Common, checks,
    failure::{self, Failure},
    hands,
    print::{print_json, print_text},
    status,
};
use crate::{
    config::{Config, Flags},
    membership::{self, Belongings},
    model::{Check, CheckVerdict, Class, Report, State},
};

/// Look at the service, this machine, the memberships and the way to their servers, and say what to do.
///
/// Changes nothing. Works without root and without the service as far as that goes, and says what it could not see. Ends
/// with 0 when nothing failed, with 1 otherwise.
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// Also look for enrollment keys, session tokens and private keys where they should not be: command lines and
    /// environments of processes, shell histories, what cloud-init keeps, the journal
    #[arg(long, env = "ENROLL_AGENT_SECRETS")]
    secrets: bool,
}

impl Doctor {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let checks = match common.config(&Flags::default()) {
            Ok(config) => self.examine(common, &config).await,
            Err(error) => {
                let failure = Failure::from(error);
                let advice = "correct it; what it says cannot be checked before";
                let mut checks = vec![Check::failed("configuration", Class::Configuration, failure.message(), advice)];
                checks.extend(membership::examine_machine(None).await);
                checks
            }
        };
        let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
        let [failed, warnings, unknown] =
            [CheckVerdict::Failed, CheckVerdict::Warning, CheckVerdict::Unknown].map(count);
        if common.json {
            print_json(&serde_json::json!({ "checks": checks, "healthy": failed == 0 }));
        } else {
            let sum = format!("{} checks: {failed} failed, {warnings} warnings, {unknown} unknown\n", checks.len());
            print_text(&(checks::lines(&checks) + &sum));
        }
        Ok(if failed == 0 { ExitCode::SUCCESS } else { failure::exit(Class::Other) })
    }

    async fn examine(&self, common: &Common, config: &Config) -> Vec<Check> {
        let hands = hands(config);
        let (report, mut checks) = look(common, config).await;
        let belongings = Belongings { config: config.path(), runtime: &config.runtime_dir, state: &config.state_dir };
        checks.extend(membership::examine_files(belongings));
        checks.extend(membership::examine_machine(report.as_ref()).await);
        for status in report.iter().flat_map(|report| &report.memberships) {
            checks.extend(membership::examine_membership(&hands, status).await);
        }
        if self.secrets {
            checks.extend(membership::search_secrets(report.as_ref(), belongings).await);
        }
        checks
    }
}

/// Asks the agent that serves, or looks at what is saved.
async fn look(common: &Common, config: &Config) -> (Option<Report>, Vec<Check>) {
    let asked = status::report(common, config).await;
    let report = match asked {
        Ok(report) => report,
        Err(failure) => {
            let detail = failure.message();
            let denied = failure.is(Class::Denied);
            let advice = "run as root, or as a member of the group enroll-agent";
            let check = if denied {
                Check::unknown("service", detail, advice)
            } else {
                Check::failed("service", Class::Other, detail, "`journalctl -u enroll-agent` may tell more")
            };
            return (None, vec![check]);
        }
    };
    let mut checks = vec![service(common, &report)];
    checks.extend(report.broken.iter().map(|broken| {
        let advice = "restore it from a backup, or remove the folder to enroll as a new host";
        Check::failed("state", broken.error.class, &broken.error.message, advice).of(&broken.server)
    }));
    let waits = report.enrolling.iter().map(|enrolling| {
        let why = enrolling.last_error.as_ref().map_or("being redeemed", |error| error.message.as_str());
        Check::warning("enrolling", why, "the service goes on trying; `agent status` shows when").of(&enrolling.server)
    });
    checks.extend(waits);
    if report.memberships.is_empty() && report.broken.is_empty() && report.enrolling.is_empty() {
        checks.push(Check::warning("membership", "this device is not enrolled", "run `agent join <key>`"));
    }
    (Some(report), checks)
}

fn service(common: &Common, report: &Report) -> Check {
    const ID: &str = "service";
    let ours = env!("CARGO_PKG_VERSION");
    let is_needed = report.memberships.iter().any(|status| matches!(status.state, State::Down));
    let advice = "run `systemctl enable --now enroll-agent`";
    match &report.agent {
        Some(agent) if agent.version == ours => Check::ok(ID, format!("process {} serves, version {ours}", agent.pid)),
        Some(agent) => Check::warning(
            ID,
            format!("version {} serves, and this program is {ours}", agent.version),
            "restart the service: kernel interfaces do not notice",
        ),
        None if common.standalone => Check::unknown(ID, "not asked, as --standalone says", "leave out --standalone"),
        None if is_needed => {
            Check::failed(ID, Class::NotEnrolled, "no agent serves, and an interface is missing", advice)
        }
        None => Check::warning(ID, "no agent serves: changes are not fetched", advice),
    }
}
