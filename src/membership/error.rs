//! What can end the story of a membership badly.

use std::{io, num::NonZeroU16, time::Duration};

use super::ImportError;
use crate::{
    control::{Advice, AssignmentError, ClockProblem, PushError, Refusal, RestError, TrustError},
    firewall::FirewallError,
    link::LinkError,
    model::{Class, ErrorReport, NetworkName, PassedOver, Server},
    plan::Overlaps,
    store::StoreError,
};

/// Why joining, syncing or leaving did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The server's assignment cannot be used; the interface is as it was before.
    #[error("{server} sent an assignment that cannot be used")]
    Assignment {
        /// Which server.
        server: Server,
        /// What is wrong with it.
        #[source]
        source: AssignmentError,
    },
    /// The server does not know this host any more.
    #[error("{0} has deleted this host")]
    Deleted(Server),
    /// The packet filter could not be removed.
    #[error("the packet filter stays")]
    Firewall(#[from] FirewallError),
    /// It cannot be told whether the identity is this machine's or another's: nothing of it is used.
    #[error("this machine may be a copy: the identity known to {server} was bound to other hardware")]
    Held {
        /// Which server.
        server: Server,
        /// Why the server could not tell; `None` when it was not asked, or another look is needed.
        #[source]
        source: Option<Box<MembershipError>>,
    },
    /// Something on this machine failed that has nothing to do with the membership.
    #[error("cannot {action}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The enrollment of another agent is not taken over.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The identity is another machine's, of which this one is a copy; it is kept aside.
    #[error("this machine is a copy: the identity known to {0} is another machine's and is not used")]
    Inherited(Server),
    /// The interface could not be observed or changed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No network by the deadline: the key is redeemed, the host waits.
    #[error("enrolled with {server}, but no network was assigned within {} s", waited.as_secs())]
    NoNetworks {
        /// Which server.
        server: Server,
        /// How long the agent waited.
        waited: Duration,
    },
    /// The UDP port that was asked for is in use.
    #[error("UDP port {0} is in use")]
    PortTaken(NonZeroU16),
    /// The user asked to stop before it was done.
    #[error("stopped before it was done")]
    Stopped,
    /// The server's broker cannot be used.
    #[error(transparent)]
    Push(#[from] PushError),
    /// None of several keys is good for anything.
    #[error("{server} refused every enrollment key: {}", PassedOver::list(passed_over))]
    NoneTaken {
        /// Every key, in the order in which they were tried.
        passed_over: Vec<PassedOver>,
        /// Which server.
        server: Server,
    },
    /// There is no membership to work on.
    #[error("this host is not enrolled")]
    NotEnrolled,
    /// The host is not in this network.
    #[error("this host is not in network {0}")]
    NotInNetwork(NetworkName),
    /// The process that carries the interface does not run.
    #[error("no agent is serving {0}, and a userspace interface lives only inside one")]
    NotServing(Server),
    /// The server knows this host id with another password.
    #[error("{0} knows this host's id with another password")]
    Proof(Server),
    /// The server refuses the key.
    #[error("{server} refused the enrollment key {fingerprint}: {}{}", reason(*refusal), earlier(*attempts))]
    Refused {
        /// How often the key was sent, this time included.
        attempts: u32,
        /// Fingerprint of the key.
        fingerprint: String,
        /// Why.
        refusal: Refusal,
        /// Which server.
        server: Server,
    },
    /// A call to the server failed.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The owner wants no part of an assignment with a range that this machine uses already.
    #[error("the assignment of {server} is not carried out")]
    Overlap {
        /// Which server.
        server: Server,
        /// Which range, and what it is in the way of.
        #[source]
        source: Overlaps,
    },
    /// Several memberships, and nothing says which one is meant.
    #[error("this host has several memberships")]
    Several,
    /// State could not be read or kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The owner took the interface down.
    #[error("the interface of the membership with {0} is switched off")]
    SwitchedOff(Server),
    /// The deadline passed before the server had answered.
    #[error("{server} did not take this host in within {} s{}", waited.as_secs(), sent(*attempts))]
    TimedOut {
        /// How often the key was sent without a clear answer.
        attempts: u32,
        /// Which server.
        server: Server,
        /// How long the agent waited.
        waited: Duration,
    },
    /// The server did not take over a new WireGuard key; the old one stays in force.
    #[error("{0} does not confirm this host's new WireGuard key")]
    Unconfirmed(Server),
    /// TLS could not be set up.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The key was sent, and nobody can tell whether the server counted it.
    #[error("{server} gave no clear answer; the key was sent {attempts} times and may have been used up to as often")]
    Unclear {
        /// How often the key was sent.
        attempts: u32,
        /// Which server.
        server: Server,
        /// The last answer; `None` when the key was sent that often in earlier runs.
        #[source]
        source: Option<RestError>,
    },
}

impl MembershipError {
    /// Returns what kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::Deleted(_)
            | Self::NotEnrolled
            | Self::NotInNetwork(_)
            | Self::NotServing(_)
            | Self::SwitchedOff(_) => Class::NotEnrolled,
            Self::Held { .. } | Self::Inherited(_) => Class::Held,
            Self::Import(error) => match error {
                ImportError::AtWork(_) | ImportError::Interface(_) | ImportError::Taken(_) => Class::Foreign,
                ImportError::Netclient(_) => Class::Configuration,
                ImportError::Nothing(_) => Class::NotEnrolled,
                ImportError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Class::Denied,
                ImportError::Read { .. } => Class::Other,
            },
            Self::Link(error) => match error {
                LinkError::Denied { .. } => Class::Denied,
                LinkError::Taken(_) => Class::Foreign,
                LinkError::Absent | LinkError::Failed { .. } | LinkError::NoTun => Class::Other,
            },
            Self::NoNetworks { .. } => Class::Waiting,
            Self::Proof(_) | Self::Refused { refusal: Refusal::Proof, .. } => Class::Foreign,
            Self::NoneTaken { .. } | Self::Refused { .. } => Class::Refused,
            Self::Rest(error) if error.clock().is_some() => Class::Clock,
            Self::Rest(error) => match error.advice() {
                Advice::RetryAfter(_) => Class::Temporary,
                Advice::Denied => Class::Foreign,
                Advice::Gone => Class::NotEnrolled,
                Advice::Broken => Class::Other,
            },
            Self::Several => Class::Usage,
            Self::Store(StoreError::Read { source, .. } | StoreError::Write { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Class::Denied
            }
            Self::Assignment { .. }
            | Self::Firewall(_)
            | Self::Host { .. }
            | Self::Overlap { .. }
            | Self::PortTaken(_)
            | Self::Push(_)
            | Self::Stopped
            | Self::Store(_) => Class::Other,
            Self::TimedOut { .. } | Self::Unclear { .. } | Self::Unconfirmed(_) => Class::Temporary,
            Self::Trust(_) => Class::Configuration,
        }
    }

    /// This machine's clock and the server's certificate, if the one is before the other.
    pub fn clock(&self) -> Option<ClockProblem> {
        let Self::Rest(error) = self else { return None };
        error.clock()
    }

    /// How long the server asked to wait; `None` when it did not.
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Rest(error) = self else { return None };
        match error.advice() {
            Advice::RetryAfter(after) => after,
            Advice::Broken | Advice::Denied | Advice::Gone => None,
        }
    }

    /// Writes it down as what happened at `at`, in seconds since 1970.
    pub fn report(&self, at: u64) -> ErrorReport {
        ErrorReport { at, class: self.class(), message: describe(self) }
    }
}

/// Renders an error with its causes, once each.
pub fn describe(error: &MembershipError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

fn sent(attempts: u32) -> String {
    if attempts == 0 {
        String::new()
    } else {
        format!("; the key was sent {attempts} times and may have been used up to as often")
    }
}

fn earlier(attempts: u32) -> &'static str {
    if attempts > 1 { "; an earlier attempt without a clear answer may have used it" } else { "" }
}

pub(super) fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Disabled => "it is disabled",
        Refusal::NoNetworks => "it grants no network",
        Refusal::Posture => "this device does not meet the networks' security requirements",
        Refusal::Proof => "this host's id is taken by another host",
        Refusal::Unknown => "it does not exist",
        Refusal::Unreadable => "the server cannot read it",
        Refusal::UsedUp => "it has expired or was used as often as it may be",
        Refusal::Version => "the server does not accept this agent's protocol version",
    }
}
