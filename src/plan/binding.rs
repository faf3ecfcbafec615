//! Whether an identity is still on its machine.
//!
//! ```text
//!                    hardware, else instance
//!  machine-id      same         part       other        unknown
//!  same            same         same       hold         same
//!  unknown         same         same       hold         same
//!  other           reset        hold       clone        reset
//! ```
//!
//! Hardware is its UUID and its board's serial: *part* is one of them the same and one another, as after a repair. An
//! instance id stands in for hardware that is unknown; beside it, it only speaks up where the machine-id is another
//! one as well: the same instance makes a clone a hold, another one makes a reset a hold. What could not be read, then
//! or now, is no evidence.

use std::{collections::BTreeMap, time::Duration};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use crate::model::{Binding, Machine, Trait};

/// What the machine's traits say about an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bond {
    /// Everything that tells machines apart is different: this is a copy.
    Clone,
    /// The disk was moved or copied: only the server can tell which.
    Hold,
    /// The machine it was, with another machine-id.
    Reset,
    /// The machine it was.
    Same,
}

/// What the server's word says about an identity that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Another machine speaks with this identity.
    Clone,
    /// Nobody else does.
    Moved,
    /// Look again later.
    Unclear,
}

/// Judges whether an identity that is bound by `binding` is still on its machine; `None` is one that was never bound.
pub fn bond(binding: Option<&Binding>, machine: &Machine) -> Bond {
    use Likeness::{Other, Part, Same, Unknown};
    let Some(binding) = binding else { return Bond::Same };
    let alike = |which| likeness(binding, machine, which);
    let hardware = match (alike(Trait::HardwareUuid), alike(Trait::BoardSerial)) {
        (Unknown, one) | (one, Unknown) => one,
        (Same, Same) => Same,
        (Other, Other) => Other,
        (Same | Other | Part, Same | Other | Part) => Part,
    };
    let instance = alike(Trait::InstanceId);
    let stands_in = hardware == Unknown;
    let ground = if stands_in { instance } else { hardware };
    let has_other_id = alike(Trait::MachineId) == Other;
    let disagree = !stands_in && matches!((ground, instance), (Same, Other) | (Other, Same));
    match (has_other_id, ground) {
        (true, Same | Other) if disagree => Bond::Hold,
        (true, Part) | (false, Other) => Bond::Hold,
        (true, Other) => Bond::Clone,
        (true, Same | Unknown) => Bond::Reset,
        (false, Part | Same | Unknown) => Bond::Same,
    }
}

/// Binds an identity to `machine`; what cannot be read now stays as it was known.
pub fn bind(binding: &Binding, machine: &Machine) -> Binding {
    let Binding { hashes, salt } = binding;
    let now = machine.0.iter().map(|(which, value)| (*which, hash(salt, *which, value)));
    Binding { hashes: hashes.clone().into_iter().chain(now).collect(), salt: salt.clone() }
}

/// A binding that knows nothing yet.
pub fn unbound(salt: [u8; 16]) -> Binding {
    Binding { hashes: BTreeMap::new(), salt: HEXLOWER.encode(&salt) }
}

/// Tells from the server's record of check-ins who speaks with an identity that is held, all in the server's seconds
/// since 1970: `own` is the last one that this identity's state knows of, `first` what the server said at the first
/// look and `now` at this one, `watched` later.
///
/// State is at most [`KNOWN_WITHIN`] behind, so only later check-ins are certainly another machine's. In between it is
/// waited for the next one: an agent that lives checks in every minute or so.
pub fn word(own: Option<u64>, first: u64, now: u64, watched: Duration) -> Word {
    let late = own.map(|own| now.saturating_sub(own));
    if now > first || late.is_some_and(|late| late > KNOWN_WITHIN + AT_ONCE) {
        Word::Clone
    } else if late.is_some_and(|late| late <= AT_ONCE) || watched >= WATCHED {
        Word::Moved
    } else {
        Word::Unclear
    }
}

/// Seconds after which a check-in that is known is saved at the latest.
pub const KNOWN_WITHIN: u64 = 3600;

/// Seconds between a check-in and the pull that tells of it, and one check-in more that the server took in meanwhile.
const AT_ONCE: u64 = 90;

/// Silence of an identity after which nobody else speaks with it.
const WATCHED: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Likeness {
    Other,
    Part,
    Same,
    Unknown,
}

fn likeness(binding: &Binding, machine: &Machine, which: Trait) -> Likeness {
    match (binding.hashes.get(&which), machine.0.get(&which)) {
        (Some(known), Some(value)) if *known == hash(&binding.salt, which, value) => Likeness::Same,
        (Some(_), Some(_)) => Likeness::Other,
        (None, _) | (_, None) => Likeness::Unknown,
    }
}

