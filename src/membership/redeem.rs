//! Redeeming a key without ever spending it twice by our own doing.
//!
//! The membership is saved before the first byte is sent, with the fingerprints of all keys that may have reached the
//! server: as long as there is one, the identity is not given up. After an unclear answer only the questions that cost
//! nothing are asked for [`DOUBT`]: does the server know this host, are its networks others than before. Only then the
//! key is sent again, [`MAX_ATTEMPTS`] times in all.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    time::Duration,
};

use tokio::time::sleep;

use super::{Hands, MembershipError, Work, error::reason};
use crate::{
    control::{self, Advice, Freshness, Registered},
    daemon::clock,
    model::{Event, EventKind, NetworkName, Node, Phase, Redeeming, Relay, Server, Subject, Token},
    plan,
};

/// When the server took the key.
#[derive(Debug)]
pub(super) enum Redeemed {
    /// In an earlier attempt.
    Earlier,
    /// Now.
    Just {
        /// The networks that the server announced; `None` unless it speaks the extension.
        networks: Option<BTreeSet<NetworkName>>,
    },
}

impl Work {
    /// Redeems the key that the membership is saved with.
    ///
    /// # Errors
    /// [`MembershipError::Refused`] if the server says no; [`MembershipError::Unclear`] if it never said anything clear;
    /// [`MembershipError::Rest`] if it could not be reached, in which case nothing was spent.
    pub(super) async fn redeem(&mut self, port: NonZeroU16) -> Result<Redeemed, MembershipError> {
        let Some(Redeeming { attempts, baseline: _, fingerprint, sent_at, token }) =
            self.membership.redeeming().cloned()
        else {
            return Ok(Redeemed::Earlier);
        };
        if self.is_doubtful(&fingerprint) && self.was_counted(&fingerprint, sent_at).await? {
            self.note_counted(&fingerprint)?;
            return Ok(Redeemed::Earlier);
        }
        if attempts == 0 {
            self.note_baseline().await?;
        }
        let host = control::host(&self.membership, &self.facts(), port);
        let mut last = None;
        for attempts in attempts + 1..=MAX_ATTEMPTS {
            let first = self.note_sending(attempts)?;
            let error = match self.rest.register(&token, &host).await {
                Ok(Registered { networks, response }) => {
                    if let Some(api) = control::server_facts(&response.server_config).api {
                        self.rest.move_to(&api)?;
                    }
                    let (asked, named) = (&response.requested_host, control::stun_servers(&response.server_config));
                    let settled = u16::try_from(asked.listen_port).ok().and_then(NonZeroU16::new);
                    self.look_out(self.membership.policy.listen_port.or(settled).unwrap_or(port), &named);
                    self.announced.extend(networks.iter().flatten().cloned());
                    self.note_counted(&fingerprint)?;
                    return Ok(Redeemed::Just { networks: networks.map(|names| names.into_iter().collect()) });
                }
                Err(error) => error,
            };
            if let Some(refusal) = error.refusal() {
                let detail = Some(format!("{fingerprint}: {}", reason(refusal)));
                let subject = Subject::of(&self.membership);
                self.hands.tell(Event { detail, kind: EventKind::Refused, subject });
                self.forget_key(first, None)?;
                let server = self.membership.server.clone();
                return Err(MembershipError::Refused { attempts, fingerprint, refusal, server });
            }
            if !error.is_unclear() {
                self.forget_key(first, Some((attempts - 1, sent_at)))?;
                return Err(error.into());
            }
            tracing::warn!(error = %error, attempts, "no clear answer to the enrollment key");
            last = Some(error);
            if self.was_counted(&fingerprint, Some(clock::unix_seconds())).await? {
                self.note_counted(&fingerprint)?;
                return Ok(Redeemed::Earlier);
            }
        }
        let server = self.membership.server.clone();
        Err(MembershipError::Unclear { attempts: MAX_ATTEMPTS.max(attempts), server, source: last })
    }

    /// How often the key on its way was sent.
    pub(super) fn attempts(&self) -> u32 {
        self.membership.redeeming().map_or(0, |redeeming| redeeming.attempts)
    }

