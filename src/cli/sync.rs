//! `agent sync`: one round with the server now.

use std::process::ExitCode;

use super::{
    Common, ask,
    failure::Failure,
    hands,
    join::{print_json, print_text},
    print,
};
use crate::{
    config::Flags,
    ipc::{Answer, Request},
    membership::{MembershipError, Session},
    model::Backend,
};

/// Check in, pull and apply what changed, once, for every membership.
#[derive(Debug, clap::Args)]
pub(super) struct Sync {
    /// Trust this PEM certificate authority alone for the enrollment server
    #[arg(long, env = "ENROLL_AGENT_CA_FILE", value_name = "FILE")]
    ca_file: Option<std::path::PathBuf>,
}

impl Sync {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags { ca_file: self.ca_file.clone(), ..Flags::default() })?;
        let hands = hands(&config);
        let servers = hands.store.servers()?;
        if servers.is_empty() {
            return Err(MembershipError::NotEnrolled.into());
        }
        let mut synced = Vec::new();
        for server in servers {
            let Some(membership) = hands.store.load(&server)? else { continue };
            match ask(&config.runtime_dir, &membership.interface, &Request::Sync).await? {
                Some(Answer::Failed(failure)) => return Err(Failure::reported(failure)),
                Some(Answer::Done { .. } | Answer::Joined { .. } | Answer::Status(_)) => synced.push((server, None)),
                None => {
                    let mut session = Session::resume(&hands, &server, config.backend).await?;
                    if session.backend() == Backend::Userspace {
                        return Err(MembershipError::NotServing(server).into());
                    }
                    let round = session.sync().await?;
                    synced.push((server, Some(round.changes)));
                }
            }
        }
        if common.json {
            let servers: Vec<_> = synced
                .iter()
                .map(|(server, changes)| serde_json::json!({ "server": server, "changes": changes }))
                .collect();
            print_json(&serde_json::json!({ "synced": servers }));
            return Ok(ExitCode::SUCCESS);
        }
        for (server, changes) in synced {
            print_text(&match changes {
                Some(changes) => format!("in step with {server}, {}\n", print::counted(changes, "change")),
                None => format!("in step with {server}\n"),
            });
        }
        Ok(ExitCode::SUCCESS)
    }
}
