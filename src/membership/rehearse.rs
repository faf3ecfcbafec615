//! A join that changes nothing: what would happen, as far as it can be known without spending a use.

use super::{Hands, JoinRequest, MembershipError, inspect::probe, join, spare::Spare, tunnel};
use crate::{
    control::Freshness,
    link::{Link, Memory},
    model::{Backend, Chosen, InterfaceName, Server, Status},
    plan::{self, Change, Trials},
};

/// What a join would do.
#[derive(Debug)]
pub struct Rehearsal {
    /// Who would carry the packets.
    pub backend: Backend,
    /// What would change on the interface; empty while the networks are unknown.
    pub changes: Vec<Change>,
    /// Which key would be shown.
    pub chosen: Chosen,
    /// The interface that would be used.
    pub interface: InterfaceName,
    /// Whether a use of the key would be spent.
    pub spends: Spending,
    /// The server.
    pub server: Server,
    /// How the membership would look; `None` while the networks are unknown.
    pub status: Option<Status>,
}

/// Whether redeeming would cost a use of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// The server knows the key; whether it is used up only a redemption tells.
    Key,
    /// This host is enrolled with it already.
    Nothing,
}

/// Goes through a join without saving, spending or changing anything.
///
/// # Errors
/// Those of a join, as far as they can be known beforehand; [`MembershipError::Refused`] if the server does not know
/// the key.
pub async fn rehearse(hands: &Hands, request: &JoinRequest) -> Result<Rehearsal, MembershipError> {
    let mut spare = Spare::of(hands, request)?;
    loop {
        match rehearse_once(hands, &spare.request(request)).await {
            Ok(rehearsal) => return Ok(Rehearsal { chosen: spare.chosen(), ..rehearsal }),
            Err(error) => spare.pass_over(error)?,
        }
    }
}

async fn rehearse_once(hands: &Hands, request: &JoinRequest) -> Result<Rehearsal, MembershipError> {
    let chosen = Chosen::default();
    let (mut work, enrolled) = join::ready(hands, request).await?;
    let backend = work.backend();
    let interface = work.membership.interface.clone();
    let server = work.membership.server.clone();
    if !enrolled {
        if let Some(token) = &request.token {
            probe(hands, &work.membership, token).await?;
        }
        return Ok(Rehearsal {
            backend,
            changes: Vec::new(),
            chosen,
            interface,
            spends: Spending::Key,
            server,
            status: None,
        });
    }
    work.authenticate().await?;
    let assignment = work.pull(Freshness::Cached).await?;
    let have = work.tunnel.recent().await?.cloned();
    let surroundings = tunnel::surroundings(&work.membership, work.whereabouts()).await?;
    let trials = Trials::default();
    let (changes, withheld) = tunnel::changes(&work.membership, &assignment, have.as_ref(), &surroundings, &trials)?;
    let mut imagined = Memory::with(have);
    imagined.apply(&changes).await?;
    let after = imagined.observe().await?;
    let membership = work.imagine(assignment);
    let status = plan::summarize(&membership, after.as_ref(), Some(backend), &withheld, None);
    Ok(Rehearsal { backend, changes, chosen, interface, spends: Spending::Nothing, server, status: Some(status) })
}
