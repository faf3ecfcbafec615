//! `agent leave`: out of one network, or off a server.

use std::process::ExitCode;

use uuid::Uuid;

use super::{
    Common,
    failure::Failure,
    hands,
    print::{print_json, print_text},
    serving::{serving, unexpected},
};
use crate::{
    config::Flags,
    ipc::{Answer, Request},
    membership::{self, Farewell, Hands, MembershipError, SignOff},
    model::{Backend, Listed, NetworkName, Server},
};

/// Leave one network, or without a name the server with all its networks.
///
/// The interface goes first, then the saved identity, then the host on the server. If the server is not there it is told
/// later: by the service, or by the next `agent leave`, `agent sync` or `agent join`. Other failures do not stop the
/// rest; all of them are reported.
#[derive(Debug, clap::Args)]
pub(super) struct Leave {
    /// The network to leave
    network: Option<NetworkName>,
    /// Never tell the server: its administrator has to remove the host
    #[arg(long, env = "ENROLL_AGENT_FORGET", conflicts_with = "network")]
    forget: bool,
    /// The server, if this device is enrolled with several
    #[arg(long, env = "ENROLL_AGENT_SERVER")]
    server: Option<Server>,
    /// Trust this PEM certificate authority alone for the enrollment server
    #[arg(long, env = "ENROLL_AGENT_CA_FILE", value_name = "FILE")]
    ca_file: Option<std::path::PathBuf>,
    /// WireGuard implementation that carries the interface
    #[arg(long, env = "ENROLL_AGENT_BACKEND", value_name = "kernel|userspace")]
    backend: Option<Backend>,
}

impl Leave {
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let flags = Flags { ca_file: self.ca_file.clone(), backend: self.backend, ..Flags::default() };
        let config = common.config(&flags)?;
        let hands = hands(&config);
        let sign_off = if self.forget { SignOff::Forget } else { SignOff::Tell };
        let (what, failures, listed) = match serving(common, &config).await? {
            Some(mut client) => {
                let (network, server) = (self.network.clone(), self.server.clone());
                let (failures, listed) =
                    match client.ask(&Request::Leave { forget: self.forget, network, server }).await? {
                        Answer::Done { failures, listed } => {
                            (failures.into_iter().map(Failure::reported).collect::<Vec<_>>(), listed)
                        }
                        Answer::Failed(failure) => return Err(Failure::reported(failure)),
                        Answer::Joined { .. } | Answer::Progress { .. } | Answer::Report(_) => return Err(unexpected()),
                    };
                (self.server.as_ref().map(ToString::to_string), failures, listed)
            }
            None => {
                let server = self.server(&hands)?;
                let Farewell { failures, listed } = self.leave_here(&hands, &server, config.backend, sign_off).await?;
                let failures = failures.into_iter().map(|(step, error)| Failure::from(error).during(step));
                (Some(server.to_string()), failures.collect(), listed)
            }
        };
        let network = self.network.as_ref().map(ToString::to_string);
        let what = network.or(what).unwrap_or_else(|| "the server".to_owned());
        let mut code = ExitCode::SUCCESS;
        for failure in &failures {
            code = failure.report(false);
        }
        for Listed { host_id, server } in &listed {
            eprintln!("{}", if self.forget { forgotten(server, *host_id) } else { queued(server, *host_id) });
        }
        if common.json {
            let messages: Vec<_> = failures.iter().map(Failure::message).collect();
            let queued = !self.forget && !listed.is_empty();
            print_json(&serde_json::json!({ "left": what, "failures": messages, "listed": listed, "queued": queued }));
        } else {
            print_text(&format!("left {what}\n"));
        }
        Ok(code)
    }

    /// Leaves without a serving agent.
    async fn leave_here(
        &self,
        hands: &Hands,
        server: &Server,
        backend: Option<Backend>,
        sign_off: SignOff,
    ) -> Result<Farewell, Failure> {
        membership::finish_leaves(hands).await?;
        let is_waiting = !hands.store.queued_for(server)?.is_empty();
        let is_there = hands.store.load(server)?.is_some() || hands.store.is_inherited(server) || is_waiting;
        if !is_there && hands.store.is_set_aside(server) {
            // The server deleted the host long ago; only its identity is left here.
            hands.store.remove(server)?;
            return Ok(Farewell::default());
        }
        Ok(membership::leave(hands, server, self.network.as_ref(), backend, sign_off).await?)
    }

    /// The server named, or the one with the network named, or the only one.
    fn server(&self, hands: &Hands) -> Result<Server, Failure> {
        if let Some(server) = &self.server {
            return Ok(server.clone());
        }
        let Some(network) = &self.network else { return Ok(hands.only_server()?) };
        let mut with_it = Vec::new();
        for server in hands.store.servers()? {
            let membership = hands.store.load(&server)?;
            let enrolled = membership.as_ref().and_then(|membership| membership.enrolled());
            if enrolled.is_some_and(|enrolled| enrolled.assignment.nodes.contains_key(network)) {
                with_it.push(server);
            }
        }
        match (with_it.pop(), with_it.is_empty()) {
            (Some(server), true) => Ok(server),
            (Some(_), false) => Err(MembershipError::Several.into()),
            (None, _) if hands.store.servers()?.is_empty() => Err(MembershipError::NotEnrolled.into()),
            (None, _) => Err(MembershipError::NotInNetwork(network.clone()).into()),
        }
    }
}

fn queued(server: &Server, host_id: Uuid) -> String {
    format!(
        "agent: {server} is not there; it is told later that host {host_id} was left\n  the service does that, or the \
         next `agent leave`, `agent sync` or `agent join`; `agent leave --forget` gives it up"
    )
}

fn forgotten(server: &Server, host_id: Uuid) -> String {
    format!("agent: {server} still lists host {host_id}; its administrator has to remove it there")
}
