//! Trouble as data: what the extension API and scenario files can make go wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{body::Bytes, extract::State, response::Response};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    answers::{self, Admin},
    broker::{Hub, Link, Repeat},
    calls::Call,
    faults::{Fault, Mistake, NodeCreation, Power},
    refusal::Refusal,
    server::{Order, Server},
    tls::Flaw,
    world::World,
};

/// One thing that goes wrong, by its `kind`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Trouble {
    /// Hosts that registered and wait get their nodes.
    ApproveNodes,
    /// The broker inside puts everybody out and lets nobody in.
    BrokerDown,
    /// Ends `broker-down`.
    BrokerUp,
    /// Everything planned for requests is forgotten, no mistakes are made, and the clock, the certificate and the making
    /// of nodes are right again.
    #[default]
    Clear,
    /// Connections end, and new ones meet a certificate with this flaw; `none` makes it right again.
    Certificate {
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The server's clock is wrong.
    ClockSkew {
        /// Seconds ahead; behind if negative.
        seconds: i64,
    },
    /// The server makes these mistakes of the real one, and no others.
    Mistakes {
        /// Which; nothing ends them.
        which: BTreeSet<Mistake>,
    },
    /// Nodes are made as they should, later, never, or after `approve-nodes`, for hosts that register from now on.
    NodeCreation {
        /// When they are made.
        when: NodeCreation,
    },
    /// Hosts are sent messages again.
    Repeat {
        /// Duplicates or stale ones.
        which: Repeat,
    },
    /// The next requests to a path go wrong.
    Request {
        /// Beginning of the paths.
        path: String,
        /// How many requests; one unless given.
        #[serde(default = "once")]
        times: usize,
        /// What goes wrong.
        fault: Fault,
    },
    /// All connections end, nobody is let in for a while, and everything is read again from the store.
    Restart {
        /// How long, in milliseconds.
        milliseconds: u64,
    },
    /// Everything but the server's own secrets goes back to a snapshot.
    Rollback {
        /// Its name.
        snapshot: String,
    },
    /// The state is noted under a name.
    Snapshot {
        /// Its name.
        snapshot: String,
    },
}

fn once() -> usize {
    1
}

impl Server {
    /// Makes trouble.
    ///
    /// # Errors
    /// If there is no such snapshot, or the store fails.
    pub(super) async fn make(&self, trouble: Trouble) -> Result<(), Refusal> {
        match trouble {
            Trouble::ApproveNodes => self.write(World::approve_everybody),
            Trouble::BrokerDown => {
                self.link().and_then(Link::hub).into_iter().for_each(Hub::take_down);
                Ok(())
            }
            Trouble::BrokerUp => {
                self.link().and_then(Link::hub).into_iter().for_each(Hub::bring_up);
                Ok(())
            }
            Trouble::Clear => {
                self.faults().clear();
                self.show_certificate(Flaw::None)
            }
            Trouble::Certificate { flaw } => self.show_certificate(flaw),
            Trouble::ClockSkew { seconds } => {
                self.faults().set_clock_skew(time::Duration::seconds(seconds));
                Ok(())
            }
            Trouble::Mistakes { which } => {
                self.faults().set_mistakes(which);
                Ok(())
            }
            Trouble::NodeCreation { when } => {
                self.faults().set_node_creation(when);
                Ok(())
            }
            Trouble::Repeat { which } => {
                let hosts = self.read(|world, _| world.hosts.iter().map(|(id, _)| *id).collect::<Vec<Uuid>>())?;
                for to in hosts {
                    self.order(Order::Repeat { to, which });
                }
                Ok(())
            }
            Trouble::Request { path, times, fault } => {
                self.faults().inject(times, &path, fault);
                Ok(())
            }
            Trouble::Restart { milliseconds } => self.restart(Duration::from_millis(milliseconds)).await,
            Trouble::Rollback { snapshot } => self.roll_back(&snapshot),
            Trouble::Snapshot { snapshot } => {
                let noted = self.read(|world, _| world.snapshot())?;
                self.faults().note(snapshot, noted);
                Ok(())
            }
        }
    }

