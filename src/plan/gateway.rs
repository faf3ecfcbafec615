//! Which gateway to use, of those that answered.

use std::time::Duration;

use uuid::Uuid;

/// Chooses the nearest of `probed` gateways; `None` for a time is one that did not answer.
///
/// The gateway in use is kept unless another is clearly nearer: a change costs every peer a moment. If none answers,
/// nothing is known, and it is kept as well.
pub fn choose_gateway(current: Option<Uuid>, probed: &[(Uuid, Option<Duration>)]) -> Option<Uuid> {
    let alive = probed.iter().filter_map(|(node_id, time)| Some((time.as_ref()?, *node_id)));
    let Some((nearest, node_id)) = alive.min() else { return current };
    let in_use = probed.iter().find(|(node_id, _)| Some(*node_id) == current).and_then(|(_, time)| *time);
    match in_use {
        Some(time) if nearest.as_micros() * 100 >= time.as_micros() * CLEARLY_NEARER => current,
        Some(_) | None => Some(node_id),
    }
}

/// Percent of the time to the gateway in use below which another one is clearly nearer.
const CLEARLY_NEARER: u128 = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nearest_that_answers_is_chosen() {
        assert_eq!(choose_gateway(None, &[gateway(1, Some(9000)), gateway(2, Some(4000)), gateway(3, None)]), id(2));
        assert_eq!(choose_gateway(id(3), &[gateway(1, Some(9000)), gateway(3, None)]), id(1), "the one in use is dead");
    }

    #[test]
    fn a_little_nearer_is_not_worth_a_change() {
        assert_eq!(choose_gateway(id(1), &[gateway(1, Some(1000)), gateway(2, Some(801))]), id(1));
        assert_eq!(choose_gateway(id(1), &[gateway(1, Some(1000)), gateway(2, Some(799))]), id(2));
        assert_eq!(choose_gateway(id(1), &[gateway(1, None), gateway(2, None)]), id(1));
        assert_eq!(choose_gateway(None, &[]), None);
    }

    proptest! {
        #[test]
        fn a_choice_is_final_until_something_changes(times in prop::collection::vec(prop::option::of(0_u64..10_000), 0..6)) {
            let probed: Vec<_> = times.iter().zip(1_u128..).map(|(time, number)| gateway(number, *time)).collect();

            let chosen = choose_gateway(None, &probed);

            prop_assert_eq!(choose_gateway(chosen, &probed), chosen);
            let alive = |node_id: &Uuid| probed.iter().any(|(other, time)| other == node_id && time.is_some());
            prop_assert!(chosen.as_ref().is_none_or(alive));
        }
    }

    fn gateway(number: u128, micros: Option<u64>) -> (Uuid, Option<Duration>) {
        (Uuid::from_u128(number), micros.map(Duration::from_micros))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as it is asked for")]
    fn id(number: u128) -> Option<Uuid> {
        Some(Uuid::from_u128(number))
    }
}
