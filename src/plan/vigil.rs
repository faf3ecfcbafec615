//! When gateways are measured, where this host chooses them itself: on a schedule, and when the one in use falls silent.
//!
//! ```text
//!            every PROBE_GAP              nobody answers        once more, at once    nobody answers
//!  watching ───────────────► probing ──────────────────► doubting ──────────────► measure them all
//!      ▲                        │ an answer                  │ an answer
//!      └────────────────────────┴────────────────────────────┘
//! ```

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Looks after the gateways in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vigil {
    /// The gateway in use in each network, where it answers probes.
    in_use: BTreeSet<SocketAddr>,
    /// When all are measured next.
    measure: Instant,
    /// When those in use are probed next; `None` while they are.
    probe: Option<Instant>,
    /// Until when silence is no news: it was just acted on.
    settled: Instant,
    /// Whether the last probe found somebody silent.
    doubting: bool,
    /// How often a measurement left a network without a gateway, one after another.
    lacking: u32,
}

/// What a vigil asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Measure all gateways and choose.
    Measure,
    /// Probe these; [`Vigil::probed`] waits for what comes of it.
    Probe(BTreeSet<SocketAddr>),
}

impl Vigil {
    /// Begins at `now`, with a measurement.
    pub fn new(now: Instant) -> Self {
        Self {
            doubting: false,
            lacking: 0,
            in_use: BTreeSet::new(),
            measure: now,
            probe: Some(now + PROBE_GAP),
            settled: now,
        }
    }

    /// Takes over which gateways are in use, of those that answered when they were measured.
    pub fn follow(&mut self, in_use: BTreeSet<SocketAddr>, now: Instant) {
        if self.in_use != in_use {
            self.in_use = in_use;
            self.doubting = false;
            self.probe = self.probe.map(|_| now + PROBE_GAP);
        }
    }

    /// Takes in that a network has no gateway: one that comes back is wanted soon.
    pub fn lacks(&mut self, now: Instant) {
        let wait = SETTLING.saturating_mul(1 << self.lacking.min(6)).min(MEASURE_GAP);
        self.lacking = self.lacking.saturating_add(1);
        self.measure = self.measure.min(now + wait);
    }

    /// Takes in that all networks have one.
    pub fn lacks_none(&mut self) {
        self.lacking = 0;
    }

    /// Takes in that a gateway in use is silent in the tunnel.
    pub fn missed(&mut self, now: Instant) {
        if self.settled <= now {
            self.measure = now;
            self.settled = now + SETTLING;
        }
    }

    /// When there is something to do next.
    pub fn deadline(&self) -> Instant {
        match self.probe {
            Some(probe) if !self.in_use.is_empty() => probe.min(self.measure),
            Some(_) | None => self.measure,
        }
    }

    /// What is due at `now`.
    pub fn tick(&mut self, now: Instant) -> Option<Watch> {
        if self.measure <= now {
            self.measure = now + MEASURE_GAP;
            return Some(Watch::Measure);
        }
        if self.in_use.is_empty() || self.probe.is_none_or(|probe| now < probe) {
            return None;
        }
        self.probe = None;
        Some(Watch::Probe(self.in_use.clone()))
    }

    /// Takes in what a probe told: the `silent` of those that were asked.
    pub fn probed(&mut self, silent: &BTreeSet<SocketAddr>, now: Instant) {
        let silent = silent.intersection(&self.in_use).next().is_some() && self.settled <= now;
        self.probe = Some(if silent && !self.doubting { now } else { now + PROBE_GAP });
        if silent && self.doubting {
            self.missed(now);
        }
        self.doubting = silent && !self.doubting;
    }
}

/// Two probes that nobody answers, a measurement and the change that follows take less than 5 s together.
const PROBE_GAP: Duration = Duration::from_millis(1500);

/// Gateways come nearer or go farther slowly.
const MEASURE_GAP: Duration = Duration::from_secs(1800);

