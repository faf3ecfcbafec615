//! Tokens that users give to programs: good until they end or are revoked, with the rights of a user.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{clock::go_time, refusal::Refusal, table::nowhere, world::World};
use crate::control::wire;

/// A token as it is stored: everything but itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct AccessToken(pub(super) wire::AccessToken);

nowhere!(AccessToken);

impl AccessToken {
    /// Tells whether a use now is worth noting; those within a minute count as one.
    pub(super) fn is_used_again(&self, now: OffsetDateTime) -> bool {
        now.unix_timestamp() - self.0.last_used.unix_seconds() >= 60
    }
}

impl World {
    /// Notes a token for `asked.user_name` that `by` asks for.
    pub(super) fn create_access_token(
        &mut self,
        asked: wire::AccessToken,
        by: &str,
        now: OffsetDateTime,
    ) -> Result<(Uuid, wire::AccessToken), Refusal> {
        if asked.name.is_empty() {
            return Err(Refusal::bad_request("name is required"));
        }
        if asked.user_name.is_empty() {
            return Err(Refusal::bad_request("username is required"));
        }
        if !self.users.contains(&by.to_owned()) || !self.users.contains(&asked.user_name) {
            return Err(Refusal { status: 401, message: "record not found".to_owned() });
        }
        let id = Uuid::new_v4();
        let token = wire::AccessToken {
            id: id.to_string(),
            created_by: by.to_owned(),
            created_at: go_time(now),
            last_used: wire::GoTime::default(),
            ..asked
        };
        self.access_tokens.insert(id, AccessToken(token.clone()));
        Ok((id, token))
    }

    pub(super) fn use_access_token(&mut self, id: Uuid, now: OffsetDateTime) {
        if let Some(AccessToken(token)) = self.access_tokens.get_mut(&id) {
            token.last_used = go_time(now);
        }
    }

    pub(super) fn revoke_access_token(&mut self, id: &str) -> Result<(), Refusal> {
        let known = Uuid::parse_str(id).ok().and_then(|id| self.access_tokens.remove(&id));
        known.map(drop).ok_or_else(|| Refusal::bad_request("token does not exist"))
    }

    pub(super) fn forget_access_tokens(&mut self, user: &str) {
        let tokens = self.access_tokens.iter().filter(|(_, token)| token.0.user_name == user);
        for id in tokens.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.access_tokens.remove(&id);
        }
    }

    pub(super) fn access_tokens_of(&self, user: &str) -> Vec<wire::AccessToken> {
        let tokens = self.access_tokens.values().map(|AccessToken(token)| token);
        tokens.filter(|token| token.user_name == user).cloned().collect()
    }
}
