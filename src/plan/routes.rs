//! Which networks behind peers may be routed into a tunnel: a server must not be able to take a machine's traffic over,
//! by mistake or otherwise.

use std::net::IpAddr;

use ipnet::IpNet;

/// Returns whether a peer may have `net` at all: the default route and its halves, quarters and so on are for an owner
/// to give away, not for a server.
pub(super) fn is_narrow(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.prefix_len() >= 8,
        IpNet::V6(net) => net.prefix_len() >= 16,
    }
}

/// Returns whether `net` may be routed to the interface.
///
/// Not routed are networks that no tunnel can lead to, those that hold an address in `outside` (endpoints of peers and
/// the server: their packets would chase themselves), and those that overlap one of `local`, the networks on the
/// machine's other interfaces.
pub(super) fn is_routable(net: &IpNet, outside: &[IpAddr], local: &[IpNet]) -> bool {
    let special = match net.addr() {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_multicast() || ip.is_link_local() || ip.is_unspecified() || ip.is_broadcast()
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local() || ip.is_unspecified(),
    };
    !special
        && is_narrow(net)
        && !outside.iter().any(|ip| net.contains(ip))
        && !local.iter().any(|other| net.contains(other) || other.contains(net))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_networks_behind_a_gateway_are_routed() {
        for net in ["192.168.40.0/24", "10.9.0.0/16", "10.0.0.0/8", "fd00:9::/64", "203.0.113.7/32"] {
            assert!(is_routable(&net.parse().unwrap(), &[], &[]), "{net}");
        }
    }

    #[test]
    fn a_machine_cannot_be_taken_over() {
        let outside = ["198.51.100.20".parse().unwrap(), "2001:db8::20".parse().unwrap()];
        let local = ["192.168.7.17/24".parse().unwrap(), "fd00:7::17/64".parse().unwrap()];
        for net in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "::/0",
            "2000::/3",
            "127.0.0.0/8",
            "169.254.169.254/32",
            "224.0.0.0/8",
            "fe80::/64",
            "198.51.100.0/24",
            "198.51.100.20/32",
            "2001:db8::/32",
            "192.168.0.0/16",
            "192.168.7.1/32",
            "fd00:7::/64",
        ] {
            assert!(!is_routable(&net.parse().unwrap(), &outside, &local), "{net}");
        }
    }
}
