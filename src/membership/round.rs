//! Rounds with the server: pull, apply what changed, save it, confirm.

use std::time::{Duration, Instant};

use super::{MembershipError, Work, describe, tunnel::Look};
use crate::{
    control::Freshness,
    daemon::clock,
    model::{Assignment, Switch},
    plan::{Peers, Talk},
};

/// What one round with the server brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Changes made to the interface.
    pub changes: usize,
    /// Whether the assignment differs from the saved one.
    pub news: News,
}

/// Whether a pull differs from what was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Peers or settings changed.
    Details,
    /// A network came, went or changed.
    Networks,
    /// Nothing changed.
    Nothing,
}

impl Work {
    /// One round: authenticate if due, pull, apply what changed, save it, confirm what the server wants gone.
    pub async fn round(&mut self, peers: Peers) -> Result<Round, MembershipError> {
        let result = self.try_round(peers).await;
        self.error = result.as_ref().err().map(|error| error.report(clock::unix_seconds()));
        result
    }

    /// What a session asks for: a proof, a check-in and a round, each if wanted.
    pub async fn talk(&mut self, talk: Talk) -> Result<Round, MembershipError> {
        let Talk { check_in, peers, prove } = talk;
        if prove {
            self.authenticated_at = None;
        }
        let told = match (prove, check_in) {
            (_, true) => self.check_in().await,
            (true, false) => self.authenticate().await,
            (false, false) => Ok(()),
        };
        let done = match told {
            Ok(()) => self.round(peers).await,
            Err(error) => {
                self.note_failure(&error);
                Err(error)
            }
        };
        if done.is_err() {
            self.keep_way().await;
        }
        done
    }

    /// Sees to it that the server, found elsewhere than before, can be reached past a default route of ours.
    async fn keep_way(&mut self) {
        if self.tunnel.servers() == Some(&self.rest.addresses()) {
            return;
        }
        if let Err(error) = self.bring_up().await {
            tracing::warn!(error = %describe(&error), "the way to the server may lead into the tunnel");
        }
    }

    async fn try_round(&mut self, peers: Peers) -> Result<Round, MembershipError> {
        let before = self.assignment();
        let freshness = if peers == Peers::Recomputed { Freshness::Recomputed } else { Freshness::Cached };
        let mut assignment = self.pull(freshness).await?;
        let elsewhere = match peers {
            // The peers that go with another relay are pushed to everybody at once: who changes alone is not heard.
            Peers::Pushed => memberships_differ(&before, &assignment),
            Peers::Cached | Peers::Recomputed => networks_differ(&before, &assignment),
        };
        if elsewhere && freshness == Freshness::Cached {
            // The server's cached peers are stale after memberships changed (protocol page, "Staleness").
            assignment = self.pull(Freshness::Recomputed).await?;
        } else if peers == Peers::Pushed && lists_differ(&before, &assignment) && self.may_clarify() {
            // Either the cache is stale or a push was missed; only a computation tells.
            assignment = self.pull(Freshness::Recomputed).await?;
        } else if peers == Peers::Pushed {
            assignment.default_gateway = before.default_gateway;
            assignment.access.clone_from(&before.access);
            assignment.peers.clone_from(&before.peers);
            assignment.route_metrics.clone_from(&before.route_metrics);
            assignment.names.clone_from(&before.names);
            assignment.nearby.clone_from(&before.nearby);
            assignment.remarks.retain(|remark| !remark.comes_with_peers());
            assignment.remarks.extend(before.remarks.iter().filter(|remark| remark.comes_with_peers()).cloned());
        } else if assignment.peers.is_empty() && !before.peers.is_empty() {
            // A server that did not hear of us for an hour forgets our peers (protocol page, "Peer list").
            self.check_in().await?;
            assignment = self.pull(Freshness::Recomputed).await?;
        }
        self.promote_key().await?;
        if peers != Peers::Pushed {
            self.learn_names(&before, &mut assignment).await;
        }
        let round = self.take_over(&before, assignment.clone(), Look::Afresh).await?;
        self.tell_port(&assignment, round.changes).await?;
        self.confirm_leaving(&assignment).await?;
        if round.news != News::Nothing {
            self.name_relays().await;
        }
        Ok(round)
    }

    /// Whether it was long ago that cache and pushes disagreed: clarifying that makes the server broadcast.
    pub(super) fn may_clarify(&mut self) -> bool {
        let now = clock::now();
        let lately = |at: Instant| now.saturating_duration_since(at) < CLARIFY_GAP;
        if self.clarified_at.is_some_and(lately) {
            return false;
        }
        self.clarified_at = Some(now);
        true
    }

    /// Applies `assignment` and saves it if it is another than `before`.
    pub(super) async fn take_over(
        &mut self,
        before: &Assignment,
        assignment: Assignment,
        look: Look,
    ) -> Result<Round, MembershipError> {
        let news = news(before, &assignment);
        let changes = match self.membership.switch {
            Switch::Off => 0,
            Switch::On => self.apply(&assignment, look).await?,
        };
        let known = self.membership.enrolled().map(|enrolled| &enrolled.server_addresses);
        let is_elsewhere = known != Some(&self.rest.confirmed());
        if self.note_check_in() || news != News::Nothing || is_elsewhere {
            self.keep(assignment)?;
        }
        Ok(Round { changes, news })
    }
}

fn news(before: &Assignment, now: &Assignment) -> News {
    if before == now {
        News::Nothing
    } else if networks_differ(before, now) {
        News::Networks
    } else {
        News::Details
    }
}

/// How often a disagreement between the server's cache and its pushes is clarified.
const CLARIFY_GAP: Duration = Duration::from_secs(600);

/// What the server keeps ready for pulls, and pushes when it changes.
pub(super) fn lists_differ(before: &Assignment, now: &Assignment) -> bool {
    let told = |assignment: &Assignment| (assignment.default_gateway, assignment.names.clone());
    before.access != now.access || before.peers != now.peers || told(before) != told(now)
}

/// Whether networks came or went, or this host has other addresses in them.
fn memberships_differ(before: &Assignment, now: &Assignment) -> bool {
    let essence = |assignment: &Assignment| -> Vec<_> {
        let nodes = assignment.nodes.iter();
        nodes.map(|(name, node)| (name.clone(), node.id, node.addresses.clone(), node.connection)).collect()
    };
    essence(before) != essence(now) || before.leaving != now.leaving
}

fn networks_differ(before: &Assignment, now: &Assignment) -> bool {
    before.nodes != now.nodes || before.leaving != now.leaving
}
