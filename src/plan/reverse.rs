//! The names of addresses, and the domains of networks of them.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::DomainName;

/// The name under which the names of an address are (RFC 1035 §3.5, RFC 3596 §2.5).
pub(super) fn reverse_name(address: IpAddr) -> DomainName {
    match address {
        IpAddr::V4(ip) => reverse(&ip.octets().map(|octet| octet.to_string()), "in-addr.arpa"),
        IpAddr::V6(ip) => reverse(&nibbles(ip), "ip6.arpa"),
    }
}

/// The domains of all addresses of a network: as many as it takes where its prefix ends within a label, none if that are
/// too many.
pub(super) fn reverse_zones(net: &IpNet) -> Vec<DomainName> {
    let (bits, domain) = if net.addr().is_ipv4() { (8, "in-addr.arpa") } else { (4, "ip6.arpa") };
    let whole = net.prefix_len().div_ceil(bits);
    if whole * bits - net.prefix_len() > WIDEST {
        return Vec::new();
    }
    let Ok(parts) = net.subnets(whole * bits) else { return Vec::new() };
    parts
        .map(|part| {
            let labels = match part.network() {
                IpAddr::V4(ip) => ip.octets().map(|octet| octet.to_string()).to_vec(),
                IpAddr::V6(ip) => nibbles(ip),
            };
            reverse(&labels[..usize::from(whole).min(labels.len())], domain)
        })
        .collect()
}

/// Bits by which a prefix may end before its label does: more would take more zones than a resolver has room for
/// (systemd-resolved 256 for a link).
const WIDEST: u8 = 4;

fn reverse(labels: &[String], domain: &str) -> DomainName {
    let labels: Vec<_> = labels.iter().rev().map(String::as_str).chain([domain]).collect();
    labels.join(".").parse().expect("numbers are labels")
}

fn nibbles(ip: Ipv6Addr) -> Vec<String> {
    ip.octets().iter().flat_map(|octet| [format!("{:x}", octet >> 4), format!("{:x}", octet & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reverse_zones_are_whole_labels() {
        for (net, zones) in [
            ("10.101.0.3/16", vec!["101.10.in-addr.arpa"]),
            ("10.101.2.3/23", vec!["2.101.10.in-addr.arpa", "3.101.10.in-addr.arpa"]),
            ("10.101.2.3/32", vec!["3.2.101.10.in-addr.arpa"]),
            ("fd00:9::1/32", vec!["9.0.0.0.0.0.d.f.ip6.arpa"]),
        ] {
            let found: Vec<_> = reverse_zones(&net.parse().unwrap()).iter().map(ToString::to_string).collect();
            assert_eq!(found, zones, "{net}");
        }
    }

    proptest! {
        #[test]
        fn every_address_is_in_the_zones_of_its_network(address: [u8; 4], prefix in 8..=32_u8) {
            let net = IpNet::new(address.into(), prefix).unwrap();

            let name = reverse_name(net.addr());

            let zones = reverse_zones(&net);
            prop_assert!(zones.len() <= 16);
            let held = zones.iter().filter(|zone| zone.contains(name.as_str())).count();
            prop_assert_eq!(held, usize::from(prefix % 8 == 0 || prefix % 8 >= 4));
        }
    }
}
