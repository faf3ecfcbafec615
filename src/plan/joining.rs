//! When joining is done: a device is never told which networks a key grants.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::model::{Assignment, NetworkName};

/// Watches the pulls of a joining host.
#[derive(Debug)]
pub struct Joining {
    /// Networks that the host had before a further key was redeemed.
    before: BTreeSet<NetworkName>,
    empty_pulls: u32,
    /// Networks the server announced; `None` when it does not speak the extension.
    expected: Option<BTreeSet<NetworkName>>,
    /// The last answer with a node in it, and when it first looked like that.
    last: Option<(Assignment, Instant)>,
    /// Networks that it is not done without.
    required: BTreeSet<NetworkName>,
}

/// What to do after a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pull again after this long; nodes changed, so the server's cached peers may be stale.
    AgainFresh(Duration),
    /// Pull again after this long.
    Again(Duration),
    /// The assignment is complete but for required networks: pull again after this long.
    Await(Duration),
    /// The assignment is complete.
    Done,
}

impl Joining {
    /// Starts watching; `expected` are the networks the server announced, if it did, and `before` those that the host
    /// had when a further key was redeemed.
    pub fn new(expected: Option<BTreeSet<NetworkName>>, before: BTreeSet<NetworkName>) -> Self {
        Self { before, empty_pulls: 0, expected, last: None, required: BTreeSet::new() }
    }

    /// The same, not done before the host is in all of `required`.
    #[must_use]
    pub fn requiring(self, required: BTreeSet<NetworkName>) -> Self {
        Self { required, ..self }
    }

    /// Judges what a pull brought at `now`: done when every announced network is there, or when two pulls at least
    /// [`AGREEMENT`] apart agree on the nodes. Peers come and go all the time and say nothing about that.
    pub fn judge(&mut self, pulled: &Assignment, now: Instant) -> Verdict {
        if pulled.nodes.is_empty() {
            self.last = None;
            self.empty_pulls += 1;
            let factor = 1_u32 << (self.empty_pulls - 1).min(5);
            return Verdict::Again(FIRST_DELAY.saturating_mul(factor).min(LAST_DELAY));
        }
        let has_all = |names: &BTreeSet<NetworkName>| names.iter().all(|name| pulled.nodes.contains_key(name));
        if self.expected.as_ref().is_some_and(has_all) && has_all(&self.required) {
            return Verdict::Done;
        }
        let is_enough = has_all(&self.required);
        match &self.last {
            Some((last, since)) if last.nodes == pulled.nodes && last.leaving == pulled.leaving => {
                let passed = now.saturating_duration_since(*since);
                // A server makes the nodes of a further key a moment after its answer.
                let brings_nothing = pulled.nodes.keys().all(|name| self.before.contains(name));
                let agreement = if brings_nothing { FURTHER_PATIENCE } else { AGREEMENT };
                match agreement.saturating_sub(passed) {
                    Duration::ZERO if is_enough => Verdict::Done,
                    Duration::ZERO => Verdict::Await(LAST_DELAY),
                    left => Verdict::Again(left.min(AGREEMENT)),
                }
            }
            None | Some(_) => {
                self.last = Some((pulled.clone(), now));
                Verdict::AgainFresh(AGREEMENT)
            }
        }
    }
}

/// Two pulls this far apart that agree are believed.
const AGREEMENT: Duration = Duration::from_millis(500);

/// How long a further key may seem to bring nothing before that is believed.
const FURTHER_PATIENCE: Duration = Duration::from_secs(5);

/// Delay after the first pull without nodes; doubles up to [`LAST_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(100);

const LAST_DELAY: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{Connection, Node, RelayChoice};

    #[test]
    fn two_pulls_half_a_second_apart_that_agree_are_enough() {
        let start = start();
        let mut joining = Joining::new(None, BTreeSet::new());

        assert_eq!(joining.judge(&with(&["office"]), start), Verdict::AgainFresh(AGREEMENT));
        let soon = joining.judge(&with(&["office"]), start + Duration::from_millis(200));
        assert_eq!(soon, Verdict::Again(Duration::from_millis(300)));
        assert_eq!(joining.judge(&with(&["office"]), start + AGREEMENT), Verdict::Done);
    }

    #[test]
    fn a_network_that_comes_later_starts_the_count_again() {
        let start = start();
        let mut joining = Joining::new(None, BTreeSet::new());
        joining.judge(&with(&["office"]), start);

        let later = start + AGREEMENT;
        assert_eq!(joining.judge(&with(&["office", "plant-a"]), later), Verdict::AgainFresh(AGREEMENT));
        assert_eq!(joining.judge(&with(&["office", "plant-a"]), later + AGREEMENT), Verdict::Done);
    }

    #[test]
    fn waits_longer_and_longer_for_the_first_node() {
        let mut joining = Joining::new(None, BTreeSet::new());

        let delays: Vec<_> = (0..8).map(|_| joining.judge(&with(&[]), start())).collect();

        let expected = [100, 200, 400, 800, 1600, 3000, 3000, 3000];
        assert_eq!(delays, expected.map(|millis| Verdict::Again(Duration::from_millis(millis))));
    }

    #[test]
    fn a_further_key_is_given_time_to_bring_something() {
        let start = start();
        let mut joining = Joining::new(None, BTreeSet::from(["office".parse().unwrap()]));
        joining.judge(&with(&["office"]), start);

        let soon = start + AGREEMENT;
        assert_eq!(joining.judge(&with(&["office"]), soon), Verdict::Again(AGREEMENT));
        assert_eq!(joining.judge(&with(&["office", "plant-a"]), soon), Verdict::AgainFresh(AGREEMENT));
        assert_eq!(joining.judge(&with(&["office", "plant-a"]), soon + AGREEMENT), Verdict::Done);
        let mut same = Joining::new(None, BTreeSet::from(["office".parse().unwrap()]));
        same.judge(&with(&["office"]), start);
        assert_eq!(same.judge(&with(&["office"]), start + FURTHER_PATIENCE), Verdict::Done);
    }

    #[test]
    fn a_required_network_is_waited_for_whatever_agrees() {
        let start = start();
        let required = ["office", "plant-a"].map(|name| name.parse().unwrap()).into();
        let mut joining = Joining::new(None, BTreeSet::new()).requiring(required);
        joining.judge(&with(&["office"]), start);

        let later = start + AGREEMENT;
        assert_eq!(joining.judge(&with(&["office"]), later), Verdict::Await(LAST_DELAY));
        assert_eq!(joining.judge(&with(&["office", "plant-a"]), later), Verdict::AgainFresh(AGREEMENT));
        assert_eq!(joining.judge(&with(&["office", "plant-a"]), later + AGREEMENT), Verdict::Done);
    }

    #[test]
    fn an_announcing_server_is_believed_at_once() {
        let mut joining =
            Joining::new(Some(["office", "plant-a"].map(|name| name.parse().unwrap()).into()), BTreeSet::new());

        assert_ne!(joining.judge(&with(&["office"]), start()), Verdict::Done);
        assert_eq!(joining.judge(&with(&["office", "plant-a"]), start()), Verdict::Done);
    }

    #[expect(clippy::disallowed_methods, reason = "an arbitrary point in time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn with(networks: &[&str]) -> Assignment {
        let node = Node {
            addresses: BTreeSet::new(),
            connection: Connection::Connected,
            id: Uuid::nil(),
            relay: None,
            relay_choice: RelayChoice::Fixed,
            tags: BTreeSet::new(),
        };
        let nodes = networks.iter().map(|name| (name.parse().unwrap(), node.clone())).collect();
        Assignment { nodes, ..Assignment::default() }
    }
}
