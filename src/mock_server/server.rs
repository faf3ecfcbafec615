//! The running server's state: the world behind a lock, its store, its secrets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::BASE64;
use time::OffsetDateTime;
use uuid::Uuid;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{
    clock::Clock,
    documents,
    faults::Faults,
    keys::encode_token,
    refusal::Refusal,
    secrets::Claims,
    store::{Database, StoreError},
    world::{SERVER_NAME, World},
};
use crate::control::{
    seal::{gob, random},
    wire::{EnrollmentKey, Secret, ServerConfig},
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
    announce_networks: bool,
    node_delay: time::Duration,
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
    pub(super) announce_networks: bool,
    pub(super) node_delay: time::Duration,
}

impl Server {
    pub(super) fn new(mut database: Database, parts: Parts) -> Result<Self, StoreError> {
        let Parts { announce_networks, clock, server_name, api, master_key, node_delay } = parts;
        let mut world = database.load()?;
        world.settings.insert(SERVER_NAME.to_owned(), server_name.as_str().into());
        let session_secret = secret_setting(&mut world, "session-secret").to_vec();
        let traffic_key = secret_setting(&mut world, "traffic-key");
        database.save(&world)?;
        world.keep();
        let traffic_key = gob::encode(PublicKey::from(&StaticSecret::from(traffic_key)).as_bytes(), None);
        let config = documents::server_config(&server_name, &api, &traffic_key);
        let state = Mutex::new(State { world, database });
        let faults = Faults::default();
        Ok(Self(Arc::new(Inner {
            state,
            clock,
            faults,
            config,
            api,
            master_key,
            session_secret,
            announce_networks,
            node_delay,
        })))
    }

    /// Runs a rule, and stores what it changed before anybody hears of it; a rule that fails changes nothing.
    pub(super) fn write<T>(
        &self,
        rule: impl FnOnce(&mut World, OffsetDateTime) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let now = self.now();
        let mut state = self.lock();
        let State { world, database } = &mut *state;
        world.settle(now);
        let done = rule(world, now).and_then(|done| match database.save(world) {
            Ok(()) => Ok(done),
            Err(error) => {
                tracing::error!(error = %error, "cannot store a change");
                Err(Refusal::internal("database is not available"))
            }
        });
        if done.is_ok() {
            world.keep();
        } else {
            world.restore();
        }
        done
    }

    /// Looks at the world.
    pub(super) fn read<T>(&self, look: impl FnOnce(&World, OffsetDateTime) -> T) -> Result<T, Refusal> {
        let now = self.now();
        if self.lock().world.is_due(now) {
            self.write(|_, _| Ok(()))?;
        }
        Ok(look(&self.lock().world, now))
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.0.clock.now()
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub(super) fn config(&self) -> ServerConfig {
        self.0.config.clone()
    }

    pub(super) fn master_key(&self) -> &Secret {
        &self.0.master_key
    }

    /// Whether a registration's answer names the networks.
    pub(super) fn announces_networks(&self) -> bool {
        self.0.announce_networks
    }

    pub(super) fn node_delay(&self) -> time::Duration {
        self.0.node_delay
    }

    /// Adds the token to a key for somebody who may see it.
    pub(super) fn with_token(&self, mut key: EnrollmentKey) -> EnrollmentKey {
        key.token = encode_token(&self.0.api, key.value.expose());
        key
    }

    pub(super) fn open_session(&self, host: Uuid, mac_address: String) -> Secret {
        Claims::new(host, mac_address, self.now().unix_timestamp()).sign(&self.0.session_secret).into()
    }

    pub(super) fn session(&self, token: &str) -> Option<Claims> {
        Claims::verify(token, &self.0.session_secret, self.now().unix_timestamp())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a rule leaves changes that the next failure or success would settle wrongly; put them back.
        self.0.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut state = poisoned.into_inner();
            state.world.restore();
            state
        })
    }
}

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
