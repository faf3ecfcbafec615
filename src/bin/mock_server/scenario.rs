//! `mock-server scenario`: a timeline for a client in somebody's continuous integration.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use enroll_agent::mock_server::{
    Options, Tls,
    scenario::{self, Scenario, Stage},
};

use super::{broker::BrokerArguments, edition::EditionArguments};

#[derive(clap::Args)]
pub(crate) struct ScenarioArguments {
    /// The scenario, TOML.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder for `ca.pem`, a token per key (`NAME.key`), and in the end `report.json` and `junit.xml`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What tokens call this server [default: the address it listens on].
    #[arg(long, value_name = "HOST:PORT")]
    api: Option<String>,
    #[command(flatten)]
    broker: BrokerArguments,
    #[command(flatten)]
    edition: EditionArguments,
}

/// Runs a scenario; fails if an expectation did not hold.
pub(crate) async fn scenario(arguments: ScenarioArguments) -> anyhow::Result<()> {
    let ScenarioArguments { file, out, listen, api, broker, edition } = arguments;
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let scenario = Scenario::from_toml(&text).with_context(|| format!("cannot use {}", file.display()))?;
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let options = Options { api, tls: Tls::default(), broker: broker.broker()?, ..Options::default() };
    let stage = scenario::stage(&scenario, listener, edition.put_into(options)).await?;
    hand_out(&stage, &out)?;
    let report = scenario::run(&scenario, &stage).await?;
    write(&out.join("report.json"), &serde_json::to_string_pretty(&report)?, 0o644)?;
    write(&out.join("junit.xml"), &report.to_junit(), 0o644)?;
    stage.handle.shutdown().await;
    let failed: Vec<_> = report.verdicts.iter().filter(|verdict| verdict.failure.is_some()).collect();
    let mut said = io::stdout().lock();
    for verdict in &report.verdicts {
        match &verdict.failure {
            Some(failure) => writeln!(said, "failed: {}: {failure}", verdict.name)?,
            None => writeln!(said, "passed: {}", verdict.name)?,
        }
    }
    anyhow::ensure!(report.passed, "{} of {} expectations failed", failed.len(), report.verdicts.len());
    Ok(())
}

/// Writes what a client needs, and says so when all of it is there.
fn hand_out(stage: &Stage, out: &Path) -> anyhow::Result<()> {
    let Stage { handle, tokens } = stage;
    write(&out.join("ca.pem"), handle.ca_pem(), 0o644)?;
    for (name, token) in tokens {
        write(&out.join(format!("{name}.key")), token.expose(), 0o600)?;
    }
    let mut said = io::stdout().lock();
    writeln!(said, "url: https://{}", handle.api())?;
    Ok(said.flush()?)
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
