//! An extension of ours: what a device is told that asks about a key without redeeming it.

use time::OffsetDateTime;

use super::world::World;
use crate::control::wire::{KeyAnnouncement, KeyType};

impl World {
    /// What the key of a token is good for; `None` if there is no such key.
    pub(super) fn announcement(&self, token: &str, now: OffsetDateTime) -> Option<KeyAnnouncement> {
        let key = self.key_of_token(token, now).ok()?;
        let document = &key.document;
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        let is = |key_type| document.key_type == key_type;
        let networks = key.networks().iter().filter_map(|name| self.networks.get(name));
        let ranges = networks.flat_map(|network| [network.address_range.clone(), network.address_range6.clone()]);
        Some(KeyAnnouncement {
            disabled: key.is_disabled,
            expires_at: is(KeyType::TimeExpiration).then(|| unsigned(document.expiration.unix_seconds())),
            networks: key.networks().to_vec(),
            ranges: ranges.filter(|range| !range.is_empty()).collect(),
            tags: document.groups.clone().unwrap_or_default(),
            uses_left: is(KeyType::Uses).then(|| unsigned(document.uses_remaining)),
        })
    }
}
