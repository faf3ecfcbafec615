//! systemd-resolved, which keeps name servers and domains for each link (org.freedesktop.resolve1(5)).
//!
//! What is set there ends with the link. The connection to the bus is made for each visit and not kept.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use zbus::{Connection, Message, ObjectPath, OwnedVariant, connection::Builder};

use super::{DnsError, Wanted};
use crate::model::{DomainName, DomainUse};

/// A conversation with it.
#[derive(Debug)]
pub(super) struct Resolved {
    connection: Connection,
}

/// What it has for a link.
#[derive(Debug, Default, PartialEq, Eq)]
struct Link {
    default_route: bool,
    domains: BTreeMap<String, DomainUse>,
    servers: Vec<Server>,
}

/// Address family, address, port, and the server's name.
type Server = (i32, Vec<u8>, u16, String);

impl Resolved {
    pub(super) async fn connect() -> Result<Self, DnsError> {
        Self::over(Builder::system()).await
    }

    async fn over(builder: Builder<'_>) -> Result<Self, DnsError> {
        let connection = builder.method_timeout(PATIENCE).build();
        // A bus that takes connections and says nothing is none.
        match tokio::time::timeout(PATIENCE, connection).await {
            Ok(Ok(connection)) => Ok(Self { connection }),
            Ok(Err(source)) => Err(DnsError::Resolved(Box::new(source))),
            Err(_) => Err(DnsError::Silent),
        }
    }

    /// Makes the link what is wanted; returns whether that took anything.
    pub(super) async fn apply(&self, index: i32, wanted: &Wanted<'_>) -> Result<bool, DnsError> {
        let want = Link::from(wanted);
        if self.link(index).await? == want {
            return Ok(false);
        }
        let Link { default_route, domains, servers } = want;
        let domains: Vec<_> = domains.iter().map(|(name, usage)| (name, *usage == DomainUse::Route)).collect();
        // The server comes last: without domains, a link with one is asked for everything.
        self.call("SetLinkDefaultRoute", &(index, default_route)).await?;
        self.call("SetLinkDomains", &(index, domains)).await?;
        // Private zones are not signed, and the way to a server on this machine needs no encryption.
        self.call("SetLinkDNSSEC", &(index, "no")).await?;
        self.call("SetLinkDNSOverTLS", &(index, "no")).await?;
        self.call("SetLinkDNSEx", &(index, servers)).await?;
        Ok(true)
    }

    /// Takes back what we made of the link; what others made of it stays. Returns whether there was anything.
    pub(super) async fn revert(&self, index: i32) -> Result<bool, DnsError> {
        let servers = match self.link(index).await {
            Ok(link) => link.servers,
            Err(DnsError::NoLink) => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_ours = servers.iter().any(|(_, _, _, name)| name == MARK);
        if is_ours {
            self.call("RevertLink", &index).await?;
        }
        Ok(is_ours)
    }

    async fn link(&self, index: i32) -> Result<Link, DnsError> {
        let mut tries = 0;
        let path = loop {
            match self.call("GetLink", &index).await {
                Ok(reply) => break reply,
                // A new interface takes a moment to get around.
                Err(DnsError::NoLink) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(MOMENT).await;
                }
                Err(error) => return Err(error),
            }
        };
        let path = path.body();
        let path: ObjectPath<'_> = path.deserialize().map_err(failed)?;
        let properties = self
            .connection
            .call_method(Some(BUS), path, Some("org.freedesktop.DBus.Properties"), "GetAll", &LINK)
            .await
            .map_err(failed)?;
        let mut properties: HashMap<String, OwnedVariant> = properties.body().deserialize().map_err(failed)?;
        let mut property = |name: &str| properties.remove(name).ok_or(DnsError::Old);
        let domains: Vec<(String, bool)> = property("Domains")?.try_into().map_err(failed)?;
        Ok(Link {
            default_route: property("DefaultRoute")?.try_into().map_err(failed)?,
            domains: domains
                .into_iter()
                .map(|(name, is_route)| (name, if is_route { DomainUse::Route } else { DomainUse::Search }))
                .collect(),
            servers: property("DNSEx")?.try_into().map_err(failed)?,
        })
    }

    async fn call<B>(&self, method: &str, body: &B) -> Result<Message, DnsError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        // Without the flag for it, nobody is asked for a password.
        self.connection.call_method(Some(BUS), PATH, Some(MANAGER), method, body).await.map_err(failed)
    }
}

impl From<&Wanted<'_>> for Link {
    fn from(wanted: &Wanted<'_>) -> Self {
        let Wanted { domains, everything, server } = *wanted;
        let domains = domains.iter().map(|(name, usage): (&DomainName, _)| (name.to_string(), *usage)).collect();
        Self { default_route: everything, domains, servers: vec![as_server(server)] }
    }
}

fn as_server(address: SocketAddr) -> Server {
    let (family, octets) = match address.ip() {
        IpAddr::V4(ip) => (nix::libc::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (nix::libc::AF_INET6, ip.octets().to_vec()),
    };
    (family, octets, address.port(), MARK.to_owned())
}

fn failed(error: impl Into<zbus::Error>) -> DnsError {
    let error = error.into();
    let name = match &error {
        zbus::Error::MethodError(name, ..) => name.as_str(),
        zbus::Error::FDO(known) => match **known {
            zbus::fdo::Error::AccessDenied(_)
            | zbus::fdo::Error::AuthFailed(_)
            | zbus::fdo::Error::InteractiveAuthorizationRequired(_) => return DnsError::Denied,
            zbus::fdo::Error::UnknownMethod(_) => return DnsError::Old,
            _ => return DnsError::Resolved(Box::new(error)),
        },
        _ => return DnsError::Resolved(Box::new(error)),
    };
    match name {
        "org.freedesktop.resolve1.NoSuchLink" => DnsError::NoLink,
        "org.freedesktop.resolve1.LinkBusy" => DnsError::Busy,
        _ => DnsError::Resolved(Box::new(error)),
    }
}

const BUS: &str = "org.freedesktop.resolve1";
const LINK: &str = "org.freedesktop.resolve1.Link";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";

/// The server's name where names are encrypted, which they are not: it tells our servers from others.
const MARK: &str = "enroll-agent";

/// Between tries.
const MOMENT: Duration = Duration::from_millis(50);

const PATH: &str = "/org/freedesktop/resolve1";

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a link that is not known yet is asked for again.
const TRIES: u32 = 10;
