//! Echo requests and their replies (RFC 792, RFC 4443) on raw sockets.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pings {
    /// Requests sent, those the system refused included.
    pub(crate) sent: usize,
    /// Requests that were not replied to, not even late.
    pub(crate) lost: usize,
    /// Time to each reply, in the order they came, of as many as were asked for.
    pub(crate) replies: Vec<Duration>,
    /// What the system last said to a request it refused, as "Network is unreachable".
    pub(crate) refused: Option<String>,
}

/// Sends echo requests one after another until `replies` have come back or `deadline` has passed.
///
/// `identifier` has to differ from that of a ping whose replies may still be on their way.
pub(super) fn ping(to: IpAddr, replies: usize, deadline: Duration, identifier: u16) -> io::Result<Pings> {
    let mut socket = match to {
        IpAddr::V4(_) => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?,
        IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?,
    };
    let address = SocketAddr::new(to, 0).into();
    let end = Instant::now() + deadline;
    let mut waiting = BTreeMap::new();
    let mut pings = Pings { sent: 0, lost: 0, replies: Vec::new(), refused: None };
    for sequence in 0..=u16::MAX {
        let now = Instant::now();
        if now >= end || pings.replies.len() >= replies {
            break;
        }
        waiting.insert(sequence, now);
        pings.sent += 1;
        if let Err(error) = socket.send_to(&request(to, identifier, sequence), &address) {
            pings.refused = Some(error.to_string());
        }
        pings.replies.extend(reply(&mut socket, to, identifier, &mut waiting, end.min(now + PATIENCE))?);
    }
    // A late reply is a reply: without this a busy machine would look as if it had lost packets.
    let end = Instant::now() + LATE;
    while !pings.replies.is_empty()
        && !waiting.is_empty()
        && reply(&mut socket, to, identifier, &mut waiting, end)?.is_some()
    {}
    pings.lost = waiting.len();
    Ok(pings)
}

/// Returns how long ago the request was sent that is replied to next, or `None` when it is `end`.
fn reply(
    socket: &mut Socket,
    from: IpAddr,
    identifier: u16,
    waiting: &mut BTreeMap<u16, Instant>,
    end: Instant,
) -> io::Result<Option<Duration>> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let mut packet = [0; 1500];
        let length = match socket.read(&mut packet) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let sequence = packet.get(..length).and_then(|packet| parse(packet, from, identifier));
        if let Some(sent) = sequence.and_then(|sequence| waiting.remove(&sequence)) {
            return Ok(Some(sent.elapsed()));
        }
    }
}

/// Returns an echo request with its checksum; for IPv6 the kernel fills that in.
fn request(to: IpAddr, identifier: u16, sequence: u16) -> Vec<u8> {
    let kind = if to.is_ipv4() { V4_REQUEST } else { V6_REQUEST };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend([0x5a; 48]);
    if to.is_ipv4() {
        let sum = checksum(&packet).to_be_bytes();
        packet.splice(2..4, sum);
    }
    packet
}

/// Returns the sequence number if this packet is a reply to a request with our identifier.
fn parse(packet: &[u8], from: IpAddr, identifier: u16) -> Option<u16> {
    // A raw IPv4 socket gives the IP header too, whose length is in its first byte, in words.
    let (header, kind) = match from {
        IpAddr::V4(_) => (usize::from(packet.first()? & 0x0f) * 4, V4_REPLY),
        IpAddr::V6(_) => (0, V6_REPLY),
    };
    let [found, _, _, _, id0, id1, seq0, seq1, ..] = packet.get(header..)? else { return None };
    let ours = *found == kind && u16::from_be_bytes([*id0, *id1]) == identifier;
    ours.then(|| u16::from_be_bytes([*seq0, *seq1]))
}

/// The Internet checksum (RFC 1071) of a packet with an even number of bytes.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.as_chunks::<2>().0.iter();
    let sum = words.fold(0u32, |sum, word| sum + u32::from(u16::from_be_bytes(*word)));
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

const V4_REPLY: u8 = 0;
const V4_REQUEST: u8 = 8;
const V6_REPLY: u8 = 129;
const V6_REQUEST: u8 = 128;

/// Until the next request goes out without a reply to the last one.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a request that was not replied to is given after the last one, if any was.
const LATE: Duration = Duration::from_secs(1);
