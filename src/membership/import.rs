//! Taking over an enrollment that another agent has: the identity goes on, no key is spent.
//!
//! ```text
//! read its files ─► it does not run, its interface is gone ─► authenticate, pull ─► save ─► interface
//! (nothing is changed there)                                  (per server)
//! ```

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use ring::rand::SystemRandom;
use uuid::Uuid;

use super::{
    Hands, JoinRequest, MembershipError, Work,
    bond::binding,
    found::{choose_interface, lock_names},
    glance,
    tunnel::{self, Look},
};
use crate::{
    control::{Freshness, NetclientError, Takeover, takeover},
    facts, link,
    model::{
        Assignment, Backend, Enrolled, InterfaceName, Membership, NetworkName, Outside, Phase, Policy, Server, Switch,
    },
};

/// Why the enrollment of another agent is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The other agent runs.
    #[error("netclient runs, as process {0}")]
    AtWork(u32),
    /// Its interface is still there.
    #[error("netclient's interface {0} is still there")]
    Interface(String),
    /// Its files are not what they should be.
    #[error(transparent)]
    Netclient(#[from] NetclientError),
    /// There is no enrollment.
    #[error("there is no enrollment of netclient in {}", .0.display())]
    Nothing(PathBuf),
    /// Its files cannot be read.
    #[error("cannot read netclient's files in {}", folder.display())]
    Read {
        /// Where they are.
        folder: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// This machine is enrolled there, as another host.
    #[error("this machine is enrolled with {0} already, as another host")]
    Taken(Server),
}

/// How far an import goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Servers are asked, and nothing is changed.
    Look,
    /// Enrollments are taken over.
    TakeOver,
}

/// An enrollment that was taken over, or would be.
#[derive(Debug)]
pub struct Imported {
    /// Who carries the interface; a userspace one needs an agent that serves.
    pub backend: Backend,
    /// The host's id on the server.
    pub host_id: Uuid,
    /// The interface.
    pub interface: InterfaceName,
    /// Whether it was taken over earlier.
    pub is_known: bool,
    /// The host's name on the server.
    pub name: String,
    /// The networks that it is in.
    pub networks: BTreeSet<NetworkName>,
    /// The server.
    pub server: Server,
}

/// Finds the enrollment of netclient in `folder`, once that is out of the way.
///
/// # Errors
/// [`MembershipError::Import`] if there is none that can be used, or netclient is at work.
pub async fn find(folder: &Path) -> Result<Takeover, MembershipError> {
    let files = facts::netclient_files(folder).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            return ImportError::Nothing(folder.to_owned());
        }
        ImportError::Read { folder: folder.to_owned(), source }
    });
    let [host, servers] = files?;
    let takeover = takeover(&host, &servers).map_err(ImportError::from)?;
    if let Some(process) = facts::running_netclient() {
        return Err(ImportError::AtWork(process).into());
    }
    if link::interface_names().await?.contains(&takeover.interface) {
        return Err(ImportError::Interface(takeover.interface).into());
    }
    if !takeover.is_push_readable {
        tracing::warn!("pushes of the server cannot be read with this key: changes are pulled");
    }
    Ok(takeover)
}

/// Takes over the enrollment with `server`; the rest of `request` is how to go on with it.
///
/// # Errors
/// [`MembershipError::Deleted`] and [`MembershipError::Proof`] if the server does not take us for that host.
pub async fn import(
    hands: &Hands,
    takeover: &Takeover,
    server: &Server,
    request: &JoinRequest,
    depth: Depth,
) -> Result<Imported, MembershipError> {
    let lock = hands.store.lock(server)?;
    if let Some(saved) = hands.store.load(server)? {
        if saved.identity.host_id != takeover.identity.host_id {
            return Err(ImportError::Taken(server.clone()).into());
        }
        let assignment = saved.enrolled().map(|enrolled| enrolled.assignment.clone()).unwrap_or_default();
        return Ok(Imported { is_known: true, ..imported(&saved, &assignment, Backend::Kernel) });
    }
    let naming = lock_names(hands).await?;
    let interface = choose_interface(hands, request, server).await?;
    let membership = membership(hands, takeover, server, interface, request)?;
    let backend = glance::choose(request.backend, &membership).await?;
    let mut work = Work::new(hands.clone(), lock, membership, backend)?;
    let have = work.tunnel.recent().await?;
    tunnel::refuse_taken_port(&work.membership, have)?;
    work.authenticate().await?;
    let freshness = if depth == Depth::Look { Freshness::Cached } else { Freshness::Recomputed };
    let assignment = work.pull(freshness).await?;
    if depth == Depth::TakeOver {
        work.import(assignment.clone())?;
        drop(naming);
        put_in_force(&mut work, &assignment).await?;
    }
    Ok(Imported { is_known: false, ..imported(&work.membership, &assignment, backend) })
}

/// Brings the interface up, and tells the server that another agent speaks for the host now.
async fn put_in_force(work: &mut Work, assignment: &Assignment) -> Result<(), MembershipError> {
    if work.backend() == Backend::Userspace {
        // It would end with this process.
        return Ok(());
    }
    let changes = work.apply(assignment, Look::Afresh).await?;
    work.check_in().await?;
    work.tell_port(assignment, changes).await
}

fn imported(membership: &Membership, assignment: &Assignment, backend: Backend) -> Imported {
    Imported {
        backend,
        host_id: membership.identity.host_id,
        interface: membership.interface.clone(),
        is_known: false,
        name: assignment.name.clone(),
        networks: assignment.nodes.keys().cloned().collect(),
        server: membership.server.clone(),
    }
}

/// The membership that goes on with an identity; nothing is on disk yet.
fn membership(
    hands: &Hands,
    takeover: &Takeover,
    server: &Server,
    interface: InterfaceName,
    request: &JoinRequest,
) -> Result<Membership, MembershipError> {
    let enrolled = Enrolled {
        announced: BTreeSet::new(),
        api: server.clone(),
        assignment: Assignment::default(),
        fingerprints: BTreeSet::new(),
        redeeming: None,
        server_addresses: BTreeSet::new(),
        server_name: String::new(),
        server_version: String::new(),
    };
    Ok(Membership {
        binding: Some(binding(&SystemRandom::new(), hands)?),
        identity: takeover.identity.clone(),
        interface,
        phase: Phase::Enrolled(Box::new(enrolled)),
        last_check_in: None,
        outside: Outside::default(),
        policy: request.overrides.over(Policy::default()),
        sent: BTreeSet::new(),
        server: server.clone(),
        switch: Switch::On,
    })
}
