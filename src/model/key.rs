//! Curve25519 keys: private, public and preshared ones are different types, and only public ones can be printed.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use x25519_dalek::{PublicKey as DalekPublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A text that is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not padded standard base64.
    #[error("key is not base64")]
    NotBase64,
    /// Base64 of another number of bytes than 32.
    #[error("key has {0} bytes instead of 32")]
    WrongLength(usize),
}

/// A Curve25519 private key, clamped as RFC 7748 §5 asks; prints as a placeholder and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// Takes 32 bytes, fresh random ones for a new key, and clamps them.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        bytes[0] &= 0xf8;
        bytes[31] = (bytes[31] & 0x7f) | 0x40;
        Self(bytes)
    }

    /// The all-zero key that the kernel reports for an interface without one.
    pub(crate) fn blank() -> Self {
        Self([0; 32])
    }

    /// The clamped bytes; the caller keeps them secret.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Computes the public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(DalekPublicKey::from(&StaticSecret::from(self.0)).to_bytes())
    }
}

/// A Curve25519 public key; its text form is padded standard base64, as `wg` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// A symmetric key mixed into a peer's handshakes (WireGuard whitepaper §5.2); prints as a placeholder.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey(pub [u8; 32]);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decode(&String::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

/// For the state file only, which is readable by its owner alone.
impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = BASE64.encode(&self.0);
        let result = serializer.serialize_str(&text);
        text.zeroize();
        result
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        let bytes = decode(&text);
        text.zeroize();
        bytes.map(Self::from_bytes).map_err(de::Error::custom)
    }
}

impl Serialize for PresharedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for PresharedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decode(&String::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

fn decode(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| KeyError::NotBase64)?;
    <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| KeyError::WrongLength(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_public_half() {
        let private = PrivateKey::from_bytes([1; 32]);

        let public = private.public_key();

        let expected = "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209";
        assert_eq!(data_encoding::HEXLOWER.encode(&public.0), expected);
    }

    #[test]
    fn private_keys_never_print() {
        let private = PrivateKey::from_bytes([7; 32]);

        assert_eq!(format!("{private:?}"), "PrivateKey(…)");
        assert_eq!(format!("{:?}", PresharedKey([7; 32])), "PresharedKey(…)");
    }

    #[test]
    fn public_key_text_must_be_32_bytes_of_padded_base64() {
        let text = PublicKey([9; 32]).to_string();

        assert_eq!(text.parse(), Ok(PublicKey([9; 32])));
        assert_eq!("AAAA".parse::<PublicKey>(), Err(KeyError::WrongLength(3)));
        assert_eq!("_not base64_".parse::<PublicKey>(), Err(KeyError::NotBase64));
        assert_eq!("=".repeat(44).parse::<PublicKey>(), Err(KeyError::NotBase64));
    }
}