/// A gateway that fell silent and has no better is not measured again and again.
const SETTLING: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::daemon::clock;

    #[test]
    fn gateways_are_measured_at_first_and_then_on_a_schedule() {
        let start = clock::now();
        let mut vigil = Vigil::new(start);

        assert_eq!(vigil.tick(start), Some(Watch::Measure));
        assert_eq!(vigil.tick(start), None);
        assert_eq!(vigil.deadline(), start + MEASURE_GAP);
        assert_eq!(vigil.tick(start + MEASURE_GAP), Some(Watch::Measure));
    }

    #[test]
    fn two_probes_without_an_answer_have_all_measured_within_the_time() {
        let (mut vigil, start) = watching();
        let mut now = start + PROBE_GAP;
        assert_eq!(vigil.deadline(), now);
        assert_eq!(vigil.tick(now), Some(Watch::Probe([one()].into())));
        assert_eq!(vigil.tick(now), None, "while it is being probed");

        now += PATIENCE;
        vigil.probed(&[one()].into(), now);
        assert_eq!(vigil.tick(now), Some(Watch::Probe([one()].into())), "once more, at once");
        now += PATIENCE;
        vigil.probed(&[one()].into(), now);

        assert_eq!(vigil.tick(now), Some(Watch::Measure));
        assert!(now - start <= Duration::from_millis(3500), "{:?}", now - start);
    }

    #[test]
    fn one_lost_probe_is_no_reason() {
        let (mut vigil, start) = watching();
        let mut now = start + PROBE_GAP;
        for silent in [true, false, true, false] {
            let probe = vigil.tick(now);
            assert_eq!(probe, Some(Watch::Probe([one()].into())));
            vigil.probed(&silent.then(one).into_iter().collect(), now);
            now = vigil.deadline();
        }
    }

    #[test]
    fn silence_in_the_tunnel_counts_whatever_the_host_answers() {
        let (mut vigil, start) = watching();

        vigil.missed(start);

        assert_eq!(vigil.tick(start), Some(Watch::Measure));
        vigil.missed(start);
        assert_eq!(vigil.tick(start), None, "it was just acted on");
    }

    #[test]
    fn a_gateway_that_comes_back_is_found_soon_and_one_that_does_not_costs_little() {
        let mut now = clock::now();
        let mut vigil = Vigil::new(now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(vigil.tick(now), Some(Watch::Measure));
            vigil.lacks(now);
            waits.push((vigil.deadline() - now).as_secs());
            now = vigil.deadline();
        }

        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1800, 1800]);
        vigil.lacks_none();
        vigil.lacks(now);
        assert_eq!(vigil.deadline(), now, "due already");
    }

    #[test]
    fn silence_that_cannot_be_helped_is_not_acted_on_all_the_time() {
        let (mut vigil, start) = watching();
        let mut measured = 0;
        while vigil.deadline() < start + Duration::from_secs(300) {
            let now = vigil.deadline();
            match vigil.tick(now) {
                Some(Watch::Measure) => measured += 1,
                Some(Watch::Probe(asked)) => vigil.probed(&asked, now + PATIENCE),
                None => unreachable!("a deadline is for something"),
            }
        }

        assert!((2..=10).contains(&measured), "{measured}");
    }

    proptest! {
        #[test]
        fn a_probe_that_comes_late_is_about_who_was_asked(follow in any::<bool>(), silent in any::<bool>()) {
            let (mut vigil, start) = watching();
            let now = start + PROBE_GAP;
            let Some(Watch::Probe(asked)) = vigil.tick(now) else { unreachable!() };
            if follow {
                vigil.follow([other()].into(), now);
            }

            vigil.probed(&if silent { asked } else { BTreeSet::new() }, now);

            prop_assert_eq!(vigil.doubting, silent && !follow);
            prop_assert!(vigil.tick(vigil.deadline()).is_some());
        }
    }

    fn watching() -> (Vigil, Instant) {
        let start = clock::now();
        let mut vigil = Vigil::new(start);
        assert_eq!(vigil.tick(start), Some(Watch::Measure));
        vigil.follow([one()].into(), start);
        (vigil, start)
    }

    fn one() -> SocketAddr {
        "192.0.2.1:51821".parse().unwrap()
    }

    fn other() -> SocketAddr {
        "192.0.2.2:51821".parse().unwrap()
    }

    /// As the prober has it.
    const PATIENCE: Duration = Duration::from_millis(800);
}
