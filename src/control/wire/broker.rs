//! Where a broker is.

use std::str::FromStr;

/// A broker's address as the server's configuration writes it (protocol page, "Broker and session").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerAddress {
    /// MQTT over plain TCP.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port; 1883 by default.
        port: u16,
    },
    /// MQTT over TLS.
    Tls {
        /// Name or address, without brackets.
        host: String,
        /// Port; 8883 by default.
        port: u16,
    },
    /// MQTT in a WebSocket.
    WebSocket(String),
    /// MQTT in a WebSocket over TLS.
    WebSocketTls(String),
}

/// A text that is no broker's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of a broker like wss://broker.example.net")]
pub struct BrokerAddressError(String);

impl BrokerAddressError {
    /// Quotes the address on one line.
    pub fn of(text: &str) -> Self {
        Self(text.chars().filter(|character| !character.is_control()).take(200).collect())
    }
}

impl FromStr for BrokerAddress {
    type Err = BrokerAddressError;

    /// Understands the schemes that the hosts' own library does; without a scheme it is plain TCP.
    fn from_str(text: &str) -> Result<Self, BrokerAddressError> {
        let wrong = || BrokerAddressError::of(text);
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| wrong())?)),
            Some(_) | None => (authority, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || host.contains(['@', ' ']) || port == Some(0) {
            return Err(wrong());
        }
        match scheme {
            "mqtt" | "tcp" => Ok(Self::Tcp { host, port: port.unwrap_or(1883) }),
            "mqtt+ssl" | "mqtts" | "ssl" | "tcps" | "tls" => Ok(Self::Tls { host, port: port.unwrap_or(8883) }),
            "ws" => Ok(Self::WebSocket(text.to_owned())),
            "wss" => Ok(Self::WebSocketTls(text.to_owned())),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_scheme_of_the_hosts_library() {
        let tcp = |port| BrokerAddress::Tcp { host: "broker.example".into(), port };
        let tls = |port| BrokerAddress::Tls { host: "broker.example".into(), port };
        for (text, expected) in [
            ("broker.example", tcp(1883)),
            ("broker.example:1884", tcp(1884)),
            ("mqtt://broker.example", tcp(1883)),
            ("tcp://broker.example:1884", tcp(1884)),
            ("ssl://broker.example", tls(8883)),
            ("mqtts://broker.example:443", tls(443)),
            ("ws://broker.example/mqtt", BrokerAddress::WebSocket("ws://broker.example/mqtt".into())),
            ("wss://broker.example", BrokerAddress::WebSocketTls("wss://broker.example".into())),
            ("tls://[2001:db8::1]:8884", BrokerAddress::Tls { host: "2001:db8::1".into(), port: 8884 }),
            ("tcp://[2001:db8::1]", BrokerAddress::Tcp { host: "2001:db8::1".into(), port: 1883 }),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_nobody_can_connect_to() {
        for text in ["", "unix:///run/broker", "tcp://", "tcp://:1883", "tcp://x:0", "tcp://x:99999", "tcp://a@b"] {
            assert!(text.parse::<BrokerAddress>().is_err(), "{text:?} was accepted");
        }
    }
}
