//! Enrollment keys: what makes one valid, what a use costs, and how one becomes a token.
//!
//! A key has an id of its own, which stays when its value is rotated. The value itself is a secret: what is stored is its
//! hash, unless the server was told to list values as the real one does.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    audit::Action,
    clock::go_text,
    refusal::Refusal,
    secrets::{hash_value, random_value},
    table::Row,
    world::World,
};
use crate::control::wire::{ApiEnrollmentKey, EnrollmentKey, GoTime, KeyType, Secret};

/// An enrollment key to create; what ends it is decided by uses first, then date, then `unlimited`.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// Its name for people: 3 to 32 characters, used by no other key.
    pub name: String,
    /// What it is for and who gets it; up to 1,000 characters.
    pub note: String,
    /// The networks it grants; unless the server is as the real one, at least one, and all must exist.
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

/// A request for a key: the wire's, and the note of ours.
pub(super) struct AskedKey {
    pub(super) key: ApiEnrollmentKey,
    pub(super) note: String,
}

impl From<NewKey> for AskedKey {
    fn from(key: NewKey) -> Self {
        let NewKey { name, note, networks, uses, expiration, unlimited, groups, relay, auto_assign_gateway } = key;
        let key = ApiEnrollmentKey {
            expiration: expiration.unwrap_or_default(),
            uses_remaining: uses.unwrap_or_default().into(),
            networks: Some(networks),
            unlimited,
            names: Some(vec![name]),
            relay: relay.map(|id| id.to_string()).unwrap_or_default(),
            groups: Some(groups),
            auto_assign_gateway,
            ..ApiEnrollmentKey::default()
        };
        Self { key, note }
    }
}

/// A key as it is stored.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Key {
    pub(super) id: Uuid,
    /// Of its value, see [`hash_value`].
    pub(super) hash: String,
    /// The value before the last rotation, if it was given time.
    pub(super) previous: Option<PreviousValue>,
    pub(super) note: String,
    pub(super) is_disabled: bool,
    /// The wire's document; its value is empty unless values are to be listed, its token always is.
    pub(super) document: EnrollmentKey,
}

/// A value that was rotated away and is still good for a while.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct PreviousValue {
    pub(super) hash: String,
    /// Unix seconds.
    pub(super) until: i64,
}

/// A key whose value may be shown, this once.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) key: Key,
    pub(super) value: Secret,
}

impl Key {
    pub(super) fn networks(&self) -> &[String] {
        self.document.networks.as_deref().unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        self.document.names.iter().flatten().next().map_or("", String::as_str)
    }
}

/// Where a key is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyPlace {
    /// By the hash of its value, or of the one before.
    Hash(String),
    /// By one of its names.
    Name(String),
}

impl Row<Uuid> for Key {
    type Place = KeyPlace;

    fn places(&self, _: &Uuid) -> Vec<KeyPlace> {
        let hashes = [Some(&self.hash), self.previous.as_ref().map(|previous| &previous.hash)];
        let hashes = hashes.into_iter().flatten().cloned().map(KeyPlace::Hash);
        hashes.chain(self.document.names.iter().flatten().cloned().map(KeyPlace::Name)).collect()
    }
}

impl World {
    pub(super) fn create_key(&mut self, asked: AskedKey, now: OffsetDateTime) -> Result<Made, Refusal> {
        let AskedKey { key, note } = asked;
        let names = key.names.unwrap_or_default();
        check_names(&names)?;
        if names.iter().any(|name| self.has_key_named(name)) {
            return Err(Refusal::bad_request("key names must be unique"));
        }
        check_note(&note)?;
        let mut document = EnrollmentKey {
            networks: Some(key.networks.unwrap_or_default()),
            unlimited: key.unlimited,
            names: Some(names),
            groups: key.groups,
            auto_egress: key.auto_egress,
            ..EnrollmentKey::default()
        };
        (document.key_type, document.uses_remaining, document.expiration) =
            key_end(&key.relay, key.uses_remaining, key.expiration, key.unlimited, now)?;
        let networks = document.networks.as_deref().unwrap_or_default();
        document.relay = self.key_relay(&key.relay, networks)?;
        document.auto_assign_gateway = key.auto_assign_gateway && document.relay.is_nil();
        self.check_key_networks(networks)?;
        Ok(self.insert_key(document, note))
    }

