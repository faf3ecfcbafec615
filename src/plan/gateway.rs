//! Which gateway to use, of those that answered.

use std::time::Duration;

use uuid::Uuid;

use super::target::SESSION_LIFETIME;
use crate::model::{Peer, PeerStats};

/// What probing a gateway a few times at once told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// How many probes were answered.
    pub answered: u32,
    /// How many were sent.
    pub sent: u32,
    /// The time to an answer, the median of those that came; of no meaning if none came.
    pub time: Duration,
}

impl Probed {
    /// The time that an answered probe takes on average if lost ones are sent again, in microseconds; `None` if nobody
    /// answers.
    fn cost(self) -> Option<u128> {
        let Self { answered, sent, time } = self;
        (answered > 0).then(|| time.as_micros().max(1) * u128::from(sent) / u128::from(answered))
    }
}

/// How the gateway in use stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It answers probes.
    Answering,
    /// It is silent in the tunnel, or does not answer probes any more.
    Dead,
    /// It never answered probes, which tells nothing.
    Mute,
}

/// Chooses the nearest of `probed` gateways, loss counted in; `None` goes without one.
///
/// The gateway in use is kept unless it is dead or another is clearly nearer: a change costs every peer a moment.
/// (Netmaker's client takes the fastest of one probe each, once; from then on it only asks whether that one answers.)
pub fn choose_gateway(current: Option<(Uuid, Standing)>, probed: &[(Uuid, Probed)]) -> Option<Uuid> {
    let (in_use, standing) = current.unzip();
    let dead = standing == Some(Standing::Dead);
    let others = probed.iter().filter(|(node_id, _)| !dead || Some(*node_id) != in_use);
    let nearest = others.filter_map(|(node_id, probed)| Some((probed.cost()?, *node_id))).min();
    let cost = || probed.iter().find(|(node_id, _)| Some(*node_id) == in_use)?.1.cost();
    match (standing, nearest) {
        (Some(Standing::Mute), _) | (Some(Standing::Answering), None) => in_use,
        (Some(Standing::Answering), Some((nearest, _)))
            if cost().is_some_and(|cost| nearest * 100 >= cost * CLEARLY_NEARER) =>
        {
            in_use
        }
        (Some(Standing::Answering | Standing::Dead) | None, nearest) => nearest.map(|(_, node_id)| node_id),
    }
}

/// Returns whether a gateway is silent in the tunnel, whatever its host answers outside of it.
///
/// Only of one that is sent keepalives can that be told: its session ends when no handshake came for too long, or none
/// comes though it was asked several times.
pub fn is_silent(peer: &Peer, stats: &PeerStats) -> bool {
    let PeerStats { handshake_age, rx_bytes: _, tx_bytes } = stats;
    peer.persistent_keepalive.is_some()
        && match handshake_age {
            Some(age) => *age >= SESSION_LIFETIME,
            None => *tx_bytes >= UNANSWERED,
        }
}

/// Bytes of six handshake initiations (whitepaper §5.4.2), which are sent every 5 seconds.
const UNANSWERED: u64 = 6 * 148;

