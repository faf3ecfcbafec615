//! A preshared key on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::WgKey;

/// A preshared key; the wire form is that of [`WgKey`], and it is never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct PresharedWgKey(WgKey);

impl PresharedWgKey {
    /// The 32 bytes; the caller keeps them secret.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0.0
    }
}

impl From<[u8; 32]> for PresharedWgKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(WgKey(bytes))
    }
}

impl fmt::Debug for PresharedWgKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedWgKey(…)")
    }
}

impl Drop for PresharedWgKey {
    fn drop(&mut self) {
        self.0.0.zeroize();
    }
}
