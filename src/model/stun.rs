//! Who is asked for this host's address as others see it.

use std::{fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Server;

/// A text that names no STUN server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a STUN server like stun.example.net or stun.example.net:3478")]
pub struct StunServerError(String);

/// A STUN server: host and UDP port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StunServer {
    /// A DNS name or an address, IPv6 without brackets.
    host: String,
    port: NonZeroU16,
}

impl StunServer {
    /// A DNS name or an address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its UDP port.
    pub fn port(&self) -> u16 {
        self.port.get()
    }
}

impl FromStr for StunServer {
    type Err = StunServerError;

    fn from_str(text: &str) -> Result<Self, StunServerError> {
        let wrong = || StunServerError(text.chars().take(80).collect());
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
            Some(_) | None => (text, STUN_PORT),
        };
        let server: Server = host.parse().map_err(|_| wrong())?;
        let host = server.host().trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port })
    }
}

impl TryFrom<String> for StunServer {
    type Error = StunServerError;

    fn try_from(text: String) -> Result<Self, StunServerError> {
        text.parse()
    }
}

impl From<StunServer> for String {
    fn from(server: StunServer) -> Self {
        server.to_string()
    }
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StunServer({self})")
    }
}

/// What the owner of the machine decided about STUN servers; written as `off` or as servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StunText", into = "StunText")]
pub enum StunChoice {
    /// Nobody is asked.
    Off,
    /// These are asked, whatever the enrollment server names.
    Servers(Vec<StunServer>),
}

impl StunChoice {
    /// Returns who is to be asked; empty is nobody.
    pub fn servers(&self) -> &[StunServer] {
        match self {
            Self::Off => &[],
            Self::Servers(servers) => servers,
        }
    }
}

impl FromStr for StunChoice {
    type Err = StunServerError;

    fn from_str(text: &str) -> Result<Self, StunServerError> {
        if text == OFF {
            return Ok(Self::Off);
        }
        text.split(',').map(|server| server.trim().parse()).collect::<Result<_, _>>().map(Self::Servers)
    }
}

/// How a choice is written: one text, or a list of servers.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StunText {
    List(Vec<String>),
    Text(String),
}

impl TryFrom<StunText> for StunChoice {
    type Error = StunServerError;

    fn try_from(text: StunText) -> Result<Self, StunServerError> {
        match text {
            StunText::List(servers) => {
                servers.iter().map(|server| server.parse()).collect::<Result<_, _>>().map(Self::Servers)
            }
            StunText::Text(text) => text.parse(),
        }
    }
}

impl From<StunChoice> for StunText {
    fn from(choice: StunChoice) -> Self {
        match choice {
            StunChoice::Off => Self::Text(OFF.to_owned()),
            StunChoice::Servers(servers) => Self::List(servers.into_iter().map(String::from).collect()),
        }
    }
}

const OFF: &str = "off";

/// The port of a server that names none (RFC 8489 §18.6).
const STUN_PORT: NonZeroU16 = NonZeroU16::new(3478).expect("not zero");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_servers_with_and_without_a_port() {
        for (text, host, port) in [
            ("stun.example.net", "stun.example.net", 3478),
            ("STUN.example.net:443", "stun.example.net", 443),
            ("192.0.2.7:19302", "192.0.2.7", 19302),
            ("[2001:db8::1]", "2001:db8::1", 3478),
            ("[2001:db8::1]:9", "2001:db8::1", 9),
        ] {
            let server: StunServer = text.parse().unwrap();

            assert_eq!((server.host(), server.port()), (host, port), "{text}");
            assert_eq!(server.to_string().parse(), Ok(server));
        }
        for text in ["", ":3478", "a b", "a:0", "a:65536", "2001:db8::1", "a/b"] {
            assert!(text.parse::<StunServer>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_choice_is_off_or_servers_as_text_or_list() {
        let two = StunChoice::Servers(vec!["a.example".parse().unwrap(), "b.example:9".parse().unwrap()]);

        assert_eq!("off".parse(), Ok(StunChoice::Off));
        assert_eq!("a.example, b.example:9".parse(), Ok(two.clone()));
        for (json, choice) in [(r#""off""#, StunChoice::Off), (r#"["a.example:3478","b.example:9"]"#, two)] {
            assert_eq!(serde_json::from_str::<StunChoice>(json).unwrap(), choice);
            assert_eq!(serde_json::to_string(&choice).unwrap(), json);
        }
        assert!(serde_json::from_str::<StunChoice>(r#"["a b"]"#).is_err());
    }
}
