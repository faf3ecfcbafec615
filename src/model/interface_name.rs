//! The name of a network interface, as the Linux kernel accepts it.

use std::{fmt, str::FromStr};

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

#[cfg(test)]
mod tests {
    use super::*;

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
