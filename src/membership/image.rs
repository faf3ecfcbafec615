//! A machine that images are made of: nothing of an identity may be in them.

use std::path::PathBuf;

use super::{Hands, MembershipError, describe, glance};
use crate::model::Server;

/// What [`wipe`] did.
#[derive(Debug)]
pub struct Wiped {
    /// Whatever is in the state folder all the same.
    pub left: Vec<PathBuf>,
    /// Servers that still know this machine by an identity that is gone.
    pub servers: Vec<Server>,
}

/// Destroys everything in the state folder that makes this machine a host, and removes its kernel interfaces; no server
/// is told.
///
/// # Errors
/// [`MembershipError::Store`] if an agent works on a membership, or something cannot be removed.
pub async fn wipe(hands: &Hands) -> Result<Wiped, MembershipError> {
    let store = &hands.store;
    let mut memberships = Vec::new();
    let servers = store.servers()?;
    for server in &servers {
        // A damaged one goes as well.
        memberships.extend(store.load(server).unwrap_or_default());
    }
    for server in store.servers_aside()? {
        memberships.extend(store.load_aside(&server).unwrap_or_default());
    }
    let mut servers = servers;
    // One that cannot be read goes as well.
    servers.extend(store.queued().unwrap_or_default().into_iter().map(|leaving| leaving.server));
    servers.sort();
    servers.dedup();
    store.wipe()?;
    for membership in memberships {
        if let Err(error) = glance::clear_kernel(&membership).await {
            tracing::warn!(interface = %membership.interface, error = %describe(&error), "an interface stays");
        }
    }
    Ok(Wiped { left: remains(hands)?, servers })
}

/// Lists whatever is in the state folder.
///
/// # Errors
/// [`MembershipError::Store`] if it cannot be read.
pub fn remains(hands: &Hands) -> Result<Vec<PathBuf>, MembershipError> {
    Ok(hands.store.contents()?)
}
