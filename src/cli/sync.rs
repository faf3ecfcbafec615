//! `agent sync`: one round with the server now.

use std::process::ExitCode;

use super::{
    Common,
    failure::Failure,
    hands,
    print::{self, print_json, print_text},
    serving,
};
use crate::{
    config::Flags,
    ipc::Request,
    membership::{self, Hands, Work},
    model::Server,
};

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
        let hands = hands(&config);
        let signed_off = self.sign_off(&hands).await?;
        if signed_off > 0 && hands.store.servers()?.is_empty() {
            if common.json {
                print_json(&serde_json::json!({ "signed_off": signed_off, "synced": [] }));
            } else {
                print_text(&format!("signed off {}\n", print::counted(signed_off, "host")));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut changes = Vec::new();
        let sync = async |work: &mut Work| {
            changes.push(work.sync().await?.changes);
            Ok(())
        };
        let servers = serving::each(&hands, &config, self.server.as_ref(), sync).await?;
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

    /// Tells servers of hosts that were left while they were not there; returns how many know now.
    async fn sign_off(&self, hands: &Hands) -> Result<usize, Failure> {
        membership::finish_leaves(hands).await?;
        let mut signed_off = 0;
        let is_alone = hands.store.servers()?.is_empty();
        for leaving in hands.store.queued()? {
            if self.server.as_ref().is_some_and(|server| *server != leaving.server) {
                continue;
            }
            match membership::sign_off(hands, &leaving, membership::PATIENCE).await {
                Ok(()) => signed_off += 1,
                Err(error) if is_alone => return Err(error.into()),
                Err(error) => {
                    Failure::from(error).during("tell the server that a host was left").report(false);
                }
            }
        }
        Ok(signed_off)
    }
}
