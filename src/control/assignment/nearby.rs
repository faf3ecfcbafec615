//! Where peers may be found in this machine's own networks, and who may be asked where this host is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    control::wire,
    model::{Peer, PublicKey, StunServer},
};

/// Picks the private addresses that `peers` say they have; none unless the server wants them `tried`.
///
/// What cannot be used is passed over: it is only a way to reach a peer better.
pub(super) fn nearby(
    tried: bool,
    told: Option<&BTreeMap<String, wire::HostNetworkInfo>>,
    peers: &BTreeMap<PublicKey, Peer>,
) -> BTreeMap<PublicKey, BTreeSet<SocketAddr>> {
    let told = told.filter(|_| tried).into_iter().flatten();
    let read = told.filter_map(|(key, info)| Some((key.parse().ok()?, addresses(info))));
    read.filter(|(key, addresses)| peers.contains_key(key) && !addresses.is_empty()).collect()
}

fn addresses(info: &wire::HostNetworkInfo) -> BTreeSet<SocketAddr> {
    let Some(port) = u16::try_from(info.listen_port).ok().filter(|port| *port != 0) else { return BTreeSet::new() };
    let told = info.interfaces.iter().flatten().filter_map(|interface| interface.address.ip.0);
    told.filter(|ip| is_private(*ip)).take(MOST_ADDRESSES).map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Returns the STUN servers that the server names, if it wants them asked.
pub fn stun_servers(config: &wire::ServerConfig) -> Vec<StunServer> {
    let named = config.stun_servers.split(',').filter(|_| config.stun);
    named.filter_map(|server| server.trim().parse().ok()).take(MOST_SERVERS).collect()
}

/// RFC 1918 and RFC 4193.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// A machine has a few; a list that is longer is not gone through to its end.
const MOST_ADDRESSES: usize = 16;
const MOST_SERVERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_of_peers_are_picked_with_their_port() {
        let told = BTreeMap::from([
            (PublicKey([1; 32]).to_string(), info(&["192.168.1.1/24"], 51821)),
            (PublicKey([2; 32]).to_string(), info(&["192.168.1.2/24", "fd00::2/64", "8.8.8.8/8"], 51822)),
            (PublicKey([3; 32]).to_string(), info(&["192.168.1.3/24"], 0)),
            (PublicKey([4; 32]).to_string(), info(&["203.0.113.4/24", "127.0.0.1/8"], 51821)),
            ("no key".to_owned(), info(&["192.168.1.5/24"], 51821)),
        ]);

        let peers = (2..=4).map(|number| (PublicKey([number; 32]), Peer::default())).collect();

        let picked = nearby(true, Some(&told), &peers);

        let expected = ["192.168.1.2:51822", "[fd00::2]:51822"].map(|text| text.parse().unwrap());
        assert_eq!(picked, BTreeMap::from([(PublicKey([2; 32]), BTreeSet::from(expected))]));
        assert_eq!(nearby(false, Some(&told), &peers), BTreeMap::new(), "the server does not want it");
        assert_eq!(nearby(true, None, &peers), BTreeMap::new());
    }

    #[test]
    fn servers_are_those_named_and_no_others() {
        let config = |stun, servers: &str| wire::ServerConfig {
            stun,
            stun_servers: servers.to_owned(),
            ..wire::ServerConfig::default()
        };

        let named: Vec<_> = stun_servers(&config(true, "stun.example.net:19302, ,a b,192.0.2.7"))
            .iter()
            .map(ToString::to_string)
            .collect();

        assert_eq!(named, ["stun.example.net:19302", "192.0.2.7:3478"]);
        assert_eq!(stun_servers(&config(false, "stun.example.net")), []);
        assert_eq!(stun_servers(&config(true, "")), []);
    }

    fn info(addresses: &[&str], listen_port: i64) -> wire::HostNetworkInfo {
        let interface = |text: &&str| wire::HostInterface {
            address: text.parse::<ipnet::IpNet>().unwrap().into(),
            ..wire::HostInterface::default()
        };
        let interfaces = Some(addresses.iter().map(interface).collect());
        wire::HostNetworkInfo { interfaces, listen_port, ..wire::HostNetworkInfo::default() }
    }
}
