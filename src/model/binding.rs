//! Which machine an identity belongs to.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// What tells one machine from another, as far as this one says it; what is missing could not be read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Machine(pub BTreeMap<Trait, String>);

/// Something that tells machines apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trait {
    /// Serial number of the mainboard.
    BoardSerial,
    /// UUID of the hardware, or of the virtual machine.
    HardwareUuid,
    /// What the cloud calls this instance.
    InstanceId,
    /// The installation's own id, machine-id(5).
    MachineId,
}

/// The machine that an identity was made on or has been confirmed on, as salted hashes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Hexadecimal SHA-256 of the salt and each thing that was known.
    pub hashes: BTreeMap<Trait, String>,
    /// Random, so that two files do not show that they are of the same machine.
    pub salt: String,
}

/// What the owner of the machine says about an identity that may be another machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityChoice {
    /// It belongs to this machine.
    Keep,
    /// It does not: this machine needs one of its own.
    New,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.hashes.keys()).finish()
    }
}
