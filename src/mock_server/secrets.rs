//! What proves who somebody is: session tokens, host passwords, the master key.

use data_encoding::{BASE32, BASE32_NOPAD, BASE64URL_NOPAD, Encoding, Specification};
use ring::{digest, hmac};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::control::seal::random;

/// What a session token says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Claims {
    #[serde(rename = "ID")]
    pub(super) id: Uuid,
    #[serde(rename = "MacAddress")]
    pub(super) mac_address: String,
    #[serde(rename = "Network")]
    pub(super) network: String,
    iss: String,
    sub: String,
    exp: i64,
    iat: i64,
}

impl Claims {
    /// Claims for a host from `now`, Unix seconds.
    pub(super) fn new(id: Uuid, mac_address: String, now: i64) -> Self {
        let (network, iss, sub) = (String::new(), "Netmaker".to_owned(), format!("node|{id}"));
        Self { id, mac_address, network, iss, sub, exp: now + SESSION_SECONDS, iat: now }
    }

    /// Signs the claims.
    pub(super) fn sign(&self, secret: &[u8]) -> String {
        sign(self, secret)
    }

    /// Checks a token of ours; `None` if it is not, or no longer.
    pub(super) fn verify(token: &str, secret: &[u8], now: i64) -> Option<Self> {
        verify(token, secret).filter(|claims: &Self| now < claims.exp)
    }
}

/// What a user's session token says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct UserClaims {
    #[serde(rename = "Role")]
    role: String,
    #[serde(rename = "UserName")]
    pub(super) user_name: String,
    #[serde(rename = "Api")]
    api: String,
    #[serde(rename = "TokenType")]
    token_type: String,
    #[serde(rename = "RacAutoDisable")]
    rac_auto_disable: bool,
    iss: String,
    sub: String,
    exp: i64,
    iat: i64,
    /// Id of an access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) jti: Option<Uuid>,
}

impl UserClaims {
    /// Claims for a program with a user's rights, until `end`.
    pub(super) fn for_program(user: &str, api: &str, id: Uuid, now: i64, end: i64) -> Self {
        let session = Self::new(user, api, now);
        Self { token_type: ACCESS_TOKEN.to_owned(), exp: end, jti: Some(id), ..session }
    }

    /// Claims for a user from `now`, Unix seconds.
    pub(super) fn new(user: &str, api: &str, now: i64) -> Self {
        Self {
            role: "super-admin".to_owned(),
            user_name: user.to_owned(),
            api: api.to_owned(),
            token_type: USER_TOKEN.to_owned(),
            rac_auto_disable: false,
            iss: "Netmaker".to_owned(),
            sub: format!("user|{user}"),
            exp: now + USER_SESSION_SECONDS,
            iat: now,
            jti: None,
        }
    }

    /// Signs the claims.
    pub(super) fn sign(&self, secret: &[u8]) -> String {
        sign(self, secret)
    }

    /// Checks a token of ours; `None` if it is not, or no longer.
    pub(super) fn verify(token: &str, secret: &[u8], now: i64) -> Option<Self> {
        let is_ours = |claims: &Self| match claims.token_type.as_str() {
            USER_TOKEN => claims.jti.is_none(),
            ACCESS_TOKEN => claims.jti.is_some(),
            _ => false,
        };
        verify(token, secret).filter(|claims: &Self| now < claims.exp && is_ours(claims))
    }
}

