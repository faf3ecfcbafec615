//! `agent join` where an agent serves: that one joins, and goes on serving while the command waits for more.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use tokio::time::timeout_at;

use super::{
    failure::Failure,
    join::{clear, print},
    partial::{self, Ending},
    print,
    progress::Progress,
    serving::{ask, unexpected},
};
use crate::{
    config::{Config, Source},
    daemon::clock,
    ipc::{self, Answer, Client, JoinOrder, Request},
    membership::{Greeting, JoinRequest},
    model::{Chosen, Class, IdentityChoice, Patience, Report, Server, Stage, State, Status},
};

/// Has the serving agent join, and waits for as long as the user wants.
pub(super) async fn join(
    config: &Config,
    mut client: Client,
    request: JoinRequest,
    source: Option<&Source>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let known = statuses(config).await?;
    let server = meant(&request, &known);
    let is_enrolled = |status: &Status| Some(&status.server) == server.as_ref() && status.state != State::Pending;
    let is_new = !known.iter().any(is_enrolled) || request.choice == Some(IdentityChoice::New);
    let ending = Ending::new(config, is_new);
    let patience = request.wait.unwrap_or_default();
    let timeout = request.timeout;
    let started = clock::now();
    client.send(&Request::Join(Box::new(order(request)))).await?;
    let (answer, redeemed) = follow(&mut client, timeout).await?;
    let until = match patience {
        Patience::For(wait) => Some(redeemed + wait),
        Patience::Forever => None,
        Patience::Rest => Some(started + timeout),
    };
    let (told, status) = match answer {
        Answer::Joined { status, chosen, failure, greeting, timings } => {
            clear(source);
            let status = if status.unmet().next().is_some() {
                complete(config, &status.server, until).await?.unwrap_or(*status)
            } else {
                *status
            };
            if !ending.is_rolled_back(Some(&status)) {
                print(&greeting, &chosen, &status, timings.into_iter(), json);
            }
            (failure, Some(status))
        }
        Answer::Failed(failure) if failure.class == Class::Waiting => {
            // Redeemed, and an administrator has to let the host in.
            clear(source);
            let server = server.as_deref().unwrap_or_default();
            let status = complete(config, server, until).await?.filter(|status| !status.networks.is_empty());
            if let Some(status) = status.as_ref().filter(|status| !ending.is_rolled_back(Some(*status))) {
                print(Greeting::New.word(), &Chosen::default(), status, std::iter::empty(), json);
            }
            (if status.is_some() { None } else { Some(failure) }, status)
        }
        Answer::Failed(failure) => return Err(Failure::reported(failure)),
        Answer::Done { .. } | Answer::Progress { .. } | Answer::Report(_) => return Err(unexpected()),
    };
    if ending.is_rolled_back(status.as_ref()) {
        return Err(roll_back(config, server.as_deref(), status.as_ref()).await?);
    }
    match (told.map(Failure::reported), status) {
        (Some(failure), _) if !failure.is_temporary() => Err(failure),
        (_, Some(status)) => Ok(partial::verdict(&status)),
        (_, None) => Ok(ExitCode::SUCCESS),
    }
}

/// What the agent is told; it is not kept busy for longer than the join itself may take.
fn order(request: JoinRequest) -> JoinOrder {
    let JoinRequest { backend, choice, interface, overrides, server: _, spare, timeout, token, wait } = request;
    let spare = spare.iter().map(|token| token.text().clone()).collect();
    let token = token.map(|token| token.text().clone());
    let wait = wait.map(|wait| match wait {
        Patience::For(wait) => Patience::For(wait.min(timeout)),
        Patience::Forever | Patience::Rest => Patience::Rest,
    });
    JoinOrder { backend, choice, interface, overrides, spare, timeout, token, wait }
}

/// Shows the progress to its end; returns the answer, and when the key was redeemed.
async fn follow(client: &mut Client, timeout: Duration) -> Result<(Answer, Instant), Failure> {
    let progress = Progress::new();
    let mut redeemed = None;
    loop {
        match client.next(timeout * 2 + PATIENCE).await? {
            Some(Answer::Progress { stage }) => {
                progress.enter(stage);
                if stage == Stage::Networks && redeemed.is_none() {
                    redeemed = Some(clock::now());
                }
            }
            Some(answer) => {
                progress.finish();
                return Ok((answer, redeemed.unwrap_or_else(clock::now)));
            }
            None => return Err(Failure::not_running()),
        }
    }
}

/// The server that a join is about, as far as that is clear.
fn meant(request: &JoinRequest, known: &[Status]) -> Option<String> {
    match (&request.token, known) {
        (Some(token), _) => Some(token.server().to_string()),
        (None, [status]) => Some(status.server.clone()),
        (None, _) => None,
    }
}

async fn statuses(config: &Config) -> Result<Vec<Status>, Failure> {
    let mut client = ipc::connect(&config.runtime_dir).await?.ok_or_else(Failure::not_running)?;
    match client.ask(&Request::Status).await? {
        Answer::Report(report) => Ok(report.memberships),
        Answer::Failed(failure) => Err(Failure::reported(failure)),
        Answer::Done { .. } | Answer::Joined { .. } | Answer::Progress { .. } => Err(unexpected()),
    }
}

/// Watches until the membership with `server` is in every required network, or in one at all; returns how it was last.
async fn complete(config: &Config, server: &str, until: Option<Instant>) -> Result<Option<Status>, Failure> {
    let mut last = None;
    let watched = async {
        let mut client = ipc::connect(&config.runtime_dir).await?.ok_or_else(Failure::not_running)?;
        client.send(&Request::Watch).await?;
        loop {
            match client.next(FOR_EVER).await? {
                Some(Answer::Report(report)) => {
                    let Report { memberships, .. } = *report;
                    last = memberships.into_iter().find(|status| status.server == server).or(last.take());
                    if last
                        .as_ref()
                        .is_some_and(|status| !status.networks.is_empty() && status.unmet().next().is_none())
                    {
                        return Ok(());
                    }
                }
                Some(Answer::Failed(failure)) => return Err(Failure::reported(failure)),
                Some(Answer::Done { .. } | Answer::Joined { .. } | Answer::Progress { .. }) => return Err(unexpected()),
                None => return Err(Failure::not_running()),
            }
        }
    };
    match until {
        None => watched.await?,
        // Out of time, it is as it was seen last.
        Some(until) => timeout_at(until.into(), watched).await.unwrap_or(Ok(()))?,
    }
    Ok(last)
}

/// Has the host leave again; returns what to say about it.
async fn roll_back(config: &Config, server: Option<&str>, status: Option<&Status>) -> Result<Failure, Failure> {
    let server = server.and_then(|server| server.parse::<Server>().ok());
    let mut client = ipc::connect(&config.runtime_dir).await?.ok_or_else(Failure::not_running)?;
    let left = ask(&mut client, &Request::Leave { forget: false, network: None, server }).await;
    let failure = left.err().map(|failure| failure.message().to_owned());
    Ok(partial::taken_back(status.and_then(print::unmet), failure.as_slice()))
}

/// What an agent may take beyond the time that a join may.
const PATIENCE: Duration = Duration::from_secs(30);

/// The deadline is the caller's.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
