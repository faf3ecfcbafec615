//! The address of an enrollment server's API: a host, perhaps a port.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A text that is not a server address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Plain HTTP to somewhere else than this machine.
    #[error("{0:?} is not talked to, since plain HTTP is only for loopback addresses")]
    Plain(String),
    /// Anything else.
    #[error("{0:?} is not a server address like api.example.net or api.example.net:8443")]
    Wrong(String),
}

/// Host and port of a server's HTTPS API; also names the state folder of a membership.
///
/// The host is a DNS name in lower case, an IPv4 address or a bracketed IPv6 address, so the text is a safe file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Server {
    host: String,
    /// `None` is 443.
    port: Option<u16>,
}

impl Server {
    /// The host as a URL carries it: IPv6 addresses in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the host is an address of this machine alone; a name never counts, since somebody has to resolve it.
    pub fn is_loopback(&self) -> bool {
        self.host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// TCP port of the API.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(443)
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let shown = || text.chars().take(80).collect();
        if let Some(plain) = text.strip_prefix("http://") {
            // Whether it is really talked to by plain HTTP is the owner's to say.
            let server = plain.parse().ok().filter(Self::is_loopback);
            return server.ok_or_else(|| ServerError::Plain(shown()));
        }
        let wrong = || ServerError::Wrong(shown());
        let bare = text.strip_prefix("https://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let (host, port) = match bare.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
                (host, Some(port))
            }
            _ => (bare, None),
        };
        let host = host.to_ascii_lowercase();
        let address = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<Ipv4Addr>().is_ok() || is_dns_name(&host),
        };
        if !address {
            return Err(wrong());
        }
        Ok(Self { host, port: port.filter(|port| *port != 443) })
    }
}

impl TryFrom<String> for Server {
    type Error = ServerError;

    fn try_from(text: String) -> Result<Self, ServerError> {
        text.parse()
    }
}

impl From<Server> for String {
    fn from(server: Server) -> Self {
        server.to_string()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

/// RFC 1123 §2.1 host names, with the underscores that internal zones use.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(label) && !name.split('.').all(|part| part.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_with_and_without_a_port() {
        for (text, host, port) in [
            ("api.nm.example.net", "api.nm.example.net", 443),
            ("API.example.net:8443", "api.example.net", 8443),
            ("https://api.example.net/", "api.example.net", 443),
            ("192.0.2.7:444", "192.0.2.7", 444),
            ("[2001:db8::1]:444", "[2001:db8::1]", 444),
            ("[2001:db8::1]", "[2001:db8::1]", 443),
            ("localhost", "localhost", 443),
        ] {
            let server: Server = text.parse().unwrap();

            assert_eq!((server.host(), server.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_a_host_or_a_file_name() {
        for text in [
            "",
            "..",
            "a/b",
            "../../etc",
            "http://x",
            "a b",
            "x:0",
            "x:99999",
            "x:",
            "2001:db8::1",
            "1.2.3",
            "-a.b",
            "é",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn plain_http_is_taken_from_loopback_addresses_alone() {
        for (text, is_loopback) in [("http://127.0.0.1:8080", true), ("http://[::1]:8080/", true)] {
            assert_eq!(text.parse::<Server>().map(|server| server.is_loopback()), Ok(is_loopback), "{text}");
        }
        for text in ["http://localhost", "http://api.example.net", "http://192.0.2.7", "http://0.0.0.0", "http://"] {
            assert_eq!(text.parse::<Server>(), Err(ServerError::Plain(text.to_owned())));
        }
        assert!(!"localhost".parse::<Server>().unwrap().is_loopback());
    }

    #[test]
    fn the_standard_port_is_not_another_server() {
        assert_eq!("a.example:443".parse::<Server>(), "a.example".parse());
    }
}
