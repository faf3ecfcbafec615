//! The words the user sees: one file per command.

mod conceal;
mod failure;
mod join;
mod leave;
mod print;
mod progress;
mod status;
mod sync;

use std::{path::Path, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use self::failure::Failure;
use crate::{
    config::{Config, ConfigError, Flags, Places},
    ipc::{self, Answer, Request},
    membership::Hands,
    model::InterfaceName,
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
    places: Places,
    /// Log more: -v decisions, -vv every message
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "ENROLL_AGENT_VERBOSE")]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Join(join::Join),
    Leave(leave::Leave),
    Status(status::StatusCommand),
    Sync(sync::Sync),
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    let key = match &cli.command {
        Command::Join(join) => join.key(),
        Command::Leave(_) | Command::Status(_) | Command::Sync(_) => None,
    };
    conceal::refuse_cores();
    conceal::hide_keys(key);
    start_log(cli.common.verbose);
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
    match &cli.command {
        Command::Join(join) => join.run(&cli.common).await,
        Command::Leave(leave) => leave.run(&cli.common).await,
        Command::Status(status) => status.run(&cli.common).await,
        Command::Sync(sync) => sync.run(&cli.common).await,
    }
}

impl Common {
    fn config(&self, flags: &Flags) -> Result<Config, ConfigError> {
        Config::load(&self.places, flags)
    }
}

/// Asks the agent that serves `interface`; `None` when nobody does.
async fn ask(runtime_dir: &Path, interface: &InterfaceName, request: &Request) -> Result<Option<Answer>, Failure> {
    Ok(ipc::ask(runtime_dir, interface, request).await?)
}

fn hands(config: &Config) -> Hands {
    Hands { ca_file: config.overrides.ca_file.clone(), store: Store::new(config.state_dir.clone()) }
}

/// Warnings always; more with `-v`, or by `ENROLL_AGENT_LOG` in tracing's filter syntax.
fn start_log(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "warn,enroll_agent=debug",
        _ => "info,enroll_agent=trace",
    };
    let default = format!("{default},{}", crate::link::LOG_DIRECTIVES);
    let asked = crate::config::log_filter().and_then(|filter| EnvFilter::try_new(filter).ok());
    let filter = asked.unwrap_or_else(|| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
