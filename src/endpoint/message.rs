//! STUN binding requests and their answers (RFC 8489), as far as finding out an address needs them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What tells the answer to a request from anything else: 96 random bits (RFC 8489 §5).
pub(super) type Transaction = [u8; 12];

/// Writes a binding request.
pub(super) fn request(transaction: &Transaction) -> [u8; HEADER] {
    let mut message = [0; HEADER];
    message[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
    message[4..8].copy_from_slice(&COOKIE.to_be_bytes());
    message[8..].copy_from_slice(transaction);
    message
}

/// Reads the address that a success response to `transaction` tells; `None` for anything else.
///
/// XOR-MAPPED-ADDRESS goes before MAPPED-ADDRESS, which some NATs rewrite on the way. Attributes that are not known are
/// passed over even if they ask to be understood: servers of the time before RFC 5389 send such, and none of them
/// changes what an address means.
pub(super) fn mapped_address(message: &[u8], transaction: &Transaction) -> Option<SocketAddr> {
    let (header, attributes) = message.split_at_checked(HEADER)?;
    let is_answer = header[..2] == BINDING_SUCCESS.to_be_bytes()
        && usize::from(u16::from_be_bytes([header[2], header[3]])) == attributes.len()
        && header[4..8] == COOKIE.to_be_bytes()
        && header[8..] == *transaction;
    if !is_answer {
        return None;
    }
    let mut plain = None;
    for (kind, value) in Attributes(attributes) {
        match kind {
            XOR_MAPPED_ADDRESS => return address(value, transaction, COOKIE),
            MAPPED_ADDRESS => plain = address(value, &[0; 12], 0),
            _ => {}
        }
    }
    plain
}

/// Reads an address whose port and bytes are mixed with a mask of `cookie` and `transaction` (RFC 8489 §14.2).
fn address(value: &[u8], transaction: &Transaction, cookie: u32) -> Option<SocketAddr> {
    let (head, ip) = value.split_at_checked(4)?;
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&cookie.to_be_bytes());
    mask[4..].copy_from_slice(transaction);
    let port = u16::from_be_bytes([head[2] ^ mask[0], head[3] ^ mask[1]]);
    let ip: IpAddr = match head[1] {
        IPV4 => Ipv4Addr::from(unmask::<4>(ip, &mask)?).into(),
        IPV6 => Ipv6Addr::from(unmask::<16>(ip, &mask)?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn unmask<const N: usize>(bytes: &[u8], mask: &[u8; 16]) -> Option<[u8; N]> {
    let mut bytes: [u8; N] = bytes.try_into().ok()?;
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    Some(bytes)
}

/// Attributes one after the other, each filled up to a multiple of four bytes; ends at the first broken one.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_at_checked(4)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..length)?;
        self.0 = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([head[0], head[1]]), value))
    }
}

/// Bytes of a message without attributes.
const HEADER: usize = 20;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const COOKIE: u32 = 0x2112_a442;
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// The responses of RFC 5769 §2.2 and §2.3, whose transaction is [`KNOWN`].
    #[test]
    fn reads_the_published_examples() {
        let v4 = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f722000200008\
                  0001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
        let v6 = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a147\
                  0113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

        for (message, address) in [(v4, "192.0.2.1:32853"), (v6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")] {
            let bytes = data_encoding::HEXLOWER.decode(message.as_bytes()).unwrap();

            assert_eq!(mapped_address(&bytes, &KNOWN), address.parse().ok());
            assert_eq!(mapped_address(&bytes, &[7; 12]), None, "of another transaction");
        }
    }

    #[test]
    fn writes_what_servers_expect() {
        let written = request(&KNOWN);

        assert_eq!(data_encoding::HEXLOWER.encode(&written), "000100002112a442b7e7a701bc34d686fa87dfae");
    }

    #[test]
    fn an_old_server_tells_the_address_as_it_is_beside_what_is_not_known() {
        let changed = attribute(0x0005, &[0, 1, 0x0d, 0x97, 192, 0, 2, 9]);
        let mapped = attribute(MAPPED_ADDRESS, &[0, 1, 0x80, 0x55, 192, 0, 2, 1]);

        let told = mapped_address(&response(&[changed, mapped].concat()), &KNOWN);

        assert_eq!(told, "192.0.2.1:32853".parse().ok());
    }

    #[test]
    fn a_refusal_tells_no_address() {
        let mut refusal = response(&attribute(XOR_MAPPED_ADDRESS, &[0, 1, 1, 2, 3, 4, 5, 6]));
        refusal[1] = 0x11;

        assert_eq!(mapped_address(&refusal, &KNOWN), None);
    }

    proptest! {
        #[test]
        fn any_address_comes_back(ip: IpAddr, port: u16, transaction: Transaction) {
            let address = SocketAddr::new(ip, port);
            let mut message = response(&attribute(XOR_MAPPED_ADDRESS, &masked(address, &transaction)));
            message[8..HEADER].copy_from_slice(&transaction);

            prop_assert_eq!(mapped_address(&message, &transaction), Some(address));
        }

        #[test]
        fn junk_tells_no_address(junk in vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(mapped_address(&junk, &KNOWN), None);
        }

        #[test]
        fn junk_after_a_right_header_is_survived(junk in vec(any::<u8>(), 0..600)) {
            let told = mapped_address(&response(&junk), &KNOWN);

            // Nothing is read that is not there.
            prop_assert!(told.is_none() || junk.len() >= 12);
        }

        #[test]
        fn an_answer_that_is_cut_off_or_changed_in_its_header_is_none(cut in 0_usize..32, flipped in 0_usize..HEADER) {
            let answer = response(&attribute(XOR_MAPPED_ADDRESS, &[0, 1, 1, 2, 3, 4, 5, 6]));
            prop_assert!(mapped_address(&answer, &KNOWN).is_some());

            prop_assert_eq!(mapped_address(&answer[..cut], &KNOWN), None);
            let mut changed = answer.clone();
            changed[flipped] ^= 0x80;
            prop_assert_eq!(mapped_address(&changed, &KNOWN), None);
        }
    }

    const KNOWN: Transaction = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn response(attributes: &[u8]) -> Vec<u8> {
        let mut message = request(&KNOWN).to_vec();
        message[..2].copy_from_slice(&BINDING_SUCCESS.to_be_bytes());
        message[2..4].copy_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
        message.extend(attributes);
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        [&kind.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
    }

    fn masked(address: SocketAddr, transaction: &Transaction) -> Vec<u8> {
        let mask = [&COOKIE.to_be_bytes()[..], transaction].concat();
        let (family, ip) = match address.ip() {
            IpAddr::V4(ip) => (IPV4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (IPV6, ip.octets().to_vec()),
        };
        let mix = |bytes: &[u8]| bytes.iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>();
        [&[0, family][..], &mix(&address.port().to_be_bytes()), &mix(&ip)].concat()
    }
}
