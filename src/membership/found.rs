//! A membership that is new here: its identity, and the name of its interface.

use std::collections::BTreeSet;

use ring::rand::{SecureRandom, SystemRandom};

use super::{Hands, JoinRequest, MembershipError, bond::binding, tunnel::free_interface};
use crate::{
    link,
    model::{Identity, InterfaceName, Membership, Outside, Phase, Policy, Redeeming, Server, Switch, Token},
    store::Lock,
};

/// Founds a membership; nothing is on disk yet.
pub(super) fn found(
    hands: &Hands,
    token: &Token,
    interface: InterfaceName,
    request: &JoinRequest,
) -> Result<Membership, MembershipError> {
    let random = SystemRandom::new();
    let identity = Identity::generate(|buffer| random.fill(buffer)).map_err(|_| MembershipError::Host {
        action: "get random numbers",
        source: std::io::Error::other("the system's random number generator failed"),
    })?;
    Ok(Membership {
        binding: Some(binding(&random, hands)?),
        identity,
        interface,
        phase: Phase::Pending { redeeming: Redeeming::new(token) },
        last_check_in: None,
        outside: Outside::default(),
        policy: request.overrides.over(Policy::default()),
        sent: BTreeSet::new(),
        server: token.server().clone(),
        switch: Switch::On,
    })
}

/// Waits its turn to choose a name, without holding up those who have it.
pub(super) async fn lock_names(hands: &Hands) -> Result<Lock, MembershipError> {
    let store = hands.store.clone();
    match tokio::task::spawn_blocking(move || store.lock_names()).await {
        Ok(lock) => Ok(lock?),
        Err(_) => Err(MembershipError::Stopped),
    }
}

pub(super) async fn choose_interface(
    hands: &Hands,
    request: &JoinRequest,
    server: &Server,
) -> Result<InterfaceName, MembershipError> {
    if let Some(interface) = &request.interface {
        return Ok(interface.clone());
    }
    let mut taken = link::interface_names().await?;
    for other in hands.store.servers()?.into_iter().filter(|other| other != server) {
        taken.extend(hands.store.load(&other)?.map(|membership| membership.interface.to_string()));
    }
    Ok(free_interface(|name| taken.contains(name.as_str())))
}
