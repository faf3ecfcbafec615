//! Where the server is: looked up as usual, and remembered for when nobody can be asked.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The addresses of one server; copies share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver(Arc<Mutex<BTreeSet<IpAddr>>>);

impl Resolver {
    /// Begins with what is known of `host` from before.
    pub(super) fn new(host: &str, known: &BTreeSet<IpAddr>) -> Self {
        let literal = host.trim_matches(['[', ']']).parse().ok();
        Self(Arc::new(Mutex::new(literal.map_or_else(|| known.clone(), |ip| BTreeSet::from([ip])))))
    }

    /// The addresses that the last lookup gave, or that were known before; empty before the first.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn look_up(self, name: Name) -> std::io::Result<Addrs> {
        let known = self.addresses();
        let lookup = tokio::net::lookup_host((name.as_str(), 0));
        let patience = if known.is_empty() { Duration::MAX } else { PATIENCE };
        let found: std::io::Result<Vec<SocketAddr>> = match tokio::time::timeout(patience, lookup).await {
            Ok(found) => found.map(Iterator::collect),
            Err(_) => Ok(Vec::new()),
        };
        match found {
            Ok(found) if !found.is_empty() => {
                let ips = found.iter().map(SocketAddr::ip).collect();
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ips;
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
    async fn a_lookup_goes_before_what_was_known() {
        let resolver = Resolver::new("localhost", &BTreeSet::from(["192.0.2.7".parse().unwrap()]));

        let found: Vec<_> = resolver.resolve("localhost".parse().unwrap()).await.unwrap().collect();

        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()));
        assert!(resolver.addresses().iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn an_address_needs_no_lookup() {
        let other = BTreeSet::from(["192.0.2.9".parse().unwrap()]);

        assert_eq!(Resolver::new("192.0.2.7", &other).addresses(), ["192.0.2.7".parse().unwrap()].into());
        assert_eq!(Resolver::new("[2001:db8::7]", &other).addresses(), ["2001:db8::7".parse().unwrap()].into());
    }
}
