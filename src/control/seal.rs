//! Sealing of messages that pass through the broker, in the server's two formats.
//!
//! ```text
//! server → host   nonce(12) ‖ AES-256-GCM(gzip(JSON)); the key is the start of the host's encoded traffic key
//! host → server   nonce(24) ‖ NaCl box(piece), pieces of 16,000 bytes joined by a separator
//! ```
//!
//! The first format proves no sender and does not stop replays, and its key is derived from a value the protocol calls
//! public: 14 type bytes, then the public key. [`gob::encode`] with a random type name puts 26 secret random bytes into
//! it, which the server accepts.

pub mod gob;

use std::io::{self, Read, Write};

use crypto_box::{PublicKey, SalsaBox, SecretKey, aead::Aead};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Why a message cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Another key, or not what was sent.
    #[error("message cannot be decrypted")]
    Broken,
    /// Decrypted, but not gzip.
    #[error("message is not gzip")]
    NotGzip(#[source] io::Error),
    /// Grows beyond the limit when unpacked.
    #[error("message unpacks to more than {0} bytes")]
    TooLarge(usize),
    /// Fewer bytes than a nonce.
    #[error("message of {0} bytes is too short")]
    TooShort(usize),
    /// Fewer bytes than an AES key.
    #[error("traffic key of {0} bytes is too short to seal with")]
    TrafficKey(usize),
}

/// The key for messages to a host: the first 32 bytes of its traffic key as it was registered.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PayloadKey([u8; 32]);

impl PayloadKey {
    /// Takes the registered, encoded traffic key.
    ///
    /// # Errors
    /// [`SealError::TrafficKey`] if it has less than 32 bytes.
    pub fn from_traffic_key(encoded: &[u8]) -> Result<Self, SealError> {
        encoded.first_chunk().map(|key| Self(*key)).ok_or(SealError::TrafficKey(encoded.len()))
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0).expect("an AES-256 key has 32 bytes"))
    }

    fn encrypt(&self, nonce: [u8; NONCE_LEN], mut message: Vec<u8>) -> Vec<u8> {
        self.cipher()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut message)
            .expect("a message fits into AES-GCM's 64 GiB");
        [&nonce[..], &message].concat()
    }
}

impl std::fmt::Debug for PayloadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PayloadKey(…)")
    }
}

/// Seals `json` for the host that registered `key`; a nonce must never repeat.
pub fn seal_payload(key: &PayloadKey, nonce: [u8; NONCE_LEN], json: &[u8]) -> Vec<u8> {
    key.encrypt(nonce, gzip(json))
}

/// Opens what [`seal_payload`] made, to at most `limit` bytes.
///
/// # Errors
/// [`SealError`] if it was made with another key, was changed, is not gzip inside, or is larger than `limit`.
pub fn open_payload(key: &PayloadKey, payload: &[u8], limit: usize) -> Result<Vec<u8>, SealError> {
    let (nonce, sealed) = payload.split_first_chunk().ok_or(SealError::TooShort(payload.len()))?;
    let mut sealed = sealed.to_vec();
    let packed = key
        .cipher()
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut sealed)
        .map_err(|_| SealError::Broken)?;
    let mut json = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(&*packed).take(most).read_to_end(&mut json).map_err(SealError::NotGzip)?;
    if json.len() > limit { Err(SealError::TooLarge(limit)) } else { Ok(json) }
}

/// Seals `message` from the holder of `sender` to the holder of the private half of `recipient`.
///
/// `nonce` is asked once for each 16,000 bytes, and must never answer the same twice; [`random`] does.
/// An empty message has no pieces and seals to nothing.
pub fn seal_box(
    recipient: &[u8; 32],
    sender: &[u8; 32],
    message: &[u8],
    mut nonce: impl FnMut() -> [u8; BOX_NONCE_LEN],
) -> Vec<u8> {
    let cipher = SalsaBox::new(&PublicKey::from(*recipient), &SecretKey::from(*sender));
    let mut sealed = Vec::new();
    for piece in message.chunks(PIECE_LEN) {
        let boxed = seal_piece(&cipher, piece, &mut nonce);
        if !sealed.is_empty() {
            sealed.extend_from_slice(SEPARATOR);
        }
        sealed.extend(boxed);
    }
    sealed
}

/// Opens what [`seal_box`] made: `sender` is the public key of who sealed it, `recipient` our private one.
///
/// # Errors
/// [`SealError::TooShort`] or [`SealError::Broken`] if any piece is not what was sealed.
pub fn open_box(sender: &[u8; 32], recipient: &[u8; 32], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let cipher = SalsaBox::new(&PublicKey::from(*sender), &SecretKey::from(*recipient));
    let mut message = Vec::new();
    let mut rest = Some(sealed);
    while let Some(bytes) = rest {
        let piece;
        (piece, rest) = match find(bytes, SEPARATOR) {
            Some(at) => (&bytes[..at], Some(&bytes[at + SEPARATOR.len()..])),
            None => (bytes, None),
        };
        let (nonce, boxed) = piece.split_first_chunk::<BOX_NONCE_LEN>().ok_or(SealError::TooShort(piece.len()))?;
        message.extend(cipher.decrypt(&(*nonce).into(), boxed).map_err(|_| SealError::Broken)?);
    }
    Ok(message)
}

/// Returns bytes from the system's random source, for nonces and type names.
///
/// # Panics
/// If the system has no random source; nothing secure can run on such a system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has a random source");
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

/// Seals one piece; the format has no escape, so one that would be cut in the wrong place is sealed again.
fn seal_piece(cipher: &SalsaBox, piece: &[u8], nonce: &mut impl FnMut() -> [u8; BOX_NONCE_LEN]) -> Vec<u8> {
    loop {
        let nonce = nonce();
        let boxed = cipher.encrypt(&nonce.into(), piece).expect("a piece of 16,000 bytes can be sealed");
        let sealed = [&nonce[..], &boxed].concat();
        if find(&[&sealed[..], SEPARATOR].concat(), SEPARATOR) == Some(sealed.len()) {
            return sealed;
        }
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// Bytes in the nonce of a `NaCl` box.
pub const BOX_NONCE_LEN: usize = 24;

/// Stands between the pieces.
const SEPARATOR: &[u8; 8] = b"|(,)(,)|";

/// Plain bytes in a piece.
const PIECE_LEN: usize = 16_000;
