//! Enrollment keys as administrators see them.

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{keys::Key, redeem::encode_token};
use crate::control::wire::{EnrollmentKey, KeyType, Secret};

/// A key as it is listed: the wire's document, and extensions of ours beside it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KeyInfo {
    /// The wire's document; value and token are there when they may be shown, else the value is stars.
    #[serde(flatten)]
    pub document: EnrollmentKey,
    /// Names it in every call; stays when the value is rotated.
    pub id: Uuid,
    /// What a device shows for its value, see [`fingerprint`](super::fingerprint).
    pub fingerprint: String,
    /// What it is for and who gets it.
    pub note: String,
    /// Nobody may redeem it now.
    pub disabled: bool,
    /// Until when the value before the last rotation is good, in Unix seconds; `None` if it is not.
    pub previous_value_until: Option<i64>,
    /// What to think about, when it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

impl KeyInfo {
    /// Shows a key to somebody who may see `value`; `api` is what tokens call the server.
    pub(super) fn new(key: Key, value: Option<Secret>, api: &str) -> Self {
        let Key { id, hash, previous, note, is_disabled, mut document } = key;
        let value = value.or_else(|| Some(document.value.clone()).filter(|value| !value.is_empty()));
        document.token = value.as_ref().map(|value| encode_token(api, value)).unwrap_or_default();
        document.value = value.unwrap_or_else(|| MASK.into());
        let fingerprint = hash.get(..10).unwrap_or_default().to_owned();
        let previous_value_until = previous.map(|previous| previous.until);
        Self { document, id, fingerprint, note, disabled: is_disabled, previous_value_until, hints: Vec::new() }
    }

    /// Adds what the one who made it should think about.
    pub(super) fn with_hints(mut self) -> Self {
        if self.key_type == KeyType::Unlimited {
            self.hints.push(NO_END.to_owned());
        }
        let networks = self.networks.as_ref().map_or(0, Vec::len);
        if networks > 1 {
            self.hints.push(format!("it grants {networks} networks: a device that needs one should get a key for one"));
        }
        self
    }
}

/// The document is what is asked for mostly.
impl Deref for KeyInfo {
    type Target = EnrollmentKey;

    fn deref(&self) -> &EnrollmentKey {
        &self.document
    }
}

/// As long as a value.
const MASK: &str = "********************************";

const NO_END: &str = "it never ends: whoever finds it can enroll devices; think of a number of uses or a date";
