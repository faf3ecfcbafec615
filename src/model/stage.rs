//! The stages of a join.

use serde::{Deserialize, Serialize};

/// A step of joining, for progress and timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The host proves who it is.
    Authenticate,
    /// This machine's clock is before the server's certificate: nothing is sent until it is not.
    Clock,
    /// The interface is configured.
    Interface,
    /// The server's assignment is awaited.
    Networks,
    /// Backend, interface and identity are made ready; nothing has been sent.
    Prepare,
    /// The key goes to the server.
    Redeem,
    /// The membership is saved.
    Save,
}
