//! Sessions of hosts and users, and the tokens that users give to programs: opened, signed and recognised.

use uuid::Uuid;

use super::{
    refusal::Refusal,
    secrets::{Claims, UserClaims},
    server::Server,
};
use crate::control::wire::Secret;

impl Server {
    pub(super) fn open_session(&self, host: Uuid, mac_address: String) -> Secret {
        Claims::new(host, mac_address, self.now().unix_timestamp()).sign(self.session_secret()).into()
    }

    pub(super) fn open_user_session(&self, user: &str) -> Secret {
        UserClaims::new(user, self.api(), self.now().unix_timestamp()).sign(self.session_secret()).into()
    }

    /// The user whose session a token is; `None` if it is none.
    pub(super) fn user_session(&self, token: &str) -> Result<Option<String>, Refusal> {
        let claims = UserClaims::verify(token, self.session_secret(), self.now().unix_timestamp());
        let Some(UserClaims { user_name, jti, .. }) = claims else { return Ok(None) };
        let (known, is_new) = self.read(|world, now| {
            let token = jti.and_then(|id| world.access_tokens.get(&id));
            let known = world.users.contains(&user_name) && jti.is_some() == token.is_some();
            (known, token.is_some_and(|token| token.is_used_again(now)))
        })?;
        if let Some(id) = jti.filter(|_| is_new) {
            self.write(|world, now| {
                world.use_access_token(id, now);
                Ok(())
            })?;
        }
        Ok(Some(user_name).filter(|_| known))
    }

    /// Signs a token that a user gives to a program.
    pub(super) fn sign_access_token(&self, user: &str, id: Uuid, end: i64) -> Secret {
        let claims = UserClaims::for_program(user, self.api(), id, self.now().unix_timestamp(), end);
        claims.sign(self.session_secret()).into()
    }

    pub(super) fn session(&self, token: &str) -> Option<Claims> {
        Claims::verify(token, self.session_secret(), self.now().unix_timestamp())
    }
}
