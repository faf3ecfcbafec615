//! Users: administrators who log in with a name and a password.

use std::num::NonZeroU32;

use data_encoding::BASE64;
use ring::pbkdf2;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{clock::go_time, refusal::Refusal, world::World};
use crate::control::{
    seal::random,
    wire::{GoTime, Secret},
};

/// Somebody who may log in; each is an administrator, as in the community edition.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: PasswordHash,
    pub(super) created_at: GoTime,
    /// It was made by another one, and may be deleted.
    #[serde(default)]
    pub(super) is_second: bool,
}

/// What a password is checked against; slow to make, because people choose passwords.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct PasswordHash {
    salt: Secret,
    hash: Secret,
}

impl PasswordHash {
    pub(super) fn new(password: &Secret) -> Self {
        let salt: [u8; 16] = random();
        let mut hash = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password.expose().as_bytes(), &mut hash);
        Self { salt: BASE64.encode(&salt).into(), hash: BASE64.encode(&hash).into() }
    }

    pub(super) fn matches(&self, password: &Secret) -> bool {
        let bytes = |text: &Secret| BASE64.decode(text.expose().as_bytes()).unwrap_or_default();
        let (salt, hash) = (bytes(&self.salt), bytes(&self.hash));
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password.expose().as_bytes(), &hash).is_ok()
    }
}

impl World {
    /// Makes the first user; there is only one such.
    pub(super) fn create_first_user(
        &mut self,
        name: &str,
        password: PasswordHash,
        now: OffsetDateTime,
    ) -> Result<User, Refusal> {
        if self.users.values().next().is_some() {
            return Err(Refusal::bad_request("superadmin user already exists"));
        }
        let user = User { name: name.to_owned(), password, created_at: go_time(now), is_second: false };
        self.users.insert(name.to_owned(), user.clone());
        Ok(user)
    }

    /// Makes another user.
    pub(super) fn create_user(
        &mut self,
        name: &str,
        password: PasswordHash,
        now: OffsetDateTime,
    ) -> Result<User, Refusal> {
        if self.users.contains(&name.to_owned()) {
            return Err(Refusal::bad_request("user exists"));
        }
        let user = User { name: name.to_owned(), password, created_at: go_time(now), is_second: true };
        self.users.insert(name.to_owned(), user.clone());
        Ok(user)
    }

    /// Deletes a user with the access tokens it has; the first one stays.
    pub(super) fn delete_user(&mut self, name: &str) -> Result<(), Refusal> {
        let name = name.to_owned();
        if !self.users.get(&name).ok_or_else(|| Refusal::internal("record not found"))?.is_second {
            return Err(Refusal::internal("superadmin cannot be deleted"));
        }
        self.users.remove(&name);
        let tokens = self.access_tokens.iter().filter(|(_, token)| token.0.user_name == name);
        for id in tokens.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.access_tokens.remove(&id);
        }
        Ok(())
    }
}

/// Some tens of milliseconds.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).expect("is not zero");
