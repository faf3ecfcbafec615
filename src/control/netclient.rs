//! The enrollment that Netmaker's own client keeps in `/etc/netclient`: the same protocol, another agent's files.
//!
//! `netclient.json` is the host with its private keys (gravitl/netclient `config/config.go`, `Config`), `servers.json` a
//! map of servers by name (`config/server.go`, `Server`), both as Go writes them: a WireGuard key is an array of numbers,
//! bytes are base64, a traffic key in bytes is gob. Field names count whatever their case, as in Go. Nothing of a value
//! gets into an error.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::seal::gob;
use crate::model::{Identity, Mac, PrivateKey, PublicKey, Secret, Server, TrafficKey};

/// Why files of netclient cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetclientError {
    /// A field is there and is not what it should be.
    #[error("{field} in netclient's {file} is not {expected}")]
    Invalid {
        /// What it should be.
        expected: &'static str,
        /// Which field.
        field: &'static str,
        /// Which file.
        file: &'static str,
    },
    /// A field that it takes is not there, or empty.
    #[error("netclient's {file} has no {field}")]
    Missing {
        /// Which field.
        field: &'static str,
        /// Which file.
        file: &'static str,
    },
    /// The file is no JSON object.
    #[error("netclient's {0} is not a JSON object")]
    NotJson(&'static str),
    /// The host is with no server.
    #[error("netclient is enrolled with no server")]
    NoServer,
}

/// What another agent knows of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// Who the host is.
    pub identity: Identity,
    /// The interface that the other agent has.
    pub interface: String,
    /// Whether the server derives the same key for pushes as we do; else changes are pulled.
    pub is_push_readable: bool,
    /// The servers' addresses by the names that the servers give themselves.
    pub servers: BTreeMap<String, Server>,
}

/// Reads `netclient.json` and `servers.json`.
///
/// # Errors
/// [`NetclientError`] for the first thing that is missing or wrong.
pub fn takeover(host: &str, servers: &str) -> Result<Takeover, NetclientError> {
    let host = File::read(HOST, host)?;
    let invalid = |field, expected| NetclientError::Invalid { expected, field, file: HOST };
    let host_id = host.text("id")?.parse().ok().filter(|id: &Uuid| !id.is_nil());
    let host_id = host_id.ok_or_else(|| invalid("id", "a UUID"))?;
    let mac = <[u8; 6]>::try_from(&host.bytes("macaddress")?[..]);
    let private_key = host.key("privatekey")?;
    if PublicKey(*host.numbers("publickey")?) != private_key.public_key() {
        return Err(invalid("publickey", "the public half of privatekey"));
    }
    let traffic = gob::decode(&host.bytes("traffickeyprivate")?).map(Zeroizing::new);
    let traffic = traffic.map_err(|_| invalid("traffickeyprivate", "a key in gob"))?;
    let traffic = TrafficKey { name: None, private_key: PrivateKey::from_bytes(*traffic) };
    let public = host.bytes("traffickeypublic")?;
    let traffic_public = traffic.private_key.public_key().0;
    if gob::decode(&public) != Ok(traffic_public) {
        return Err(invalid("traffickeypublic", "the public half of traffickeyprivate"));
    }
    let identity = Identity {
        former_key: None,
        host_id,
        mac: Mac(mac.map_err(|_| invalid("macaddress", "a hardware address of 6 bytes"))?),
        next_key: None,
        password: Secret::from(host.text("hostpass")?),
        private_key,
        traffic,
    };
    let interface = host.text("interface").map_or_else(|_| "netmaker".to_owned(), str::to_owned);
    let is_push_readable = *public == gob::encode(&traffic_public, None);
    Ok(Takeover { identity, interface, is_push_readable, servers: self::servers(servers, host_id)? })
}

fn servers(text: &str, host_id: Uuid) -> Result<BTreeMap<String, Server>, NetclientError> {
    let listed = File::read(SERVERS, text)?;
    let mut servers = BTreeMap::new();
    for (name, server) in listed.fields {
        let Value::Object(fields) = server else { return Err(NetclientError::NotJson(SERVERS)) };
        let server = File { fields, name: SERVERS };
        let invalid = |field, expected| NetclientError::Invalid { expected, field, file: SERVERS };
        // What the other agent calls misconfigured is not taken over either.
        match server.text("mqid") {
            Ok(id) if id.parse() != Ok(host_id) => return Err(invalid("mqid", "the id in netclient.json")),
            Ok(_) | Err(_) => {}
        }
        let api = server.text("API")?.parse().map_err(|_| invalid("API", "a server's address"))?;
        servers.insert(name, api);
    }
    if servers.is_empty() { Err(NetclientError::NoServer) } else { Ok(servers) }
}

/// One of the files, or an object in it.
struct File {
    fields: Map<String, Value>,
    name: &'static str,
}

impl File {
    fn read(name: &'static str, text: &str) -> Result<Self, NetclientError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self { fields, name }),
            Ok(_) | Err(_) => Err(NetclientError::NotJson(name)),
        }
    }

    fn field(&self, field: &'static str) -> Result<&Value, NetclientError> {
        let exact = self.fields.get(field);
        let found = exact
            .or_else(|| self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(field)).map(|(_, value)| value));
        let missing = NetclientError::Missing { field, file: self.name };
        found.filter(|value| !value.is_null()).ok_or(missing)
    }

    fn invalid(&self, field: &'static str, expected: &'static str) -> NetclientError {
        NetclientError::Invalid { expected, field, file: self.name }
    }

    fn text(&self, field: &'static str) -> Result<&str, NetclientError> {
        let text = self.field(field)?.as_str().ok_or_else(|| self.invalid(field, "a text"))?;
        if text.is_empty() { Err(NetclientError::Missing { field, file: self.name }) } else { Ok(text) }
    }

    fn bytes(&self, field: &'static str) -> Result<Zeroizing<Vec<u8>>, NetclientError> {
        let decoded = BASE64.decode(self.text(field)?.as_bytes());
        decoded.map(Zeroizing::new).map_err(|_| self.invalid(field, "base64"))
    }

    fn numbers(&self, field: &'static str) -> Result<Zeroizing<[u8; 32]>, NetclientError> {
        let invalid = || self.invalid(field, "an array of 32 bytes");
        let numbers = self.field(field)?.as_array().ok_or_else(invalid)?;
        let bytes: Option<Vec<u8>> = numbers.iter().map(|number| u8::try_from(number.as_u64()?).ok()).collect();
        let bytes = Zeroizing::new(bytes.ok_or_else(invalid)?);
        <[u8; 32]>::try_from(&bytes[..]).map(Zeroizing::new).map_err(|_| invalid())
    }

    fn key(&self, field: &'static str) -> Result<PrivateKey, NetclientError> {
        let bytes = self.numbers(field)?;
        // Go writes a key that was never made as zeros.
        if *bytes == [0; 32] {
            return Err(NetclientError::Missing { field, file: self.name });
        }
        Ok(PrivateKey::from_bytes(*bytes))
    }
}

const HOST: &str = "netclient.json";
const SERVERS: &str = "servers.json";

#[cfg(test)]
mod tests;
