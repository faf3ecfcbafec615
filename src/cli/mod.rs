//! The words the user sees: one file per command.

mod checks;
mod conceal;
mod doctor;
mod drops;
mod failure;
mod import;
mod inspect;
mod join;
mod join_served;
mod leave;
mod log;
mod partial;
mod prepare_image;
mod print;
mod progress;
mod prompt;
mod receipts;
mod rehearsal;
mod release_names;
mod rotate_keys;
mod run;
mod serving;
mod status;
mod stop;
mod switch;
mod sync;
mod tables;
mod wait_online;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::Failure;
use crate::{
    config::{Config, ConfigError, Flags, Places},
    hooks::Hooks,
    membership::Hands,
    model::Secret,
    store::Store,
};

/// Enrolls this device into its WireGuard networks with one key, and keeps it there.
#[derive(Debug, Parser)]
#[command(name = "agent", version, after_help = failure::EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// Print one JSON object on standard output
    #[arg(long, global = true, env = "ENROLL_AGENT_JSON")]
    json: bool,
    #[command(flatten)]
    log: log::LogFlags,
    #[command(flatten)]
    places: Places,
    /// Do the work in this process, even if a service runs
    #[arg(long, global = true, env = "ENROLL_AGENT_STANDALONE")]
    standalone: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Doctor(doctor::Doctor),
    Down(switch::Down),
    Import(import::Import),
    Inspect(inspect::Inspect),
    Join(join::Join),
    Leave(leave::Leave),
    Networks(tables::Networks),
    Peers(tables::Peers),
    PrepareImage(prepare_image::PrepareImage),
    Receipts(receipts::ReceiptsCommand),
    #[command(hide = true)]
    ReleaseNames(release_names::ReleaseNames),
    RotateKeys(rotate_keys::RotateKeys),
    Run(run::Run),
    Status(status::StatusCommand),
    Sync(sync::Sync),
    Up(switch::Up),
    WaitOnline(wait_online::WaitOnline),
}

impl Command {
    /// The key on the command line, which must not stay there.
    fn key(&self) -> Option<&Secret> {
        match self {
            Self::Inspect(inspect) => inspect.key(),
            Self::Join(join) => join.key(),
            Self::Doctor(_)
            | Self::Down(_)
            | Self::Import(_)
            | Self::Leave(_)
            | Self::Networks(_)
            | Self::Peers(_)
            | Self::PrepareImage(_)
            | Self::Receipts(_)
            | Self::ReleaseNames(_)
            | Self::RotateKeys(_)
            | Self::Run(_)
            | Self::Status(_)
            | Self::Sync(_)
            | Self::Up(_)
            | Self::WaitOnline(_) => None,
        }
    }
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    conceal::refuse_cores();
    conceal::hide_keys(cli.command.key());
    cli.common.log.start(matches!(cli.command, Command::Run(_)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(&cli));
            // A name lookup that hangs in a thread of its own is nothing to wait for.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::other(format!("cannot start: {error}"))),
    };
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(cli.common.json),
    }
}

async fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let common = &cli.common;
    match &cli.command {
        Command::Doctor(doctor) => doctor.run(common).await,
        Command::Down(down) => down.run(common).await,
        Command::Import(import) => import.run(common).await,
        Command::Inspect(inspect) => inspect.run(common).await,
        Command::Join(join) => join.run(common).await,
        Command::Leave(leave) => leave.run(common).await,
        Command::Networks(networks) => networks.run(common).await,
        Command::Peers(peers) => peers.run(common).await,
        Command::PrepareImage(prepare) => prepare.run(common).await,
        Command::Receipts(receipts) => receipts.run(common),
        Command::ReleaseNames(release) => release.run(common).await,
        Command::RotateKeys(rotate) => rotate.run(common).await,
        Command::Run(run) => run.run(common).await,
        Command::Status(status) => status.run(common).await,
        Command::Sync(sync) => sync.run(common).await,
        Command::Up(up) => up.run(common).await,
        Command::WaitOnline(wait) => wait.run(common).await,
    }
}

impl Common {
    fn config(&self, flags: &Flags) -> Result<Config, ConfigError> {
        Config::load(&self.places, flags)
    }
}

fn hands(config: &Config) -> Hands {
    Hands {
        ca_file: config.overrides.ca_file.clone(),
        hardware_uuid: config.hardware_uuid(),
        hooks: Hooks::new(config.hooks_dir()),
        store: Store::new(config.state_dir.clone()),
    }
}
