//! Who this host is to one server: made once, saved before the first byte is sent, never sent in its private parts.

use std::{collections::BTreeSet, fmt};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{PrivateKey, PublicKey, Secret};

/// Everything that makes this host the same host tomorrow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Public half of the WireGuard key before the last rotation: an interface that still has it is ours.
    pub former_key: Option<PublicKey>,
    /// The host's id, UUID version 4, chosen by the device.
    pub host_id: Uuid,
    /// A random locally administered unicast address; the server uses it to recognise abandoned hosts.
    pub mac: Mac,
    /// A WireGuard key that the server may have been told, and that takes over once it confirms it.
    pub next_key: Option<PrivateKey>,
    /// The password that proves we are this host; 52 base32 characters of 256 random bits.
    pub password: Secret,
    /// WireGuard key pair.
    pub private_key: PrivateKey,
    /// Key pair of the messages from and to the server's broker.
    pub traffic: TrafficKey,
}

/// A hardware address as 6 bytes, printed with colons.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

/// Key pair for broker messages, and the random type name its public half is serialised with.
///
/// The server derives the symmetric message key from the first bytes of the serialised public key; the name makes
/// them unpredictable (protocol page, "Traffic key").
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficKey {
    /// Random bytes used as the type name; `None` in an identity that was taken over from an agent without.
    pub name: Option<[u8; 32]>,
    /// Private half.
    pub private_key: PrivateKey,
}

impl Identity {
    /// Makes a new identity; `fill` fills a buffer with secure random bytes.
    ///
    /// # Errors
    /// Whatever `fill` fails with.
    pub fn generate<E>(mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut id = [0; 16];
        let mut mac = [0; 6];
        let mut secrets = [[0; 32]; 4];
        fill(&mut id)?;
        fill(&mut mac)?;
        for secret in &mut secrets {
            fill(secret)?;
        }
        mac[0] = (mac[0] & 0xfc) | 0x02;
        let [password, private_key, traffic, name] = secrets;
        Ok(Self {
            former_key: None,
            host_id: uuid::Builder::from_random_bytes(id).into_uuid(),
            mac: Mac(mac),
            next_key: None,
            password: Secret::from(BASE32_NOPAD.encode(&password)),
            private_key: PrivateKey::from_bytes(private_key),
            traffic: TrafficKey { name: Some(name), private_key: PrivateKey::from_bytes(traffic) },
        })
    }
}

impl Identity {
    /// Public keys that an interface of this host may have: the one in force, and the one before it.
    pub fn interface_keys(&self) -> BTreeSet<PublicKey> {
        self.former_key.into_iter().chain([self.private_key.public_key()]).collect()
    }

    /// The WireGuard key that the server should know: one that is being announced goes before the one in force.
    pub fn announced_key(&self) -> PublicKey {
        self.next_key.as_ref().unwrap_or(&self.private_key).public_key()
    }

    /// Puts the announced key in force; does nothing when there is none.
    pub fn promote(&mut self) {
        if let Some(next) = self.next_key.take() {
            self.former_key = Some(self.private_key.public_key());
            self.private_key = next;
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&pairs.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl fmt::Debug for TrafficKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_identity_is_what_servers_accept() {
        let mut next = 0_u8;
        let identity = Identity::generate(|buffer| {
            buffer.fill_with(|| {
                next = next.wrapping_add(37);
                next
            });
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap();

        assert_eq!(identity.host_id.get_version_num(), 4);
        assert_eq!(identity.mac.0[0] & 0x03, 0x02, "unicast, locally administered");
        assert!((32..=72).contains(&identity.password.expose().len()), "bcrypt takes 72 bytes at most");
        assert_ne!(identity.private_key, identity.traffic.private_key);
        assert!(!format!("{identity:?}").contains(identity.password.expose()));
    }
}
