//! Options about which server the bundled one is like.

use enroll_agent::mock_server::{Edition, Names, Options};

/// What the server does beside enrolling.
#[derive(clap::Args)]
pub(crate) struct EditionArguments {
    /// Do as well what only the paid edition of the real server does: devices choose their gateway, networks may want
    /// their devices approved, policies may be about ports and tags.
    #[arg(long)]
    pro: bool,
    /// Tell devices each other's names, through the broker.
    #[arg(long)]
    manage_names: bool,
}

impl EditionArguments {
    /// Puts them into the server's options.
    pub(crate) fn put_into(self, options: Options) -> Options {
        let Self { pro, manage_names } = self;
        let edition = if pro { Edition::Pro } else { Edition::Community };
        let names = if manage_names { Names::Managed } else { Names::Off };
        Options { edition, names, ..options }
    }
}
