//! `agent release-names`: what the unit does after the service, however that ended.

use std::process::ExitCode;

use super::{Common, failure::Failure, hands};
use crate::{config::Flags, membership};

/// Have no interface of this device's memberships resolve names any more.
///
/// A service that was killed leaves its interfaces, and with them servers that do not answer.
#[derive(Debug, clap::Args)]
pub(super) struct ReleaseNames {}

impl ReleaseNames {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags::default())?;
        membership::release_names(&hands(&config).store).await?;
        Ok(ExitCode::SUCCESS)
    }
}
