//! `agent wait-online`: for those who need the networks before they start.

use std::{process::ExitCode, time::Duration};

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    Common,
    failure::Failure,
    print::{self, print_json, print_text},
    status,
};
use crate::{
    config::{Config, Flags},
    ipc::{self, Answer, Request},
    model::{Class, NetworkName, Report, State, Status},
};

/// Wait until an interface is up with its addresses, and no required network is missing.
///
/// Ends with 0 then, with 3, 7, 8 or 9 if it is not by the deadline.
#[derive(Debug, clap::Args)]
pub(super) struct WaitOnline {
    /// Wait for this network; may be given several times
    #[arg(long, value_name = "NAME")]
    network: Vec<NetworkName>,
    /// Seconds to wait; 0 waits for ever
    #[arg(long, env = "ENROLL_AGENT_WAIT_TIMEOUT", value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

impl WaitOnline {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags::default())?;
        let mut last = None;
        let waiting = self.wait(common, &config, &mut last);
        let result = match self.timeout {
            0 => Ok(waiting.await),
            seconds => timeout(Duration::from_secs(seconds), waiting).await,
        };
        match result {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Err(self.too_late(last.as_ref())),
        }
        if common.json {
            print_json(&serde_json::json!({ "online": true }));
        } else {
            print_text("online\n");
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn wait(&self, common: &Common, config: &Config, last: &mut Option<Report>) -> Result<(), Failure> {
        let mut again = interval(LOOK);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            again.tick().await;
            if !common.standalone
                && let Some(mut client) = ipc::connect(&config.runtime_dir).await?
            {
                client.send(&Request::Watch).await?;
                while let Ok(Some(answer)) = client.next(FOR_EVER).await {
                    match answer {
                        Answer::Report(report) if self.is_online(&report) => return Ok(()),
                        Answer::Report(report) => *last = Some(*report),
                        Answer::Failed(failure) => return Err(Failure::reported(failure)),
                        Answer::Done { .. } | Answer::Joined { .. } | Answer::Progress { .. } => {}
                    }
                }
                // The agent ended; another may start.
                continue;
            }
            let report = status::report(common, config).await?;
            if self.is_online(&report) {
                return Ok(());
            }
            *last = Some(report);
        }
    }

    fn is_online(&self, report: &Report) -> bool {
        let up = |status: &&Status| status.state == State::Up;
        let has =
            |status: &Status, name| status.networks.get(name).is_some_and(|network| !network.addresses.is_empty());
        let mut online = report.memberships.iter().filter(up);
        if self.network.is_empty() {
            let is_complete = report.memberships.iter().all(|status| status.unmet().next().is_none());
            return is_complete
                && online.any(|status| status.networks.values().any(|network| !network.addresses.is_empty()));
        }
        let online: Vec<_> = online.collect();
        self.network.iter().all(|name| online.iter().any(|status| has(status, name)))
    }

    fn too_late(&self, last: Option<&Report>) -> Failure {
        let up = |status: &&Status| status.state == State::Up;
        let unmet = |report: &Report| report.memberships.iter().filter(up).find_map(print::unmet);
        let unmet = last.and_then(unmet).filter(|_| self.network.is_empty());
        let enrolled = last.is_some_and(|report| !report.memberships.is_empty());
        let what = match self.network.as_slice() {
            [] => match &unmet {
                Some(unmet) => format!("required networks are missing: {unmet}"),
                None => "no network is up".to_owned(),
            },
            names => format!("{} not all up", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let is_suspect = |status: &Status| matches!(status.state, State::Clone | State::Held);
        let class = if last.is_some_and(|report| report.memberships.iter().any(is_suspect)) {
            Class::Held
        } else if unmet.is_some() {
            Class::Partial
        } else if enrolled {
            Class::Waiting
        } else {
            Class::NotEnrolled
        };
        Failure::of(class, format!("{what} after {} s", self.timeout), "`agent status` says what is missing")
    }
}

/// How often it is looked for an agent while none serves.
const LOOK: Duration = Duration::from_millis(100);

/// The deadline is the caller's.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
