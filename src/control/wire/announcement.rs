//! An extension of ours: what a server tells of a key before it is redeemed.

use serde::{Deserialize, Serialize};

/// What a key grants and when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct KeyAnnouncement {
    /// Whether an administrator has disabled it.
    pub disabled: bool,
    /// When it ends, in seconds since 1970; `None` if it has no date.
    pub expires_at: Option<u64>,
    /// The networks it grants.
    pub networks: Vec<String>,
    /// The ranges of those networks.
    pub ranges: Vec<String>,
    /// The tags that hosts get with it.
    pub tags: Vec<String>,
    /// How often it may still be used; `None` if that is not counted.
    pub uses_left: Option<u64>,
}
