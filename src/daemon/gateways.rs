//! Looking after the gateways that this host chose itself, beside the work on its membership.

use std::{collections::BTreeSet, net::SocketAddr};

use futures_util::future::LocalBoxFuture;
use tokio::time::sleep_until;

use super::clock;
use crate::{
    endpoint,
    membership::GatewaysInUse,
    plan::{Vigil, Watch},
};

/// The gateways in use; nothing is done for a membership that chooses none.
#[derive(Default)]
pub(super) struct Gateways {
    /// A measurement was asked for since the last work came back.
    measured: bool,
    probing: Option<LocalBoxFuture<'static, BTreeSet<SocketAddr>>>,
    vigil: Option<Vigil>,
}

impl Gateways {
    /// Takes over which are in use, `None` where the host chooses none. Begins only when the server has `answered`.
    pub(super) fn follow(&mut self, in_use: Option<&GatewaysInUse>, answered: bool) {
        match (in_use, &mut self.vigil) {
            (Some(in_use), Some(vigil)) => {
                vigil.follow(in_use.answering.clone(), clock::now());
                match in_use.any_lacking {
                    true if std::mem::take(&mut self.measured) => vigil.lacks(clock::now()),
                    true => {}
                    false => vigil.lacks_none(),
                }
                if in_use.any_silent {
                    vigil.missed(clock::now());
                }
            }
            (Some(_), None) if answered => self.vigil = Some(Vigil::new(clock::now())),
            (Some(_), None) => {}
            (None, _) => *self = Self::default(),
        }
    }

    /// Waits until all gateways should be measured; probes those in use meanwhile. Goes on where it was given up.
    pub(super) async fn due(&mut self) {
        loop {
            let Some(vigil) = &mut self.vigil else { return std::future::pending().await };
            if let Some(probing) = &mut self.probing {
                let silent = probing.await;
                self.probing = None;
                vigil.probed(&silent, clock::now());
                continue;
            }
            sleep_until(vigil.deadline().into()).await;
            match vigil.tick(clock::now()) {
                Some(Watch::Measure) => {
                    self.measured = true;
                    return;
                }
                Some(Watch::Probe(gateways)) => {
                    self.probing = Some(Box::pin(endpoint::silent(gateways, clock::now)));
                }
                None => {}
            }
        }
    }
}