    /// Whether there is a key that was not redeemed here before; without a new one it is that which is on its way.
    pub(super) fn has_use_for(&self, token: Option<&Token>) -> bool {
        let Some(token) = token else { return self.membership.redeeming().is_some() };
        match &self.membership.phase {
            Phase::Enrolled(enrolled) => !enrolled.fingerprints.contains(&token.fingerprint()),
            Phase::Pending { .. } => true,
        }
    }

    /// Puts a further key on its way; nothing is sent yet.
    pub(super) fn take_up(&mut self, token: &Token) {
        let Phase::Enrolled(enrolled) = &mut self.membership.phase else { return };
        // What is known of the same key's earlier way holds on.
        let known = enrolled.redeeming.take().filter(|known| known.fingerprint == token.fingerprint());
        enrolled.redeeming = known.or_else(|| Some(Redeeming::new(token)));
    }

    /// Finds out what became of another further key that was sent and never clearly answered, before `token` is sent:
    /// afterwards nobody could tell which of them brought what.
    ///
    /// # Errors
    /// Those of asking, when there was no clear answer to the end.
    pub(super) async fn settle_half_sent(&mut self, token: &Token) -> Result<(), MembershipError> {
        let Phase::Enrolled(enrolled) = &self.membership.phase else { return Ok(()) };
        let Some(Redeeming { fingerprint, sent_at, .. }) = enrolled.redeeming.clone() else { return Ok(()) };
        if fingerprint == token.fingerprint() || !self.membership.sent.contains(&fingerprint) {
            return Ok(());
        }
        let was_counted = self.was_counted(&fingerprint, sent_at).await?;
        tracing::info!(key = fingerprint, was_counted, "an earlier key is settled");
        if was_counted {
            return self.note_counted(&fingerprint);
        }
        if let Phase::Enrolled(enrolled) = &mut self.membership.phase {
            enrolled.redeeming = None;
        }
        self.membership.sent.remove(&fingerprint);
        self.save()
    }

    /// The server may know more of this host than was heard of: a new host was perhaps taken in, a further key counted.
    fn is_doubtful(&self, fingerprint: &String) -> bool {
        match self.membership.phase {
            Phase::Enrolled(_) => self.membership.sent.contains(fingerprint),
            Phase::Pending { .. } => !self.membership.sent.is_empty(),
        }
    }

    /// Notes what a further key will be judged by: the networks that the host has before it is sent.
    async fn note_baseline(&mut self) -> Result<(), MembershipError> {
        if self.membership.enrolled().is_none() {
            return Ok(());
        }
        self.authenticate().await?;
        let now = self.pull(Freshness::Cached).await?;
        if let Some(redeeming) = self.membership.redeeming_mut() {
            redeeming.baseline = Some(comparable(now.nodes));
        }
        Ok(())
    }

    /// Saves that the server counted a further key: whatever comes after, it is never sent again.
    fn note_counted(&mut self, fingerprint: &String) -> Result<(), MembershipError> {
        let Phase::Enrolled(enrolled) = &mut self.membership.phase else { return Ok(()) };
        enrolled.fingerprints.insert(fingerprint.clone());
        enrolled.redeeming = None;
        self.membership.sent.remove(fingerprint);
        self.save()
    }

    /// Saves that the key is about to be sent; returns whether it never was before.
    fn note_sending(&mut self, attempts: u32) -> Result<bool, MembershipError> {
        let mut first = false;
        if let Some(redeeming) = self.membership.redeeming_mut() {
            redeeming.attempts = attempts;
            redeeming.sent_at = Some(clock::unix_seconds());
            let fingerprint = redeeming.fingerprint.clone();
            first = self.membership.sent.insert(fingerprint);
        }
        self.hands.store.save(&self.membership)?;
        // The interface's name is on disk now, for others who look for a free one.
        self.naming = None;
        Ok(first)
    }

