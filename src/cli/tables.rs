//! `agent networks` and `agent peers`: parts of the status as tables.

use std::process::ExitCode;

use super::{
    Common,
    failure::Failure,
    print::{self, print_json, print_text},
    status,
};
use crate::{config::Flags, membership::MembershipError, model::Report};

/// List the networks of this device.
#[derive(Debug, clap::Args)]
pub(super) struct Networks {}

/// List the peers of this device.
#[derive(Debug, clap::Args)]
pub(super) struct Peers {}

impl Networks {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let report = enrolled(common).await?;
        if common.json {
            let networks = report.memberships.iter().flat_map(|status| {
                status.networks.iter().map(
                    |(name, network)| serde_json::json!({ "server": status.server, "name": name, "network": network }),
                )
            });
            print_json(&serde_json::json!({ "networks": networks.collect::<Vec<_>>() }));
        } else {
            print_text(&format!("{}\n", print::networks(&report.memberships)));
        }
        Ok(status::code(&report))
    }
}

impl Peers {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let report = enrolled(common).await?;
        if common.json {
            let peers = report.memberships.iter().flat_map(|status| {
                status.peers.iter().map(|peer| serde_json::json!({ "interface": status.interface, "peer": peer }))
            });
            print_json(&serde_json::json!({ "peers": peers.collect::<Vec<_>>() }));
        } else {
            print_text(&format!("{}\n", print::peers(&report.memberships)));
        }
        Ok(status::code(&report))
    }
}

async fn enrolled(common: &Common) -> Result<Report, Failure> {
    let config = common.config(&Flags::default())?;
    let report = status::report(common, &config).await?;
    if report.memberships.is_empty() {
        return Err(MembershipError::NotEnrolled.into());
    }
    Ok(report)
}
