//! What can be told of a membership without working on it.

use std::{collections::BTreeSet, time::Duration};

use super::{MembershipError, Tunnel, bond, describe, fence, tunnel};
use crate::{
    daemon::clock,
    link::{self, LinkError},
    model::{Backend, ErrorReport, Membership, Report, Server, State, Status},
    plan::{self, Bond},
    store::Store,
};

/// Summarizes the saved membership with `server` as far as it can be seen from outside the process that serves it.
///
/// # Errors
/// [`MembershipError::Store`] if the state cannot be read.
pub async fn status(store: &Store, server: &Server) -> Result<Option<Status>, MembershipError> {
    let Some(membership) = store.load(server)? else { return Ok(None) };
    let mut tunnel = Tunnel::open(Backend::Kernel, &membership)?;
    let error = tunnel.observe().await.err().map(|error| error.report(clock::unix_seconds()));
    let (firewall, withheld) = match tunnel.last() {
        Some(have) => (fence::look(&membership).await, tunnel::withheld(&membership, have).await),
        None => (None, BTreeSet::new()),
    };
    let status = plan::summarize(&membership, tunnel.last(), Some(Backend::Kernel), &withheld, error);
    let state = match bond::look(&membership) {
        Bond::Clone => State::Clone,
        Bond::Hold => State::Held,
        Bond::Reset | Bond::Same => status.state,
    };
    Ok(Some(Status { firewall, state, ..status }))
}

/// Summarizes a membership of which nothing is used until it is clear whose it is, for this reason; `None` if there is
/// none.
///
/// # Errors
/// [`MembershipError::Store`] if the state cannot be read.
pub fn held(store: &Store, server: &Server, why: ErrorReport) -> Result<Option<Status>, MembershipError> {
    let Some(membership) = store.load(server)? else { return Ok(None) };
    let status = plan::summarize(&membership, None, None, &BTreeSet::new(), Some(why));
    Ok(Some(Status { state: State::Held, ..status }))
}

/// Summarizes a membership that is another machine's; `None` if there is none, or this machine has one of its own.
///
/// # Errors
/// [`MembershipError::Store`] if the state cannot be read.
pub fn inherited(store: &Store, server: &Server) -> Result<Option<Status>, MembershipError> {
    if store.load(server)?.is_some() {
        return Ok(None);
    }
    let Some(membership) = store.load_inherited(server)? else { return Ok(None) };
    Ok(Some(Status { state: State::Clone, ..plan::summarize(&membership, None, None, &BTreeSet::new(), None) }))
}

/// Summarizes a membership that the server deleted; `None` if there is none.
///
/// # Errors
/// [`MembershipError::Store`] if the state cannot be read.
pub fn deleted(store: &Store, server: &Server) -> Result<Option<Status>, MembershipError> {
    let Some(membership) = store.load_aside(server)? else { return Ok(None) };
    Ok(Some(Status { state: State::Revoked, ..plan::summarize(&membership, None, None, &BTreeSet::new(), None) }))
}

/// Removes the kernel interface of a membership that the server deleted, if it is still there.
///
/// # Errors
/// [`MembershipError::Store`] if the state cannot be read, [`MembershipError::Link`] if the interface stays.
pub async fn clear_deleted(store: &Store, server: &Server) -> Result<(), MembershipError> {
    match store.load_aside(server)? {
        Some(membership) => clear_kernel(&membership).await,
        None => Ok(()),
    }
}

/// Removes the kernel interface of `membership`, if it is still there.
pub(super) async fn clear_kernel(membership: &Membership) -> Result<(), MembershipError> {
    let mut tunnel = Tunnel::open(Backend::Kernel, membership)?;
    match tunnel.observe().await {
        Ok(Some(_)) => tunnel.remove().await,
        // Meanwhile somebody else's.
        Ok(None) | Err(MembershipError::Link(LinkError::Taken(_))) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes whatever agents that ended left in the kernel for the saved memberships; what is saved stays as it is.
///
/// # Errors
/// [`MembershipError::Store`] if the memberships cannot be read, else the last failure after all were tried.
pub async fn clear(store: &Store) -> Result<(), MembershipError> {
    let mut result = Ok(());
    for server in store.servers()? {
        let cleared = async {
            let Some(membership) = store.load(&server)? else { return Ok(()) };
            clear_kernel(&membership).await?;
            link::clear_rules(&membership.interface).await?;
            fence::clear(&membership.interface).await
        };
        if let Err(error) = cleared.await {
            result = Err(error);
        }
    }
    result
}

/// Removes what userspace interfaces leave behind that end with this process: routing rules and packet filters.
///
/// What is left all the same is found at the next start.
pub async fn clear_after(report: &Report) {
    let ended = report.memberships.iter().filter(|status| status.backend == Some(Backend::Userspace));
    for Status { interface, .. } in ended {
        // Not before: what still carries packets is filtered on.
        for _ in 0..ENDING_LOOKS {
            match link::interface_names().await {
                Ok(names) if names.contains(interface.as_str()) => tokio::time::sleep(ENDING_GAP).await,
                Ok(_) | Err(_) => break,
            }
        }
        let cleared = async {
            link::clear_rules(interface).await?;
            fence::clear(interface).await
        };
        if let Err(error) = cleared.await {
            tracing::warn!(%interface, error = %describe(&error), "not everything is gone with the interface");
        }
    }
}

/// Interfaces end a few milliseconds after whoever had them.
const ENDING_LOOKS: u32 = 50;
const ENDING_GAP: Duration = Duration::from_millis(10);

/// Removes what a crash left of memberships that are gone: routing rules and packet filters.
///
/// # Errors
/// [`MembershipError::Store`] if the state cannot be read, as nobody knows then whose it is; [`MembershipError::Link`]
/// and [`MembershipError::Firewall`] if something stays.
pub async fn sweep(store: &Store) -> Result<(), MembershipError> {
    let mut known = Vec::new();
    for server in store.servers()? {
        known.extend(store.load(&server)?.map(|membership| membership.interface));
    }
    let swept = link::sweep(&known).await?;
    if swept > 0 {
        tracing::info!(rules = swept, "removed routing rules that an earlier run left behind");
    }
    fence::sweep(&known).await
}

/// Chooses who carries the interface of a membership: whoever does already, else by what this machine can do.
pub(super) async fn choose(forced: Option<Backend>, membership: &Membership) -> Result<Backend, MembershipError> {
    if forced != Some(Backend::Userspace)
        && let Ok(Some(_)) = Tunnel::open(Backend::Kernel, membership)?.observe().await
    {
        return Ok(Backend::Kernel);
    }
    Ok(link::choose(forced).await?)
}
