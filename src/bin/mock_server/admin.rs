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
use serde_json::{Value, json};

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
        /// Its devices choose the nearest gateway.
        #[arg(long, conflicts_with = "relay")]
        auto_gateway: bool,
        /// What it is for and who gets it.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Delete a key, named by its id.
    Delete(Named),
    /// Refuse every redemption of a key until it is enabled.
    Disable(Named),
    /// Change the note, tags or gateway of a key.
    Edit {
        #[command(flatten)]
        key: Named,
        #[command(flatten)]
        edit: Edit,
    },
    /// Allow redemptions of a disabled key again.
    Enable(Named),
    /// List all keys; values are masked unless the server is told to list them.
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Give a key a new value and print it with its token; the one it had stops.
    Rotate {
        #[command(flatten)]
        key: Named,
        /// Seconds that the value it had is still good for.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        grace: i64,
    },
    /// Print one key.
    Show(Named),
}

/// A key on a server.
#[derive(clap::Args)]
pub(crate) struct Named {
    #[command(flatten)]
    server: Server,
    /// The `id` that a list shows.
    id: String,
}

/// What to change about a key.
#[derive(clap::Args)]
#[group(id = "change", required = true, multiple = true)]
pub(crate) struct Edit {
    /// What it is for and who gets it.
    #[arg(long)]
    note: Option<String>,
    /// Tag for its devices, NETWORK.NAME; replaces those it has.
    #[arg(long = "tag", conflicts_with = "no_tags")]
    tags: Vec<String>,
    /// Take all tags away.
    #[arg(long)]
    no_tags: bool,
    /// Node id of the gateway its devices are put behind.
    #[arg(long, conflicts_with_all = ["auto_gateway", "no_gateway"])]
    relay: Option<String>,
    /// Its devices choose the nearest gateway.
    #[arg(long, conflicts_with = "no_gateway")]
    auto_gateway: bool,
    /// Its devices use no gateway.
    #[arg(long)]
    no_gateway: bool,
}

/// What to do with the audit trail.
#[derive(Subcommand)]
pub(crate) enum Audit {
    /// Print all entries as JSON lines.
    Export(Filter),
    /// Print a page of entries.
    List {
        #[command(flatten)]
        filter: Filter,
        /// Entries on a page.
        #[arg(long)]
        limit: Option<u32>,
        /// The `next` of the page before.
        #[arg(long)]
        cursor: Option<i64>,
    },
}

/// Which entries.
#[derive(clap::Args)]
pub(crate) struct Filter {
    #[command(flatten)]
    server: Server,
    /// Of the key with this id.
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Of the host with this id.
    #[arg(long, value_name = "ID")]
    host: Option<String>,
    /// create, delete, disable, edit, enable, redeem, refuse or rotate.
    #[arg(long)]
    action: Option<String>,
    /// From this Unix time on.
    #[arg(long, value_name = "SECONDS")]
    since: Option<i64>,
    /// Before this Unix time.
    #[arg(long, value_name = "SECONDS")]
    until: Option<i64>,
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
        Key::Create { server, name, networks, uses, expiration, tags, relay, auto_gateway, note } => {
            let key = ApiEnrollmentKey {
                expiration: expiration.unwrap_or_default(),
                uses_remaining: uses.unwrap_or_default(),
                networks: Some(networks),
                unlimited: uses.is_none() && expiration.is_none(),
                names: Some(vec![name]),
                relay: relay.unwrap_or_default(),
                groups: Some(tags),
                auto_assign_gateway: auto_gateway,
                ..ApiEnrollmentKey::default()
            };
            let mut key = serde_json::to_value(&key)?;
            key["note"] = note.into();
            call(&server, Method::POST, KEYS, Some(&key)).await
        }
        Key::Delete(Named { server, id }) => call(&server, Method::DELETE, &format!("{KEYS}/{id}"), None).await,
        Key::Disable(Named { server, id }) => {
            call(&server, Method::POST, &format!("{EXTENDED_KEYS}/{id}/disable"), None).await
        }
        Key::Edit { key: Named { server, id }, edit } => {
            call(&server, Method::PATCH, &format!("{EXTENDED_KEYS}/{id}"), Some(&change(edit))).await
        }
        Key::Enable(Named { server, id }) => {
            call(&server, Method::POST, &format!("{EXTENDED_KEYS}/{id}/enable"), None).await
        }
        Key::List { server } => call(&server, Method::GET, KEYS, None).await,
        Key::Rotate { key: Named { server, id }, grace } => {
            let rotation = json!({"grace_seconds": grace});
            call(&server, Method::POST, &format!("{EXTENDED_KEYS}/{id}/rotate"), Some(&rotation)).await
        }
        Key::Show(Named { server, id }) => call(&server, Method::GET, &format!("{EXTENDED_KEYS}/{id}"), None).await,
    }
}

