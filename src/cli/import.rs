//! `agent import`: an enrollment that another agent has on this machine.

use std::{path::PathBuf, process::ExitCode};

use super::{
    Common,
    failure::Failure,
    hands,
    print::{print_json, print_text},
    serving,
};
use crate::{
    config::Flags,
    membership::{self, Depth, Imported, JoinRequest},
    model::{Backend, NetworkName},
};

/// Take over an enrollment that another agent has on this machine; no key is spent.
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    Netclient(Netclient),
}

/// Take over the enrollment of netclient, Netmaker's own client.
///
/// Its service has to be stopped and its interface gone. Its files stay as they are. Do not run `netclient uninstall` or
/// `netclient leave` afterwards: they delete this host on the server.
#[derive(Debug, clap::Args)]
struct Netclient {
    /// Folder with netclient.json and servers.json
    #[arg(long, value_name = "DIR", default_value = "/etc/netclient", env = "ENROLL_AGENT_NETCLIENT_DIR")]
    dir: PathBuf,
    /// Ask the servers, and say what would happen; save and change nothing
    #[arg(long, env = "ENROLL_AGENT_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Import {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let From::Netclient(netclient) = &self.from;
        netclient.run(common).await
    }
}

impl Netclient {
    async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&self.flags)?;
        if serving::serving(common, &config).await?.is_some() {
            let hint =
                "stop it first: `systemctl stop enroll-agent`; it serves what was taken over when it starts again";
            return Err(Failure::usage("an agent is serving", hint));
        }
        let hands = hands(&config);
        let takeover = membership::find(&self.dir).await?;
        let depth = if self.dry_run { Depth::Look } else { Depth::TakeOver };
        let request = JoinRequest {
            backend: config.backend,
            choice: None,
            interface: config.interface.clone().filter(|_| takeover.servers.len() == 1),
            overrides: config.overrides.clone(),
            server: None,
            spare: Vec::new(),
            timeout: config.timeout,
            token: None,
            wait: None,
        };
        let mut code = ExitCode::SUCCESS;
        let mut all = Vec::new();
        for server in takeover.servers.values() {
            match membership::import(&hands, &takeover, server, &request, depth).await {
                Ok(imported) => all.push(imported),
                // One server hinders no other.
                Err(error) => code = Failure::from(error).during(&format!("take over {server}")).report(false),
            }
        }
        self.tell(&all, common.json);
        Ok(code)
    }

    fn tell(&self, all: &[Imported], json: bool) {
        if json {
            let imported: Vec<_> = all.iter().map(document).collect();
            print_json(&serde_json::json!({ "dry_run": self.dry_run, "imported": imported }));
        } else {
            print_text(&all.iter().map(|imported| self.text(imported)).collect::<String>());
        }
        if all.is_empty() || self.dry_run {
            return;
        }
        if all.iter().any(|imported| imported.backend == Backend::Userspace) {
            eprintln!("agent: start the service, or `agent run`: a userspace interface lives inside it");
        }
        eprintln!(
            "agent: netclient's files stay; remove its package and {} when all is well\n  not with `netclient \
             uninstall` or `netclient leave`, which delete this host on the server: `systemctl disable --now netclient`",
            self.dir.display()
        );
    }

    fn text(&self, imported: &Imported) -> String {
        let Imported { backend: _, host_id, interface, is_known, name, networks, server } = imported;
        let done = match (is_known, self.dry_run) {
            (true, _) => "was taken over before",
            (false, true) => "would be taken over",
            (false, false) => "taken over",
        };
        let networks: Vec<_> = networks.iter().map(NetworkName::to_string).collect();
        format!("{server}: {done}, as {name} (host {host_id}), in {}: interface {interface}\n", networks.join(", "))
    }
}

fn document(imported: &Imported) -> serde_json::Value {
    let Imported { backend, host_id, interface, is_known, name, networks, server } = imported;
    serde_json::json!({
        "server": server,
        "host_id": host_id,
        "name": name,
        "networks": networks,
        "interface": interface,
        "backend": backend,
        "before": is_known,
    })
}
