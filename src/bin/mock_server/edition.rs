//! Options about which server the bundled one is like.

use enroll_agent::mock_server::{Discovery, Edition, Names, Options};

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
    /// Have devices ask this STUN server where they are seen from outside; may be given several times.
    #[arg(long = "stun-server", value_name = "HOST:PORT")]
    stun_servers: Vec<String>,
    /// Have devices try to reach each other at the addresses of their own networks.
    #[arg(long)]
    endpoint_detection: bool,
}

impl EditionArguments {
    /// Puts them into the server's options.
    pub(crate) fn put_into(self, options: Options) -> Options {
        let Self { pro, manage_names, stun_servers, endpoint_detection } = self;
        let edition = if pro { Edition::Pro } else { Edition::Community };
        let names = if manage_names { Names::Managed } else { Names::Off };
        let discovery = Discovery { nearby: endpoint_detection, stun_servers };
        Options { edition, names, discovery, ..options }
    }
}
