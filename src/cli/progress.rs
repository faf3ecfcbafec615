//! What goes on, on standard error: a spinner on a terminal, plain lines otherwise.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::model::Stage;

/// Shows the current stage.
pub(super) struct Progress {
    /// `None` prints lines.
    spinner: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let spinner = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(std::time::Duration::from_millis(100));
            bar
        });
        Self { spinner }
    }

    pub(super) fn enter(&self, stage: Stage) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(doing(stage)),
            None => eprintln!("agent: {}", doing(stage)),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// What a stage is called in timings.
pub(super) fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Authenticate => "authenticate",
        Stage::Clock => "clock",
        Stage::Interface => "interface",
        Stage::Networks => "networks",
        Stage::Prepare => "prepare",
        Stage::Redeem => "redeem",
        Stage::Save => "save",
    }
}

fn doing(stage: Stage) -> &'static str {
    match stage {
        Stage::Authenticate => "proving this host's identity",
        Stage::Clock => "waiting for this machine's clock: the server's certificate is not valid yet by it",
        Stage::Interface => "configuring the interface",
        Stage::Networks => "waiting for the networks",
        Stage::Prepare => "preparing",
        Stage::Redeem => "redeeming the key",
        Stage::Save => "saving",
    }
}
