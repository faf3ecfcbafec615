//! What can be told of a membership without working on it.

use super::{MembershipError, Tunnel, error::describe};
use crate::{
    link,
    model::{Backend, Membership, Server, Status},
    plan,
    store::Store,
};

/// Summarizes the saved membership with `server` as far as it can be seen from outside the process that serves it.
///
/// # Errors
/// [`MembershipError::Store`] if the state cannot be read.
pub async fn status(store: &Store, server: &Server) -> Result<Option<Status>, MembershipError> {
    let Some(membership) = store.load(server)? else { return Ok(None) };
    let observed = match Tunnel::open(Backend::Kernel, &membership) {
        Ok(mut tunnel) => tunnel.observe().await,
        Err(error) => Err(error),
    };
    let (have, error) = match observed {
        Ok(have) => (have, None),
        Err(error) => (None, Some(describe(&error))),
    };
    Ok(Some(plan::summarize(&membership, have.as_ref(), Some(Backend::Kernel), error)))
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
