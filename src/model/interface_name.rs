//! The name of a network interface, as the Linux kernel accepts it.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that cannot name a network interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceNameError {
    /// Holds a character other than letters, digits, `-`, `_`, `.`, `=`, `+`, or is `.` or `..`.
    #[error("interface name {0:?} has characters other than letters, digits and -_.=+")]
    Character(String),
    /// Empty, or longer than 15 bytes (IFNAMSIZ less its closing zero).
    #[error("interface name must be 1 to 15 characters long, not {0}")]
    Length(usize),
}

/// A network interface's name: 1 to 15 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Returns the default name with number `index`: `enroll0`, `enroll1`, and so on.
    pub fn numbered(index: u16) -> Self {
        Self(format!("enroll{index}"))
    }

    /// Returns the number of this interface's routing table, which also marks the packets of its WireGuard socket.
    ///
    /// `enroll0` and so on have their own; other names are spread over 8,192 numbers. Bits 14 and 15 stay clear, which
    /// container networks use.
    pub fn mark(&self) -> NonZeroU32 {
        let number = self.0.strip_prefix("enroll").and_then(|rest| rest.parse::<u16>().ok()).filter(|n| *n < OTHERS);
        let low = number.unwrap_or_else(|| OTHERS | (fnv1a(self.0.as_bytes()) & (OTHERS - 1)));
        FIRST_MARK | u32::from(low)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        if text.is_empty() || text.len() > 15 {
            return Err(InterfaceNameError::Length(text.len()));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=+".contains(&byte);
        if !text.bytes().all(allowed) || text == "." || text == ".." {
            return Err(InterfaceNameError::Character(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InterfaceNameError;

    fn try_from(text: String) -> Result<Self, InterfaceNameError> {
        text.parse()
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InterfaceName({})", self.0)
    }
}

/// FNV-1a, folded.
fn fnv1a(bytes: &[u8]) -> u16 {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d])
}

/// The mark of `enroll0`; its upper byte is the protocol number of our routes.
const FIRST_MARK: NonZeroU32 = NonZeroU32::new(0x00E7_0000).expect("not zero");

/// Where the marks of interfaces with other names begin.
const OTHERS: u16 = 0x2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_has_a_mark_that_leaves_the_bits_of_others_clear() {
        let mark = |name: &str| name.parse::<InterfaceName>().unwrap().mark().get();

        assert_eq!((mark("enroll0"), mark("enroll8191")), (0x00E7_0000, 0x00E7_1FFF));
        for name in ["enroll8192", "enroll65535", "wg-office", "enroll", "a"] {
            assert_eq!(mark(name) & 0xFFFF_E000, 0x00E7_2000, "{name}");
        }
        assert_ne!(mark("wg-office"), mark("wg-plant"));
    }

    #[test]
    fn takes_what_the_kernel_takes() {
        for good in ["enroll0", "wg-office", "a", "fifteen-letters"] {
            assert_eq!(good.parse::<InterfaceName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in ["sixteen-letters-", ""] {
            assert_eq!(bad.parse::<InterfaceName>(), Err(InterfaceNameError::Length(bad.len())));
        }
        for bad in ["a/b", "a b", "..", ".", "é", "a:b", "a\n"] {
            assert_eq!(bad.parse::<InterfaceName>(), Err(InterfaceNameError::Character(bad.to_owned())));
        }
    }
}
