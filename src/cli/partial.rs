//! What becomes of a join that ends without a network that is required.

use std::process::ExitCode;

use super::{failure::Failure, print};
use crate::{
    config::Config,
    membership::{Farewell, describe},
    model::{Class, Listed, OnPartial, Status},
};

/// What the user wants of a join's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    may_roll_back: bool,
}

impl Ending {
    /// `is_new` says that the join enrolls this host: one that was enrolled before is never taken back.
    pub(super) fn new(config: &Config, is_new: bool) -> Self {
        let requires = config.overrides.require.as_ref().is_some_and(|require| !require.names().is_empty());
        Self { may_roll_back: is_new && requires && config.on_partial == OnPartial::Rollback }
    }

    /// Whether the host leaves again; without a status it is in no network at all.
    pub(super) fn is_rolled_back(self, status: Option<&Status>) -> bool {
        self.may_roll_back && status.is_none_or(|status| status.unmet().next().is_some())
    }
}

/// The failure of a join that was taken back; `unmet` is what was missing, `None` for all networks.
pub(super) fn rolled_back(unmet: Option<String>, farewell: &Farewell) -> Failure {
    let Farewell { failures, listed } = farewell;
    let mut failures: Vec<_> = failures.iter().map(|(_, error)| describe(error)).collect();
    if failures.is_empty() {
        failures.extend(listed.iter().map(|Listed { server, .. }| format!("{server} is told later")));
    }
    taken_back(unmet, &failures)
}

/// The same by an agent that serves; `failures` is what did not work on the way out.
pub(super) fn taken_back(unmet: Option<String>, failures: &[String]) -> Failure {
    let (class, missing) = match unmet {
        Some(unmet) => (Class::Partial, unmet),
        None => (Class::Waiting, "no network was assigned".to_owned()),
    };
    let after = match failures {
        [] => String::new(),
        failures => format!("; not all of it worked: {}", failures.join("; ")),
    };
    let message = format!("this host left again, since required networks were missing: {missing}{after}");
    Failure::of(class, message, "a use of the key is spent, unless the server gives it back when a host is deleted")
}

/// Says on standard error which required networks are missing, and returns the exit code.
pub(super) fn verdict(status: &Status) -> ExitCode {
    match missing(status) {
        Some(failure) => failure.report(false),
        None => ExitCode::SUCCESS,
    }
}

fn missing(status: &Status) -> Option<Failure> {
    let unmet = print::unmet(status)?;
    Some(Failure::class(Class::Partial, format!("{}: required networks are missing: {unmet}", status.server)))
}
