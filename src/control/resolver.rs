//! Where the server is: looked up as usual, and remembered for when nobody can be asked.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The addresses of one server; copies share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver(Arc<Mutex<Addresses>>);

/// Where a server is.
#[derive(Clone, Debug, Default)]
struct Addresses {
    /// Where it answered with its certificate.
    confirmed: BTreeSet<IpAddr>,
    /// Where its name leads to, as anybody may say.
    found: BTreeSet<IpAddr>,
}

impl Resolver {
    /// Begins with where `host` was met before.
    pub(super) fn new(host: &str, confirmed: &BTreeSet<IpAddr>) -> Self {
        let literal = host.trim_matches(['[', ']']).parse().ok();
        let confirmed = literal.map_or_else(|| confirmed.clone(), |ip| BTreeSet::from([ip]));
        Self(Arc::new(Mutex::new(Addresses { confirmed, found: BTreeSet::new() })))
    }

    /// Where the server was met; empty before the first time.
    pub(super) fn confirmed(&self) -> BTreeSet<IpAddr> {
        self.lock().confirmed.clone()
    }

    /// Where the server is looked for.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        let Addresses { confirmed, found } = &*self.lock();
        confirmed.union(found).copied().collect()
    }

    /// Notes that the server answered from there, with its certificate.
    pub(super) fn confirm(&self, ip: IpAddr) {
        let Addresses { confirmed, found } = &mut *self.lock();
        if !confirmed.contains(&ip) {
            *confirmed = if found.contains(&ip) { found.clone() } else { BTreeSet::from([ip]) };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(self, name: Name) -> std::io::Result<Addrs> {
        let known = self.confirmed();
        let lookup = tokio::net::lookup_host((name.as_str(), 0));
        let patience = if known.is_empty() { Duration::MAX } else { PATIENCE };
        let found: std::io::Result<Vec<SocketAddr>> = match tokio::time::timeout(patience, lookup).await {
            Ok(found) => found.map(Iterator::collect),
            Err(_) => Ok(Vec::new()),
        };
        match found {
            Ok(found) if !found.is_empty() => {
                self.lock().found = found.iter().map(SocketAddr::ip).collect();
                Ok(Box::new(found.into_iter()))
            }
            Err(error) if known.is_empty() => Err(error),
            Ok(_) | Err(_) => Ok(Box::new(known.into_iter().map(|ip| SocketAddr::new(ip, 0)))),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move { Ok(resolver.look_up(name).await?) })
    }
}

/// How long a lookup may take before what is known is tried.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_known_serves_when_nobody_answers() {
        let known = BTreeSet::from(["192.0.2.7".parse().unwrap()]);
        let resolver = Resolver::new("enroll.invalid", &known);

        let found: Vec<_> = resolver.resolve("enroll.invalid".parse().unwrap()).await.unwrap().collect();

        assert_eq!(found, ["192.0.2.7:0".parse().unwrap()]);
        assert_eq!(resolver.addresses(), known);
    }

    #[tokio::test]
    async fn a_lookup_goes_before_what_was_known_and_is_believed_once_the_server_answered_there() {
        let known = BTreeSet::from(["192.0.2.7".parse().unwrap()]);
        let resolver = Resolver::new("localhost", &known);

        let found: Vec<_> = resolver.resolve("localhost".parse().unwrap()).await.unwrap().collect();

        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()));
        assert_eq!(resolver.confirmed(), known);
        assert!(resolver.addresses().is_superset(&known) && resolver.addresses().len() > 1);

        resolver.confirm(found[0].ip());

        assert!(resolver.confirmed().iter().all(IpAddr::is_loopback));
        assert_eq!(resolver.addresses(), resolver.confirmed());
    }

    #[test]
    fn an_address_needs_no_lookup() {
        let other = BTreeSet::from(["192.0.2.9".parse().unwrap()]);

        assert_eq!(Resolver::new("192.0.2.7", &other).addresses(), ["192.0.2.7".parse().unwrap()].into());
        assert_eq!(Resolver::new("[2001:db8::7]", &other).addresses(), ["2001:db8::7".parse().unwrap()].into());
    }
}
