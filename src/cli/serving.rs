//! Commands that a serving agent carries out where there is one, and this process otherwise.

use std::process::ExitCode;

use super::{
    Common,
    failure::Failure,
    hands,
    print::{print_json, print_text},
};
use crate::{
    config::Config,
    ipc::{self, Answer, Client, Request},
    membership::{Hands, MembershipError, Work},
    model::{Backend, Server, Switch},
};

/// Connects to the agent that serves; `None` where none does, or none is wanted.
pub(super) async fn serving(common: &Common, config: &Config) -> Result<Option<Client>, Failure> {
    if common.standalone {
        return Ok(None);
    }
    Ok(ipc::connect(&config.runtime_dir).await?)
}

/// Asks for something that is done or not.
///
/// # Errors
/// What the agent reports; several failures are told, and the last one is returned.
pub(super) async fn ask(client: &mut Client, request: &Request) -> Result<(), Failure> {
    match client.ask(request).await? {
        Answer::Done { failures } => {
            let mut failures: Vec<_> = failures.into_iter().map(Failure::reported).collect();
            let Some(last) = failures.pop() else { return Ok(()) };
            for failure in failures {
                failure.report(false);
            }
            Err(last)
        }
        Answer::Failed(failure) => Err(Failure::reported(failure)),
        Answer::Joined { .. } | Answer::Progress { .. } | Answer::Report(_) => Err(unexpected()),
    }
}

/// An answer to something else.
pub(super) fn unexpected() -> Failure {
    Failure::other("the serving agent answered something else: it may be another version")
}

/// Does `work` with every membership that is meant, without a serving agent.
///
/// # Errors
/// [`MembershipError::NotServing`] for a membership whose interface only lives inside an agent.
pub(super) async fn each(
    hands: &Hands,
    config: &Config,
    server: Option<&Server>,
    mut work: impl AsyncFnMut(&mut Work) -> Result<(), MembershipError>,
) -> Result<Vec<Server>, Failure> {
    let mut servers = hands.store.servers()?;
    servers.retain(|known| server.is_none_or(|server| server == known));
    if servers.is_empty() {
        return Err(MembershipError::NotEnrolled.into());
    }
    for server in &servers {
        let mut resumed = Work::resume(hands, server, config.backend).await?;
        if resumed.backend() == Backend::Userspace {
            return Err(MembershipError::NotServing(server.clone()).into());
        }
        work(&mut resumed).await?;
    }
    Ok(servers)
}

/// Switches interfaces, by the serving agent or here.
pub(super) async fn switch(
    common: &Common,
    config: &Config,
    server: Option<Server>,
    switch: Switch,
) -> Result<ExitCode, Failure> {
    match serving(common, config).await? {
        Some(mut client) => {
            let request = match switch {
                Switch::Off => Request::Down { server },
                Switch::On => Request::Up { server },
            };
            ask(&mut client, &request).await?;
        }
        None => {
            each(&hands(config), config, server.as_ref(), async |work| work.switch(switch).await).await?;
        }
    }
    let word = match switch {
        Switch::Off => "down",
        Switch::On => "up",
    };
    Ok(told(word, common.json))
}

/// Says which way interfaces were switched.
pub(super) fn told(word: &str, json: bool) -> ExitCode {
    if json {
        print_json(&serde_json::json!({ "switched": word }));
    } else {
        print_text(&format!("{word}\n"));
    }
    ExitCode::SUCCESS
}
