//! Pulls as the real server keeps them: what a plain one shows of peers is as old as the last broadcast.
//!
//! This is a mistake that the server makes only when it is told to; otherwise every pull is computed afresh.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use super::{events::Event, world::World};
use crate::control::wire::HostPull;

/// The pulls that were computed since the mistake was switched on.
#[derive(Default)]
pub(super) struct Pulls(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Counts broadcasts.
    generation: u64,
    pulls: BTreeMap<Uuid, (u64, HostPull)>,
}

impl Pulls {
    /// Everything kept so far is outdated, because a broadcast would have replaced it.
    pub(super) fn outdate(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).generation += 1;
    }

    /// Keeps a pull that was computed afresh.
    pub(super) fn keep(&self, pull: &HostPull) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = kept.generation;
        kept.pulls.insert(pull.host.id, (generation, pull.clone()));
    }

    /// The kept pull of a host with what is always read afresh from `fresh`; all of that, if none is kept.
    pub(super) fn stale(&self, fresh: HostPull) -> HostPull {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.pulls.get(&fresh.host.id).filter(|(generation, _)| *generation == kept.generation);
        let Some((_, old)) = found.cloned() else {
            drop(kept);
            self.keep(&fresh);
            return fresh;
        };
        let HostPull { host, nodes, endpoint_detection, .. } = fresh;
        HostPull { host, nodes, endpoint_detection, ..old }
    }
}

/// Tells whether the real server broadcasts because of an event; what it sends after deletions is kept by nobody.
pub(super) fn is_broadcast(event: &Event, world: &World) -> bool {
    match event {
        Event::HostDeleted { .. }
        | Event::KeysRequested { .. }
        | Event::NodeDeleted { .. }
        | Event::PullRequested { .. }
        | Event::UpgradeRequested { .. } => false,
        Event::NodeUpdated { host: _, node } => world.nodes.get(node).is_some_and(|node| !node.pending_delete),
        Event::AclChanged { .. }
        | Event::EgressChanged { .. }
        | Event::HostUpdated { .. }
        | Event::Joined { .. }
        | Event::NameServersChanged { .. }
        | Event::Registered { .. } => true,
    }
}
