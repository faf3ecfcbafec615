//! Enrollment keys: what makes one valid, what a use costs, and how one becomes a token.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    clock::go_time,
    refusal::Refusal,
    secrets::{fingerprint, random_value},
    world::{Grant, Redemption, World},
};
use crate::control::wire::{ApiEnrollmentKey, EnrollmentKey, GoTime, KeyType, Secret};

/// An enrollment key to create; what ends it is decided by uses first, then date, then `unlimited`.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// Its name for people: 3 to 32 characters, used by no other key.
    pub name: String,
    /// The networks it grants; they need not exist yet.
    pub networks: Vec<String>,
    /// How many hosts may use it; `None` for no such limit.
    pub uses: Option<u32>,
    /// When it ends, in Unix seconds; `None` for never.
    pub expiration: Option<i64>,
    /// Must be set where neither uses nor date are.
    pub unlimited: bool,
    /// Device tags that its nodes get, `<network>.<name>`.
    pub groups: Vec<String>,
    /// The node that relays for its nodes.
    pub relay: Option<Uuid>,
    /// Its nodes choose their gateway themselves.
    pub auto_assign_gateway: bool,
}

impl From<NewKey> for ApiEnrollmentKey {
    fn from(key: NewKey) -> Self {
        let NewKey { name, networks, uses, expiration, unlimited, groups, relay, auto_assign_gateway } = key;
        Self {
            expiration: expiration.unwrap_or_default(),
            uses_remaining: uses.unwrap_or_default().into(),
            networks: Some(networks),
            unlimited,
            names: Some(vec![name]),
            relay: relay.map(|id| id.to_string()).unwrap_or_default(),
            groups: Some(groups),
            auto_assign_gateway,
            ..Self::default()
        }
    }
}

/// What a token says; `server` is of no interest to the server itself.
#[derive(Deserialize, Serialize)]
struct TokenText {
    #[serde(default)]
    server: String,
    #[serde(default)]
    value: Secret,
}

/// Writes what a device is given: where to go, and the key's value.
pub(super) fn encode_token(server: &str, value: &str) -> Secret {
    let text = TokenText { server: server.to_owned(), value: value.into() };
    BASE64.encode(&serde_json::to_vec(&text).unwrap_or_default()).into()
}

impl World {
    /// Finds the key a token stands for.
    pub(super) fn key_of_token(&self, token: &str) -> Result<EnrollmentKey, Refusal> {
        let json = BASE64.decode(token.as_bytes()).map_err(|error| {
            // Go reads from the start, so a wrong character comes before a wrong length.
            let wrong = |c: u8| !c.is_ascii_alphanumeric() && !b"+/=".contains(&c);
            let at = token.bytes().position(wrong).unwrap_or(error.position);
            Refusal::bad_request(format!("illegal base64 data at input byte {at}"))
        })?;
        let text: TokenText = serde_json::from_slice(&json).map_err(|error| Refusal::bad_request(describe(&error)))?;
        self.keys.get(&text.value.expose().to_owned()).cloned().ok_or_else(no_key)
    }

    pub(super) fn create_key(&mut self, key: ApiEnrollmentKey, now: OffsetDateTime) -> Result<EnrollmentKey, Refusal> {
        let names = key.names.unwrap_or_default();
        if names.is_empty() || names.iter().any(|name| !(3..=32).contains(&name.chars().count())) {
            let reason =
                "validation error: name length must be between 3 and 32: key name is missing or of that length";
            return Err(Refusal::bad_request(reason));
        }
        if self.keys.values().flat_map(|other| other.names.iter().flatten()).any(|name| names.contains(name)) {
            return Err(Refusal::bad_request("key names must be unique"));
        }
        let mut stored = EnrollmentKey {
            value: random_value().into(),
            networks: Some(key.networks.unwrap_or_default()),
            unlimited: key.unlimited,
            names: Some(names),
            groups: key.groups,
            auto_egress: key.auto_egress,
            ..EnrollmentKey::default()
        };
        (stored.key_type, stored.uses_remaining, stored.expiration) =
            key_end(&key.relay, key.uses_remaining, key.expiration, key.unlimited, now)?;
        stored.relay = self.key_relay(&key.relay, stored.networks.as_deref().unwrap_or_default())?;
        stored.auto_assign_gateway = key.auto_assign_gateway && stored.relay.is_nil();
        self.keys.insert(stored.value.expose().to_owned(), stored.clone());
        Ok(stored)
    }

    /// Overwrites relay, groups and gateway choice, each time all three.
    pub(super) fn update_key(&mut self, id: &str, change: ApiEnrollmentKey) -> Result<EnrollmentKey, Refusal> {
        let stored = self.find_key(id).ok_or_else(|| Refusal::internal("no enrollmentkey found"))?;
        let networks = stored.networks.clone().unwrap_or_default();
        let value = stored.value.expose().to_owned();
        let relay = self.key_relay(&change.relay, &networks)?;
        let stored = self.keys.get_mut(&value).ok_or_else(|| Refusal::internal("no enrollmentkey found"))?;
        stored.relay = relay;
        stored.groups = change.groups;
        stored.auto_assign_gateway = change.auto_assign_gateway && relay.is_nil();
        Ok(stored.clone())
    }

    pub(super) fn delete_key(&mut self, id: &str) -> Result<(), Refusal> {
        let key = self.find_key(id).ok_or_else(no_key)?;
        if key.is_default {
            return Err(Refusal::internal("cannot delete default network key"));
        }
        self.forget_key(&key.value.expose().to_owned());
        Ok(())
    }

