//! Keys that stand in for each other: the next one is tried only when the server refused the one before for good.
//!
//! Trouble of any other kind ends the attempt. A key of which nobody knows whether it was counted is resolved before
//! another one is tried, and a key that this host has redeemed already goes before all that might cost a use.

use std::collections::VecDeque;

use super::{Hands, JoinRequest, MembershipError, error::reason};
use crate::{
    control::Refusal,
    model::{Chosen, Membership, PassedOver, Token},
};

/// The keys of one attempt to join.
#[derive(Debug)]
pub(super) struct Spare {
    passed_over: Vec<PassedOver>,
    waiting: VecDeque<Token>,
}

impl Spare {
    /// Those of a request, in the order in which this host has to try them.
    ///
    /// # Errors
    /// [`MembershipError::Store`] if the saved membership cannot be read.
    pub(super) fn of(hands: &Hands, request: &JoinRequest) -> Result<Self, MembershipError> {
        let saved = match &request.token {
            Some(token) if !request.spare.is_empty() => hands.store.load(token.server())?,
            Some(_) | None => None,
        };
        Ok(Self::new(saved.as_ref(), request.token.as_ref(), &request.spare))
    }

    /// `token` first and then `spare`, unless the membership that is there wants another one first.
    pub(super) fn new(saved: Option<&Membership>, token: Option<&Token>, spare: &[Token]) -> Self {
        let mut waiting: VecDeque<_> = token.into_iter().chain(spare).cloned().collect();
        let half_sent = |token: &Token| {
            saved.is_some_and(|saved| {
                let redeeming = saved.redeeming().map(|redeeming| &redeeming.fingerprint);
                redeeming == Some(&token.fingerprint()) && saved.sent.contains(&token.fingerprint())
            })
        };
        let redeemed = |token: &Token| {
            let enrolled = saved.and_then(Membership::enrolled);
            enrolled.is_some_and(|enrolled| enrolled.fingerprints.contains(&token.fingerprint()))
        };
        let first = waiting.iter().position(half_sent).or_else(|| waiting.iter().position(redeemed));
        if let Some(token) = first.and_then(|first| waiting.remove(first)) {
            waiting.push_front(token);
        }
        Self { passed_over: Vec::new(), waiting }
    }

    /// The key to try now; `None` goes on with the membership that is there.
    pub(super) fn token(&self) -> Option<&Token> {
        self.waiting.front()
    }

    /// The request with the key to try now.
    pub(super) fn request(&self, request: &JoinRequest) -> JoinRequest {
        JoinRequest { spare: Vec::new(), token: self.token().cloned(), ..request.clone() }
    }

    /// Goes on to the next key.
    ///
    /// # Errors
    /// `error` itself unless it condemns the key; [`MembershipError::NoneTaken`] after the last of several keys.
    pub(super) fn pass_over(&mut self, error: MembershipError) -> Result<(), MembershipError> {
        let MembershipError::Refused { fingerprint, refusal, server, .. } = &error else { return Err(error) };
        if !condemns(*refusal) {
            return Err(error);
        }
        let passed_over = PassedOver { key: fingerprint.clone(), reason: reason(*refusal).to_owned() };
        tracing::info!(key = passed_over.key, reason = passed_over.reason, "an enrollment key is passed over");
        self.passed_over.push(passed_over);
        self.waiting.pop_front();
        match (self.waiting.is_empty(), self.passed_over.len()) {
            (false, _) => Ok(()),
            (true, 1) => Err(error),
            (true, _) => Err(MembershipError::NoneTaken {
                passed_over: std::mem::take(&mut self.passed_over),
                server: server.clone(),
            }),
        }
    }

    /// What came of it, once the key to try was taken.
    pub(super) fn chosen(self) -> Chosen {
        Chosen { key: self.token().map(Token::fingerprint), passed_over: self.passed_over }
    }
}

/// Whether it is the key that the server does not want, and another one may be welcome.
fn condemns(refusal: Refusal) -> bool {
    match refusal {
        Refusal::Disabled | Refusal::Unknown | Refusal::Unreadable | Refusal::UsedUp => true,
        Refusal::NoNetworks | Refusal::Posture | Refusal::Proof | Refusal::Version => false,
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    #[test]
    fn only_a_condemned_key_makes_room_for_the_next() {
        for (refusal, goes_on) in [
            (Refusal::Disabled, true),
            (Refusal::NoNetworks, false),
            (Refusal::Posture, false),
            (Refusal::Proof, false),
            (Refusal::Unknown, true),
            (Refusal::Unreadable, true),
            (Refusal::UsedUp, true),
            (Refusal::Version, false),
        ] {
            let mut spare = Spare::new(None, Some(&key("A")), &[key("B")]);

            assert_eq!(spare.pass_over(refused("A", refusal)).is_ok(), goes_on, "{refusal:?}");
        }
        let mut spare = Spare::new(None, Some(&key("A")), &[key("B")]);
        let other = spare.pass_over(MembershipError::Stopped);
        assert!(matches!(other, Err(MembershipError::Stopped)));
        assert_eq!(spare.token(), Some(&key("A")));
    }

    #[test]
    fn the_last_refusal_tells_of_all_keys() {
        let mut spare = Spare::new(None, Some(&key("A")), &[key("B")]);
        spare.pass_over(refused("A", Refusal::Disabled)).unwrap();

        let error = spare.pass_over(refused("B", Refusal::Unknown)).unwrap_err();

        let (a, b) = (key("A").fingerprint(), key("B").fingerprint());
        let said = format!("a.example refused every enrollment key: {a}: it is disabled; {b}: it does not exist");
        assert_eq!(error.to_string(), said);
    }

    fn key(value: &str) -> Token {
        let json = format!(r#"{{"server":"a.example","value":"{value}"}}"#);
        BASE64.encode(json.as_bytes()).parse().unwrap()
    }

    fn refused(value: &str, refusal: Refusal) -> MembershipError {
        let server = key(value).server().clone();
        MembershipError::Refused { attempts: 1, fingerprint: key(value).fingerprint(), refusal, server }
    }
}
