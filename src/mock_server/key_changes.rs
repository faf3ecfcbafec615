//! What may be changed about an enrollment key once it exists: its note, tags and gateway choice, its value, its rest.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    audit::Action,
    keys::{Key, Made, PreviousValue, check_note, no_key, parse_relay},
    refusal::Refusal,
    secrets::{hash_value, random_value},
    world::World,
};
use crate::control::wire::Secret;

/// A change to a key; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyEdit {
    /// What it is for and who gets it.
    pub note: Option<String>,
    /// Device tags that nodes get from now on.
    pub groups: Option<Vec<String>>,
    /// How nodes reach the others from now on.
    pub gateway: Option<GatewayChoice>,
}

/// How the nodes of a key reach others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayChoice {
    /// Each chooses the nearest gateway itself.
    Automatic,
    /// Without a gateway.
    Direct,
    /// Behind this node.
    Relay(Uuid),
}

/// The body of a change: fields that are missing or `null` are `None`.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct KeyChange {
    relay: Option<String>,
    groups: Option<Vec<String>>,
    auto_assign_gw: Option<bool>,
    note: Option<String>,
}

impl World {
    /// Changes what an edit names.
    pub(super) fn edit_key(&mut self, id: &str, edit: KeyEdit) -> Result<Key, Refusal> {
        let KeyEdit { note, groups, gateway } = edit;
        let key = self.find_key(id).ok_or_else(no_key)?;
        let relay = match gateway {
            Some(GatewayChoice::Relay(relay)) => Some(self.key_relay(&relay.to_string(), key.networks())?),
            Some(GatewayChoice::Automatic | GatewayChoice::Direct) => Some(Uuid::nil()),
            None => None,
        };
        note.as_deref().map_or(Ok(()), check_note)?;
        self.change_key(key.id, Action::Edit, |key| {
            if let Some(relay) = relay {
                key.document.relay = relay;
                key.document.auto_assign_gateway = gateway == Some(GatewayChoice::Automatic);
            }
            key.document.groups = groups.or(key.document.groups.take());
            key.note = note.unwrap_or(std::mem::take(&mut key.note));
        })
    }

    /// Changes what the body names, our way.
    pub(super) fn patch_key(&mut self, id: &str, change: KeyChange) -> Result<Key, Refusal> {
        let KeyChange { relay, groups, auto_assign_gw, note } = change;
        let is_automatic = self.find_key(id).is_some_and(|key| key.document.auto_assign_gateway);
        let relay = relay.as_deref().map(parse_relay).transpose()?;
        let gateway = match (relay, auto_assign_gw) {
            (Some(relay), _) if !relay.is_nil() => Some(GatewayChoice::Relay(relay)),
            (_, Some(true)) => Some(GatewayChoice::Automatic),
            (Some(_), _) => Some(GatewayChoice::Direct),
            (None, Some(false)) if is_automatic => Some(GatewayChoice::Direct),
            (None, Some(false) | None) => None,
        };
        self.edit_key(id, KeyEdit { note, groups, gateway })
    }

    /// Overwrites relay, groups and gateway choice, each time all three, as the real server does.
    pub(super) fn put_key(&mut self, id: &str, change: KeyChange) -> Result<Key, Refusal> {
        let KeyChange { relay, groups, auto_assign_gw, note } = change;
        let key = self.find_key(id).ok_or_else(|| Refusal::internal("no enrollmentkey found"))?;
        let relay = self.key_relay(&relay.unwrap_or_default(), key.networks())?;
        note.as_deref().map_or(Ok(()), check_note)?;
        self.change_key(key.id, Action::Edit, |key| {
            key.document.relay = relay;
            key.document.groups = groups;
            key.document.auto_assign_gateway = auto_assign_gw.unwrap_or_default() && relay.is_nil();
            key.note = note.unwrap_or(std::mem::take(&mut key.note));
        })
    }

    /// Gives a key a new value; the one it had is good for `grace` seconds more.
    pub(super) fn rotate_key(&mut self, id: &str, grace: i64, now: OffsetDateTime) -> Result<Made, Refusal> {
        if !(0..=LONGEST_GRACE).contains(&grace) {
            return Err(Refusal::bad_request(format!("grace_seconds must be between 0 and {LONGEST_GRACE}")));
        }
        let id = self.find_key(id).ok_or_else(no_key)?.id;
        let value = Secret::from(random_value());
        let hash = hash_value(value.expose());
        let listed = if self.manners.netmaker_compat { value.clone() } else { Secret::default() };
        let key = self.change_key(id, Action::Rotate, |key| {
            let old = std::mem::replace(&mut key.hash, hash);
            key.previous = (grace > 0).then(|| PreviousValue { hash: old, until: now.unix_timestamp() + grace });
            key.document.value = listed;
        })?;
        if key.document.is_default {
            self.default_values.insert(id, value.clone());
        }
        Ok(Made { key, value })
    }

    /// Refuses every redemption of a key until it is enabled.
    pub(super) fn disable_key(&mut self, id: &str) -> Result<Key, Refusal> {
        let id = self.find_key(id).ok_or_else(no_key)?.id;
        self.change_key(id, Action::Disable, |key| key.is_disabled = true)
    }

    /// Ends what [`World::disable_key`] began.
    pub(super) fn enable_key(&mut self, id: &str) -> Result<Key, Refusal> {
        let id = self.find_key(id).ok_or_else(no_key)?.id;
        self.change_key(id, Action::Enable, |key| key.is_disabled = false)
    }

    fn change_key(&mut self, id: Uuid, action: Action, change: impl FnOnce(&mut Key)) -> Result<Key, Refusal> {
        let key = self.keys.get_mut(&id).ok_or_else(no_key)?;
        let before = key.clone();
        change(key);
        let after = key.clone();
        self.audit_key(action, Some(&before), Some(&after), "");
        Ok(after)
    }
}

/// Refuses a changed value of a field that cannot be changed, by name; `shown` is the key as it is listed.
pub(super) fn refuse_changes(asked: &Value, shown: &Value) -> Result<(), Refusal> {
    let zero_date = shown["expiration"].as_str().is_some_and(|date| date.starts_with("0001"));
    let date = shown["expiration"].as_str().and_then(|date| OffsetDateTime::parse(date, &Rfc3339).ok());
    for field in FIXED {
        let (asked, shown) = (&asked[field], &shown[field]);
        let is_date = field == "expiration"
            && asked.as_i64().is_some_and(|seconds| match (zero_date, date) {
                (true, _) => seconds <= 0,
                (false, Some(date)) => seconds == date.unix_timestamp(),
                (false, None) => false,
            });
        if !asked.is_null() && asked != shown && !is_date {
            return Err(Refusal::bad_request(format!("{field} of an enrollment key cannot be changed")));
        }
    }
    Ok(())
}

/// The fields that are decided when a key is made, or by the server.
const FIXED: [&str; 12] = [
    "expiration",
    "uses_remaining",
    "value",
    "networks",
    "unlimited",
    "tags",
    "token",
    "type",
    "default",
    "auto_egress",
    "id",
    "disabled",
];

/// A year, in seconds.
const LONGEST_GRACE: i64 = 366 * 24 * 60 * 60;
