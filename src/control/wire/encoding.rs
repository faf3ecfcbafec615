//! How Go writes keys, bytes, addresses and networks in JSON.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use data_encoding::BASE64;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

use crate::model::PublicKey;

/// Decodes a value, taking `null` as the zero value.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A WireGuard public key as an array of 32 numbers; all zero when unset.
///
/// As in Go a shorter array is padded with zeros, a longer one is cut, and `null` is the zero key; a text is refused.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WgKey(pub [u8; 32]);

impl WgKey {
    /// Tells whether no key was given.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 32]
    }

    /// The form used for map keys and in human documents: padded standard base64.
    pub fn to_base64(self) -> String {
        BASE64.encode(&self.0)
    }
}

impl fmt::Debug for WgKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WgKey({})", self.to_base64())
    }
}

impl From<PublicKey> for WgKey {
    fn from(key: PublicKey) -> Self {
        Self(key.0)
    }
}

impl From<WgKey> for PublicKey {
    fn from(key: WgKey) -> Self {
        Self(key.0)
    }
}

impl Serialize for WgKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WgKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;

        impl<'de> Visitor<'de> for Numbers {
            type Value = WgKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of 32 numbers")
            }

            fn visit_unit<E: de::Error>(self) -> Result<WgKey, E> {
                Ok(WgKey::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<WgKey, A::Error> {
                let mut key = WgKey::default();
                for byte in &mut key.0 {
                    let Some(number) = numbers.next_element()? else { break };
                    *byte = number;
                }
                while numbers.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(key)
            }
        }

        deserializer.deserialize_any(Numbers)
    }
}

/// Bytes as padded standard base64; `None` is `null`. An array of numbers is accepted on input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GoBytes(pub Option<Vec<u8>>);

impl GoBytes {
    /// The bytes; empty when there are none.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<&[u8]> for GoBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(Some(bytes.to_vec()))
    }
}

impl Serialize for GoBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(bytes) => serializer.serialize_str(&BASE64.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for GoBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Base64(String),
            Numbers(Vec<u8>),
        }

        Ok(Self(match Option::deserialize(deserializer)? {
            Some(Form::Base64(text)) => Some(BASE64.decode(text.as_bytes()).map_err(de::Error::custom)?),
            Some(Form::Numbers(bytes)) => Some(bytes),
            None => None,
        }))
    }
}

/// An IP address as text; `None` is `""`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoIp(pub Option<IpAddr>);

impl From<IpAddr> for GoIp {
    fn from(address: IpAddr) -> Self {
        Self(Some(address))
    }
}

impl Serialize for GoIp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }
}

impl<'de> Deserialize<'de> for GoIp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            Some(text) if !text.is_empty() => {
                let address: IpAddr =
                    text.parse().map_err(|_| de::Error::custom(format_args!("invalid IP address: {text}")))?;
                Ok(Self(Some(address.to_canonical())))
            }
            Some(_) | None => Ok(Self(None)),
        }
    }
}

/// Why an address with a mask is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The mask is for the other family, or of no family's length.
    #[error("address {address} has a mask of {length} bytes")]
    MaskLength {
        /// The address.
        address: IpAddr,
        /// Bytes in the mask; 4 for IPv4, 16 for IPv6.
        length: usize,
    },
    /// The mask is not ones followed by zeros.
    #[error("address {0} has a mask that is no prefix")]
    NotContiguous(IpAddr),
    /// The port is outside 0 to 65535.
    #[error("port {0} is outside 0 to 65535")]
    Port(i64),
}

super::document! {
    /// An address and a netmask as bytes: `{"IP":"10.101.0.3","Mask":"//8AAA=="}`; `{"IP":"","Mask":null}` is none.
    ///
    /// The address may have bits beyond the mask: a node's own address carries its network's prefix.
    pub struct IpNet {
        /// The address; unset for none.
        ip: GoIp = "IP",
        /// The netmask, 4 or 16 bytes.
        mask: GoBytes = "Mask",
    }
}

impl IpNet {
    /// Reads address and prefix length; `None` for the empty form.
    ///
    /// # Errors
    /// [`NetError`] if there is no mask, the families differ, or the mask is no prefix.
    pub fn to_net(&self) -> Result<Option<ipnet::IpNet>, NetError> {
        let mask = self.mask.as_slice();
        // The server writes masks beside addresses that are not there.
        let Some(address) = self.ip.0 else { return Ok(None) };
        let bits = match (address, mask.len()) {
            (IpAddr::V4(_), 4) | (IpAddr::V6(_), 16) => {
                mask.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte))
            }
            (IpAddr::V4(_) | IpAddr::V6(_), length) => return Err(NetError::MaskLength { address, length }),
        };
        let bits = bits << (128 - 8 * mask.len());
        let prefix = bits.leading_ones();
        if bits.count_ones() != prefix {
            return Err(NetError::NotContiguous(address));
        }
        let prefix = u8::try_from(prefix).map_err(|_| NetError::NotContiguous(address))?;
        ipnet::IpNet::new(address, prefix).map(Some).map_err(|_| NetError::NotContiguous(address))
    }
}

impl From<ipnet::IpNet> for IpNet {
    fn from(net: ipnet::IpNet) -> Self {
        let mask = match net.netmask() {
            IpAddr::V4(mask) => mask.octets().to_vec(),
            IpAddr::V6(mask) => mask.octets().to_vec(),
        };
        Self { ip: net.addr().into(), mask: GoBytes(Some(mask)) }
    }
}

impl From<Option<ipnet::IpNet>> for IpNet {
    fn from(net: Option<ipnet::IpNet>) -> Self {
        net.map(Self::from).unwrap_or_default()
    }
}

super::document! {
    /// Where a peer's packets go; without an address the peer has to speak first.
    pub struct UdpAddr {
        /// The address; often unset while the port is known.
        ip: GoIp = "IP",
        /// The UDP port.
        port: i64 = "Port",
        /// IPv6 scope; never set by the server.
        zone: String = "Zone",
    }
}

impl UdpAddr {
    /// Reads address and port; `None` without an address.
    ///
    /// # Errors
    /// [`NetError::Port`] if the port is no port.
    pub fn to_socket(&self) -> Result<Option<SocketAddr>, NetError> {
        let Some(address) = self.ip.0 else { return Ok(None) };
        let port = u16::try_from(self.port).map_err(|_| NetError::Port(self.port))?;
        Ok(Some(SocketAddr::new(address, port)))
    }
}
