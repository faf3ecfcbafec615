//! The running server's state: the world behind a lock, its store, its secrets.

use std::sync::{self, Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use data_encoding::BASE64;
use time::OffsetDateTime;
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{
    Discovery, Edition, Names,
    audit::{Actor, Attempt, AuditFilter, AuditPage},
    broker::{Announced, Link, Repeat},
    clock::Clock,
    documents,
    events::{BACKLOG, Event},
    faults::{Faults, NodeCreation},
    key_info::KeyInfo,
    keys::{Key, Made},
    pulls::{Pulls, is_broadcast},
    refusal::Refusal,
    register::Creation,
    store::{Database, StoreError},
    tls::Certificates,
    together::{self, Job},
    world::{Counting, Manners, SERVER_NAME, World},
};
use crate::control::{
    seal::{gob, random},
    wire::{Secret, ServerConfig, Signal},
};

/// What every request handler holds.
#[derive(Clone)]
pub(super) struct Server(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    clock: Clock,
    faults: Faults,
    config: ServerConfig,
    /// Announced in tokens: `host:port`.
    api: String,
    master_key: Secret,
    session_secret: Vec<u8>,
    node_delay: time::Duration,
    announce_networks: bool,
    events: broadcast::Sender<Event>,
    traffic_key: [u8; 32],
    orders: mpsc::UnboundedSender<Order>,
    /// Set once a broker runs.
    link: OnceLock<Link>,
    certificates: Certificates,
    pulls: Pulls,
    jobs: sync::mpsc::Sender<Job>,
}

/// Something for the publisher to do that is not a change of the world.
pub(super) enum Order {
    /// Tells a host that an administrator changed its record.
    Edited(Uuid),
    /// Sends a host something again, which is a fault.
    Repeat { to: Uuid, which: Repeat },
    /// Everything may be different now.
    Restarted,
    /// Passes on a message between hosts.
    Signal { to: Uuid, signal: Box<Signal> },
}

struct State {
    world: World,
    database: Database,
}

/// What a server is made of, beside its store.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) server_name: String,
    pub(super) api: String,
    pub(super) master_key: Secret,
    pub(super) node_delay: time::Duration,
    pub(super) announce_networks: bool,
    pub(super) broker: Option<Announced>,
    pub(super) edition: Edition,
    pub(super) names: Names,
    pub(super) discovery: Discovery,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) netmaker_compat: bool,
    pub(super) certificates: Certificates,
}

impl Server {
    pub(super) fn new(mut database: Database, parts: Parts) -> Result<Self, StoreError> {
        let Parts {
            clock,
            server_name,
            api,
            master_key,
            node_delay,
            announce_networks,
            netmaker_compat,
            broker,
            edition,
            names,
            discovery,
            orders,
            certificates,
        } = parts;
        let mut world = database.load()?;
        world.manners = Manners { netmaker_compat, edition, names, counting: Counting::default() };
        world.add_missing_acls(clock.now());
        world.add_missing_name_servers(clock.now());
        let hidden = !netmaker_compat && world.hide_values();
        world.settings.insert(SERVER_NAME.to_owned(), server_name.as_str().into());
        let session_secret = secret_setting(&mut world, "session-secret").to_vec();
        let traffic_key = secret_setting(&mut world, "traffic-key");
        world.merge();
        database.save(&world, clock.now())?;
        if hidden {
            database.scrub()?;
        }
        world.keep();
        let public = gob::encode(PublicKey::from(&StaticSecret::from(traffic_key)).as_bytes(), None);
        let mut config = documents::server_config(&server_name, &api, &public);
        documents::offer(&mut config, edition, names, &discovery);
        if let Some(broker) = &broker {
            documents::announce(&mut config, broker);
        }
        let state = Mutex::new(State { world, database });
        let faults = Faults::default();
        let (sender, jobs) = sync::mpsc::channel();
        let (events, _) = broadcast::channel(BACKLOG);
        let inner = Arc::new(Inner {
            state,
            clock,
            faults,
            config,
            api,
            master_key,
            session_secret,
            node_delay,
            announce_networks,
            events,
            traffic_key,
            orders,
            link: OnceLock::new(),
            certificates,
            pulls: Pulls::default(),
            jobs: sender,
        });
        let weak = Arc::downgrade(&inner);
        together::spawn(jobs, move || weak.upgrade().map(Self));
        Ok(Self(inner))
    }