fn hash(salt: &str, which: Trait, value: &str) -> String {
    let which = match which {
        Trait::BoardSerial => "board-serial",
        Trait::HardwareUuid => "hardware-uuid",
        Trait::InstanceId => "instance-id",
        Trait::MachineId => "machine-id",
    };
    let hash = digest(&SHA256, format!("{salt}\n{which}\n{value}").as_bytes());
    HEXLOWER.encode(hash.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machine-id, hardware UUID, board serial and instance id, each `=` same, `x` other or `?` unknown.
    #[rustfmt::skip]
    const TABLE: [(&str, [Bond; 9]); 9] = {
        use Bond::{Clone, Hold, Reset, Same};
        [
            // Columns: UUID and serial.
            //          ==     =x    =?     x=    xx     x?     ?=     ?x     ??
            ("==", [Same,  Same, Same,  Same, Hold,  Hold,  Same,  Hold,  Same]),
            ("=x", [Same,  Same, Same,  Same, Hold,  Hold,  Same,  Hold,  Hold]),
            ("=?", [Same,  Same, Same,  Same, Hold,  Hold,  Same,  Hold,  Same]),
            ("x=", [Reset, Hold, Reset, Hold, Hold,  Hold,  Reset, Hold,  Reset]),
            ("xx", [Hold,  Hold, Hold,  Hold, Clone, Clone, Hold,  Clone, Clone]),
            ("x?", [Reset, Hold, Reset, Hold, Clone, Clone, Reset, Clone, Reset]),
            ("?=", [Same,  Same, Same,  Same, Hold,  Hold,  Same,  Hold,  Same]),
            ("?x", [Same,  Same, Same,  Same, Hold,  Hold,  Same,  Hold,  Hold]),
            ("??", [Same,  Same, Same,  Same, Hold,  Hold,  Same,  Hold,  Same]),
        ]
    };

    const HARDWARE: [&str; 9] = ["==", "=x", "=?", "x=", "xx", "x?", "?=", "?x", "??"];

    #[test]
    fn every_combination_is_judged_as_the_table_says() {
        for (others, row) in TABLE {
            for (hardware, bond) in HARDWARE.iter().zip(row) {
                let mut signs = others.chars().chain(hardware.chars());
                let mut sign = || signs.next().unwrap();
                let signs =
                    [Trait::MachineId, Trait::InstanceId, Trait::HardwareUuid, Trait::BoardSerial].map(|t| (t, sign()));
                for missing_then in [true, false] {
                    let (binding, now) = world(&signs, missing_then);
                    assert_eq!(super::bond(Some(&binding), &now), bond, "{signs:?}, missing then: {missing_then}");
                }
            }
        }
    }

    #[test]
    fn one_that_was_never_bound_is_on_its_machine() {
        assert_eq!(bond(None, &machine("a")), Bond::Same);
        assert_eq!(bond(Some(&unbound([1; 16])), &machine("a")), Bond::Same);
    }

    #[test]
    fn binding_again_keeps_what_cannot_be_read_now() {
        let binding = bind(&unbound([1; 16]), &machine("a"));
        let mut less = machine("b");
        less.0.remove(&Trait::HardwareUuid);

        let again = bind(&binding, &less);

        assert_eq!(bond(Some(&again), &less), Bond::Same);
        assert_eq!(again.hashes.get(&Trait::HardwareUuid), binding.hashes.get(&Trait::HardwareUuid));
        assert_ne!(bind(&unbound([2; 16]), &machine("a")).hashes, binding.hashes, "the salt counts");
    }

    #[test]
    fn only_a_check_in_that_cannot_be_its_own_makes_a_clone() {
        let second = Duration::from_secs(1);
        let cases = [
            (Some(1000), 1000, 1000, Duration::ZERO, Word::Moved),
            (Some(1000), 1090, 1090, Duration::ZERO, Word::Moved),
            (Some(1000), 1091, 1091, Duration::ZERO, Word::Unclear),
            (Some(1000), 4690, 4690, Duration::from_secs(299), Word::Unclear),
            (Some(1000), 4690, 4690, WATCHED, Word::Moved),
            (Some(1000), 4690, 4691, WATCHED, Word::Clone),
            (Some(1000), 1000, 1001, second, Word::Clone),
            (Some(1000), 4691, 4691, Duration::ZERO, Word::Clone),
            (Some(1000), 900, 900, Duration::ZERO, Word::Moved),
            (None, 1000, 1000, Duration::ZERO, Word::Unclear),
            (None, 1000, 1000, WATCHED, Word::Moved),
        ];
        for (own, first, now, watched, expected) in cases {
            assert_eq!(word(own, first, now, watched), expected, "{own:?} {first} {now} {watched:?}");
        }
    }

    fn machine(value: &str) -> Machine {
        let all = [Trait::BoardSerial, Trait::HardwareUuid, Trait::InstanceId, Trait::MachineId];
        Machine(all.map(|which| (which, value.to_owned())).into())
    }

    fn world(signs: &[(Trait, char)], missing_then: bool) -> (Binding, Machine) {
        let (mut then, mut now) = (machine("a"), machine("a"));
        for (which, sign) in signs {
            match sign {
                'x' => drop(now.0.insert(*which, "b".to_owned())),
                '?' if missing_then => drop(then.0.remove(which)),
                '?' => drop(now.0.remove(which)),
                _ => {}
            }
        }
        (bind(&unbound([7; 16]), &then), now)
    }
}
