//! Asking a server about a key without redeeming it; nothing is saved.

use std::time::Duration;

use super::{Hands, JoinRequest, MembershipError, found::found, tunnel};
use crate::{
    control, facts,
    model::{InterfaceName, KeyFacts, Membership, Overrides, Token},
};

/// Asks whether the server knows `token`; returns what it says of it, `None` unless it speaks our extension.
///
/// # Errors
/// [`MembershipError::Refused`] if the server does not know the key, [`MembershipError::Rest`] if it cannot be asked.
pub async fn ask_about(
    hands: &Hands,
    token: &Token,
    overrides: &Overrides,
) -> Result<Option<KeyFacts>, MembershipError> {
    let request = JoinRequest {
        backend: None,
        choice: None,
        interface: None,
        overrides: overrides.clone(),
        server: None,
        spare: Vec::new(),
        timeout: Duration::ZERO,
        token: None,
        wait: None,
    };
    // A host that is made up for the question.
    let nobody = found(hands, token, InterfaceName::numbered(0), &request)?;
    probe(hands, &nobody, token).await
}

/// The same for a host that would redeem it.
pub(super) async fn probe(
    hands: &Hands,
    membership: &Membership,
    token: &Token,
) -> Result<Option<KeyFacts>, MembershipError> {
    let rest = hands.rest(membership)?;
    let port = tunnel::listen_port(membership, None)?;
    let host = control::inadmissible_host(membership, &facts::gather(&[]), port);
    let error = match rest.ask_about(token.text(), &host).await {
        Ok(facts) => return Ok(facts),
        Err(error) => error,
    };
    match error.refusal() {
        Some(refusal) => {
            let (fingerprint, server) = (token.fingerprint(), membership.server.clone());
            Err(MembershipError::Refused { attempts: 1, fingerprint, refusal, server })
        }
        None => Err(error.into()),
    }
}
