//! `agent leave`: out of one network, or off a server.

use std::process::ExitCode;

use super::{
    Common, ask,
    failure::Failure,
    hands,
    join::{print_json, print_text},
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
        let server = self.server(&hands)?;
        let Some(membership) = hands.store.load(&server)? else {
            if !hands.store.is_set_aside(&server) {
                return Err(MembershipError::NotEnrolled.into());
            }
            // The server deleted the host long ago; only its identity is left here.
            hands.store.remove(&server)?;
            print_text(&format!("forgot the identity that {server} had deleted\n"));
            return Ok(ExitCode::SUCCESS);
        };
        let request = Request::Leave { network: self.network.clone() };
        let failures: Vec<Failure> = match ask(&config.runtime_dir, &membership.interface, &request).await? {
            Some(Answer::Done { failures }) => failures.into_iter().map(Failure::reported).collect(),
            Some(Answer::Failed(failure)) => return Err(Failure::reported(failure)),
            Some(Answer::Joined { .. } | Answer::Status(_)) | None => {
                let Farewell { failures } =
                    membership::leave(&hands, &server, self.network.as_ref(), config.backend).await?;
                failures.into_iter().map(|(step, error)| Failure::from(error).during(step)).collect()
            }
        };
        let what = self.network.as_ref().map_or_else(|| server.to_string(), ToString::to_string);
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
