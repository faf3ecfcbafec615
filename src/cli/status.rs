//! `agent status`: every membership of this device.

use std::{path::Path, process::ExitCode};

use super::{
    Common, ask,
    failure::Failure,
    join::{print_json, print_text},
    print,
};
use crate::{
    config::Flags,
    ipc::{Answer, Request},
    membership::{self, MembershipError},
    model::{Server, State, Status},
    store::Store,
};

/// Show this device's memberships: networks, addresses, gateways and peers.
///
/// Ends with 0 when every interface is up, with 3 when this device is not enrolled or an interface is down, and with 7
/// when a membership still waits for a network.
#[derive(Debug, clap::Args)]
pub(super) struct StatusCommand {}

impl StatusCommand {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags::default())?;
        let store = Store::new(config.state_dir.clone());
        let mut all: Vec<Status> = Vec::new();
        let mut broken = None;
        for server in store.servers()? {
            match one(&store, &config.runtime_dir, &server).await {
                Ok(status) => all.extend(status),
                // One damaged membership hides no other.
                Err(failure) => broken = Some(failure.report(false)),
            }
        }
        if let (Some(code), true) = (broken, all.is_empty()) {
            return Ok(code);
        }
        if all.is_empty() {
            return Err(MembershipError::NotEnrolled.into());
        }
        if common.json {
            print_json(&serde_json::json!({ "memberships": all }));
        } else {
            print_text(&all.iter().map(print::status).collect::<Vec<_>>().join("\n"));
        }
        let worst = all.iter().map(|status| match status.state {
            State::Up => 0,
            State::Down => 3,
            State::Pending | State::Waiting => 7,
        });
        Ok(broken.unwrap_or_else(|| ExitCode::from(worst.max().unwrap_or_default())))
    }
}

async fn one(store: &Store, runtime_dir: &Path, server: &Server) -> Result<Option<Status>, Failure> {
    let Some(membership) = store.load(server)? else { return Ok(None) };
    match ask(runtime_dir, &membership.interface, &Request::Status).await? {
        Some(Answer::Status(status)) => Ok(Some(*status)),
        Some(Answer::Failed(failure)) => Err(Failure::reported(failure)),
        Some(Answer::Done { .. } | Answer::Joined { .. }) | None => Ok(membership::status(store, server).await?),
    }
}
