//! The enrollment key as a person pastes it, parsed: which server, which secret.

use std::{fmt, str::FromStr};

use data_encoding::{BASE32, BASE64, BASE64_NOPAD};
use ring::digest;
use serde::Deserialize;

use super::{KeyShape, Secret, Server, ServerError};

/// A text that is not an enrollment key. No variant carries any of the key's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing but white space.
    #[error("enrollment key is empty")]
    Empty,
    /// The JSON inside has no such field, or it is empty.
    #[error("enrollment key has no {0:?} in it")]
    Lacks(&'static str),
    /// A character outside base64; the position counts from 1, white space left out.
    #[error("enrollment key is not base64 at character {0}")]
    NotBase64(usize),
    /// Base64 of something other than a JSON object.
    #[error("enrollment key does not hold a JSON object")]
    NotJson,
    /// The server in it is not an address.
    #[error("enrollment key names no usable server")]
    Server(#[source] ServerError),
    /// More than 8192 characters.
    #[error("enrollment key is {0} characters long, far more than a key has")]
    TooLong(usize),
    /// The text ends in the middle.
    #[error("enrollment key is cut off at the end")]
    Truncated,
    /// The secret has characters that no server issues.
    #[error("enrollment key has control characters in its value")]
    Value,
}

/// Some editors begin a file with it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Longest text taken for a key, in characters.
const MAX_LENGTH: usize = 8192;

/// An enrollment key: the server to ask and the secret to show it.
///
/// The text form is standard base64 of `{"server":…,"value":…}` (protocol page, "Token").
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    server: Server,
    text: Secret,
    value: Secret,
}

impl Token {
    /// The server that issued the key.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The text as the server wants it back: standard alphabet, padded, no white space.
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// What may be shown and saved: the first 10 base32 characters of SHA-256 of the value.
    pub fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.value.expose().as_bytes());
        BASE32.encode(hash.as_ref()).chars().take(10).collect()
    }

    /// What it looks like, with nothing of its value.
    pub fn shape(&self) -> KeyShape {
        let value = self.value.expose();
        KeyShape {
            length: self.text.expose().len(),
            usual: value.len() == 32 && BASE32.decode(value.as_bytes()).is_ok(),
            value_length: value.chars().count(),
        }
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Takes what people paste: white space and line breaks anywhere, missing padding, the URL-safe alphabet.
    fn from_str(pasted: &str) -> Result<Self, TokenError> {
        let text: String = pasted
            .chars()
            .filter(|character| !character.is_whitespace() && *character != BYTE_ORDER_MARK)
            .map(|character| match character {
                '-' => '+',
                '_' => '/',
                other => other,
            })
            .collect();
        if text.len() > MAX_LENGTH {
            return Err(TokenError::TooLong(text.chars().count()));
        }
        let bare = text.trim_end_matches('=');
        if bare.is_empty() {
            return Err(TokenError::Empty);
        }
        let foreign = |character: char| !character.is_ascii_alphanumeric() && character != '+' && character != '/';
        if let Some((before, _)) = bare.split_once(foreign) {
            return Err(TokenError::NotBase64(before.chars().count() + 1));
        }
        // Every character is base64, so whatever is wrong is wrong at the end.
        let bytes = BASE64_NOPAD.decode(bare.as_bytes()).map_err(|_| TokenError::Truncated)?;
        let Inside { server, value } = serde_json::from_slice(&bytes).map_err(|error| match error.classify() {
            serde_json::error::Category::Eof => TokenError::Truncated,
            serde_json::error::Category::Data
            | serde_json::error::Category::Io
            | serde_json::error::Category::Syntax => TokenError::NotJson,
        })?;
        let value = value.filter(|value| !value.is_empty()).ok_or(TokenError::Lacks("value"))?;
        let server = server.filter(|server| !server.is_empty()).ok_or(TokenError::Lacks("server"))?;
        if value.chars().any(char::is_control) {
            return Err(TokenError::Value);
        }
        let server = server.parse().map_err(TokenError::Server)?;
        Ok(Self { server, text: Secret::from(BASE64.encode(&bytes)), value: Secret::from(value) })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, key {})", self.server, self.fingerprint())
    }
}

#[derive(Deserialize)]
struct Inside {
    server: Option<String>,
    value: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str =
        "eyJzZXJ2ZXIiOiJhcGkubm0uZXhhbXBsZS5uZXQiLCJ2YWx1ZSI6Iko1RFQ3WFlDSFZUUzNGM08zQTdUUVg0TEQyTDRFRkxHIn0=";

    #[test]
    fn reads_a_recorded_key() {
        let token: Token = RECORDED.parse().unwrap();

        assert_eq!(token.server().to_string(), "api.nm.example.net");
        assert_eq!(token.text().expose(), RECORDED);
        assert_eq!(token.value.expose(), "J5DT7XYCHVTS3F3O3A7TQX4LD2L4EFLG");
    }

    #[test]
    fn forgives_what_cannot_be_misread() {
        let wrapped = format!("  {}\r\n{}\n", &RECORDED[..40], &RECORDED[40..]);
        let unpadded = RECORDED.trim_end_matches('=');
        let marked = format!("\u{feff}{RECORDED}");
        for pasted in [wrapped.as_str(), unpadded, &marked] {
            let token: Token = pasted.parse().unwrap();

            assert_eq!(token.text().expose(), RECORDED);
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_bad_key() {
        let encoded = |json: &str| BASE64.encode(json.as_bytes());
        for (pasted, error) in [
            (String::new(), TokenError::Empty),
            (" \n".to_owned(), TokenError::Empty),
            ("eyJz*".to_owned(), TokenError::NotBase64(5)),
            (RECORDED[..60].to_owned(), TokenError::Truncated),
            (RECORDED[..61].to_owned(), TokenError::Truncated),
            (encoded("hello"), TokenError::NotJson),
            (encoded("[1]"), TokenError::NotJson),
            (encoded(r#"{"value":"A"}"#), TokenError::Lacks("server")),
            (encoded(r#"{"server":"a.example","value":""}"#), TokenError::Lacks("value")),
            (encoded(r#"{"server":"a.example","value":"A\u0000"}"#), TokenError::Value),
            ("A".repeat(9000), TokenError::TooLong(9000)),
        ] {
            assert_eq!(pasted.parse::<Token>(), Err(error), "{pasted:.20}");
        }
        let foreign = encoded(r#"{"server":"../etc","value":"A"}"#).parse::<Token>();
        assert!(matches!(foreign, Err(TokenError::Server(_))));
    }

    #[test]
    fn prints_the_server_and_the_fingerprint_only() {
        let token: Token = RECORDED.parse().unwrap();

        let printed = format!("{token:?}");

        assert_eq!(printed, format!("Token(api.nm.example.net, key {})", token.fingerprint()));
        assert_eq!(token.fingerprint().len(), 10);
        assert!(!printed.contains("J5DT"));
    }
}
