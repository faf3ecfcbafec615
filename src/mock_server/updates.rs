//! What a host says about itself after it is enrolled, by the fallback or through the broker.

use uuid::Uuid;

use super::{
    audit::Actor,
    events::Event,
    refusal::Refusal,
    server::{Order, Server},
};
use crate::control::wire::{HostAction, HostUpdate, Signal};

impl Server {
    /// Does what `host` says; what the document says about who it is is not believed.
    pub(super) fn host_update(&self, actor: &Actor, host: Uuid, update: HostUpdate) -> Result<(), Refusal> {
        let HostUpdate { action, host: mut sent, node, signal, egress_domain, new_metrics: _ } = update;
        sent.id = host;
        self.write_as(actor, |world, now| match action {
            HostAction::CheckIn => world.check_in(&sent, now),
            HostAction::DeleteHost => {
                world.delete_host(host)?;
                // It knows; only who is taken away by others is told.
                world.events.retain(|event| *event != Event::HostDeleted { host });
                Ok(())
            }
            HostAction::EgressUpdate => {
                world.resolve_egress(host, &egress_domain.id, node.egress_gateway_ranges.unwrap_or_default())
            }
            HostAction::UpdateHost => world.update_host(&sent, now),
            HostAction::UpdateNode => {
                let own = world.node_ids(host).contains(&node.id);
                let stored = own.then(|| world.nodes.get_mut(&node.id)).flatten();
                stored.ok_or_else(|| Refusal::bad_request("no result found"))?.connected = node.connected;
                world.node_updated(node.id);
                Ok(())
            }
            HostAction::SignalHost => {
                self.signal(&signal);
                Ok(())
            }
            HostAction::Ack
            | HostAction::CheckAutoAssignGateway
            | HostAction::ForceUpgrade
            | HostAction::JoinHostToNetwork
            | HostAction::Other(_)
            | HostAction::RequestAck
            | HostAction::RequestPull
            | HostAction::SignalPull
            | HostAction::UpdateKeys
            | HostAction::UpdateMetrics
            | HostAction::Upgrade => Ok(()),
        })
    }

    /// Passes a signal on, if its receiver can be read; without a broker nobody receives it.
    pub(super) fn signal(&self, signal: &Signal) {
        if let Ok(to) = Uuid::parse_str(&signal.to_host_id) {
            self.order(Order::Signal { to, signal: Box::new(signal.clone()) });
        }
    }
}
