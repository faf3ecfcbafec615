//! Keeping the server's access rules in force on one interface, as far as this machine can.

use std::{borrow::Cow, collections::BTreeMap};

use super::{MembershipError, tunnel::Look};
use crate::{
    firewall::{self, Done, Firewall},
    link,
    model::{Assignment, FirewallSetting, FirewallStatus, InterfaceName, Membership},
    plan::{self, Wall},
};

/// The packet filter in front of one membership.
#[derive(Debug)]
pub(super) struct Fence {
    firewall: Firewall,
    status: Option<FirewallStatus>,
}

impl Fence {
    pub(super) fn new(interface: InterfaceName) -> Self {
        Self { firewall: Firewall::new(interface), status: None }
    }

    /// What became of the access rules; `None` before [`prepare`](Self::prepare).
    pub(super) fn status(&self) -> Option<FirewallStatus> {
        self.status.clone()
    }

    /// Has the access rules in force before the interface carries anything; returns what it may carry.
    ///
    /// Rules that cannot be enforced are told. Whoever asked for them by name gets no peers then: the network would be
    /// open against the owner's will.
    pub(super) async fn prepare<'a>(
        &mut self,
        assignment: &'a Assignment,
        setting: Option<FirewallSetting>,
        look: Look,
    ) -> Cow<'a, Assignment> {
        let (status, error) = match plan::wall(&assignment.access, setting) {
            Wall::Rules(ruleset) if look == Look::Remembered && self.firewall.has(&ruleset) => {
                (FirewallStatus::Enforced { rules: ruleset.rules }, None)
            }
            Wall::Ignored => (FirewallStatus::Ignored, self.firewall.clear().await.err()),
            Wall::Open => (FirewallStatus::Open, self.firewall.clear().await.err()),
            Wall::Rules(ruleset) => match (self.firewall.enforce(&ruleset).await, setting) {
                (Ok(done), _) => {
                    if done == Done::Changed {
                        tracing::info!(rules = ruleset.rules, "access rules are enforced");
                    }
                    (FirewallStatus::Enforced { rules: ruleset.rules }, None)
                }
                (Err(error), Some(FirewallSetting::Enforce)) => {
                    (FirewallStatus::Closed { why: error.reason() }, Some(error))
                }
                (Err(error), Some(FirewallSetting::Ignore) | None) => {
                    (FirewallStatus::NotEnforced { why: error.reason() }, Some(error))
                }
            },
        };
        if let Some(error) = error
            && self.status.as_ref() != Some(&status)
        {
            tracing::warn!(error = %error.reason(), %status, "the packet filter is not as it should be");
        }
        let is_closed = matches!(status, FirewallStatus::Closed { .. });
        self.status = Some(status);
        if is_closed {
            return Cow::Owned(Assignment { peers: BTreeMap::new(), ..assignment.clone() });
        }
        Cow::Borrowed(assignment)
    }

    /// Removes the packet filter, after the interface is gone.
    pub(super) async fn clear(&mut self) -> Result<(), MembershipError> {
        self.status = None;
        self.firewall.clear().await?;
        Ok(())
    }
}

/// Tells from outside the process that serves `membership` what became of its access rules; `None` if this process may
/// not look, or the membership has none yet.
pub(super) async fn look(membership: &Membership) -> Option<FirewallStatus> {
    let assignment = &membership.enrolled()?.assignment;
    match plan::wall(&assignment.access, membership.policy.firewall) {
        Wall::Ignored => Some(FirewallStatus::Ignored),
        Wall::Open => Some(FirewallStatus::Open),
        Wall::Rules(ruleset) if firewall::interfaces().await.ok()?.contains(&membership.interface) => {
            Some(FirewallStatus::Enforced { rules: ruleset.rules })
        }
        Wall::Rules(_) => {
            Some(FirewallStatus::NotEnforced { why: "this machine's packet filter lacks them".to_owned() })
        }
    }
}

/// Removes the packet filter of an interface that is gone.
pub(super) async fn clear(interface: &InterfaceName) -> Result<(), MembershipError> {
    Firewall::new(interface.clone()).clear().await?;
    Ok(())
}

/// Removes packet filters that an agent left behind: those for an interface that does not exist and is not `known`. One
/// for an interface of somebody else may be another agent's.
///
/// # Errors
/// [`MembershipError`] if interfaces or packet filters cannot be listed, or one stays.
pub(super) async fn sweep(known: &[InterfaceName]) -> Result<(), MembershipError> {
    let filtered = firewall::interfaces().await?;
    if filtered.is_empty() {
        return Ok(());
    }
    let there = link::interface_names().await?;
    for interface in filtered {
        if !there.contains(interface.as_str()) && !known.contains(&interface) {
            tracing::info!(%interface, "removing a packet filter that was left behind");
            Firewall::new(interface).clear().await?;
        }
    }
    Ok(())
}
