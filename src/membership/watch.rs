//! The stages of a join, for progress and timing.

use std::time::{Duration, Instant};

use crate::{daemon::clock, model::Stage};

/// Tells which stage is on and how long each took.
pub(super) struct Watch<'a> {
    current: Option<(Stage, Instant)>,
    report: &'a mut (dyn FnMut(Stage) + Send),
    timings: Vec<(Stage, Duration)>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(report: &'a mut (dyn FnMut(Stage) + Send)) -> Self {
        Self { current: None, report, timings: Vec::new() }
    }

    /// Begins a stage, unless it is on already.
    pub(super) fn enter(&mut self, stage: Stage) {
        if self.current.is_some_and(|(current, _)| current == stage) {
            return;
        }
        self.stop();
        self.current = Some((stage, clock::now()));
        (self.report)(stage);
    }

    fn stop(&mut self) {
        let Some((stage, since)) = self.current.take() else { return };
        let passed = clock::now().saturating_duration_since(since);
        match self.timings.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, sum)) => *sum += passed,
            None => self.timings.push((stage, passed)),
        }
    }

    /// Ends the last stage; returns how long each took, in order of their first appearance.
    pub(super) fn finish(mut self) -> Vec<(Stage, Duration)> {
        self.stop();
        self.timings
    }
}
