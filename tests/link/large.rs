//! More than one netlink message holds: peers with many allowed IPs, many peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enroll_agent::{
    link::Link,
    model::{Peer, PublicKey},
    plan::{Change, diff},
};
use ipnet::IpNet;

use crate::{
    Case, On,
    cases::cases,
    tools::{bring, device, device_of, open, peer_key},
};

/// For any link, memory included.
pub(crate) const CASES: &[Case] = cases! {
    carries_a_hundred_peers_with_a_hundred_allowed_ips_each
    carries_a_peer_with_five_thousand_allowed_ips
    carries_ten_thousand_peers
};

async fn carries_a_peer_with_five_thousand_allowed_ips(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    want.peers.get_mut(&peer_key(1)).unwrap().allowed_ips = (0..5000).map(range).collect();
    bring(&mut link, &want).await;

    // One more is added to those there; one less means all are set anew.
    want.peers.get_mut(&peer_key(1)).unwrap().allowed_ips.insert(range(5000));
    bring(&mut link, &want).await;
    want.peers.get_mut(&peer_key(1)).unwrap().allowed_ips.remove(&range(2500));
    bring(&mut link, &want).await;
    want.peers.remove(&peer_key(1));
    bring(&mut link, &want).await;
}

async fn carries_a_hundred_peers_with_a_hundred_allowed_ips_each(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    want.peers = (0..100).map(|number| (key(number), with(number * 100..number * 100 + 100))).collect();
    bring(&mut link, &want).await;

    // A network goes from a peer to the next.
    want.peers.get_mut(&key(7)).unwrap().allowed_ips.remove(&range(750));
    want.peers.get_mut(&key(8)).unwrap().allowed_ips.insert(range(750));
    bring(&mut link, &want).await;
    want.peers.retain(|public_key, _| *public_key == key(9));
    bring(&mut link, &want).await;
}

async fn carries_ten_thousand_peers(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    want.peers = (0..10_000).map(|number| (key(number), with(number..number + 1))).collect();
    bring(&mut link, &want).await;

    let before = want.clone();
    want.peers.get_mut(&key(5000)).unwrap().endpoint = "192.0.2.9:9".parse().ok();
    let public_key = key(5000);
    let [have, wanted] = [&before, &want].map(|device| device.peers[&public_key].clone());
    let planned = diff(Some(&device_of(&mut link).await), &want);
    assert_eq!(planned, [Change::UpdatePeer { have, public_key, want: wanted }]);
    bring(&mut link, &want).await;
    want.peers.remove(&key(9999));
    bring(&mut link, &want).await;
    want.peers.clear();
    bring(&mut link, &want).await;
    bring(&mut link, &before).await;
    link.remove().await.unwrap();
    assert_eq!(link.observe().await.unwrap(), None);
}

fn with(ranges: std::ops::Range<u16>) -> Peer {
    Peer { allowed_ips: ranges.map(range).collect(), ..Peer::default() }
}

/// The public key of peer `number`: any 32 bytes are one.
fn key(number: u16) -> PublicKey {
    let mut bytes = [77; 32];
    bytes[1..3].copy_from_slice(&number.to_be_bytes());
    PublicKey(bytes)
}

/// Network `number`; the odd ones are IPv6.
fn range(number: u16) -> IpNet {
    let [high, low] = number.to_be_bytes();
    let address: IpAddr = if number.is_multiple_of(2) {
        Ipv4Addr::new(10, high, low, 0).into()
    } else {
        Ipv6Addr::new(0xfd97, number, 0, 0, 0, 0, 0, 0).into()
    };
    IpNet::new(address, if address.is_ipv4() { 24 } else { 48 }).unwrap()
}
