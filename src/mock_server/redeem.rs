//! Redeeming an enrollment key: from the token to a counted use, and to what it grants.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    keys::{Key, KeyPlace, PreviousValue, no_key},
    parse::describe,
    refusal::Refusal,
    secrets::hash_value,
    world::{Counting, Grant, Redemption, World},
};
use crate::control::wire::{KeyType, Secret};

/// What a token says; `server` is of no interest to the server itself.
#[derive(Deserialize, Serialize)]
struct TokenText {
    #[serde(default)]
    server: String,
    #[serde(default)]
    value: Secret,
}

/// Writes what a device is given: where to go, and the key's value.
pub(super) fn encode_token(server: &str, value: &Secret) -> Secret {
    let text = TokenText { server: server.to_owned(), value: value.clone() };
    BASE64.encode(&serde_json::to_vec(&text).unwrap_or_default()).into()
}

impl World {
    /// Finds the key a token stands for.
    pub(super) fn key_of_token(&self, token: &str, now: OffsetDateTime) -> Result<&Key, Refusal> {
        let json = BASE64.decode(token.as_bytes()).map_err(|error| {
            // Go reads from the start, so a wrong character comes before a wrong length.
            let wrong = |c: u8| !c.is_ascii_alphanumeric() && !b"+/=".contains(&c);
            let at = token.bytes().position(wrong).unwrap_or(error.position);
            Refusal::bad_request(format!("illegal base64 data at input byte {at}"))
        })?;
        let text: TokenText = serde_json::from_slice(&json).map_err(|error| Refusal::bad_request(describe(&error)))?;
        let hash = hash_value(text.value.expose());
        let is_good = |old: &PreviousValue| old.hash == hash && now.unix_timestamp() < old.until;
        let place = KeyPlace::Hash(hash.clone());
        let mut found = self.keys.find(&place).map(|(_, key)| key);
        let found = found.find(|key| key.hash == hash || key.previous.as_ref().is_some_and(is_good));
        found.ok_or_else(no_key)
    }

    /// Spends a use of a key for a host; a host that has spent one already spends nothing.
    pub(super) fn redeem(&mut self, id: Uuid, host: Uuid, now: OffsetDateTime) -> Result<Grant, Refusal> {
        let Counting { spends_again, unlimited_goes_on } = self.manners.counting;
        let known = self.redemptions.contains(&(id, host)) && !spends_again;
        let key = self.keys.get_mut(&id).ok_or_else(no_key)?;
        if key.is_disabled {
            return Err(Refusal::bad_request("enrollment key is disabled"));
        }
        let document = &mut key.document;
        let usable = match document.key_type {
            KeyType::Undefined => false,
            KeyType::TimeExpiration => now.unix_timestamp() < document.expiration.unix_seconds(),
            KeyType::Uses => document.uses_remaining > 0,
            KeyType::Unlimited => true,
        };
        let usable = usable || unlimited_goes_on && document.unlimited;
        if !known && !usable {
            return Err(Refusal::bad_request("invalid enrollment key"));
        }
        if !known && document.key_type == KeyType::Uses && document.uses_remaining > 0 {
            document.uses_remaining -= 1;
        }
        let grant = Grant {
            networks: document.networks.clone().unwrap_or_default(),
            groups: document.groups.clone().unwrap_or_default(),
            relay: document.relay,
            auto_assign_gateway: document.auto_assign_gateway,
        };
        let key = key.clone();
        if !known {
            self.redemptions.insert((id, host), Redemption { at: now.unix_timestamp() });
        }
        let reason = if known { "the host had redeemed it before, nothing is spent" } else { "" };
        self.audit_redemption(&key, host, reason);
        Ok(grant)
    }

    /// Puts the uses of a key back to what somebody has seen, as if nobody had spent any since.
    pub(super) fn forget_uses(&mut self, token: &str, seen: Option<i64>, now: OffsetDateTime) {
        let id = self.key_of_token(token, now).map(|key| key.id);
        if let (Some(seen), Ok(id)) = (seen, id)
            && let Some(key) = self.keys.get_mut(&id)
        {
            key.document.uses_remaining = seen;
        }
    }
}
