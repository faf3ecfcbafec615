//! Our hand on this machine's resolver: names of the networks, and of domains that the server names, are asked there.
//!
//! ```text
//!  program ──► systemd-resolved ──our domains──► responder ──our hosts──► answers
//!              (or openresolv)                      │  └──── domains with servers ──► those servers
//!                    └──all other names──► as before└──── anything else ──► refused
//! ```
//!
//! The responder is the only server on the link, because every server on a link is for all of its domains. It answers
//! this machine alone, and ends with this process.

mod manager;
mod message;
mod openresolv;
mod relay;
mod resolved;
mod responder;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use tokio::sync::Mutex;

pub use self::manager::Machine;
use self::{manager::Manager, resolved::Resolved, responder::Responder};
use crate::{
    model::{DnsManager, DomainName, DomainUse, InterfaceName},
    plan::LinkNames,
};

/// Why names are not resolved; everything else works without.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// Somebody else has the link.
    #[error("systemd-networkd manages this interface and its name servers")]
    Busy,
    /// The process may not.
    #[error(
        "systemd-resolved does not let this process set name servers: install polkitd and the polkit rule of this \
         package, or run the service as root"
    )]
    Denied,
    /// A resolver that has only one list for all names.
    #[error("this machine's resolvconf cannot ask different servers for different domains; systemd-resolved can")]
    NoDomains,
    /// The interface is gone.
    #[error("systemd-resolved does not know the interface")]
    NoLink,
    /// Nothing there to talk to.
    #[error("names are not resolved here: neither systemd-resolved nor openresolv serves this machine")]
    NoManager,
    /// A version without ports.
    #[error("this systemd-resolved is too old: it takes systemd 246")]
    Old,
    /// No port for the responder.
    #[error("cannot answer questions about names")]
    Port(#[source] io::Error),
    /// Port 53 is for root.
    #[error("openresolv needs a name server at port 53, which this process may not have: run the service as root")]
    PortDenied,
    /// Something else went wrong there.
    #[error("systemd-resolved cannot be used")]
    Resolved(#[source] Box<zbus::Error>),
    /// A program failed.
    #[error("cannot run {path}")]
    Run {
        /// The program.
        path: PathBuf,
        /// How.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("this machine's resolver does not answer")]
    Silent,
}

/// What a manager should have for a link.
#[derive(Clone, Copy, Debug)]
struct Wanted<'a> {
    domains: &'a BTreeMap<DomainName, DomainUse>,
    /// Whether names are asked here that no domain is for.
    everything: bool,
    server: SocketAddr,
}

/// What is resolved for one membership.
#[derive(Debug, Default)]
pub struct Dns {
    machine: Machine,
    responder: Option<(DnsManager, Responder)>,
    /// Whether an interface of before may have been left with servers that are gone.
    is_clean: bool,
}

impl Dns {
    /// For a machine that is as `machine` says.
    pub fn new(machine: Machine) -> Self {
        Self { machine, responder: None, is_clean: false }
    }

    /// Has this machine resolve `names` through `interface`, and nothing else; returns who does.
    ///
    /// What is as it should be is left alone, and what is not, is put in order again.
    pub async fn apply(
        &mut self,
        interface: &InterfaceName,
        names: &LinkNames,
    ) -> Result<Option<DnsManager>, DnsError> {
        if names.is_empty() {
            if self.responder.is_some() || !self.is_clean {
                self.release(interface).await?;
            }
            return Ok(None);
        }
        let manager = self.manager().await?;
        let server = self.respond(manager.kind(), names.address).await?;
        server.know(&names.answers);
        let wanted =
            Wanted { domains: &names.domains, everything: !names.answers.rest.is_empty(), server: server.address() };
        let changed = match &manager {
            Manager::Openresolv(path) => {
                let (path, interface, kept) = (path.clone(), interface.clone(), openresolv::Kept::from(&wanted));
                aside(move || openresolv::apply(&path, &interface, &kept)).await?
            }
            Manager::Resolved => Resolved::connect().await?.apply(index(interface)?, &wanted).await?,
        };
        if changed {
            tracing::info!(%interface, manager = %manager.kind(), domains = names.domains.len(), "names are resolved");
        }
        self.is_clean = false;
        Ok(Some(manager.kind()))
    }

    /// Takes back what was made of `interface`, by this process or one before it.
    pub async fn release(&mut self, interface: &InterfaceName) -> Result<(), DnsError> {
        self.responder = None;
        let reverted = match self.manager().await {
            Ok(Manager::Openresolv(path)) => {
                let interface = interface.clone();
                aside(move || openresolv::revert(&path, &interface)).await?
            }
            Ok(Manager::Resolved) => match index(interface) {
                Ok(index) => Resolved::connect().await?.revert(index).await?,
                // What was set for it went with it.
                Err(_) => false,
            },
            // Where nobody resolves by domain, nothing was set.
            Err(_) => false,
        };
        if reverted {
            tracing::info!(%interface, "names are resolved as before");
        }
        self.is_clean = true;
        Ok(())
    }

    async fn manager(&self) -> Result<Manager, DnsError> {
        let machine = self.machine.clone();
        aside(move || machine.manager()).await
    }

    async fn respond(&mut self, manager: DnsManager, own: Option<IpAddr>) -> Result<&Responder, DnsError> {
        let current = self.responder.take().filter(|(known, responder)| match manager {
            DnsManager::Openresolv => *known == manager && Some(responder.address().ip()) == own,
            DnsManager::Resolved => *known == manager,
        });
        let (_, responder) = self.responder.insert(match current {
            Some(current) => current,
            None => (manager, open(manager, own).await?),
        });
        Ok(responder)
    }
}

/// Finds out who resolves names on this machine; nothing is changed.
///
/// # Errors
/// [`DnsError::NoManager`] and [`DnsError::NoDomains`] where nobody does that could be told of domains.
pub async fn manager(machine: Machine) -> Result<DnsManager, DnsError> {
    aside(move || Ok(machine.manager()?.kind())).await
}

async fn open(manager: DnsManager, own: Option<IpAddr>) -> Result<Responder, DnsError> {
    let opened = match manager {
        // A loopback address would be asked for everything: openresolv takes it for a local resolver.
        DnsManager::Openresolv => {
            let own = own.ok_or_else(|| DnsError::Port(io::ErrorKind::AddrNotAvailable.into()))?;
            Responder::at_the_usual_port(own).await
        }
        DnsManager::Resolved => Responder::at_any_port().await,
    };
    opened.map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied { DnsError::PortDenied } else { DnsError::Port(error) }
    })
}

/// Does what may take a while, as running a program does, without holding up everything else.
///
/// One at a time: a program goes on when nobody waits for it any more, and what comes after it has to come after it.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, DnsError> + Send + 'static) -> Result<T, DnsError> {
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let work = move || {
        let _turn = turn;
        work()
    };
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(DnsError::Silent))
}

fn index(interface: &InterfaceName) -> Result<i32, DnsError> {
    let index = nix::net::if_::if_nametoindex(interface.as_str()).map_err(|_| DnsError::NoLink)?;
    i32::try_from(index).map_err(|_| DnsError::NoLink)
}
