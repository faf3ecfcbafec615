//! Which of several keys a server took.

use serde::{Deserialize, Serialize};

/// The key that was taken, and those that were tried before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Fingerprint of the key; `None` if none was shown.
    pub key: Option<String>,
    /// Keys that the server refused for good, in the order in which they were tried.
    pub passed_over: Vec<PassedOver>,
}

/// A key that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Its fingerprint.
    pub key: String,
    /// Why, for people.
    pub reason: String,
}

impl PassedOver {
    /// Renders several in one line.
    pub fn list(several: &[Self]) -> String {
        let texts: Vec<_> = several.iter().map(|Self { key, reason }| format!("{key}: {reason}")).collect();
        texts.join("; ")
    }
}
