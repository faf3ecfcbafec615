//! `agent leave`: out of one network, or off a server.

use std::process::ExitCode;

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
    membership::{self, Farewell, Hands, MembershipError},
    model::{Backend, NetworkName, Server},
};

/// Leave one network, or without a name the server with all its networks.
///
/// The server is told first, then the interface is removed, then the saved identity. A failure does not stop the rest;
/// all of them are reported.
#[derive(Debug, clap::Args)]
pub(super) struct Leave {
    /// The network to leave
    network: Option<NetworkName>,
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
        let (what, failures) = match serving(common, &config).await? {
            Some(mut client) => {
                let request = Request::Leave { network: self.network.clone(), server: self.server.clone() };
                let failures = match client.ask(&request).await? {
                    Answer::Done { failures } => failures.into_iter().map(Failure::reported).collect(),
                    Answer::Failed(failure) => return Err(Failure::reported(failure)),
                    Answer::Joined { .. } | Answer::Progress { .. } | Answer::Report(_) => return Err(unexpected()),
                };
                (self.server.as_ref().map(ToString::to_string), failures)
            }
            None => {
                let server = self.server(&hands)?;
                let failures: Vec<Failure> = self.leave_here(&hands, &server, config.backend).await?;
                (Some(server.to_string()), failures)
            }
        };
        let network = self.network.as_ref().map(ToString::to_string);
        let what = network.or(what).unwrap_or_else(|| "the server".to_owned());
        let mut code = ExitCode::SUCCESS;
        for failure in &failures {
            code = failure.report(false);
        }
        if common.json {
            let messages: Vec<_> = failures.iter().map(Failure::message).collect();
            print_json(&serde_json::json!({ "left": what, "failures": messages }));
        } else {
            print_text(&format!("left {what}\n"));
        }
        Ok(code)
    }

    /// Leaves without a serving agent; returns what did not work on the way.
    async fn leave_here(
        &self,
        hands: &Hands,
        server: &Server,
        backend: Option<Backend>,
    ) -> Result<Vec<Failure>, Failure> {
        if hands.store.load(server)?.is_none() {
            if hands.store.is_inherited(server) {
                membership::leave(hands, server, None, backend).await?;
                return Ok(Vec::new());
            }
            if !hands.store.is_set_aside(server) {
                return Err(MembershipError::NotEnrolled.into());
            }
            // The server deleted the host long ago; only its identity is left here.
            hands.store.remove(server)?;
            return Ok(Vec::new());
        }
        let Farewell { failures } = membership::leave(hands, server, self.network.as_ref(), backend).await?;
        Ok(failures.into_iter().map(|(step, error)| Failure::from(error).during(step)).collect())
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
