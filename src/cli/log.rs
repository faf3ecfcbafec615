//! Where log lines go, and in which shape.

use std::os::fd::AsFd;

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LogFlags {
    /// Shape of log lines; the journal gets fields of its own where standard error leads there
    #[arg(long, global = true, env = "ENROLL_AGENT_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Log more: -v decisions, -vv every message
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "ENROLL_AGENT_VERBOSE")]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum LogFormat {
    #[default]
    Auto,
    Json,
    Text,
}

impl LogFlags {
    /// Starts logging: warnings always, for a service also what a user would notice; more with `-v`, or by
    /// `ENROLL_AGENT_LOG` in tracing's filter syntax.
    pub(super) fn start(&self, service: bool) {
        let default = match self.verbose {
            0 if service => "warn,enroll_agent=info",
            0 => "warn",
            1 => "warn,enroll_agent=debug",
            _ => "info,enroll_agent=trace",
        };
        let default = format!("{default},{}", crate::link::LOG_DIRECTIVES);
        let asked = crate::config::log_filter().and_then(|filter| EnvFilter::try_new(filter).ok());
        let filter = asked.unwrap_or_else(|| EnvFilter::new(default));
        let registry = tracing_subscriber::registry().with(filter);
        match self.log_format {
            LogFormat::Auto => match journal() {
                Some(journal) => registry.with(journal).init(),
                None => registry.with(text()).init(),
            },
            LogFormat::Json => {
                registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).init();
            }
            LogFormat::Text => registry.with(text()).init(),
        }
    }
}

fn text<S>() -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
}

/// The journal, if standard error leads there (systemd.exec(5), `$JOURNAL_STREAM`).
fn journal() -> Option<tracing_journald::Layer> {
    let place = crate::config::journal_stream()?;
    let stderr = nix::sys::stat::fstat(std::io::stderr().as_fd()).ok()?;
    if place != format!("{}:{}", stderr.st_dev, stderr.st_ino) {
        return None;
    }
    tracing_journald::layer().ok().map(|layer| layer.with_syslog_identifier("enroll-agent".to_owned()))
}