    /// Runs a rule, and stores what it changed before anybody hears of it; a rule that fails changes nothing.
    pub(super) fn write<T>(
        &self,
        rule: impl FnOnce(&mut World, OffsetDateTime) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.write_as(&Actor::Library, rule)
    }

    /// Does as [`Server::write`] for somebody, and notes in the audit trail what was attempted if it is refused.
    pub(super) fn attempt<T>(
        &self,
        attempt: &Attempt,
        rule: impl FnOnce(&mut World, OffsetDateTime) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let done = self.write_as(&attempt.actor, rule);
        if let Err(refusal) = &done {
            // If that is refused too, the store does not work, which was logged.
            drop(self.write_as(&attempt.actor, |world, now| {
                world.audit_refusal(attempt, refusal, now);
                Ok(())
            }));
        }
        done
    }

    /// Does as [`Server::attempt`], and shares the store's sync to disk with those who wait at the same time.
    pub(super) async fn attempt_together<T: Send + 'static>(
        &self,
        attempt: Attempt,
        rule: impl FnOnce(&mut World, OffsetDateTime) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (job, answered) = together::job(attempt, rule);
        let unanswered = || Refusal::internal("database is not available");
        self.0.jobs.send(job).map_err(|_| unanswered())?;
        answered.await.map_err(|_| unanswered())?
    }

    /// Runs jobs, and answers them once what they changed is stored.
    pub(super) fn store_together(&self, jobs: Vec<Job>) {
        let now = self.now();
        let mut state = self.lock();
        let State { world, database } = &mut *state;
        world.settle(now);
        world.merge();
        world.manners.counting = self.faults().counting();
        let answers: Vec<_> = jobs.into_iter().map(|job| job(world, now)).collect();
        let stored = save(database, world, now);
        if stored.is_ok() {
            self.tell(world);
        } else {
            world.restore_batch();
        }
        drop(state);
        for answer in answers {
            answer(stored.clone());
        }
    }

    /// Does as [`Server::write`] for somebody.
    pub(super) fn write_as<T>(
        &self,
        actor: &Actor,
        rule: impl FnOnce(&mut World, OffsetDateTime) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let now = self.now();
        let mut state = self.lock();
        let State { world, database } = &mut *state;
        world.settle(now);
        world.actor.clone_from(actor);
        world.manners.counting = self.faults().counting();
        let done = rule(world, now).and_then(|done| {
            world.merge();
            save(database, world, now).map(|()| done)
        });
        if done.is_ok() {
            self.tell(world);
        } else {
            world.restore_batch();
        }
        done
    }

    /// Tells what was stored to whoever listens.
    fn tell(&self, world: &mut World) {
        let events = world.keep();
        if self.link().is_some() && events.iter().any(|event| is_broadcast(event, world)) {
            self.pulls().outdate();
        }
        for event in events {
            // Nobody may be listening.
            drop(self.0.events.send(event));
        }
    }

    /// Looks at the world.
    pub(super) fn read<T>(&self, look: impl FnOnce(&World, OffsetDateTime) -> T) -> Result<T, Refusal> {
        let now = self.now();
        if self.lock().world.is_due(now) {
            self.write(|_, _| Ok(()))?;
        }
        Ok(look(&self.lock().world, now))
    }

    /// Listens to what happens from now on, in the order in which it was stored.
    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Gives the publisher something to do; without a broker there is none.
    pub(super) fn order(&self, order: Order) {
        drop(self.0.orders.send(order));
    }

    /// Notes that a broker runs.
    pub(super) fn set_link(&self, link: Link) {
        drop(self.0.link.set(link));
    }

    pub(super) fn certificates(&self) -> &Certificates {
        &self.0.certificates
    }

    pub(super) fn pulls(&self) -> &Pulls {
        &self.0.pulls
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.0.link.get()
    }

    pub(super) fn broker_is_up(&self) -> bool {
        self.link().is_some_and(Link::is_up)
    }

    /// The private half of what hosts seal their messages with.
    pub(super) fn traffic_key(&self) -> [u8; 32] {
        self.0.traffic_key
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.0.clock.now().saturating_add(self.faults().clock_skew())
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub(super) fn config(&self) -> ServerConfig {
        self.0.config.clone()
    }

    /// What tokens and sessions call the server: `host:port`.
    pub(super) fn api(&self) -> &str {
        &self.0.api
    }

    pub(super) fn session_secret(&self) -> &[u8] {
        &self.0.session_secret
    }

    pub(super) fn master_key(&self) -> &Secret {
        &self.0.master_key
    }

    /// Whether a registration's answer names the networks.
    pub(super) fn announces_networks(&self) -> bool {
        self.0.announce_networks
    }

    /// When the nodes of a host that registers now are made.
    pub(super) fn creation(&self) -> Creation {
        match self.faults().node_creation() {
            NodeCreation::Delayed { milliseconds } => {
                let delay = time::Duration::milliseconds(i64::try_from(milliseconds).unwrap_or(i64::MAX));
                Creation::After(delay.min(NEVER))
            }
            NodeCreation::Normal => Creation::After(self.0.node_delay),
            NodeCreation::Pending => Creation::OnceApproved,
            NodeCreation::Refused => Creation::Never,
        }
    }

    /// Reads everything again, as after a start.
    pub(super) fn reload(&self) -> Result<(), Refusal> {
        let mut state = self.lock();
        let State { world, database } = &mut *state;
        let stored = database.load().map_err(|error| {
            tracing::error!(error = %error, "cannot read the store");
            Refusal::internal("database is not available")
        })?;
        stored.snapshot()(world);
        drop(world.keep());
        Ok(())
    }

    /// Reads the audit trail.
    pub(super) fn audit(&self, filter: &AuditFilter) -> Result<AuditPage, Refusal> {
        self.lock().database.audit(filter).map_err(|error| {
            tracing::error!(error = %error, "cannot read the audit trail");
            Refusal::internal("database is not available")
        })
    }

    /// Shows a key; its value is masked unless values are listed.
    pub(super) fn shown(&self, key: Key) -> KeyInfo {
        KeyInfo::new(key, None, &self.0.api)
    }

    /// Shows a key with the value it has just got.
    pub(super) fn shown_once(&self, made: Made) -> KeyInfo {
        KeyInfo::new(made.key, Some(made.value), &self.0.api)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a rule leaves changes that the next failure or success would settle wrongly; put them back.
        self.0.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut state = poisoned.into_inner();
            state.world.restore_batch();
            state
        })
    }
}

fn save(database: &mut Database, world: &World, now: OffsetDateTime) -> Result<(), Refusal> {
    database.save(world, now).map_err(|error| {
        tracing::error!(error = %error, "cannot store a change");
        Refusal::internal("database is not available")
    })
}

/// A time nobody waits for.
const NEVER: time::Duration = time::Duration::days(36_525);

/// Reads 32 secret bytes from the settings, making them the first time.
fn secret_setting(world: &mut World, name: &str) -> [u8; 32] {
    let stored = world.settings.get(&name.to_owned()).and_then(|text| BASE64.decode(text.expose().as_bytes()).ok());
    if let Some(bytes) = stored.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        return bytes;
    }
    let bytes = random();
    world.settings.insert(name.to_owned(), BASE64.encode(&bytes).into());
    bytes
}