    /// Finds a key by its value, as the real server names it, or by its fingerprint.
    fn find_key(&self, id: &str) -> Option<&EnrollmentKey> {
        let by_value = self.keys.get(&id.to_owned());
        by_value.or_else(|| self.keys.iter().find(|(value, _)| fingerprint(value) == id).map(|(_, key)| key))
    }

    fn forget_key(&mut self, value: &String) {
        self.keys.remove(value);
        let redeemed: Vec<_> = self.redemptions.iter().map(|(id, _)| id.clone()).filter(|id| id.0 == *value).collect();
        for redemption in redeemed {
            self.redemptions.remove(&redemption);
        }
    }

    pub(super) fn create_default_key(&mut self, network: &str) {
        let key = EnrollmentKey {
            value: random_value().into(),
            networks: Some(vec![network.to_owned()]),
            unlimited: true,
            names: Some(vec![network.to_owned()]),
            key_type: KeyType::Unlimited,
            groups: Some(vec![]),
            is_default: true,
            ..EnrollmentKey::default()
        };
        self.keys.insert(key.value.expose().to_owned(), key);
    }

    /// Takes a network out of all keys; a key that grants nothing any more goes too.
    pub(super) fn unlink_network_from_keys(&mut self, network: &str) {
        let prefix = format!("{network}.");
        for value in self.keys.iter().map(|(value, _)| value.clone()).collect::<Vec<_>>() {
            let Some(key) = self.keys.get(&value) else { continue };
            if !key.networks.iter().flatten().any(|name| name == network) {
                continue;
            }
            if key.networks.as_ref().is_some_and(|networks| networks.len() == 1) {
                self.forget_key(&value);
            } else if let Some(key) = self.keys.get_mut(&value) {
                key.networks.get_or_insert_default().retain(|name| name != network);
                key.groups.iter_mut().for_each(|groups| groups.retain(|group| !group.starts_with(&prefix)));
            }
        }
    }

    /// Takes a relay out of all keys.
    pub(super) fn unlink_relay_from_keys(&mut self, relay: Uuid) {
        let with_relay = self.keys.iter().filter(|(_, key)| key.relay == relay);
        for value in with_relay.map(|(value, _)| value.clone()).collect::<Vec<_>>() {
            if let Some(key) = self.keys.get_mut(&value) {
                key.relay = Uuid::nil();
            }
        }
    }

    /// Spends a use of a key for a host; a host that has spent one already spends nothing.
    pub(super) fn redeem(&mut self, value: &Secret, host: Uuid, now: OffsetDateTime) -> Result<Grant, Refusal> {
        let value = value.expose().to_owned();
        let known = self.redemptions.contains(&(value.clone(), host));
        let key = self.keys.get_mut(&value).ok_or_else(no_key)?;
        let usable = match key.key_type {
            KeyType::Undefined => false,
            KeyType::TimeExpiration => now.unix_timestamp() < key.expiration.unix_seconds(),
            KeyType::Uses => key.uses_remaining > 0,
            KeyType::Unlimited => true,
        };
        if !known && !usable {
            return Err(Refusal::bad_request("invalid enrollment key"));
        }
        if !known && key.key_type == KeyType::Uses {
            key.uses_remaining -= 1;
        }
        let grant = Grant {
            networks: key.networks.clone().unwrap_or_default(),
            groups: key.groups.clone().unwrap_or_default(),
            relay: key.relay,
            auto_assign_gateway: key.auto_assign_gateway,
        };
        if !known {
            self.redemptions.insert((value, host), Redemption { at: now.unix_timestamp() });
        }
        Ok(grant)
    }

    fn key_relay(&self, relay: &str, networks: &[String]) -> Result<Uuid, Refusal> {
        let relay = parse_relay(relay)?;
        if relay.is_nil() {
            return Ok(relay);
        }
        let node = self.nodes.get(&relay).ok_or_else(|| Refusal::internal("no result found"))?;
        if !networks.contains(&node.network) {
            return Err(Refusal::internal("relay node not in key's networks"));
        }
        if node.is_relay { Ok(relay) } else { Err(Refusal::internal("relay node is not a relay")) }
    }
}

/// Decides what ends a key; the request's own `type` is ignored.
fn key_end(
    relay: &str,
    uses: i64,
    expiration: i64,
    unlimited: bool,
    now: OffsetDateTime,
) -> Result<(KeyType, i64, GoTime), Refusal> {
    parse_relay(relay)?;
    let date = if expiration > 0 { GoTime::from_unix(expiration, 0).unwrap_or_default() } else { GoTime::default() };
    if uses > 0 {
        Ok((KeyType::Uses, uses, GoTime::default()))
    } else if expiration > now.unix_timestamp() && !date.is_zero() {
        Ok((KeyType::TimeExpiration, 0, date))
    } else if unlimited && date.is_zero() {
        Ok((KeyType::Unlimited, 0, date))
    } else {
        let date = if date.is_zero() { GoTime::default() } else { go_time(date.time()) };
        let reason = format!("uses remaining: {uses}, expiration: {date:?}, unlimited: {unlimited}");
        Err(Refusal::internal(format!("enrollment key is not valid: {reason}")))
    }
}

fn parse_relay(relay: &str) -> Result<Uuid, Refusal> {
    if relay.is_empty() {
        return Ok(Uuid::nil());
    }
    Uuid::parse_str(relay).map_err(|_| Refusal::bad_request(format!("invalid UUID length: {}", relay.len())))
}

fn no_key() -> Refusal {
    Refusal::bad_request("no enrollmentkey found")
}

/// A decoding error without the values it met, which may be secret.
pub(super) fn describe(error: &serde_json::Error) -> String {
    if error.is_data() {
        // Such a message may quote the value.
        let text = error.to_string();
        return text.split_once(": string \"").map_or(text.clone(), |(start, _)| format!("{start}: string"));
    }
    error.to_string()
}
