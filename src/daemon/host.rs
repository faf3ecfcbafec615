//! What the machine tells of itself.

use std::collections::BTreeSet;

use super::clock::{self, Jumps};
use crate::link::{Events, HostChange};

/// What the machine tells of itself.
pub(super) struct Host {
    events: Option<Events>,
    jumps: Option<Jumps>,
}

impl Host {
    pub(super) async fn watch() -> Self {
        let events = Events::listen().await;
        let events = events.inspect_err(|error| tracing::warn!(%error, "changes of this machine are not seen")).ok();
        let jumps = Jumps::watch();
        let jumps = jumps.inspect_err(|error| tracing::warn!(%error, "jumps of the clock are not seen")).ok();
        Self { events, jumps }
    }

    /// The next change; a jump of the clock is a move, since it may have been a long sleep.
    pub(super) async fn changed(&mut self) -> HostChange {
        let events = async {
            match &mut self.events {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            }
        };
        let jumped = async {
            match &self.jumps {
                Some(jumps) => jumps.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = events => change,
            () = jumped => {
                tracing::info!(now = clock::unix_seconds(), "the clock jumped");
                HostChange { moved: BTreeSet::from(["the clock".to_owned()]), touched: BTreeSet::new() }
            }
        }
    }
}
