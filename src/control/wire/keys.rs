//! Enrollment keys, as an administrator asks for them and as the server lists them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use super::{GoTime, Secret, document};

/// What ends a key, decided by the server alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyType {
    /// Not said; the only value a request needs.
    #[default]
    Undefined,
    /// A date.
    TimeExpiration,
    /// A number of uses.
    Uses,
    /// Nothing.
    Unlimited,
}

impl Serialize for KeyType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Undefined => 0,
            Self::TimeExpiration => 1,
            Self::Uses => 2,
            Self::Unlimited => 3,
        })
    }
}

impl<'de> Deserialize<'de> for KeyType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            0 => Ok(Self::Undefined),
            1 => Ok(Self::TimeExpiration),
            2 => Ok(Self::Uses),
            3 => Ok(Self::Unlimited),
            other => Err(de::Error::custom(format_args!("unknown key type {other}"))),
        }
    }
}

document! {
    /// A key as the server lists it.
    pub struct EnrollmentKey {
        /// End of a time-bound key; unset for the other types.
        expiration: GoTime = "expiration",
        /// Uses left of a use-bound key; 0 for the other types.
        uses_remaining: i64 = "uses_remaining",
        /// The key itself: 32 characters of the base32 alphabet.
        value: Secret = "value",
        /// Names of the networks it grants; they need not exist.
        networks: Option<Vec<String>> = "networks",
        /// Stored as sent; says nothing where the type is another.
        unlimited: bool = "unlimited",
        /// The key's name for people, not device tags.
        names: Option<Vec<String>> = "tags",
        /// What a device is given; only in answers, left out when empty.
        #[serde(skip_serializing_if = "Secret::is_empty")]
        token: Secret = "token",
        /// What ends the key.
        key_type: KeyType = "type",
        /// Node id of the relay its nodes are put behind; nil for none.
        relay: Uuid = "relay",
        /// Device tags its nodes get, `<network>.<name>`.
        groups: Option<Vec<String>> = "groups",
        /// The key that came with a network.
        is_default: bool = "default",
        /// Stored, never read.
        auto_egress: bool = "auto_egress",
        /// Its nodes choose the nearest gateway; Pro.
        auto_assign_gateway: bool = "auto_assign_gw",
    }
}

document! {
    /// The request to make a key, or to change its relay, groups and gateway choice.
    pub struct ApiEnrollmentKey {
        /// End of the key in Unix seconds; 0 for none.
        expiration: i64 = "expiration",
        /// Uses; 0 for no limit of this kind.
        uses_remaining: i64 = "uses_remaining",
        /// Names of the networks.
        networks: Option<Vec<String>> = "networks",
        /// Neither date nor number of uses.
        unlimited: bool = "unlimited",
        /// The key's name for people, 3 to 32 characters; must be given and unique.
        names: Option<Vec<String>> = "tags",
        /// Ignored by the server.
        key_type: i64 = "type",
        /// Node id of a relay; empty for none.
        relay: String = "relay",
        /// Device tags.
        groups: Option<Vec<String>> = "groups",
        /// Stored, never read.
        auto_egress: bool = "auto_egress",
        /// Nodes choose the nearest gateway; Pro.
        auto_assign_gateway: bool = "auto_assign_gw",
    }
}
