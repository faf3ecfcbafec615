//! What a hook reads: the facts of an event, nothing secret.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::model::{Event, NetworkName, Part, PublicKey, Subject};

/// Renders `event` as one JSON object.
pub(super) fn document(at: u64, word: &'static str, event: &Event) -> String {
    let Event { detail, kind, subject } = event;
    let Subject { default_gateway, host_id, interface, keys: _, name, networks, public_key, server } = subject;
    let document = Document {
        version: VERSION,
        event: word,
        kind: kind.word(),
        detail: detail.as_deref(),
        at,
        server: server.to_string(),
        interface: interface.as_str(),
        host: Host { id: *host_id, name, public_key: *public_key },
        networks,
        default_gateway: default_gateway.map(|address| address.to_string()),
    };
    // Maps with texts for keys and plain values have no way to fail.
    serde_json::to_string(&document).unwrap_or_default()
}

/// Version of the document; new fields may come without a new number.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    event: &'static str,
    kind: &'static str,
    detail: Option<&'a str>,
    at: u64,
    server: String,
    interface: &'a str,
    host: Host<'a>,
    networks: &'a BTreeMap<NetworkName, Part>,
    default_gateway: Option<String>,
}

#[derive(Serialize)]
struct Host<'a> {
    id: Uuid,
    name: &'a str,
    public_key: PublicKey,
}
