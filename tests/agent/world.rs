//! A server in the hub, and agents in nodes.

use std::{
    fs,
    net::{IpAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use enroll_agent::mock_server::{Handle, NewKey, NewNetwork, Options, start};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Exit, Lab, Node, Output, Process, Program, eventually};

/// A server in the lab's hub, with two networks: `plant-a` (IPv4) and `office` (both families).
pub(crate) struct World {
    pub(crate) server: Handle,
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) fn new(lab: &Lab) -> Result<Self> {
        Self::with(lab, Options::default())
    }

    pub(crate) fn with(lab: &Lab, options: Options) -> Result<Self> {
        Self::at(lab, Lab::V4.into(), options)
    }

    /// The same at one of the hub's addresses.
    pub(crate) fn at(lab: &Lab, address: IpAddr, options: Options) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let server = lab.block_on(start(listener, options))?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("ca.pem"), server.ca_pem())?;
        fs::write(folder.path().join("agent.toml"), "")?;
        let networks =
            [("plant-a", Some("10.101.0.0/16"), None), ("office", Some("10.202.0.0/24"), Some("fd00:202::/64"))];
        for (name, range4, range6) in networks {
            let range4 = range4.map(str::parse).transpose()?;
            let range6 = range6.map(str::parse).transpose()?;
            server.create_network(&NewNetwork { name: name.to_owned(), range4, range6 })?;
        }
        Ok(Self { server, folder })
    }

    /// Creates a key for `networks` that `uses` hosts may redeem; returns the token.
    pub(crate) fn key(&self, name: &str, networks: &[&str], uses: u32) -> Result<String> {
        let key = self.server.create_key(NewKey { uses: Some(uses), unlimited: false, ..new_key(name, networks) })?;
        Ok(key.token.expose().to_owned())
    }

    /// The uses that a key has left.
    pub(crate) fn uses_left(&self, name: &str) -> Result<i64> {
        let keys = self.server.keys()?;
        let named = |names: &Option<Vec<String>>| names.iter().flatten().any(|other| other == name);
        Ok(keys.iter().find(|key| named(&key.names)).context("no such key")?.uses_remaining)
    }

    /// The id of a key, by which it can be changed.
    pub(crate) fn key_id(&self, name: &str) -> Result<String> {
        let keys = self.server.keys()?;
        let named = |names: &Option<Vec<String>>| names.iter().flatten().any(|other| other == name);
        Ok(keys.into_iter().find(|key| named(&key.names)).context("no such key")?.id.to_string())
    }

    /// A command of the agent in `node`, with folders of its own.
    pub(crate) fn agent(&self, node: &Node, arguments: &[&str]) -> Program {
        let own = self.own(node);
        Program::new(env!("CARGO_BIN_EXE_agent"))
            .args(arguments)
            .env("ENROLL_AGENT_CA_FILE", self.folder.path().join("ca.pem"))
            .env("ENROLL_AGENT_CONFIG", self.folder.path().join("agent.toml"))
            .env("ENROLL_AGENT_NAME", &node.name)
            .env("ENROLL_AGENT_RUNTIME_DIR", own.join("run"))
            .env("ENROLL_AGENT_STATE_DIR", own.join("state"))
    }

    /// Starts `agent join` in `node` with `token`, reachable at the node's address.
    pub(crate) fn start_join(&self, node: &Node, token: &str, more: &[&str]) -> Result<Process> {
        // A key file, so that most tests run as most users should.
        fs::create_dir_all(self.own(node))?;
        let file = self.own(node).join("given.key");
        fs::write(&file, token)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let endpoint = node.v4.to_string();
        let program = self.agent(node, &["join", "--json"]).env("ENROLL_AGENT_ENDPOINT", endpoint);
        node.spawn(program.arg("--key-file").arg(file).args(more))
    }

    /// Joins and waits for the result; the process goes on serving.
    pub(crate) fn join(&self, node: &Node, token: &str, more: &[&str]) -> Result<(Process, Value)> {
        let process = self.start_join(node, token, more)?;
        let result = process.json(JOINED)?;
        ensure!(result.get("error").is_none(), "join failed: {result}");
        Ok((process, result))
    }

    /// Runs a command of the agent to its end.
    pub(crate) fn run(&self, node: &Node, arguments: &[&str]) -> Result<Output> {
        node.run(self.agent(node, arguments), DONE)
    }

    /// The memberships saved in `node`, as JSON.
    pub(crate) fn saved(&self, node: &Node) -> Result<Vec<Value>> {
        let Ok(entries) = fs::read_dir(self.own(node).join("state")) else { return Ok(Vec::new()) };
        let mut saved = Vec::new();
        for entry in entries {
            let file = entry?.path().join("membership.json");
            if file.exists() {
                saved.push(serde_json::from_str(&fs::read_to_string(file)?)?);
            }
        }
        Ok(saved)
    }

    /// Writes the node's own configuration, which the agent reads instead of the common one.
    pub(crate) fn configure(&self, node: &Node, text: &str) -> Result<()> {
        fs::create_dir_all(self.own(node))?;
        let file = self.own(node).join("agent.toml");
        fs::write(&file, text)?;
        Ok(fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?)
    }

    /// Starts the service in `node` on the embedded data plane, and waits until it answers.
    pub(crate) fn serve(&self, node: &Node, more: &[&str]) -> Result<Process> {
        self.serve_on(node, "userspace", more)
    }

    /// The same with nothing said but what the node's configuration says.
    pub(crate) fn serve_as_configured(&self, node: &Node) -> Result<Process> {
        let program = Program::new(env!("CARGO_BIN_EXE_agent")).args(["run", "--spread", "0"]);
        let own = self.own(node);
        let program = program
            .env("ENROLL_AGENT_CA_FILE", self.folder.path().join("ca.pem"))
            .env("ENROLL_AGENT_CONFIG", own.join("agent.toml"))
            .env("ENROLL_AGENT_RUNTIME_DIR", own.join("run"))
            .env("ENROLL_AGENT_STATE_DIR", own.join("state"));
        node.spawn(program)
    }

    /// The same on either data plane.
    pub(crate) fn serve_on(&self, node: &Node, backend: &str, more: &[&str]) -> Result<Process> {
        let config = self.own(node).join("agent.toml");
        if !config.exists() {
            self.configure(node, "")?;
        }
        let program = self.agent(node, &["run", "--spread", "0", "--backend", backend]).args(more);
        let endpoint = node.v4.to_string();
        let program = program.env("ENROLL_AGENT_CONFIG", config).env("ENROLL_AGENT_ENDPOINT", endpoint);
        let service = node.spawn(program)?;
        eventually("the service", JOINED, || {
            let check = self.run(node, &["status", "--check", "startup"]).ok()?;
            (check.exit == Some(Exit::Code(0))).then_some(())
        })
        .with_context(|| format!("{:?}", service.output()))?;
        Ok(service)
    }

    /// Starts the service in `node` and has it join with `token`.
    pub(crate) fn enrolled(&self, node: &Node, token: &str) -> Result<Process> {
        let service = self.serve(node, &[])?;
        let joined = node.run(self.agent(node, &["join", "-"]).stdin(token), DONE)?;
        ensure!(joined.exit == Some(Exit::Code(0)), "{joined:?}");
        Ok(service)
    }

    /// Asks the server for something as its administrator; returns the status of the answer.
    pub(crate) fn admin(&self, lab: &Lab, method: &str, path: &str, body: &Value) -> Result<u16> {
        Ok(self.answer(lab, method, path, body)?.0)
    }

    /// The same, with the answer; null if that is no document.
    pub(crate) fn answer(&self, lab: &Lab, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(self.server.ca_pem().as_bytes())?)?;
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let url = format!("https://{}{path}", self.server.addr());
        lab.block_on(async {
            let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?;
            let request =
                client.request(method.parse()?, url).bearer_auth(self.server.master_key()).body(body.to_string());
            let response = request.send().await?;
            let status = response.status().as_u16();
            Ok((status, serde_json::from_str(&response.text().await?).unwrap_or_default()))
        })
    }

    pub(crate) fn own(&self, node: &Node) -> PathBuf {
        self.folder.path().join(&node.name)
    }
}