/// A change as the server takes it: what is `null` stays.
fn change(edit: Edit) -> Value {
    let Edit { note, tags, no_tags, relay, auto_gateway, no_gateway } = edit;
    let groups = (no_tags || !tags.is_empty()).then_some(tags);
    let relay = relay.or_else(|| no_gateway.then(String::new));
    let automatic = auto_gateway.then_some(true);
    json!({"note": note, "groups": groups, "relay": relay, "auto_assign_gw": automatic})
}

pub(crate) async fn audit(command: Audit) -> anyhow::Result<()> {
    match command {
        Audit::Export(filter) => {
            let path = format!("/api/ext/v1/audit/export?{}", query(&filter, None, None));
            print!("{}", ask(&filter.server, Method::GET, &path, None).await?);
            Ok(())
        }
        Audit::List { filter, limit, cursor } => {
            let path = format!("/api/ext/v1/audit?{}", query(&filter, limit, cursor));
            call(&filter.server, Method::GET, &path, None).await
        }
    }
}

fn query(filter: &Filter, limit: Option<u32>, cursor: Option<i64>) -> String {
    let Filter { server: _, key, host, action, since, until } = filter;
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    let (limit, cursor) = (number(limit.map(i64::from)), number(cursor));
    let (since, until) = (number(*since), number(*until));
    let pairs = [
        ("key", key),
        ("host", host),
        ("action", action),
        ("since", &since),
        ("until", &until),
        ("limit", &limit),
        ("cursor", &cursor),
    ];
    let given = pairs.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}")));
    given.collect::<Vec<_>>().join("&")
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
            call(&server, Method::POST, "/api/networks", Some(&serde_json::to_value(&network)?)).await
        }
        NetworkCommand::Delete { server, name } => {
            call(&server, Method::DELETE, &format!("/api/networks/{name}?force=true"), None).await
        }
        NetworkCommand::List { server } => call(&server, Method::GET, "/api/networks", None).await,
    }
}

/// Makes one call and prints the answer.
async fn call(server: &Server, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<()> {
    let text = ask(server, method, path, body).await?;
    if !text.is_empty() {
        let document: Value = serde_json::from_str(&text)?;
        println!("{}", serde_json::to_string_pretty(&document)?);
    }
    Ok(())
}

/// Makes one call.
async fn ask(server: &Server, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<String> {
    let Server { url, ca_file, master_key_file } = server;
    let master_key = super::read_master_key(master_key_file)?;
    let request = client(ca_file)?.request(method, format!("{url}{path}")).bearer_auth(master_key.expose());
    let body = body.map(ToString::to_string).unwrap_or_default();
    // The path may hold a key.
    let answer = request.body(body).send().await.map_err(reqwest::Error::without_url);
    let answer = answer.with_context(|| format!("cannot reach {url}"))?;
    let status = answer.status();
    let text = answer.text().await.map_err(reqwest::Error::without_url)?;
    if !status.is_success() {
        let reason = serde_json::from_str::<ErrorResponse>(&text).map_or(text, |refusal| refusal.message);
        bail!("{status}: {reason}");
    }
    Ok(text)
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

const KEYS: &str = "/api/v1/enrollment-keys";

/// Calls that the real server does not have.
const EXTENDED_KEYS: &str = "/api/ext/v1/enrollment-keys";
