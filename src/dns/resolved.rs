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
    if let zbus::Error::FDO(known) = &error {
        use zbus::fdo::Error as Known;
        if let Known::AccessDenied(_) | Known::AuthFailed(_) | Known::InteractiveAuthorizationRequired(_) = **known {
            return DnsError::Denied;
        }
        if let Known::UnknownMethod(_) = **known {
            return DnsError::Old;
        }
    }
    let name = if let zbus::Error::MethodError(name, ..) = &error { name.as_str() } else { "" };
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

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixStream,
        sync::{Arc, Mutex},
    };

    use zbus::{DBusError, fdo, interface};

    use super::*;

    #[tokio::test]
    async fn sets_a_link_once_and_repairs_it() {
        let (resolved, machine) = fake().await;
        let domains = domains(&[("corp.example", DomainUse::Search), ("plant-a.nm.internal", DomainUse::Route)]);
        let wanted = Wanted { domains: &domains, everything: false, server: SERVER };

        assert!(resolved.apply(LINK_INDEX, &wanted).await.unwrap());
        let set = machine.lock().unwrap().clone();
        assert!(!resolved.apply(LINK_INDEX, &wanted).await.unwrap(), "it is as it should be");
        machine.lock().unwrap().domains.clear();
        assert!(resolved.apply(LINK_INDEX, &wanted).await.unwrap(), "somebody else did something to it");

        assert_eq!(set.servers, [(2, vec![127, 0, 0, 1], 4053, "enroll-agent".to_owned())]);
        assert_eq!(set.domains, [("corp.example".to_owned(), false), ("plant-a.nm.internal".to_owned(), true)]);
        assert_eq!((set.default_route, set.dnssec.as_str(), set.tls.as_str()), (false, "no", "no"));
        assert_eq!(set.calls.last().map(String::as_str), Some("servers"), "a server without domains is for everything");
        assert_eq!(machine.lock().unwrap().domains, set.domains);
    }

    #[tokio::test]
    async fn everything_is_asked_at_the_link_only_if_wanted() {
        let (resolved, machine) = fake().await;
        let domains = domains(&[]);

        resolved.apply(LINK_INDEX, &Wanted { domains: &domains, everything: true, server: SERVER }).await.unwrap();

        assert!(machine.lock().unwrap().default_route);
    }

    #[tokio::test]
    async fn takes_back_what_is_ours_and_nothing_else() {
        let (resolved, machine) = fake().await;
        let domains = domains(&[("plant-a.nm.internal", DomainUse::Route)]);
        resolved.apply(LINK_INDEX, &Wanted { domains: &domains, everything: false, server: SERVER }).await.unwrap();

        assert!(resolved.revert(LINK_INDEX).await.unwrap());
        assert!(machine.lock().unwrap().servers.is_empty());
        machine.lock().unwrap().servers = vec![(2, vec![10, 0, 0, 1], 53, String::new())];
        assert!(!resolved.revert(LINK_INDEX).await.unwrap());
        assert!(!resolved.revert(LINK_INDEX + 1).await.unwrap(), "a link that is gone took everything with it");

        assert_eq!(machine.lock().unwrap().servers.len(), 1);
    }

    #[tokio::test]
    async fn says_what_is_missing() {
        let (resolved, machine) = fake().await;
        let domains = domains(&[]);
        let wanted = Wanted { domains: &domains, everything: true, server: SERVER };

        machine.lock().unwrap().denies = true;

        assert!(matches!(resolved.apply(LINK_INDEX, &wanted).await, Err(DnsError::Denied)));
        assert!(matches!(resolved.apply(LINK_INDEX + 1, &wanted).await, Err(DnsError::NoLink)));
    }

    #[derive(Clone, Debug, Default)]
    struct State {
        calls: Vec<String>,
        default_route: bool,
        denies: bool,
        dnssec: String,
        domains: Vec<(String, bool)>,
        servers: Vec<Server>,
        tls: String,
    }

    #[derive(Debug, DBusError)]
    #[zbus(prefix = "org.freedesktop.resolve1")]
    enum Refusal {
        #[zbus(error)]
        Other(zbus::Error),
        NoSuchLink(String),
    }

    type Shared = Arc<Mutex<State>>;

    struct FakeManager {
        index: i32,
        state: Shared,
    }

    impl FakeManager {
        fn set(&self, index: i32, call: &str, change: impl FnOnce(&mut State)) -> fdo::Result<()> {
            let mut state = self.state.lock().unwrap();
            if state.denies || index != self.index {
                return Err(fdo::Error::InteractiveAuthorizationRequired("no".to_owned()));
            }
            state.calls.push(call.to_owned());
            change(&mut state);
            Ok(())
        }
    }

    #[interface(name = "org.freedesktop.resolve1.Manager")]
    impl FakeManager {
        #[zbus(name = "GetLink")]
        fn link(&self, index: i32) -> Result<ObjectPath<'static>, Refusal> {
            let known = (index == self.index).then(|| ObjectPath::try_from(LINK_PATH).unwrap());
            known.ok_or_else(|| Refusal::NoSuchLink("no".to_owned()))
        }

        #[zbus(name = "SetLinkDNSEx")]
        fn set_servers(&self, index: i32, servers: Vec<Server>) -> fdo::Result<()> {
            self.set(index, "servers", |state| state.servers = servers)
        }

        #[zbus(name = "SetLinkDNSSEC")]
        fn set_dnssec(&self, index: i32, mode: String) -> fdo::Result<()> {
            self.set(index, "dnssec", |state| state.dnssec = mode)
        }

        #[zbus(name = "SetLinkDNSOverTLS")]
        fn set_tls(&self, index: i32, mode: String) -> fdo::Result<()> {
            self.set(index, "tls", |state| state.tls = mode)
        }

        #[zbus(name = "SetLinkDefaultRoute")]
        fn set_default_route(&self, index: i32, wanted: bool) -> fdo::Result<()> {
            self.set(index, "default route", |state| state.default_route = wanted)
        }

        #[zbus(name = "SetLinkDomains")]
        fn set_domains(&self, index: i32, domains: Vec<(String, bool)>) -> fdo::Result<()> {
            self.set(index, "domains", |state| state.domains = domains)
        }

        fn revert_link(&self, index: i32) -> fdo::Result<()> {
            self.set(index, "revert", |state| *state = State::default())
        }
    }

    struct FakeLink(Shared);

    #[interface(name = "org.freedesktop.resolve1.Link")]
    impl FakeLink {
        #[zbus(property, name = "DNSEx")]
        fn servers(&self) -> Vec<Server> {
            self.0.lock().unwrap().servers.clone()
        }

        #[zbus(property)]
        fn default_route(&self) -> bool {
            self.0.lock().unwrap().default_route
        }

        #[zbus(property)]
        fn domains(&self) -> Vec<(String, bool)> {
            self.0.lock().unwrap().domains.clone()
        }
    }

    /// A resolver that talks without a bus between.
    async fn fake() -> (Resolved, Shared) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let state = Shared::default();
        let server = Builder::unix_stream(theirs)
            .server(zbus::Guid::generate())
            .p2p()
            .serve_at(PATH, FakeManager { index: LINK_INDEX, state: state.clone() })
            .serve_at(LINK_PATH, FakeLink(state.clone()));
        let (server, resolved) = tokio::join!(server.build(), Resolved::over(Builder::unix_stream(ours).p2p()));
        // It serves as long as it is there.
        tokio::spawn(async move {
            let _server = server.unwrap();
            std::future::pending::<()>().await;
        });
        (resolved.unwrap(), state)
    }

    fn domains(listed: &[(&str, DomainUse)]) -> BTreeMap<DomainName, DomainUse> {
        listed.iter().map(|(name, usage)| (name.parse().unwrap(), *usage)).collect()
    }

    const LINK_INDEX: i32 = 7;
    const LINK_PATH: &str = "/org/freedesktop/resolve1/link/_37";
    const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4053);
}