    /// Refuses networks that do not exist; the real server takes any.
    fn check_key_networks(&self, networks: &[String]) -> Result<(), Refusal> {
        if self.manners.netmaker_compat {
            return Ok(());
        }
        if networks.is_empty() {
            return Err(Refusal::bad_request("an enrollment key must grant at least one network"));
        }
        match networks.iter().find(|name| !self.networks.contains(name)) {
            Some(missing) => Err(Refusal::bad_request(format!("network {missing:?} does not exist"))),
            None => Ok(()),
        }
    }

    pub(super) fn has_key_named(&self, name: &str) -> bool {
        self.keys.find(&KeyPlace::Name(name.to_owned())).next().is_some()
    }

    /// Takes the values of all keys out of the world, those of default keys into memory; `false` if there were none.
    pub(super) fn hide_values(&mut self) -> bool {
        let listed = self.keys.values().filter(|key| !key.document.value.is_empty());
        let listed: Vec<_> = listed.map(|key| key.id).collect();
        for id in &listed {
            let Some(key) = self.keys.get_mut(id) else { continue };
            let value = std::mem::take(&mut key.document.value);
            if key.document.is_default {
                self.default_values.insert(*id, value);
            }
        }
        !listed.is_empty()
    }

    fn insert_key(&mut self, mut document: EnrollmentKey, note: String) -> Made {
        let value = Secret::from(random_value());
        if self.manners.netmaker_compat {
            document.value = value.clone();
        }
        let hash = hash_value(value.expose());
        let key = Key { id: Uuid::new_v4(), hash, previous: None, note, is_disabled: false, document };
        self.keys.insert(key.id, key.clone());
        self.audit_key(Action::Create, None, Some(&key), "");
        Made { key, value }
    }

    /// Finds a key by its id, or by its value, which is what the real server calls its id.
    pub(super) fn find_key(&self, id: &str) -> Option<&Key> {
        match Uuid::parse_str(id) {
            Ok(id) => self.keys.get(&id),
            Err(_) => {
                let hash = hash_value(id);
                let place = KeyPlace::Hash(hash.clone());
                self.keys.find(&place).map(|(_, key)| key).find(|key| key.hash == hash)
            }
        }
    }

    pub(super) fn delete_key(&mut self, id: &str) -> Result<(), Refusal> {
        let key = self.find_key(id).ok_or_else(no_key)?;
        if key.document.is_default {
            return Err(Refusal::internal("cannot delete default network key"));
        }
        self.forget_key(key.id, "");
        Ok(())
    }

    fn forget_key(&mut self, id: Uuid, reason: &str) {
        let Some(key) = self.keys.remove(&id) else { return };
        self.audit_key(Action::Delete, Some(&key), None, reason);
        self.default_values.remove(&id);
        let redeemed: Vec<_> = self.redemptions.find(&id).map(|(ids, _)| *ids).collect();
        for redemption in redeemed {
            self.redemptions.remove(&redemption);
        }
    }

    /// Makes the key that comes with a network, and remembers its value as long as this server runs.
    pub(super) fn create_default_key(&mut self, network: &str) {
        let document = EnrollmentKey {
            networks: Some(vec![network.to_owned()]),
            unlimited: true,
            names: Some(vec![network.to_owned()]),
            key_type: KeyType::Unlimited,
            groups: Some(vec![]),
            is_default: true,
            ..EnrollmentKey::default()
        };
        let Made { key, value } = self.insert_key(document, String::new());
        self.default_values.insert(key.id, value);
    }