/// Makes a JWT with HS256.
fn sign(claims: &impl Serialize, secret: &[u8]) -> String {
    let claims = serde_json::to_vec(claims).unwrap_or_default();
    let text = format!("{}.{}", BASE64URL_NOPAD.encode(JWT_HEADER), BASE64URL_NOPAD.encode(&claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

/// Opens a JWT of ours, whenever it ends.
fn verify<T: DeserializeOwned>(token: &str, secret: &[u8]) -> Option<T> {
    let (text, tag) = token.rsplit_once('.')?;
    let tag = BASE64URL_NOPAD.decode(tag.as_bytes()).ok()?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes(), &tag).ok()?;
    let (header, claims) = text.split_once('.')?;
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
    let claims = serde_json::from_slice(&claims).ok()?;
    (BASE64URL_NOPAD.decode(header.as_bytes()).ok()? == JWT_HEADER).then_some(claims)
}

/// Hashes a host's password into the shape of a bcrypt hash, which is what the record of a host shows.
///
/// It is salted SHA-256, cut to 184 bits, and no bcrypt: the passwords are random, so nothing is gained by being slow.
pub(super) fn hash_password(password: &str) -> String {
    hash_with(password, &random())
}

/// Tells whether `password` is what `hash` was made of; an empty one never is.
pub(super) fn password_matches(password: &str, hash: &str) -> bool {
    let Some(salt) = hash.strip_prefix(HASH_PREFIX).and_then(|text| text.get(..22)) else { return false };
    let Ok(Ok(salt)) = bcrypt64().decode(salt.as_bytes()).map(<[u8; 16]>::try_from) else { return false };
    !password.is_empty() && same(&hash_with(password, &salt), hash)
}

/// Compares in constant time.
pub(super) fn same(one: &str, other: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>());
    hmac::verify(&key, other.as_bytes(), hmac::sign(&key, one.as_bytes()).as_ref()).is_ok()
}

/// Makes a value of 160 random bits in base32.
pub(super) fn random_value() -> String {
    BASE32.encode(&random::<20>())
}

/// A key's short name, which may be shown: the first 10 base32 characters of its SHA-256.
pub fn fingerprint(value: &str) -> String {
    let mut text = hash_value(value);
    text.truncate(10);
    text
}

/// Hashes a key's value for the store: its SHA-256 in base32; the values are random, so nothing is gained by being slow.
pub(super) fn hash_value(value: &str) -> String {
    BASE32_NOPAD.encode(digest::digest(&digest::SHA256, value.as_bytes()).as_ref())
}

fn hash_with(password: &str, salt: &[u8; 16]) -> String {
    let digest = digest::digest(&digest::SHA256, &[salt, password.as_bytes()].concat());
    format!("{HASH_PREFIX}{}{}", bcrypt64().encode(salt), bcrypt64().encode(&digest.as_ref()[..23]))
}

/// Bcrypt's own base64.
fn bcrypt64() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789");
    specification.encoding().expect("64 different symbols make an encoding")
}

const HASH_PREFIX: &str = "$2a$05$";

const JWT_HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

/// What makes a token a user's.
const USER_TOKEN: &str = "user_id_token";

/// What makes a token a program's.
const ACCESS_TOKEN: &str = "access_token";

/// How long a user's session token is good for.
const USER_SESSION_SECONDS: i64 = 43_200;

/// How long a host's session token is good for.
pub(super) const SESSION_SECONDS: i64 = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_after_15_minutes_and_cannot_be_changed() {
        let token = Claims::new(Uuid::from_u128(1), String::new(), 1000).sign(b"secret");

        assert_eq!(Claims::verify(&token, b"secret", 1899).map(|claims| claims.id), Some(Uuid::from_u128(1)));
        assert!(Claims::verify(&token, b"secret", 1900).is_none());
        assert!(Claims::verify(&token, b"other", 1000).is_none());
        assert!(Claims::verify(&token.replacen("eyJ", "eyK", 1), b"secret", 1000).is_none());
        assert!(Claims::verify("", b"secret", 1000).is_none());
    }

    #[test]
    fn password_hashes_look_like_bcrypt_and_differ() {
        let (one, other) = (hash_password("open sesame"), hash_password("open sesame"));

        assert_eq!((one.len(), &one[..7]), (60, "$2a$05$"));
        assert_ne!(one, other);
        assert!(password_matches("open sesame", &one) && password_matches("open sesame", &other));
        assert!(!password_matches("open barley", &one));
        assert!(!password_matches("", &hash_password("")));
        assert!(!password_matches("x", "not a hash"));
    }
}
