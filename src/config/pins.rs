//! Pins that are carried beside keys.

use zeroize::Zeroizing;

use super::{ConfigError, Keys};
use crate::model::{Overrides, Pin};

impl Keys {
    /// Settings with the pins that are beside the keys, unless some are set.
    #[must_use]
    pub fn settle(&self, overrides: Overrides) -> Overrides {
        if overrides.pins.is_some() || self.pins.is_empty() {
            return overrides;
        }
        Overrides { pins: Some(self.pins.iter().copied().collect()), ..overrides }
    }
}

/// Takes the pins out of a text. One that cannot be read is no reason to go on without it.
pub(super) fn without_pins(text: &str) -> Result<(Zeroizing<String>, Vec<Pin>), ConfigError> {
    let mut pins = Vec::new();
    let mut rest = Zeroizing::new(String::with_capacity(text.len() + 1));
    for line in text.split_inclusive('\n') {
        match line.trim().strip_prefix(PIN_MARK) {
            // The count of lines stays as it is.
            Some(pin) => {
                pins.push(pin.parse().map_err(ConfigError::Pin)?);
                rest.push('\n');
            }
            None => rest.push_str(line),
        }
    }
    Ok((rest, pins))
}

/// What a line with a pin begins with.
const PIN_MARK: &str = "pin:";