    /// The default key of a network, if its value may be shown here; where values are listed, the list does that.
    pub(super) fn default_key(&self, network: &str) -> Option<Made> {
        let place = KeyPlace::Name(network.to_owned());
        let key = self.keys.find(&place).map(|(_, key)| key).find(|key| key.document.is_default)?;
        let value = self.default_values.get(&key.id).filter(|_| !self.manners.netmaker_compat)?;
        Some(Made { key: key.clone(), value: value.clone() })
    }

    /// Takes a network out of all keys; a key that grants nothing any more goes too.
    pub(super) fn unlink_network_from_keys(&mut self, network: &str) {
        let prefix = format!("{network}.");
        let reason = format!("network {network} was deleted");
        let linked = self.keys.values().filter(|key| key.networks().iter().any(|name| name == network));
        for before in linked.cloned().collect::<Vec<_>>() {
            if before.networks().len() == 1 {
                self.forget_key(before.id, &reason);
            } else if let Some(key) = self.keys.get_mut(&before.id) {
                key.document.networks.get_or_insert_default().retain(|name| name != network);
                key.document.groups.iter_mut().for_each(|groups| groups.retain(|group| !group.starts_with(&prefix)));
                let after = key.clone();
                self.audit_key(Action::Edit, Some(&before), Some(&after), &reason);
            }
        }
    }

    /// Takes a relay out of all keys.
    pub(super) fn unlink_relay_from_keys(&mut self, relay: Uuid) {
        let with_relay = self.keys.values().filter(|key| key.document.relay == relay);
        for before in with_relay.cloned().collect::<Vec<_>>() {
            if let Some(key) = self.keys.get_mut(&before.id) {
                key.document.relay = Uuid::nil();
                let after = key.clone();
                self.audit_key(Action::Edit, Some(&before), Some(&after), "its gateway is none any more");
            }
        }
    }

    pub(super) fn key_relay(&self, relay: &str, networks: &[String]) -> Result<Uuid, Refusal> {
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
        let (uses, date) = (uses.max(0), go_text(date.time()));
        let reason = format!("uses remaining: {uses}, expiration: {date}, unlimited: {unlimited}");
        Err(Refusal::internal(format!("enrollment key is not valid: {reason}")))
    }
}

pub(super) fn parse_relay(relay: &str) -> Result<Uuid, Refusal> {
    if relay.is_empty() {
        return Ok(Uuid::nil());
    }
    Uuid::parse_str(relay).map_err(|_| Refusal::bad_request(format!("invalid UUID length: {}", relay.len())))
}

/// Refuses names in the words of the validator that the real server uses: a line for each that is wrong.
fn check_names(names: &[String]) -> Result<(), Refusal> {
    let wrong = |field: &str, rule: &str| {
        format!("Key: 'APIEnrollmentKey.{field}' Error:Field validation for '{field}' failed on the '{rule}' tag")
    };
    let mut lines: Vec<_> = names
        .iter()
        .enumerate()
        .filter_map(|(index, name)| match name.chars().count() {
            ..3 => Some(wrong(&format!("Tags[{index}]"), "min")),
            3..=32 => None,
            33.. => Some(wrong(&format!("Tags[{index}]"), "max")),
        })
        .collect();
    if names.is_empty() {
        lines.push(wrong("Tags", "required"));
    }
    if lines.is_empty() {
        return Ok(());
    }
    let lines = lines.join("\n");
    Err(Refusal::bad_request(format!("validation error: name length must be between 3 and 32: {lines}")))
}

pub(super) fn check_note(note: &str) -> Result<(), Refusal> {
    if note.chars().count() > LONGEST_NOTE {
        return Err(Refusal::bad_request(format!("a note has at most {LONGEST_NOTE} characters")));
    }
    Ok(())
}

pub(super) fn no_key() -> Refusal {
    Refusal::bad_request("no enrollmentkey found")
}

/// Characters.
const LONGEST_NOTE: usize = 1000;
