//! WireGuard in the kernel.
//!
//! `wireguard-control` speaks to it, and its limits end in this file: it blocks, so each call runs on a thread for
//! that; it reports a peer once per kernel message, so peers are merged by key; it cannot send a peer larger than a
//! message, so allowed IPs go in pieces; it replaces peers message by message, so that is asked for only with none; and
//! its `Debug` and error texts hold keys, so neither is ever shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use netlink_packet_route::link::InfoKind;
use nix::errno::Errno;
use wireguard_control as control;
use zeroize::Zeroize;

use super::{
    Class, LeftOut, Link, LinkError, failed, netlink::Netlink, netlink_messages::Found, runs, words::describe,
};
use crate::{
    model::{Device, InterfaceName, Observation, Peer, PeerStats, PresharedKey, PrivateKey, PublicKey},
    plan::Change,
};

/// A WireGuard interface of the kernel; it outlives this process.
#[derive(Debug)]
pub struct Kernel {
    /// Public halves of the keys that make an existing interface ours.
    keys: BTreeSet<PublicKey>,
    name: InterfaceName,
    netlink: Netlink,
}

impl Kernel {
    /// Opens the interface called `name`; makes none yet. Must be called within a tokio runtime.
    ///
    /// An existing interface is ours if it is WireGuard and has one of `keys`, or no key and no peers.
    pub fn new(name: InterfaceName, keys: BTreeSet<PublicKey>) -> Result<Self, LinkError> {
        Ok(Self { keys, name, netlink: Netlink::open()? })
    }

    async fn find(&self) -> Result<Option<Found>, LinkError> {
        match self.netlink.find(&self.name).await? {
            Some(found) if found.kind != Some(InfoKind::Wireguard) => Err(LinkError::Taken(self.name.clone())),
            found => Ok(found),
        }
    }

    async fn configure(&mut self, changes: &[Change]) -> Result<(), LinkError> {
        for change in changes {
            if let Change::SetPrivateKey(key) = change {
                self.keys.insert(key.public_key());
            }
        }
        let Err(error) = self.send(changes).await else {
            return Ok(());
        };
        // The kernel does not say which it refused, nor the library which message it was in: one at a time tells.
        for change in changes {
            self.find_index().await?;
            self.send(std::slice::from_ref(change)).await.map_err(|error| error.named(describe(change, &self.name)))?;
        }
        tracing::debug!(%error, interface = %self.name, "changes that were refused together were taken one by one");
        Ok(())
    }

    async fn send(&self, changes: &[Change]) -> Result<(), LinkError> {
        let update = update(changes);
        self.call("configure", move |name| update.apply(name, control::Backend::Kernel)).await
    }