/// An unlimited key.
pub(crate) fn new_key(name: &str, networks: &[&str]) -> NewKey {
    NewKey {
        name: name.to_owned(),
        note: String::new(),
        networks: networks.iter().map(|name| (*name).to_owned()).collect(),
        uses: None,
        expiration: None,
        unlimited: true,
        groups: Vec::new(),
        relay: None,
        auto_assign_gateway: false,
    }
}

/// The overlay address of a join's result in `network`, without its prefix length.
pub(crate) fn address(result: &Value, network: &str, index: usize) -> Result<std::net::IpAddr> {
    let text = result["networks"][network]["addresses"][index].as_str().context("no such address")?;
    Ok(text.parse::<ipnet::IpNet>()?.addr())
}

/// Checks a command's end: its exit code, and a text in what it says.
pub(crate) fn ended_with(output: &Output, code: i32, text: &str) {
    let said = output.stderr.join("\n");
    assert_eq!(output.exit, Some(Exit::Code(code)), "{said}");
    assert!(said.contains(text), "{said:?} does not say {text:?}");
}

/// A join takes milliseconds, on a busy machine seconds.
pub(crate) const JOINED: Duration = Duration::from_secs(30);

/// Any other command.
pub(crate) const DONE: Duration = Duration::from_secs(60);

/// A change that the agent notices by pulling.
pub(crate) const NOTICED: Duration = Duration::from_secs(30);
