//! `agent up` and `agent down`: the interface with its traffic, not the membership.

use std::process::ExitCode;

use super::{Common, failure::Failure, serving};
use crate::{
    config::Flags,
    model::{Server, Switch},
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
/// This also holds after a restart.
#[derive(Debug, clap::Args)]
pub(super) struct Down {
    /// The server, if only its interface is meant
    #[arg(long, env = "ENROLL_AGENT_SERVER")]
    server: Option<Server>,
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
        serving::switch(common, &config, self.server.clone(), Switch::Off).await
    }
}
