//! Two devices that are peers: a session outlives every change that does not end it.

use std::{net::UdpSocket, time::Duration};

use enroll_agent::{
    link::{AnyLink, Link},
    model::{Device, Peer, PeerStats, PublicKey},
};
use socket2::SockRef;

use crate::{
    Case, On,
    cases::cases,
    tools::{bring, bring_up, device, eventually, net, nets, open_as, own_key},
};

/// For links with a real interface.
pub(crate) const CASES: &[Case] = cases! {
    keeps_the_session_when_a_peer_is_updated
    talks_to_a_first_peer_that_comes_late
    talks_to_a_peer_that_comes_when_many_went
};

async fn keeps_the_session_when_a_peer_is_updated(on: On) {
    bring_up("lo").await;
    let (mut near, mut far) = (Side::open(on, 1, 2).await, Side::open(on, 2, 1).await);
    bring(&mut far.link, &far.device).await;
    bring(&mut near.link, &near.device).await;
    let shaken = near.handshake().await;
    far.handshake().await;

    // Long enough that a second handshake would show as a smaller age.
    let old = eventually("the handshake ages", async || near.age().await.filter(|age| *age > AGE)).await;
    assert!(old > shaken);
    let peer = near.device.peers.get_mut(&near.key).unwrap();
    peer.allowed_ips = nets(["10.99.0.2/32", "10.97.0.0/16"]);
    peer.persistent_keepalive = 20.try_into().ok();
    bring(&mut near.link, &near.device).await;
    near.device.peers.get_mut(&near.key).unwrap().allowed_ips.remove(&net("10.97.0.0/16"));
    bring(&mut near.link, &near.device).await;
    near.device.listen_port = 51829.try_into().ok();
    near.device.peers.insert(own_key(3).public_key(), Peer::default());
    bring(&mut near.link, &near.device).await;

    assert!(near.age().await.is_some_and(|age| age >= old));
    let before = far.stats().await;
    near.send(&[0; 1000]);
    eventually("data arrives", async || (far.stats().await.rx_bytes >= before.rx_bytes + 1000).then_some(())).await;
    assert!(near.age().await.is_some_and(|age| age >= old));
}

async fn talks_to_a_first_peer_that_comes_late(on: On) {
    bring_up("lo").await;
    let (mut near, mut far) = (Side::open(on, 1, 2).await, Side::open(on, 2, 1).await);
    bring(&mut far.link, &far.device).await;
    let alone = Device { peers: [].into(), ..near.device.clone() };
    bring(&mut near.link, &alone).await;

    bring(&mut near.link, &near.device).await;

    near.handshake().await;
    let before = far.stats().await;
    near.send(&[0; 1000]);
    eventually("data arrives", async || (far.stats().await.rx_bytes >= before.rx_bytes + 1000).then_some(())).await;
}

async fn talks_to_a_peer_that_comes_when_many_went(on: On) {
    bring_up("lo").await;
    let (mut near, mut far) = (Side::open(on, 1, 2).await, Side::open(on, 2, 1).await);
    bring(&mut far.link, &far.device).await;
    let many = (0..200).map(|number| (PublicKey([number; 32]), Peer::default()));
    let crowd = Device { peers: many.collect(), ..near.device.clone() };
    bring(&mut near.link, &crowd).await;

    bring(&mut near.link, &near.device).await;
    near.handshake().await;
    bring(&mut near.link, &crowd).await;
    let alone = Device { peers: [].into(), ..near.device.clone() };
    bring(&mut near.link, &alone).await;
    bring(&mut near.link, &near.device).await;

    near.handshake().await;
}

/// One of two devices that are peers.
struct Side {
    device: Device,
    /// The other's key.
    key: PublicKey,
    link: AnyLink,
    name: String,
}

impl Side {
    async fn open(on: On, number: u8, other: u8) -> Self {
        let key = own_key(other).public_key();
        let peer = Peer {
            allowed_ips: nets([["10.99.0.1/32"], ["10.99.0.2/32"]][usize::from(other) - 1]),
            endpoint: format!("127.0.0.1:{}", 51820 + u16::from(other)).parse().ok(),
            persistent_keepalive: if number == 1 { 1.try_into().ok() } else { None },
            preshared_key: None,
        };
        let mut device = device();
        device.addresses = nets([["10.99.0.1/24"], ["10.99.0.2/24"]][usize::from(number) - 1]);
        device.listen_port = (51820 + u16::from(number)).try_into().ok();
        device.peers = [(key, peer)].into();
        device.private_key = own_key(number);
        device.routes.clear();
        let name = format!("enroll{number}");
        let link = open_as(on, &name, device.private_key.public_key()).await;
        Self { device, key, link, name }
    }

    async fn stats(&mut self) -> PeerStats {
        self.link.observe().await.unwrap().unwrap().stats.remove(&self.key).unwrap_or_default()
    }

    async fn age(&mut self) -> Option<Duration> {
        self.stats().await.handshake_age
    }

    async fn handshake(&mut self) -> Duration {
        eventually("a handshake", async || self.age().await).await
    }

    /// Sends to the other through this interface, though the address is local as well.
    fn send(&self, bytes: &[u8]) {
        let socket = UdpSocket::bind("10.99.0.1:0").unwrap();
        SockRef::from(&socket).bind_device(Some(self.name.as_bytes())).unwrap();
        socket.send_to(bytes, "10.99.0.2:9").unwrap();
    }
}

const AGE: Duration = Duration::from_millis(1500);
