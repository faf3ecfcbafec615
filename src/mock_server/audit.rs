//! The audit trail of enrollment keys: who did what to which key, never a value; entries are only ever added.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{keys::Key, refusal::Refusal, world::World};
use crate::control::wire::{GoTime, KeyType};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A key was made.
    Create,
    /// A key was deleted.
    Delete,
    /// A key was switched off.
    Disable,
    /// A key was changed.
    Edit,
    /// A key was switched on again.
    Enable,
    /// A host redeemed a key.
    Redeem,
    /// One of the others was refused.
    Refuse,
    /// A key got a new value.
    Rotate,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Disable => "disable",
            Self::Edit => "edit",
            Self::Enable => "enable",
            Self::Redeem => "redeem",
            Self::Refuse => "refuse",
            Self::Rotate => "rotate",
        }
    }
}

/// Who did it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Actor {
    /// A device with a token; the entry names the host.
    Device,
    /// The program that this server is part of.
    #[default]
    Library,
    /// Somebody with the master key.
    MasterKey,
    /// A user who has logged in.
    User(String),
}

impl Actor {
    /// What the real server calls it where it writes down who made something.
    pub(super) fn user_name(&self) -> String {
        match self {
            Self::Device | Self::Library | Self::MasterKey => "masteradministrator".to_owned(),
            Self::User(name) => name.clone(),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("host"),
            Self::Library => f.write_str("library"),
            Self::MasterKey => f.write_str("master key"),
            Self::User(name) => write!(f, "user {name}"),
        }
    }
}

/// One line of the trail.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct AuditEntry {
    /// Its number; later entries have greater ones.
    pub number: i64,
    /// When, by the server's clock.
    pub at: GoTime,
    /// What was done.
    pub action: Action,
    /// What was attempted, where the action is a refusal.
    pub attempted: Option<Action>,
    /// `master key`, `user NAME`, `host` or `library`.
    pub actor: String,
    /// Id of the key; `None` if the refusal was that there is none.
    pub key: Option<Uuid>,
    /// Name of the key at that time.
    pub key_name: String,
    /// The host that redeemed, or tried to; `None` for administrators, and if it did not say who it is.
    pub host: Option<Uuid>,
    /// The networks that the key granted then.
    pub networks: Vec<String>,
    /// Why; empty if there is nothing to say.
    pub reason: String,
    /// The key before.
    pub before: Option<Value>,
    /// The key afterwards.
    pub after: Option<Value>,
}

/// Which entries to list; `None` does not filter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuditFilter {
    /// Id of the key.
    pub key: Option<Uuid>,
    /// Id of the host.
    pub host: Option<Uuid>,
    /// What was done.
    pub action: Option<Action>,
    /// From this time on, Unix seconds.
    pub since: Option<i64>,
    /// Before this time, Unix seconds.
    pub until: Option<i64>,
    /// At most this many; 100 if not given, never more than 1,000.
    pub limit: Option<u32>,
    /// Only entries with greater numbers: the `next` of the page before.
    pub cursor: Option<i64>,
}

/// Some entries, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// The cursor of the next page; `None` if this is the last.
    pub next: Option<i64>,
}

/// Something that may be refused, for the entry about it.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) actor: Actor,
    pub(super) action: Action,
    /// As the caller named it: id, value or token.
    pub(super) key: Option<KeyName>,
    pub(super) host: Option<Uuid>,
}

/// How a caller names a key; may be secret.
#[derive(Clone)]
pub(super) enum KeyName {
    Id(String),
    Token(String),
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(_) => f.write_str("Id(…)"),
            Self::Token(_) => f.write_str("Token(…)"),
        }
    }
}

impl World {
    /// Notes what was done to a key.
    pub(super) fn audit_key(&mut self, action: Action, before: Option<&Key>, after: Option<&Key>, reason: &str) {
        if let Some(key) = after.or(before) {
            let (before, after) = (before.map(described), after.map(described));
            self.note(AuditEntry { before, after, reason: reason.to_owned(), ..entry(action, Some(key)) });
        }
    }

    /// Notes that a host redeemed a key.
    pub(super) fn audit_redemption(&mut self, key: &Key, host: Uuid, reason: &str) {
        let left =
            (key.document.key_type == KeyType::Uses).then(|| json!({"uses_remaining": key.document.uses_remaining}));
        let reason = reason.to_owned();
        self.note(AuditEntry { host: Some(host), after: left, reason, ..entry(Action::Redeem, Some(key)) });
    }

    /// Notes that something was refused.
    pub(super) fn audit_refusal(&mut self, attempt: &Attempt, refusal: &Refusal, now: time::OffsetDateTime) {
        let Attempt { actor: _, action, key, host } = attempt;
        let key = match key {
            Some(KeyName::Id(id)) => self.find_key(id),
            Some(KeyName::Token(token)) => self.key_of_token(token, now).ok(),
            None => None,
        };
        let reason: String = refusal.message.chars().take(LONGEST_REASON).collect();
        let entry = entry(Action::Refuse, key);
        self.note(AuditEntry { attempted: Some(*action), host: *host, reason, ..entry });
    }

    fn note(&mut self, entry: AuditEntry) {
        let actor = self.actor.to_string();
        self.audit.push(AuditEntry { actor, ..entry });
    }
}

/// An entry about a key; number, time and actor are added when it is stored.
fn entry(action: Action, key: Option<&Key>) -> AuditEntry {
    AuditEntry {
        number: 0,
        at: GoTime::default(),
        action,
        attempted: None,
        actor: String::new(),
        key: key.map(|key| key.id),
        key_name: key.map_or("", Key::name).to_owned(),
        host: None,
        networks: key.map_or(&[][..], Key::networks).to_vec(),
        reason: String::new(),
        before: None,
        after: None,
    }
}

/// A key without its value.
fn described(key: &Key) -> Value {
    let Key { id: _, hash, previous, note, is_disabled, document } = key;
    json!({
        "tags": document.names, "note": note, "networks": document.networks, "groups": document.groups,
        "relay": document.relay, "auto_assign_gw": document.auto_assign_gateway, "auto_egress": document.auto_egress,
        "type": document.key_type, "uses_remaining": document.uses_remaining, "expiration": document.expiration,
        "unlimited": document.unlimited, "default": document.is_default, "disabled": is_disabled,
        "fingerprint": hash.get(..10), "previous_value_until": previous.as_ref().map(|previous| previous.until),
    })
}

/// Characters; what a client sent may be part of a reason.
const LONGEST_REASON: usize = 300;
