//! `agent rotate-keys`: new WireGuard keys.

use std::process::ExitCode;

use super::{
    Common,
    failure::Failure,
    hands,
    print::{print_json, print_text},
    serving,
};
use crate::{config::Flags, ipc::Request, model::Server};

/// Make new WireGuard keys and put them in force once the server has confirmed them.
#[derive(Debug, clap::Args)]
pub(super) struct RotateKeys {
    /// The server, if only its key is meant
    #[arg(long, env = "ENROLL_AGENT_SERVER")]
    server: Option<Server>,
}

impl RotateKeys {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags::default())?;
        match serving::serving(common, &config).await? {
            Some(mut client) => {
                serving::ask(&mut client, &Request::RotateKeys { server: self.server.clone() }).await?;
            }
            None => {
                let rotate = async |work: &mut crate::membership::Work| work.rotate_key().await;
                serving::each(&hands(&config), &config, self.server.as_ref(), rotate).await?;
            }
        }
        if common.json {
            print_json(&serde_json::json!({ "rotated": true }));
        } else {
            print_text("new keys are in force\n");
        }
        Ok(ExitCode::SUCCESS)
    }
}
