//! Administration from the command line: each command is one call to a running server, whose answer is printed.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use clap::Subcommand;
use enroll_agent::control::wire::{ApiEnrollmentKey, ErrorResponse, Network};
use reqwest::{Client, Method};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Which server, and proof that we may.
#[derive(clap::Args)]
pub(crate) struct Server {
    /// URL of the server.
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:8443")]
    url: String,
    /// The server's `ca.pem`.
    #[arg(long, value_name = "FILE")]
    ca_file: PathBuf,
    /// The server's master key.
    #[arg(long, value_name = "FILE")]
    master_key_file: PathBuf,
}

/// What to do with enrollment keys.
#[derive(Subcommand)]
pub(crate) enum Key {
    /// Create a key and print it with its token.
    Create {
        #[command(flatten)]
        server: Server,
        /// Name for people, 3 to 32 characters.
        name: String,
        /// Network it grants.
        #[arg(long = "network", required = true)]
        networks: Vec<String>,
        /// Hosts that may use it [default: no limit].
        #[arg(long)]
        uses: Option<i64>,
        /// Unix time of its end [default: never].
        #[arg(long, value_name = "SECONDS")]
        expiration: Option<i64>,
        /// Tag for its devices, NETWORK.NAME.
        #[arg(long = "tag")]
        tags: Vec<String>,
        /// Node id of the gateway its devices are put behind.
        #[arg(long)]
        relay: Option<String>,
    },
    /// Delete a key, named by its id.
    Delete {
        #[command(flatten)]
        server: Server,
        /// The `id` that a list shows.
        id: String,
    },
    /// List all keys with their tokens.
    List {
        #[command(flatten)]
        server: Server,
    },
}

/// What to do with networks.
#[derive(Subcommand)]
pub(crate) enum NetworkCommand {
    /// Create a network.
    Create {
        #[command(flatten)]
        server: Server,
        /// As `NAME=CIDR[,CIDR6]`.
        network: super::NetworkArgument,
    },
    /// Delete a network with its nodes.
    Delete {
        #[command(flatten)]
        server: Server,
        /// Name of the network.
        name: String,
    },
    /// List all networks.
    List {
        #[command(flatten)]
        server: Server,
    },
}

pub(crate) async fn key(command: Key) -> anyhow::Result<()> {
    match command {
        Key::Create { server, name, networks, uses, expiration, tags, relay } => {
            let key = ApiEnrollmentKey {
                expiration: expiration.unwrap_or_default(),
                uses_remaining: uses.unwrap_or_default(),
                networks: Some(networks),
                unlimited: uses.is_none() && expiration.is_none(),
                names: Some(vec![name]),
                relay: relay.unwrap_or_default(),
                groups: Some(tags),
                ..ApiEnrollmentKey::default()
            };
            call(&server, Method::POST, "/api/v1/enrollment-keys", Some(serde_json::to_string(&key)?)).await
        }
        Key::Delete { server, id } => {
            call(&server, Method::DELETE, &format!("/api/v1/enrollment-keys/{id}"), None).await
        }
        Key::List { server } => call(&server, Method::GET, "/api/v1/enrollment-keys", None).await,
    }
}

pub(crate) async fn network(command: NetworkCommand) -> anyhow::Result<()> {
    match command {
        NetworkCommand::Create { server, network: super::NetworkArgument(new) } => {
            let network = Network {
                name: new.name,
                address_range: new.range4.map(|range| range.to_string()).unwrap_or_default(),
                address_range6: new.range6.map(|range| range.to_string()).unwrap_or_default(),
                ..Network::default()
            };
            call(&server, Method::POST, "/api/networks", Some(serde_json::to_string(&network)?)).await
        }
        NetworkCommand::Delete { server, name } => {
            call(&server, Method::DELETE, &format!("/api/networks/{name}?force=true"), None).await
        }
        NetworkCommand::List { server } => call(&server, Method::GET, "/api/networks", None).await,
    }
}

/// Makes one call and prints the answer.
async fn call(server: &Server, method: Method, path: &str, body: Option<String>) -> anyhow::Result<()> {
    let Server { url, ca_file, master_key_file } = server;
    let master_key = super::read_master_key(master_key_file)?;
    let request = client(ca_file)?.request(method, format!("{url}{path}")).bearer_auth(master_key.expose());
    // The path may hold a key.
    let answer = request.body(body.unwrap_or_default()).send().await.map_err(reqwest::Error::without_url);
    let answer = answer.with_context(|| format!("cannot reach {url}"))?;
    let status = answer.status();
    let text = answer.text().await.map_err(reqwest::Error::without_url)?;
    if !status.is_success() {
        let reason = serde_json::from_str::<ErrorResponse>(&text).map_or(text, |refusal| refusal.message);
        bail!("{status}: {reason}");
    }
    if !text.is_empty() {
        let document: serde_json::Value = serde_json::from_str(&text)?;
        println!("{}", serde_json::to_string_pretty(&document)?);
    }
    Ok(())
}

fn client(ca_file: &PathBuf) -> anyhow::Result<Client> {
    let pem = fs::read(ca_file).with_context(|| format!("cannot read {}", ca_file.display()))?;
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(&pem);
    roots.add(certificate.with_context(|| format!("no certificate in {}", ca_file.display()))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?)
}