    /// Looks the interface up before it is changed: the library would make one that is missing.
    async fn find_index(&self) -> Result<u32, LinkError> {
        match self.find().await? {
            Some(Found { index, .. }) => Ok(index),
            None => Err(failed(format!("configure interface {}", self.name), Errno::ENODEV.into())),
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        verb: &str,
        work: impl FnOnce(&control::InterfaceName) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LinkError> {
        let name = self.name.to_string();
        let task = move || work(&name.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?);
        let outcome = match tokio::task::spawn_blocking(task).await {
            Ok(outcome) => outcome.map_err(|error| without_text(&error)),
            Err(_) => Err(io::Error::other("the thread for it ended")),
        };
        outcome.map_err(|source| failed(format!("{verb} interface {}", self.name), source))
    }
}

impl Link for Kernel {
    async fn observe(&mut self) -> Result<Option<Observation>, LinkError> {
        let Some(Found { index, mtu, state, .. }) = self.find().await? else {
            return Ok(None);
        };
        let reported = self.call("read", |name| control::Device::get(name, control::Backend::Kernel)).await;
        let mut reported = match reported {
            Ok(reported) => reported,
            // Deleted in between.
            Err(LinkError::Failed { source, .. }) if source.raw_os_error() == Some(Errno::ENODEV as i32) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let private_key = take_key(&mut reported.private_key);
        let ours = match &private_key {
            Some(key) => self.keys.contains(&key.public_key()),
            None => reported.peers.is_empty(),
        };
        if !ours {
            return Err(LinkError::Taken(self.name.clone()));
        }
        let (peers, stats) = merge(reported.peers, now());
        let device = Device {
            addresses: self.netlink.addresses(index).await?,
            fwmark: reported.fwmark.and_then(NonZeroU32::new),
            listen_port: reported.listen_port.and_then(NonZeroU16::new),
            mtu,
            peers,
            private_key: private_key.unwrap_or_else(PrivateKey::blank),
            routes: self.netlink.routes(&self.name, index).await?,
            rules: self.netlink.rules_of(&self.name).await?,
            state,
        };
        Ok(Some(Observation { device, stats }))
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<LeftOut, LinkError> {
        let mut left_out = LeftOut::default();
        for (class, run) in runs(changes) {
            if class == Class::Create {
                self.netlink.remove_rules(&self.name).await?;
                self.netlink.create_wireguard(&self.name).await?;
                continue;
            }
            let index = self.find_index().await?;
            match class {
                Class::Create => {}
                Class::Network => self.netlink.apply(&self.name, index, run, &mut left_out).await?,
                Class::WireGuard => self.configure(run).await?,
            }
        }
        Ok(left_out)
    }

    async fn remove(&mut self) -> Result<(), LinkError> {
        let Some(Observation { device, stats: _ }) = self.observe().await? else {
            return self.netlink.remove_rules(&self.name).await;
        };
        if !device.peers.is_empty() {
            // With its interface Linux 6.1 lets thousands of peers go one by one, which takes minutes.
            let none = control::DeviceUpdate::new().replace_peers();
            self.call("remove the peers of", move |name| none.apply(name, control::Backend::Kernel)).await?;
        }
        self.netlink.remove_rules(&self.name).await?;
        match self.find().await? {
            Some(Found { index, .. }) => self.netlink.delete(index, &self.name).await,
            None => Ok(()),
        }
    }
}

/// Puts changes of keys, port and peers into one update; other changes are not its business.
fn update(changes: &[Change]) -> control::DeviceUpdate {
    let none = Peer::default();
    changes.iter().fold(control::DeviceUpdate::new(), |update, change| match change {
        Change::AddPeer { public_key, peer } => pieces(*public_key, &none, peer).fold(update, add),
        Change::RemovePeer(public_key) => update.remove_peer_by_key(&control::Key(public_key.0)),
        Change::SetFwmark(mark) => update.set_fwmark(mark.map_or(0, NonZeroU32::get)),
        Change::SetListenPort(port) => update.set_listen_port(port.map_or(0, NonZeroU16::get)),
        Change::SetPrivateKey(key) => update.set_private_key(control::Key(*key.as_bytes())),
        Change::UpdatePeer { have, public_key, want } => pieces(*public_key, have, want).fold(update, add),
        Change::AddAddress(_)
        | Change::AddRoute(_)
        | Change::AddRule(_)
        | Change::CreateInterface
        | Change::RemoveAddress(_)
        | Change::RemoveRoute(_)
        | Change::RemoveRule(_)
        | Change::SetMtu(_)
        | Change::SetState(_) => update,
    })
}

fn add(update: control::DeviceUpdate, piece: control::PeerConfigBuilder) -> control::DeviceUpdate {
    update.add_peer(piece)
}

/// Says how a peer should differ from what it is, in pieces that fit a message each. Only a peer that loses allowed
/// IPs has all of them set anew.
fn pieces(public_key: PublicKey, have: &Peer, want: &Peer) -> impl Iterator<Item = control::PeerConfigBuilder> {
    let key = control::Key(public_key.0);
    let Peer { allowed_ips, endpoint, persistent_keepalive, preshared_key } = want;
    let mut first = control::PeerConfigBuilder::new(&key);
    if let Some(endpoint) = endpoint.filter(|_| have.endpoint != *endpoint) {
        first = first.set_endpoint(endpoint);
    }
    if have.persistent_keepalive != *persistent_keepalive {
        first = first.set_persistent_keepalive_interval(persistent_keepalive.map_or(0, NonZeroU16::get));
    }
    if have.preshared_key != *preshared_key {
        first = first.set_preshared_key(control::Key(preshared_key.as_ref().map_or([0; 32], |key| key.0)));
    }
    let mut sent: Vec<IpNet> = allowed_ips.difference(&have.allowed_ips).copied().collect();
    if !have.allowed_ips.is_subset(allowed_ips) {
        first = first.replace_allowed_ips();
        sent = allowed_ips.iter().copied().collect();
    }
    let (head, tail) = sent.split_at(sent.len().min(PIECE));
    let rest = tail.chunks(PIECE).map(|nets| allow(control::PeerConfigBuilder::new(&key), nets));
    std::iter::once(allow(first, head)).chain(rest).collect::<Vec<_>>().into_iter()
}

fn allow(piece: control::PeerConfigBuilder, nets: &[IpNet]) -> control::PeerConfigBuilder {
    nets.iter().fold(piece, |piece, net| piece.add_allowed_ip(net.addr(), net.prefix_len()))
}

/// Puts a peer that came in several messages together again.
fn merge(
    reported: Vec<control::PeerInfo>,
    now: SystemTime,
) -> (BTreeMap<PublicKey, Peer>, BTreeMap<PublicKey, PeerStats>) {
    let mut peers: BTreeMap<PublicKey, Peer> = BTreeMap::new();
    let mut stats: BTreeMap<PublicKey, PeerStats> = BTreeMap::new();
    for control::PeerInfo { mut config, stats: figures } in reported {
        let public_key = PublicKey(config.public_key.0);
        let peer = peers.entry(public_key).or_default();
        peer.allowed_ips.extend(config.allowed_ips.iter().filter_map(|ip| net(ip.address, ip.cidr)));
        peer.endpoint = peer.endpoint.or(config.endpoint);
        let keepalive = config.persistent_keepalive_interval.and_then(NonZeroU16::new);
        peer.persistent_keepalive = peer.persistent_keepalive.or(keepalive);
        if let Some(key) = &mut config.preshared_key {
            // The kernel reports zeroes for none.
            if key.0 != [0; 32] {
                peer.preshared_key = Some(PresharedKey(key.0));
            }
            key.0.zeroize();
        }
        let total = stats.entry(public_key).or_default();
        let age = figures.last_handshake_time.map(|at| now.duration_since(at).unwrap_or(Duration::ZERO));
        total.handshake_age = total.handshake_age.or(age);
        // Only the first message of a peer has figures.
        total.rx_bytes = total.rx_bytes.max(figures.rx_bytes);
        total.tx_bytes = total.tx_bytes.max(figures.tx_bytes);
    }
    (peers, stats)
}

fn net(address: IpAddr, prefix_len: u8) -> Option<IpNet> {
    IpNet::new(address, prefix_len).ok()
}

fn take_key(reported: &mut Option<control::Key>) -> Option<PrivateKey> {
    let key = reported.as_mut().filter(|key| key.0 != [0; 32])?;
    let taken = PrivateKey::from_bytes(key.0);
    key.0.zeroize();
    Some(taken)
}

/// Keeps only what the system said: the library's own texts print requests, with the keys in them.
fn without_text(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the kernel reports handshakes by the wall clock, a Device has their age"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Allowed IPs of one peer in one message of 8 KiB: an IPv6 one takes 40 bytes of it.
const PIECE: usize = 180;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_came_in_pieces_is_one_peer() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let mut first = reported(&["10.0.0.0/24", "10.0.1.0/24"]);
        first.config.endpoint = "192.0.2.1:51821".parse().ok();
        first.config.persistent_keepalive_interval = Some(25);
        first.config.preshared_key = Some(control::Key([5; 32]));
        first.stats.last_handshake_time = Some(now - Duration::from_secs(7));
        first.stats.rx_bytes = 11;

        let (peers, stats) = merge(vec![first, reported(&["fd00::/64"])], now);

        let whole = Peer {
            allowed_ips: nets(&["10.0.0.0/24", "10.0.1.0/24", "fd00::/64"]).collect(),
            endpoint: "192.0.2.1:51821".parse().ok(),
            persistent_keepalive: NonZeroU16::new(25),
            preshared_key: Some(PresharedKey([5; 32])),
        };
        assert_eq!(peers, BTreeMap::from([(PublicKey([1; 32]), whole)]));
        let figures = PeerStats { handshake_age: Some(Duration::from_secs(7)), rx_bytes: 11, tx_bytes: 0 };
        assert_eq!(stats, BTreeMap::from([(PublicKey([1; 32]), figures)]));
    }

    #[test]
    fn zeroes_are_no_preshared_key_and_no_keepalive() {
        let mut peer = reported(&[]);
        peer.config.persistent_keepalive_interval = Some(0);
        peer.config.preshared_key = Some(control::Key([0; 32]));

        let (peers, _) = merge(vec![peer], SystemTime::UNIX_EPOCH);

        assert_eq!(peers, BTreeMap::from([(PublicKey([1; 32]), Peer::default())]));
    }

    #[test]
    fn many_allowed_ips_go_in_pieces_and_only_the_first_replaces() {
        let many = |range: std::ops::Range<u8>| range.flat_map(|a| (0..=199).map(move |b| ipv4(a, b)));
        let have = Peer { allowed_ips: many(0..1).collect(), ..Peer::default() };
        let want = Peer { allowed_ips: many(1..3).collect(), ..Peer::default() };

        let sent: Vec<_> = pieces(PublicKey([1; 32]), &have, &want).collect();

        let sizes: Vec<_> = sent.iter().map(|piece| piece.clone().into_peer_config().allowed_ips.len()).collect();
        assert_eq!(sizes, [PIECE, PIECE, 400 - 2 * PIECE]);
        let replaces = |piece: &control::PeerConfigBuilder| *piece == piece.clone().replace_allowed_ips();
        assert_eq!(sent.iter().map(replaces).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn more_allowed_ips_are_added_to_those_there() {
        let have = Peer { allowed_ips: nets(&["10.0.0.0/24"]).collect(), ..Peer::default() };
        let want = Peer { allowed_ips: nets(&["10.0.0.0/24", "10.0.1.0/24"]).collect(), ..Peer::default() };

        let sent: Vec<_> = pieces(PublicKey([1; 32]), &have, &want).collect();

        assert_eq!(sent, [builder().add_allowed_ip([10, 0, 1, 0].into(), 24)]);
    }

    #[test]
    fn clears_what_is_no_longer_wanted_with_zeroes_and_leaves_the_endpoint() {
        let have = Peer {
            allowed_ips: [].into(),
            endpoint: "192.0.2.1:51821".parse().ok(),
            persistent_keepalive: NonZeroU16::new(25),
            preshared_key: Some(PresharedKey([5; 32])),
        };

        let sent: Vec<_> = pieces(PublicKey([1; 32]), &have, &Peer::default()).collect();

        let cleared = builder().set_persistent_keepalive_interval(0).set_preshared_key(control::Key([0; 32]));
        assert_eq!(sent, [cleared]);
    }

    #[test]
    fn errors_of_the_library_lose_their_text() {
        let secret = io::Error::new(io::ErrorKind::InvalidInput, "PresharedKey([1, 2, 3])");

        assert_eq!(without_text(&secret).to_string(), "invalid input parameter");
        assert_eq!(without_text(&Errno::ENODEV.into()).raw_os_error(), Some(Errno::ENODEV as i32));
    }

    fn builder() -> control::PeerConfigBuilder {
        control::PeerConfigBuilder::new(&control::Key([1; 32]))
    }

    fn reported(allowed_ips: &[&str]) -> control::PeerInfo {
        let mut info = control::PeerInfo::from_public_key(control::Key([1; 32]));
        info.config.allowed_ips =
            nets(allowed_ips).map(|net| control::AllowedIp { address: net.addr(), cidr: net.prefix_len() }).collect();
        info
    }

    fn nets(texts: &[&str]) -> impl Iterator<Item = IpNet> {
        texts.iter().map(|text| text.parse().unwrap())
    }

    fn ipv4(a: u8, b: u8) -> IpNet {
        IpNet::new([10, a, b, 0].into(), 24).unwrap()
    }
}
