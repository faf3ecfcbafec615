//! `agent up` and `agent down`: the interface with its traffic, not the membership.

use std::process::ExitCode;

use super::{Common, failure::Failure, serving};
use crate::{
    config::Flags,
    membership,
    model::{Server, Switch},
    store::Store,
};

/// Take interfaces up again.
#[derive(Debug, clap::Args)]
pub(super) struct Up {
    /// The server, if only its interface is meant
    #[arg(long, env = "ENROLL_AGENT_SERVER")]
    server: Option<Server>,
}

/// Take interfaces down until `agent up`; the memberships stay.
///
/// This also holds after a restart, unless it is said to end there.
#[derive(Debug, clap::Args)]
pub(super) struct Down {
    /// The server, if only its interface is meant
    #[arg(long, env = "ENROLL_AGENT_SERVER")]
    server: Option<Server>,
    /// Remove what a stopped agent left in the kernel, and remember nothing: the next start takes interfaces up
    #[arg(long, env = "ENROLL_AGENT_UNTIL_START", conflicts_with = "server")]
    until_start: bool,
}

impl Up {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags::default())?;
        serving::switch(common, &config, self.server.clone(), Switch::On).await
    }
}

impl Down {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags::default())?;
        if self.until_start {
            if serving::serving(common, &config).await?.is_some() {
                return Err(Failure::usage("an agent is serving", "stop it first: `systemctl stop enroll-agent`"));
            }
            membership::clear(&Store::new(config.state_dir)).await?;
            return Ok(serving::told("down", common.json));
        }
        serving::switch(common, &config, self.server.clone(), Switch::Off).await
    }
}
