//! Users: administrators who log in with a name and a password.

use std::num::NonZeroU32;

use data_encoding::BASE64;
use ring::pbkdf2;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{refusal::Refusal, world::World};
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
    #[serde(default)]
    pub(super) role: Role,
}

/// What a user may do: in the community edition everything, but only one may change the others.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum Role {
    /// One of those the super-admin made.
    Admin,
    /// The first user.
    #[default]
    SuperAdmin,
}

impl Role {
    /// The role's id.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::SuperAdmin => "super-admin",
        }
    }
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
        Ok(self.create_user(name, password, Role::SuperAdmin, now))
    }
}

/// Some tens of milliseconds.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).expect("is not zero");
