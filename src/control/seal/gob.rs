//! Traffic keys as Go's `gob` writes a 32-byte array.
//!
//! ```text
//! 0d 7f 0101 02ff80 00 0106 0140 00 00   message: type −64 is an array, its id 64, of unsigned numbers, 32 of them
//! LL ff80 00 20 …                        message: a value of type 64, 32 elements
//! ```
//!
//! A number below 128 is one byte; a larger one is a byte that says how many follow (`ff` one, `fe` two), big-endian.

/// Why bytes are not a traffic key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GobError {
    /// The type is not an array.
    #[error("gob type is not an array")]
    NotAnArray,
    /// The array holds something else than unsigned numbers.
    #[error("gob array does not hold unsigned numbers")]
    NotNumbers,
    /// An element is above 255.
    #[error("gob array element {0} is not a byte")]
    NotAByte(u64),
    /// The array has another length than 32.
    #[error("gob array has {0} elements instead of 32")]
    Length(u64),
    /// The bytes end too early.
    #[error("gob ends too early")]
    Truncated,
    /// A value of a type that was not described.
    #[error("gob value has an undefined type")]
    UndefinedType,
    /// Not gob at all.
    #[error("not gob")]
    Malformed,
}

/// Encodes a public or private traffic key.
///
/// `type_name` is free: 32 random bytes make the start of the result secret, and with it the payload key.
pub fn encode(key: &[u8; 32], type_name: Option<&[u8; 32]>) -> Vec<u8> {
    let mut definition = vec![0x7f, 0x01];
    match type_name {
        Some(name) => {
            definition.extend([0x01, 0x01]);
            put_number(&mut definition, name.len());
            definition.extend(name);
            definition.push(0x01);
        }
        None => definition.extend([0x01, 0x02]),
    }
    definition.extend([0xff, 0x80, 0x00, 0x01, 0x06, 0x01, 0x40, 0x00, 0x00]);

    let mut value = vec![0xff, 0x80, 0x00, 0x20];
    for byte in key {
        put_number(&mut value, usize::from(*byte));
    }

    let mut gob = Vec::new();
    for message in [definition, value] {
        put_number(&mut gob, message.len());
        gob.extend(message);
    }
    gob
}

/// Decodes a traffic key, whatever the type's id and name.
///
/// # Errors
/// [`GobError`] if it is not a 32-byte array in gob; raw bytes and a gob byte slice are not.
pub fn decode(bytes: &[u8]) -> Result<[u8; 32], GobError> {
    let mut input = Input(bytes);
    let mut defined = None;
    loop {
        let length = input.length()?;
        let mut message = Input(input.take(length)?);
        let id = message.signed()?;
        if id < 0 {
            array_definition(&mut message)?;
            defined = Some(id.checked_neg().ok_or(GobError::Malformed)?);
        } else if defined == Some(id) {
            return value(&mut message);
        } else {
            return Err(GobError::UndefinedType);
        }
    }
}

/// Reads `wireType{ArrayT: arrayType{CommonType{Name, Id}, Elem, Len}}`.
fn array_definition(message: &mut Input<'_>) -> Result<(), GobError> {
    if message.number()? != 1 {
        return Err(GobError::NotAnArray);
    }
    let (mut field, mut element, mut length) = (0, 0, 0);
    loop {
        match message.next_field(&mut field)? {
            None => break,
            Some(1) => common_type(message)?,
            Some(2) => element = message.signed()?,
            Some(3) => length = message.signed()?,
            Some(_) => return Err(GobError::Malformed),
        }
    }
    if message.number()? != 0 || !message.0.is_empty() {
        return Err(GobError::Malformed);
    }
    if element != UNSIGNED {
        return Err(GobError::NotNumbers);
    }
    if length == KEY_LEN { Ok(()) } else { Err(GobError::Length(length.unsigned_abs())) }
}

/// Skips `CommonType{Name, Id}`; neither matters.
fn common_type(message: &mut Input<'_>) -> Result<(), GobError> {
    let mut field = 0;
    loop {
        match message.next_field(&mut field)? {
            None => return Ok(()),
            Some(1) => {
                let length = message.length()?;
                message.take(length)?;
            }
            Some(2) => {
                message.signed()?;
            }
            Some(_) => return Err(GobError::Malformed),
        }
    }
}

/// Reads a value that stands alone: a zero, the number of elements, the elements.
fn value(message: &mut Input<'_>) -> Result<[u8; 32], GobError> {
    if message.number()? != 0 {
        return Err(GobError::Malformed);
    }
    let length = message.number()?;
    if length != KEY_LEN.unsigned_abs() {
        return Err(GobError::Length(length));
    }
    let mut key = [0; 32];
    for byte in &mut key {
        let number = message.number()?;
        *byte = u8::try_from(number).map_err(|_| GobError::NotAByte(number))?;
    }
    if message.0.is_empty() { Ok(key) } else { Err(GobError::Malformed) }
}

fn put_number(gob: &mut Vec<u8>, number: usize) {
    match u8::try_from(number) {
        Ok(byte) if byte < 0x80 => gob.push(byte),
        Ok(byte) => gob.extend([0xff, byte]),
        Err(_) => unreachable!("no number in a traffic key is above 255"),
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], GobError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(GobError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, GobError> {
        let first = self.take(1)?[0];
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let length = usize::from(first.wrapping_neg());
        if length > 8 {
            return Err(GobError::Malformed);
        }
        Ok(self.take(length)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn length(&mut self) -> Result<usize, GobError> {
        usize::try_from(self.number()?).map_err(|_| GobError::Truncated)
    }

    /// A signed number is unsigned with the sign in the lowest bit.
    fn signed(&mut self) -> Result<i64, GobError> {
        let number = self.number()?;
        let half = i64::try_from(number >> 1).map_err(|_| GobError::Malformed)?;
        Ok(if number & 1 == 1 { !half } else { half })
    }

    /// Fields are numbered by their distance from the last one; 0 ends the structure.
    fn next_field(&mut self, field: &mut u64) -> Result<Option<u64>, GobError> {
        let distance = self.number()?;
        *field = field.checked_add(distance).ok_or(GobError::Malformed)?;
        Ok((distance != 0).then_some(*field))
    }
}

/// Gob's own id of its unsigned type.
const UNSIGNED: i64 = 3;

/// Bytes in a key.
const KEY_LEN: i64 = 32;
