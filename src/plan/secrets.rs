//! Recognising secrets of ours in whatever text they were left in.
//!
//! A secret is looked for where it stands as one word. One that was broken over several lines is not found.

use std::collections::BTreeSet;

use data_encoding::{BASE32, BASE64_NOPAD, BASE64URL_NOPAD};
use ring::digest;
use serde::Serialize;

use crate::model::{PrivateKey, PublicKey, Token};

/// Something that should not be where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FoundSecret {
    /// What may be shown of it: of an enrollment key the fingerprint, of a WireGuard key the public half.
    pub fingerprint: String,
    /// What it is.
    pub kind: SecretKind,
    /// The line, counted from 1.
    pub line: usize,
}

/// What kind of secret it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretKind {
    /// An enrollment key.
    EnrollmentKey,
    /// A signed session token (RFC 7519).
    Jwt,
    /// A private WireGuard key of this machine.
    WireguardKey,
}

/// Reads text in pieces.
#[derive(Debug)]
pub struct SecretScanner<'a> {
    found: BTreeSet<FoundSecret>,
    line: usize,
    own: &'a BTreeSet<PublicKey>,
    /// How many more words may be tried as WireGuard keys, which takes longer than everything else.
    trials: u32,
    word: Vec<u8>,
}

impl<'a> SecretScanner<'a> {
    /// Looks for private halves of `own` beside enrollment keys and session tokens.
    pub fn new(own: &'a BTreeSet<PublicKey>) -> Self {
        Self { found: BTreeSet::new(), line: 1, own, trials: MOST_TRIALS, word: Vec::new() }
    }

    /// Reads on.
    pub fn read(&mut self, piece: &[u8]) {
        for &byte in piece {
            if byte.is_ascii_alphanumeric() || b"+/-_.".contains(&byte) {
                // Of a word that is too long to be one the beginning is enough.
                if self.word.len() < LONGEST_WORD {
                    self.word.push(byte);
                }
                continue;
            }
            self.end_word();
            self.line += usize::from(byte == b'\n');
        }
    }

    /// Ends, and tells what there was.
    pub fn finish(mut self) -> BTreeSet<FoundSecret> {
        self.end_word();
        self.found
    }

    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.word);
        if word.len() >= SHORTEST_SECRET
            && let Ok(word) = std::str::from_utf8(&word)
        {
            let word = word.trim_matches('.');
            // A path or a name may be in front of it.
            let starts = word.match_indices("ey").map(|(at, _)| at);
            let starts = starts.filter(|at| *at == 0 || word[..*at].ends_with(['/', '-', '_', '.', '+']));
            let found =
                starts.take(MOST_STARTS).find_map(|at| token_or_jwt(&word[at..])).or_else(|| self.own_key(word));
            if let Some((kind, fingerprint)) = found {
                self.found.insert(FoundSecret { fingerprint, kind, line: self.line });
            }
        }
        // Its memory is used again, and holds nothing.
        self.word = zeroed(word);
    }

    fn own_key(&mut self, word: &str) -> Option<(SecretKind, String)> {
        if word.len() != KEY_LENGTH || self.own.is_empty() || self.trials == 0 {
            return None;
        }
        let bytes = BASE64_NOPAD.decode(word.as_bytes()).ok()?.try_into().ok()?;
        self.trials -= 1;
        let public = PrivateKey::from_bytes(bytes).public_key();
        self.own.contains(&public).then(|| (SecretKind::WireguardKey, public.to_string()))
    }
}

fn zeroed(mut word: Vec<u8>) -> Vec<u8> {
    word.fill(0);
    word.clear();
    word
}

fn token_or_jwt(text: &str) -> Option<(SecretKind, String)> {
    let parts: Vec<_> = text.split('.').collect();
    if let [head, claims, signature] = parts.as_slice()
        && !claims.is_empty()
        && !signature.is_empty()
        && let Ok(head) = BASE64URL_NOPAD.decode(head.as_bytes())
        && serde_json::from_slice::<serde_json::Value>(&head).is_ok_and(|head| head.get("alg").is_some())
    {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        return Some((SecretKind::Jwt, BASE32.encode(hash.as_ref()).chars().take(10).collect()));
    }
    let token: Token = parts.first()?.parse().ok()?;
    Some((SecretKind::EnrollmentKey, token.fingerprint()))
}

/// Of the kinds there are; WireGuard keys have 43 characters and one of padding.
const SHORTEST_SECRET: usize = 40;
const KEY_LENGTH: usize = 43;

/// An enrollment key has 8 KiB at most.
const LONGEST_WORD: usize = 16 << 10;

/// Words that begin in many places at once are no secrets.
const MOST_STARTS: usize = 8;

/// Some 50 microseconds each.
const MOST_TRIALS: u32 = 20_000;

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    #[test]
    fn keys_are_found_wherever_they_stand_as_a_word() {
        let key = token();
        let fingerprint = key.parse::<Token>().unwrap().fingerprint();
        for text in [
            key.clone(),
            format!("a\nexport ENROLL_AGENT_KEY={key}\n"),
            format!("POST /api/v1/host/register/{key} HTTP/1.1"),
            format!("key: \"{}\".", key.trim_end_matches('=')),
            format!("- agent join {key}; reboot"),
        ] {
            let found = scan(text.as_bytes());

            assert_eq!(found.len(), 1, "{text}");
            assert_eq!((found[0].kind, &found[0].fingerprint), (SecretKind::EnrollmentKey, &fingerprint));
            assert!(!format!("{found:?}").contains(&key[..30]));
        }
        assert_eq!(scan(format!("a\nb {key}\n").as_bytes())[0].line, 2);
    }

    #[test]
    fn session_tokens_and_own_private_keys_are_found_and_others_are_not() {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let jwt = format!("{}.{}.c2lnbmF0dXJl", part(r#"{"alg":"HS256"}"#), part(r#"{"ID":"x"}"#));
        let key = PrivateKey::from_bytes([7; 32]);
        let (own, other) = (BASE64.encode(key.as_bytes()), BASE64.encode(&[9; 32]));

        assert_eq!(scan(format!("Authorization: Bearer {jwt}").as_bytes())[0].kind, SecretKind::Jwt);
        let found = scan(format!("PrivateKey = {own}\nPublicKey = {other}\n").as_bytes());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].kind, &found[0].fingerprint), (SecretKind::WireguardKey, &key.public_key().to_string()));
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for text in ["eyJhbGciOiJIUzI1NiJ9".repeat(9), format!("ey{}", "A".repeat(80)), BASE64.encode(&[1; 90])] {
            assert_eq!(scan(text.as_bytes()), [], "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn pieces_do_not_matter(at in 0_usize..200, before in "[ -~\n]{0,60}") {
            let text = format!("{before}\n{}\n", token());
            let at = at.min(text.len());
            let own = BTreeSet::new();
            let mut scanner = SecretScanner::new(&own);
            scanner.read(&text.as_bytes()[..at]);
            scanner.read(&text.as_bytes()[at..]);

            proptest::prop_assert_eq!(scanner.finish().len(), 1);
        }
    }

    fn token() -> String {
        BASE64.encode(br#"{"server":"api.nm.example.net","value":"J5DT7XYCHVTS3F3O3A7TQX4LD2L4EFLG"}"#)
    }

    fn scan(text: &[u8]) -> Vec<FoundSecret> {
        let own = BTreeSet::from([PrivateKey::from_bytes([7; 32]).public_key()]);
        let mut scanner = SecretScanner::new(&own);
        scanner.read(text);
        scanner.finish().into_iter().collect()
    }
}