    /// Notes that a key was refused, or with `unsent` that it never left and what was known of it before.
    ///
    /// A membership that no key can have made known to the server goes with it.
    fn forget_key(&mut self, first: bool, unsent: Option<(u32, Option<u64>)>) -> Result<(), MembershipError> {
        let Some(redeeming) = self.membership.redeeming_mut() else { return Ok(()) };
        if let Some((attempts, sent_at)) = unsent {
            redeeming.attempts = attempts;
            redeeming.sent_at = sent_at;
        }
        let (fingerprint, attempts) = (redeeming.fingerprint.clone(), redeeming.attempts);
        if first {
            self.membership.sent.remove(&fingerprint);
        }
        match &mut self.membership.phase {
            Phase::Enrolled(enrolled) if unsent.is_none() || attempts == 0 => enrolled.redeeming = None,
            Phase::Pending { .. } if self.membership.sent.is_empty() => {
                return Ok(self.hands.store.remove(&self.membership.server)?);
            }
            Phase::Enrolled(_) | Phase::Pending { .. } => {}
        }
        Ok(self.hands.store.save(&self.membership)?)
    }

    /// Asks whether a key that was sent at `sent_at` was counted, for as long as its request may still be on its way.
    ///
    /// # Errors
    /// Those of asking, when there was no clear answer to the end: a server that cannot be asked is not sent the key.
    async fn was_counted(&mut self, fingerprint: &str, sent_at: Option<u64>) -> Result<bool, MembershipError> {
        let passed = sent_at.map_or(DOUBT, |at| Duration::from_secs(clock::unix_seconds().saturating_sub(at)));
        let (started, doubt) = (clock::now(), DOUBT.saturating_sub(passed));
        let mut failures = 0;
        loop {
            let answer = match self.ask_whether_counted().await {
                // Perhaps it was another key that the server counted: then this one is still to be shown.
                Ok(true) => return Ok(self.membership.sent.contains(fingerprint)),
                Ok(false) | Err(MembershipError::Deleted(_)) => Ok(()),
                Err(MembershipError::Rest(error)) if error.advice() != Advice::Broken => Err(error.into()),
                Err(error) => return Err(error),
            };
            // A question that got lost is asked again, however long ago the key was sent.
            let patience = if answer.as_ref().is_err_and(is_temporary) { DOUBT } else { doubt };
            if clock::now() >= started + patience {
                return answer.map(|()| false);
            }
            failures += 1;
            sleep(plan::backoff(failures, 128, None).min(LONGEST_QUESTION_GAP)).await;
        }
    }

    /// A new host was counted if the server knows it; one enrolled before, if its networks are not what they were.
    async fn ask_whether_counted(&mut self) -> Result<bool, MembershipError> {
        self.authenticate().await?;
        if self.membership.enrolled().is_none() {
            return Ok(true);
        }
        let now = comparable(self.pull(Freshness::Cached).await?.nodes);
        let baseline = self.membership.redeeming().and_then(|redeeming| redeeming.baseline.as_ref());
        Ok(baseline.is_some_and(|baseline| now != *baseline))
    }
}

/// Lets a key be sent again that was sent as often as it may be without a clear answer.
///
/// For a service that is to enroll by itself: long after the last attempt, and only to a server that still says that it
/// does not know this host, which every attempt asks first.
pub fn forgive(hands: &Hands, server: &Server) -> Result<(), MembershipError> {
    let _lock = hands.store.lock(server)?;
    let Some(mut membership) = hands.store.load(server)? else { return Ok(()) };
    if let Phase::Pending { redeeming } = &mut membership.phase {
        redeeming.attempts = 0;
        hands.store.save(&membership)?;
    }
    Ok(())
}

fn is_temporary(error: &MembershipError) -> bool {
    matches!(error, MembershipError::Rest(error) if matches!(error.advice(), Advice::RetryAfter(_)))
}

/// Leaves out what was learnt of relays beside their ids, which comes and goes.
fn comparable(mut nodes: BTreeMap<NetworkName, Node>) -> BTreeMap<NetworkName, Node> {
    for relay in nodes.values_mut().filter_map(|node| node.relay.as_mut()) {
        *relay = Relay { address: None, name: None, node_id: relay.node_id, public_key: None };
    }
    nodes
}

/// How long after an unclear answer the key is not sent again.
const DOUBT: Duration = Duration::from_secs(30);

const LONGEST_QUESTION_GAP: Duration = Duration::from_secs(3);

const MAX_ATTEMPTS: u32 = 3;