    fn roll_back(&self, name: &str) -> Result<(), Refusal> {
        let noted = self.faults().snapshot(name).ok_or_else(|| Refusal::not_found("no such snapshot"))?;
        self.write(|world, _| {
            noted(world);
            Ok(())
        })?;
        self.order(Order::Restarted);
        Ok(())
    }

    /// Shows another certificate to whoever connects from now on; who is connected must connect again.
    fn show_certificate(&self, flaw: Flaw) -> Result<(), Refusal> {
        let is_other = self.certificates().show(flaw).map_err(|error| {
            tracing::error!(error = %error, "cannot make a certificate");
            Refusal::internal("cannot make a certificate")
        })?;
        if let Some(hub) = self.link().and_then(Link::hub).filter(|hub| is_other && hub.is_up()) {
            hub.take_down();
            hub.bring_up();
        }
        Ok(())
    }

    /// What a kill and a new start do, as far as clients can tell.
    async fn restart(&self, pause: Duration) -> Result<(), Refusal> {
        let hub = self.link().and_then(Link::hub);
        self.faults().set_power(Power::Off);
        hub.into_iter().for_each(Hub::take_down);
        let reloaded = self.reload();
        tokio::time::sleep(pause).await;
        self.faults().set_power(Power::On);
        hub.into_iter().for_each(Hub::bring_up);
        self.order(Order::Restarted);
        reloaded
    }
}

/// Puts the state back to what it was; the server's own secrets stay.
pub(super) type Snapshot = Arc<dyn Fn(&mut World) + Send + Sync>;

impl World {
    /// Gives everybody the nodes that somebody has to approve, or that are not due yet.
    fn approve_everybody(&mut self, now: OffsetDateTime) -> Result<(), Refusal> {
        self.approve_all(now)?;
        for host in self.joins.iter().map(|(host, _)| *host).collect::<Vec<_>>() {
            if let Some(join) = self.joins.get_mut(&host) {
                join.due = now.unix_timestamp_nanos();
            }
        }
        self.settle(now);
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let (networks, keys, hosts) = (self.networks.rows(), self.keys.rows(), self.hosts.rows());
        let (nodes, redemptions, joins) = (self.nodes.rows(), self.redemptions.rows(), self.joins.rows());
        let (pending, queues) = (self.pending.rows(), self.queues.rows());
        let (egresses, acls, name_servers) = (self.egresses.rows(), self.acls.rows(), self.name_servers.rows());
        Arc::new(move |world| {
            world.networks.replace(&networks);
            world.keys.replace(&keys);
            world.hosts.replace(&hosts);
            world.nodes.replace(&nodes);
            world.redemptions.replace(&redemptions);
            world.joins.replace(&joins);
            world.pending.replace(&pending);
            world.queues.replace(&queues);
            world.egresses.replace(&egresses);
            world.acls.replace(&acls);
            world.name_servers.replace(&name_servers);
            // Addresses that are free again are found again.
            world.lowest.replace(&BTreeMap::new());
        })
    }
}

/// The extension API for trouble.
pub(super) fn calls() -> Vec<Call> {
    let path = "/api/ext/v1/faults";
    vec![
        Call::post(path, make, "Make something go wrong").takes::<Trouble>(),
        Call::delete(path, clear, "Forget what was planned to go wrong"),
    ]
}

async fn make(State(server): State<Server>, _admin: Admin, bytes: Bytes) -> Result<Response, Refusal> {
    let trouble: Trouble = answers::body(&bytes)?;
    if matches!(trouble, Trouble::Restart { .. }) {
        // It would end the connection that asked for it.
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_PAUSE).await;
            if let Err(refusal) = server.make(trouble).await {
                tracing::error!(error = %refusal, "cannot restart");
            }
        });
    } else {
        server.make(trouble).await?;
    }
    Ok(answers::empty())
}

async fn clear(State(server): State<Server>, _admin: Admin) -> Result<Response, Refusal> {
    server.make(Trouble::Clear).await?;
    Ok(answers::empty())
}

/// Time for the answer to leave before a restart.
const ANSWER_PAUSE: Duration = Duration::from_millis(100);
