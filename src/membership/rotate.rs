//! A new WireGuard key without ever being cut off.
//!
//! ```text
//! make, save ─► announce over HTTP ─► pull: does the server name it? ─► save as ours ─► switch the interface
//!   └── a crash or a lost answer anywhere: announced again, or found confirmed by the next pull ──┘
//! ```
//!
//! Until the server confirms it the old key carries the traffic; the interface is recognised by either key.

use ring::rand::{SecureRandom, SystemRandom};

use super::{
    MembershipError, Work,
    tunnel::{self, Look},
};
use crate::{
    control::{self, Freshness},
    model::PrivateKey,
};

impl Work {
    /// Makes a new WireGuard key, or goes on with one that was not confirmed yet, and puts it in force.
    ///
    /// # Errors
    /// [`MembershipError::Unconfirmed`] if the server goes on naming the old one, which stays in force then.
    pub async fn rotate_key(&mut self) -> Result<(), MembershipError> {
        self.refuse_switched_off()?;
        if self.membership.identity.next_key.is_none() {
            self.membership.identity.next_key = Some(new_key()?);
            self.save()?;
        }
        self.announce_key().await?;
        let assignment = self.pull(Freshness::Recomputed).await?;
        self.promote_key().await?;
        if self.membership.identity.next_key.is_some() {
            return Err(MembershipError::Unconfirmed(self.membership.server.clone()));
        }
        let before = self.assignment();
        self.take_over(&before, assignment, Look::Afresh).await.map(|_| ())
    }

    /// Tells the server the key that it should know.
    async fn announce_key(&mut self) -> Result<(), MembershipError> {
        let have = self.tunnel.recent().await?;
        let port = tunnel::listen_port(&self.membership, have)?;
        let update = control::update_host(&self.membership, &self.facts(), port);
        self.report(&update).await
    }

    /// Whether a new key waits to be confirmed.
    pub fn is_rotating(&self) -> bool {
        self.membership.identity.next_key.is_some()
    }

    /// Puts an announced key in force if the last pull named it; a server that fell back to the key before is told
    /// again which one is in force.
    pub(super) async fn promote_key(&mut self) -> Result<(), MembershipError> {
        let identity = &self.membership.identity;
        if identity.next_key.is_none() && self.key_on_server.is_some() && self.key_on_server == identity.former_key {
            tracing::warn!("the server names this host's key from before the last rotation");
            return self.announce_key().await;
        }
        let next = self.membership.identity.next_key.as_ref().map(PrivateKey::public_key);
        if next.is_none() || next != self.key_on_server {
            return Ok(());
        }
        self.membership.identity.promote();
        self.save()?;
        tracing::info!(public_key = ?next, "the server confirms the new WireGuard key");
        self.bring_up().await.map(|_| ())
    }
}

fn new_key() -> Result<PrivateKey, MembershipError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| MembershipError::Host {
        action: "get random numbers",
        source: std::io::Error::other("the system's random number generator failed"),
    })?;
    Ok(PrivateKey::from_bytes(bytes))
}
