//! What can be seen from outside: one report, replaced piece by piece.

use tokio::sync::watch;

use super::clock;
use crate::{
    model::{
        AgentStatus, Broken, Enrolling, ErrorReport, LeavingStatus, REPORT_VERSION, Report, Server, State, Status,
    },
    plan::Why,
};

/// Where everybody writes down how things are.
#[derive(Clone, Debug)]
pub(super) struct Board(watch::Sender<Report>);

impl Board {
    pub(super) fn new() -> Self {
        let agent = AgentStatus {
            pid: std::process::id(),
            since: clock::unix_seconds(),
            started: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Self(watch::Sender::new(Report {
            agent: Some(agent),
            broken: Vec::new(),
            enrolling: Vec::new(),
            leaving: Vec::new(),
            memberships: Vec::new(),
            version: REPORT_VERSION,
        }))
    }

    pub(super) fn report(&self) -> Report {
        self.0.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Report> {
        self.0.subscribe()
    }

    /// Writes down how a membership is; it is not broken then.
    pub(super) fn show(&self, mut status: Status) {
        self.0.send_if_modified(|report| {
            tell_unmet(report.memberships.iter().find(|known| known.server == status.server), &status);
            report.broken.retain(|broken| broken.server != status.server);
            let known = report.memberships.iter_mut().find(|known| known.server == status.server);
            status.since = Some(match &known {
                Some(known) if known.state == status.state => known.since.unwrap_or_else(clock::unix_seconds),
                Some(_) | None => clock::unix_seconds(),
            });
            match known {
                Some(known) if *known == status => false,
                Some(known) => {
                    *known = status;
                    true
                }
                None => {
                    report.memberships.push(status);
                    report.memberships.sort_by(|a, b| a.server.cmp(&b.server));
                    true
                }
            }
        });
    }

    /// Writes down that a membership cannot be worked on.
    pub(super) fn break_down(&self, server: &Server, error: ErrorReport) {
        self.0.send_modify(|report| {
            report.broken.retain(|broken| broken.server != server.to_string());
            report.broken.push(Broken { error, server: server.to_string() });
        });
    }

    /// Takes a membership off.
    pub(super) fn forget(&self, server: &Server) {
        let server = server.to_string();
        self.0.send_modify(|report| {
            report.memberships.retain(|status| status.server != server);
            report.broken.retain(|broken| broken.server != server);
        });
    }

    /// Leaves a membership on that the server deleted.
    pub(super) fn revoke(&self, server: &Server) {
        let server = server.to_string();
        self.0.send_modify(|report| {
            for status in report.memberships.iter_mut().filter(|status| status.server == server) {
                status.backend = None;
                status.contact = None;
                status.listen_port = None;
                status.peers.clear();
                status.since = Some(clock::unix_seconds());
                status.state = State::Revoked;
            }
        });
    }

    /// Writes down how an enrollment goes; `None` takes it off.
    pub(super) fn enroll(&self, server: &Server, enrolling: Option<Enrolling>) {
        let server = server.to_string();
        self.0.send_modify(|report| {
            report.enrolling.retain(|known| known.server != server);
            report.enrolling.extend(enrolling);
        });
    }

    /// Writes down which sign-offs wait.
    pub(super) fn leave(&self, leaving: Vec<LeavingStatus>) {
        self.0.send_if_modified(|report| {
            let is_news = report.leaving != leaving;
            report.leaving = leaving;
            is_news
        });
    }

    /// Every saved membership was put in order once.
    pub(super) fn started(&self) {
        self.0.send_if_modified(|report| match &mut report.agent {
            Some(agent) if !agent.started => {
                agent.started = true;
                true
            }
            Some(_) | None => false,
        });
    }
}

/// Says in the log which required networks are missing, and when none is any more.
fn tell_unmet(known: Option<&Status>, now: &Status) {
    let unmet =
        |status: &Status| -> Vec<_> { status.unmet().map(|(name, requirement)| (name.clone(), requirement)).collect() };
    let (before, after) = (known.map(unmet).unwrap_or_default(), unmet(now));
    if before == after {
        return;
    }
    if after.is_empty() {
        tracing::info!(server = now.server, "this host is in all required networks");
    } else {
        tracing::warn!(server = now.server, missing = ?after, "required networks are missing");
    }
}

/// What comes next, for people.
pub(super) fn words(why: Why) -> &'static str {
    match why {
        Why::CheckIn => "regular check-in",
        Why::Hint => "the server asked for it",
        Why::Look => "regular look at the interface",
        Why::Poll => "regular pull, since nothing is pushed",
        Why::Retry => "another try after a failure",
        Why::Rotation => "a new WireGuard key",
        Why::Start => "first contact; hosts that start together do not all come at once",
    }
}
