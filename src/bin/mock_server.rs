//! The bundled enrollment server as a program: a thin shell around the library's.

#[path = "mock_server/admin.rs"]
mod admin;
#[path = "mock_server/broker.rs"]
mod broker;
#[path = "mock_server/edition.rs"]
mod edition;
#[path = "mock_server/scenario.rs"]
mod scenario;

use std::{
    fs,
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use enroll_agent::{
    control::wire::Secret,
    mock_server::{self, Handle, NewNetwork, Options, Store, Tls},
};
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};

/// The enrollment server for tests and demonstrations; a fleet wants a real Netmaker server.
#[derive(Parser)]
#[command(name = "mock-server", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read the audit trail of a running server.
    #[command(subcommand)]
    Audit(admin::Audit),
    /// Manage enrollment keys on a running server.
    #[command(subcommand)]
    Key(admin::Key),
    /// Manage networks on a running server.
    #[command(subcommand)]
    Network(admin::NetworkCommand),
    /// Play a scenario to a client, and report what it did.
    Scenario(Box<scenario::ScenarioArguments>),
    /// Serve devices and administrators until a signal ends it.
    Serve(Box<Serve>),
}

#[derive(clap::Args)]
struct Serve {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// What tokens call this server [default: the address it listens on].
    #[arg(long, value_name = "HOST:PORT")]
    api: Option<String>,
    /// SQLite file that keeps the state [default: in memory].
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Folder for the certificate authority and a made-up master key [default: a new authority each time].
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Further name or address for the certificate.
    #[arg(long = "tls-name", value_name = "NAME")]
    tls_names: Vec<String>,
    /// File with the master key of administrators [default: made up].
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<PathBuf>,
    /// The server's name.
    #[arg(long, value_name = "NAME", default_value = "mock.test")]
    server_name: String,
    /// Network to create if it is not there.
    #[arg(long = "network", value_name = "NAME=CIDR[,CIDR6]")]
    networks: Vec<NetworkArgument>,
    #[command(flatten)]
    broker: broker::BrokerArguments,
    #[command(flatten)]
    edition: edition::EditionArguments,
    /// Check and list keys as the real server does; their values are stored and listed then.
    #[arg(long)]
    netmaker_compat: bool,
}

#[derive(Clone)]
struct NetworkArgument(NewNetwork);

impl FromStr for NetworkArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, ranges) = text.split_once('=').ok_or("expected NAME=CIDR[,CIDR6]")?;
        let mut network = NewNetwork { name: name.to_owned(), range4: None, range6: None };
        for range in ranges.split(',') {
            match range.parse() {
                Ok(IpNet::V4(range)) => network.range4 = Some(range),
                Ok(IpNet::V6(range)) => network.range6 = Some(range),
                Err(_) => return Err(format!("{range:?} is not a range such as 10.101.0.0/16")),
            }
        }
        Ok(Self(network))
    }
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("info"))
        .with_writer(io::stderr)
        .init();
    let done = run(command);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

// More threads than cores: some of them wait for the store.
#[tokio::main(worker_threads = 8)]
async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Audit(command) => admin::audit(command).await,
        Command::Key(command) => admin::key(command).await,
        Command::Network(command) => admin::network(command).await,
        Command::Scenario(arguments) => scenario::scenario(*arguments).await,
        Command::Serve(serve) => self::serve(*serve).await,
    }
}

async fn serve(serve: Serve) -> anyhow::Result<()> {
    let Serve {
        listen,
        api,
        store,
        tls_dir,
        tls_names,
        master_key_file,
        server_name,
        networks,
        broker,
        edition,
        netmaker_compat,
    } = serve;
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let (mut end, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let made_up = tls_dir.as_deref().map(|dir| dir.join("master.key"));
    let master_key = match (&master_key_file, &made_up) {
        (Some(path), _) => read_master_key(path)?,
        (None, Some(path)) if path.exists() => read_master_key(path)?,
        (None, _) => Secret::default(),
    };
    let options = Options {
        server_name,
        api,
        store: store.map_or(Store::Memory, Store::File),
        tls: Tls { dir: tls_dir.clone(), names: tls_names, ..Tls::default() },
        master_key,
        broker: broker.broker()?,
        netmaker_compat,
        record_requests: false,
        ..Options::default()
    };
    let handle = mock_server::start(listener, edition.put_into(options)).await?;
    if let (None, Some(path)) = (&master_key_file, &made_up) {
        write_master_key(path, handle.master_key())?;
    }
    create_networks(&handle, &networks)?;
    print_summary(&handle, tls_dir.as_deref(), master_key_file.or(made_up).as_deref())?;
    tokio::select! {
        _ = end.recv() => {}
        _ = interrupt.recv() => {}
    }
    handle.shutdown().await;
    Ok(())
}

fn create_networks(handle: &Handle, networks: &[NetworkArgument]) -> anyhow::Result<()> {
    let existing = handle.networks()?;
    for NetworkArgument(network) in networks {
        if existing.iter().all(|other| other.name != network.name) {
            handle.create_network(network).with_context(|| format!("cannot create network {}", network.name))?;
        }
    }
    Ok(())
}

/// Says where the server is and how to use it; this is the program's result, so it goes to stdout.
fn print_summary(handle: &Handle, tls_dir: Option<&Path>, master_key_file: Option<&Path>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "url: https://{}", handle.api())?;
    if let Some(url) = handle.broker_url() {
        writeln!(out, "broker: {url}")?;
    }
    match tls_dir {
        Some(dir) => writeln!(out, "ca-file: {}", dir.join("ca.pem").display())?,
        None => write!(out, "ca:\n{}", handle.ca_pem())?,
    }
    match master_key_file {
        Some(path) => writeln!(out, "master-key-file: {}", path.display())?,
        None => writeln!(out, "master-key: {}", handle.master_key())?,
    }
    let keys = handle.keys()?;
    for key in keys.iter().filter(|key| key.is_default) {
        let name = key.names.iter().flatten().next().map_or("", String::as_str);
        match handle.default_key(name) {
            Ok(token) => writeln!(out, "key {name}: {}", token.expose())?,
            Err(_) => writeln!(out, "key-id {name}: {} (rotate it to see a token)", key.id)?,
        }
    }
    Ok(out.flush()?)
}

fn read_master_key(path: &Path) -> anyhow::Result<Secret> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(!text.trim().is_empty(), "{} is empty", path.display());
    Ok(text.trim().into())
}

fn write_master_key(path: &Path, key: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    file.and_then(|mut file| writeln!(file, "{key}"))
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
