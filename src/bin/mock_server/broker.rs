//! Options of `serve` about the broker.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::Context;
use enroll_agent::{
    control::wire::Secret,
    mock_server::{Broker, Elsewhere, Inside, Login, Scheme},
};

/// Where messages to devices go; without any of these devices are told of no broker.
#[derive(clap::Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerArguments {
    /// Run a broker inside, for MQTT over TCP and WebSocket, with and without TLS.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "broker")]
    broker_listen: Option<SocketAddr>,
    /// What the URL of the broker inside begins with, as devices are told.
    #[arg(long, value_name = "SCHEME", default_value = "wss", requires = "broker_listen")]
    broker_scheme: SchemeArgument,
    /// Use a broker elsewhere, by its `mqtts` or `wss` URL.
    #[arg(long, value_name = "URL", requires = "broker_user", requires = "broker_password_file")]
    broker: Option<String>,
    /// URL of that broker that devices are told [default: the same].
    #[arg(long, value_name = "URL", requires = "broker")]
    broker_announce: Option<String>,
    /// User name at that broker.
    #[arg(long, value_name = "NAME", requires = "broker")]
    broker_user: Option<String>,
    /// File with the password at that broker.
    #[arg(long, value_name = "FILE", requires = "broker")]
    broker_password_file: Option<PathBuf>,
    /// Certificate authority of that broker, PEM [default: those of the system].
    #[arg(long, value_name = "FILE", requires = "broker")]
    broker_ca_file: Option<PathBuf>,
    /// How devices log in: `shared` as with Mosquitto, `host` with their own id and password as with EMQX.
    #[arg(long, value_name = "HOW", default_value = "shared")]
    broker_login: LoginArgument,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum SchemeArgument {
    Mqtt,
    Mqtts,
    Ws,
    Wss,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LoginArgument {
    Host,
    Shared,
}

impl BrokerArguments {
    /// Reads the files that are named.
    pub(crate) fn broker(self) -> anyhow::Result<Option<Broker>> {
        let login = match self.broker_login {
            LoginArgument::Host => Login::Host,
            LoginArgument::Shared => Login::Shared,
        };
        if let Some(listen) = self.broker_listen {
            let scheme = match self.broker_scheme {
                SchemeArgument::Mqtt => Scheme::Mqtt,
                SchemeArgument::Mqtts => Scheme::Mqtts,
                SchemeArgument::Ws => Scheme::Ws,
                SchemeArgument::Wss => Scheme::Wss,
            };
            return Ok(Some(Broker::Inside(Inside { listen, scheme, login })));
        }
        let Some(url) = self.broker else { return Ok(None) };
        let read = |path: PathBuf| fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
        let password = self.broker_password_file.map(read).transpose()?.unwrap_or_default();
        Ok(Some(Broker::Elsewhere(Elsewhere {
            url,
            user: self.broker_user.unwrap_or_default(),
            password: Secret::from(password.trim()),
            ca_pem: self.broker_ca_file.map(read).transpose()?,
            login,
            announce: self.broker_announce,
        })))
    }
}
