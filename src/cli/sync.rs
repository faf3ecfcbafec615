//! `agent sync`: one round with the server now.

use std::process::ExitCode;

use super::{
    Common,
    failure::Failure,
    hands,
    print::{self, print_json, print_text},
    serving,
};
use crate::{config::Flags, ipc::Request, membership::Work, model::Server};

/// Check in, pull and apply what changed, once, for every membership.
#[derive(Debug, clap::Args)]
pub(super) struct Sync {
    /// Trust this PEM certificate authority alone for the enrollment server
    #[arg(long, env = "ENROLL_AGENT_CA_FILE", value_name = "FILE")]
    ca_file: Option<std::path::PathBuf>,
    /// The server, if only one is meant
    #[arg(long, env = "ENROLL_AGENT_SERVER")]
    server: Option<Server>,
}

impl Sync {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags { ca_file: self.ca_file.clone(), ..Flags::default() })?;
        if let Some(mut client) = serving::serving(common, &config).await? {
            serving::ask(&mut client, &Request::Sync { server: self.server.clone() }).await?;
            if common.json {
                print_json(&serde_json::json!({ "synced": true }));
            } else {
                print_text("in step\n");
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut changes = Vec::new();
        let sync = async |work: &mut Work| {
            changes.push(work.sync().await?.changes);
            Ok(())
        };
        let servers = serving::each(&hands(&config), &config, self.server.as_ref(), sync).await?;
        let synced = servers.iter().zip(changes);
        if common.json {
            let servers: Vec<_> =
                synced.map(|(server, changes)| serde_json::json!({ "server": server, "changes": changes })).collect();
            print_json(&serde_json::json!({ "synced": servers }));
        } else {
            for (server, changes) in synced {
                print_text(&format!("in step with {server}, {}\n", print::counted(changes, "change")));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
