//! One receipt as a line, and what links it to the one before.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    str::FromStr,
};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::ReceiptError;
use crate::model::{Event, EventKind, InterfaceName, NetworkName, Part, PublicKey, Server, Subject};

/// One line, without its own hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Counted from 1.
    pub sequence: u64,
    /// When, by this machine's clock, RFC 3339.
    pub time: String,
    /// What, in one word.
    pub event: String,
    /// Why, in words; `None` where the event says it all.
    pub detail: Option<String>,
    /// The server.
    pub server: Server,
    /// This host's id there.
    pub host_id: Uuid,
    /// This host's name there; empty before it was told.
    pub name: String,
    /// The interface.
    pub interface: InterfaceName,
    /// Fingerprints of the redeemed keys.
    pub keys: BTreeSet<String>,
    /// This host's WireGuard key.
    pub public_key: PublicKey,
    /// The networks with addresses, tags and gateways.
    pub networks: BTreeMap<NetworkName, Part>,
    /// The gateway for all of this machine's traffic; `None` for none.
    pub default_gateway: Option<IpAddr>,
    /// The hash of the line before, in hexadecimal digits; zeros in the first line.
    pub previous: String,
}

/// Where a line belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Links {
    hash: String,
    sequence: u64,
}

impl Links {
    /// What follows `line`; `None` stands for the beginning.
    ///
    /// After a line that is none, the chain begins anew: nobody can take that for the whole.
    pub(super) fn after(line: Option<&str>) -> Self {
        let of = |line: &str| {
            let (_, hash) = split(line)?;
            let receipt: Receipt = line.parse().ok()?;
            Some(Self { hash: hash.to_owned(), sequence: receipt.sequence.checked_add(1)? })
        };
        line.and_then(of).unwrap_or_else(|| Self { hash: "0".repeat(64), sequence: 1 })
    }
}

impl Receipt {
    pub(super) fn new(at: u64, event: &Event, links: Links) -> Self {
        let Event { detail, kind, subject } = event.clone();
        let Subject { default_gateway, host_id, interface, keys, name, networks, public_key, server } = subject;
        let Links { hash: previous, sequence } = links;
        let time = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        Self {
            sequence,
            time: time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default(),
            event: kind.word().to_owned(),
            detail,
            server,
            host_id,
            name,
            interface,
            keys,
            public_key,
            networks,
            default_gateway,
            previous,
        }
    }

    /// Whether it tells nothing that `other` does not.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        if self.event == EventKind::Refused.word() && other.event == self.event {
            // Each attempt has an identity of its own.
            return (&self.server, &self.detail) == (&other.server, &other.detail);
        }
        let Self { sequence, time, previous, .. } = self.clone();
        self == &Self { sequence, time, previous, ..other.clone() }
    }
}

impl FromStr for Receipt {
    type Err = serde_json::Error;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(line)
    }
}

/// Renders a receipt as a line, with its hash at the end.
pub(super) fn seal(receipt: &Receipt) -> serde_json::Result<String> {
    let bare = serde_json::to_string(receipt)?;
    let open = bare.strip_suffix('}').unwrap_or(&bare);
    Ok(format!("{open}{MARK}{}\"}}", hash(&bare)))
}

/// Tells whether a line is as it was written.
pub(super) fn is_whole(line: &str) -> bool {
    let Some((bare, told)) = split(line) else { return false };
    hash(&bare) == told && line.parse::<Receipt>().is_ok()
}

/// Looks for the first line that is not what it should be; `place` is where the first line belongs, if that is known,
/// and then where the next one does.
pub(super) fn first_broken(file: &'static str, lines: &[String], place: &mut Option<Links>) -> Option<ReceiptError> {
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        if !is_whole(line) {
            return Some(ReceiptError::Changed { file, line: number });
        }
        let Ok(Receipt { previous, sequence, .. }) = line.parse() else { continue };
        // Of files that were given up long ago nothing is known.
        let begins = Links::after(None);
        let here = Links { hash: previous, sequence };
        let follows = match place {
            Some(place) => *place == here,
            None => here.sequence > begins.sequence || here == begins,
        };
        if !follows {
            return Some(ReceiptError::Unlinked { file, line: number });
        }
        *place = Some(Links::after(Some(line)));
    }
    None
}

/// Takes a line apart: what is hashed, and the hash that it ends with.
fn split(line: &str) -> Option<(String, &str)> {
    let (open, rest) = line.rsplit_once(MARK)?;
    let hash = rest.strip_suffix("\"}")?;
    (hash.len() == 64).then(|| (format!("{open}}}"), hash))
}

fn hash(text: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

const MARK: &str = ",\"hash\":\"";
