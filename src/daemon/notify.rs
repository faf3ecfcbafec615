//! What the service manager is told (`sd_notify(3)`); nothing where there is none.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::model::{Report, State};

/// The socket answers.
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// The configuration is read again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager is not told of the reload"),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// How things are, in one line.
pub(super) fn status(report: &Report) {
    send(&[NotifyState::Status(&line(report))]);
}

/// We are alive.
pub(super) fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`alive`] has to be told; `None` when nobody watches.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|longest| longest / 3)
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

fn line(report: &Report) -> String {
    let up: Vec<_> = report.memberships.iter().filter(|status| status.state == State::Up).collect();
    let networks: usize = up.iter().map(|status| status.networks.len()).sum();
    let peers: usize = up.iter().map(|status| status.peers.len()).sum();
    let mut parts = Vec::new();
    if !up.is_empty() {
        parts.push(format!("{networks} networks, {peers} peers"));
    }
    for status in &report.memberships {
        let told = match (status.state, &status.contact) {
            (State::Up | State::Waiting, Some(contact)) if contact.online => "in step with",
            (State::Up | State::Down | State::Pending | State::Waiting, _) => "without contact to",
            (State::Clone, _) => "a copy of a host of",
            (State::Held, _) => "perhaps a copy of a host of",
            (State::Off, _) => "switched off for",
            (State::Revoked, _) => "deleted by",
        };
        parts.push(format!("{told} {}", status.server));
    }
    parts.extend(report.enrolling.iter().map(|enrolling| format!("enrolling with {}", enrolling.server)));
    parts.extend(report.broken.iter().map(|broken| format!("cannot work on {}", broken.server)));
    if parts.is_empty() { "not enrolled".to_owned() } else { parts.join("; ") }
}