/// Percent of the cost of the gateway in use below which another one is clearly nearer.
const CLEARLY_NEARER: u128 = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nearest_that_answers_is_chosen() {
        assert_eq!(choose_gateway(None, &[gateway(1, 3, 9000), gateway(2, 3, 4000), gateway(3, 0, 0)]), id(2));
        assert_eq!(choose_gateway(None, &[gateway(1, 0, 0)]), None);
        assert_eq!(choose_gateway(None, &[]), None);
    }

    #[test]
    fn a_little_nearer_is_not_worth_a_change() {
        assert_eq!(choose_gateway(using(1), &[gateway(1, 3, 1000), gateway(2, 3, 801)]), id(1));
        assert_eq!(choose_gateway(using(1), &[gateway(1, 3, 1000), gateway(2, 3, 799)]), id(2));
    }

    #[test]
    fn a_dead_gateway_is_left_even_for_none() {
        let dead = Some((Uuid::from_u128(1), Standing::Dead));
        assert_eq!(choose_gateway(dead, &[gateway(1, 3, 10), gateway(2, 3, 9000)]), id(2), "its host still answers");
        assert_eq!(choose_gateway(dead, &[gateway(1, 0, 0), gateway(2, 0, 0)]), None);
    }

    #[test]
    fn one_that_never_answered_is_kept() {
        let mute = Some((Uuid::from_u128(1), Standing::Mute));
        assert_eq!(choose_gateway(mute, &[gateway(1, 0, 0), gateway(2, 3, 10)]), id(1));
        assert_eq!(choose_gateway(mute, &[]), id(1));
    }

    #[test]
    fn a_gateway_is_silent_without_a_session_that_should_be() {
        let kept = Peer { persistent_keepalive: 20.try_into().ok(), ..Peer::default() };
        let stats = |age: Option<u64>, tx_bytes| PeerStats {
            handshake_age: age.map(Duration::from_secs),
            rx_bytes: 0,
            tx_bytes,
        };
        for (peer, age, sent, expected) in [
            (&kept, Some(179), 5000, false),
            (&kept, Some(180), 5000, true),
            (&kept, None, 5 * 148, false),
            (&kept, None, 6 * 148, true),
            (&Peer::default(), Some(1000), 5000, false),
        ] {
            assert_eq!(is_silent(peer, &stats(age, sent)), expected, "{age:?} {sent}");
        }
    }

    #[test]
    fn one_that_loses_packets_is_farther_than_it_looks() {
        assert_eq!(choose_gateway(None, &[gateway(1, 1, 1000), gateway(2, 3, 2000)]), id(2));
        assert_eq!(choose_gateway(None, &[gateway(1, 2, 1000), gateway(2, 3, 2000)]), id(1));
    }

    proptest! {
        #[test]
        fn a_choice_is_final_until_something_changes(probed in probed(), current in prop::option::of(1_u128..7)) {
            let chosen = choose_gateway(current.and_then(|number| standing(number, &probed)), &probed);

            prop_assert_eq!(choose_gateway(chosen.and_then(|id| standing(id.as_u128(), &probed)), &probed), chosen);
        }

        #[test]
        fn whoever_is_chosen_answers_or_was_in_use(probed in probed(), current in prop::option::of(1_u128..7)) {
            let alive = |id: &Uuid| probed.iter().any(|(other, probed)| other == id && probed.answered > 0);

            let chosen = choose_gateway(current.and_then(|number| standing(number, &probed)), &probed);

            prop_assert!(chosen.as_ref().is_none_or(|id| alive(id) || Some(id.as_u128()) == current));
            prop_assert!(chosen.is_some() || !probed.iter().any(|(id, _)| alive(id)));
        }
    }

    fn probed() -> impl Strategy<Value = Vec<(Uuid, Probed)>> {
        let probes = prop::collection::vec((0_u32..=3, 0_u64..10_000), 0..6);
        probes.prop_map(|probes| {
            probes.iter().zip(1..).map(|((answered, time), n)| gateway(n, *answered, *time)).collect()
        })
    }

    /// The gateway in use as its probes tell.
    fn standing(number: u128, probed: &[(Uuid, Probed)]) -> Option<(Uuid, Standing)> {
        let id = Uuid::from_u128(number);
        let found = probed.iter().find(|(other, _)| *other == id)?;
        Some((id, if found.1.answered > 0 { Standing::Answering } else { Standing::Dead }))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as it is asked for")]
    fn using(number: u128) -> Option<(Uuid, Standing)> {
        Some((Uuid::from_u128(number), Standing::Answering))
    }

    fn gateway(number: u128, answered: u32, micros: u64) -> (Uuid, Probed) {
        (Uuid::from_u128(number), Probed { answered, sent: 3, time: Duration::from_micros(micros) })
    }

    #[expect(clippy::unnecessary_wraps, reason = "as it is asked for")]
    fn id(number: u128) -> Option<Uuid> {
        Some(Uuid::from_u128(number))
    }
}
