//! `agent prepare-image`: before a disk becomes the image of many machines.

use std::{path::PathBuf, process::ExitCode};

use super::{
    Common,
    failure::{self, Failure},
    hands,
    print::{print_json, print_text},
    serving,
};
use crate::{
    config::Flags,
    membership::{self, Wiped},
    model::Class,
};

/// Remove everything that makes this machine a host, before an image is made of it.
///
/// No server is told: `agent leave` first does that. An enrollment key in the configuration stays, for the machines that
/// start from the image.
#[derive(Debug, clap::Args)]
pub(super) struct PrepareImage {
    /// Change nothing; list what an image would carry, and end with 1 if there is something
    #[arg(long, env = "ENROLL_AGENT_CHECK_IMAGE")]
    check: bool,
}

impl PrepareImage {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags::default())?;
        let hands = hands(&config);
        if self.check {
            return Ok(tell(&membership::remains(&hands)?, common.json));
        }
        if serving::serving(common, &config).await?.is_some() {
            return Err(Failure::usage("an agent is serving", "stop it first: `systemctl stop enroll-agent`"));
        }
        let Wiped { left, servers } = membership::wipe(&hands).await?;
        for server in servers {
            eprintln!("agent: {server} still lists this host; its administrator may delete it there");
        }
        Ok(tell(&left, common.json))
    }
}

fn tell(left: &[PathBuf], json: bool) -> ExitCode {
    if json {
        print_json(&serde_json::json!({ "left": left, "ready": left.is_empty() }));
    } else if left.is_empty() {
        print_text("nothing of an identity is here\n");
    } else {
        let lines: Vec<_> = left.iter().map(|path| format!("{}\n", path.display())).collect();
        print_text(&lines.concat());
    }
    if left.is_empty() { ExitCode::SUCCESS } else { failure::exit(Class::Other) }
}
