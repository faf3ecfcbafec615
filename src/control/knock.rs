//! Seeing how far one gets towards a server: name, connection, certificate, answer. Nothing is shown to it.

use std::{
    collections::BTreeSet,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::IpMtu};
use rustls::{ClientConfig, pki_types::ServerName};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset, format_description::well_known::Rfc2822};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    failure::{Garbled, RestError},
    trust::Trust,
};
use crate::model::Server;

/// What was seen on the way to a server; what comes after a failure is `None`.
#[derive(Debug, Default)]
pub struct Knock {
    /// Where its name leads to.
    pub addresses: BTreeSet<IpAddr>,
    /// Where a connection stood.
    pub connected: Option<SocketAddr>,
    /// Its certificate, once that convinced us; the times in it are `None` if they cannot be read.
    pub certificate: Option<Certificate>,
    /// Whether it is talked to without TLS, where there is no certificate.
    pub is_plain: bool,
    /// What it answered.
    pub answer: Option<Answer>,
    /// What ended the way; `None` if there was an answer.
    pub failure: Option<RestError>,
    /// Largest packet in bytes that the kernel knows to pass to there; `None` over IPv6, or without a connection.
    pub path_mtu: Option<NonZeroU16>,
}

/// When a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// From then on.
    pub from: Option<u64>,
    /// Until then.
    pub until: Option<u64>,
}

/// An answer as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's clock, in seconds since 1970; `None` if it does not tell.
    pub date: Option<u64>,
    /// The HTTP status; 200 from an enrollment server.
    pub status: u16,
}

/// Goes to `server` as far as it lets us, and asks how it is.
pub async fn knock(server: &Server, trust: &Trust) -> Knock {
    let mut knock = Knock { is_plain: trust.is_plain(server), ..Knock::default() };
    knock.failure = go(server, &trust.api, &mut knock).await.err();
    knock
}

async fn go(server: &Server, tls: &Arc<ClientConfig>, knock: &mut Knock) -> Result<(), RestError> {
    let host = server.host().trim_matches(['[', ']']);
    let found: Vec<SocketAddr> = match timeout(STEP, lookup_host((host, server.port()))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    if found.is_empty() {
        return Err(RestError::Resolve(server.clone()));
    }
    knock.addresses = found.iter().map(SocketAddr::ip).collect();
    let stream = connect(server, &found).await?;
    knock.connected = stream.peer_addr().ok();
    knock.path_mtu = getsockopt(&stream, IpMtu).ok().and_then(|mtu| u16::try_from(mtu).ok()).and_then(NonZeroU16::new);
    if knock.is_plain {
        return hear(server, stream, knock).await;
    }
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| RestError::Connect { server: server.clone(), source: io::Error::other(error) })?;
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    let stream = in_time(handshake).await.map_err(|error| RestError::from_handshake(server, &error))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|certificates| certificates.first());
    knock.certificate = Some(shown.and_then(|shown| validity(shown)).unwrap_or_default());
    hear(server, stream, knock).await
}

/// Asks at a connection, and hears the answer.
async fn hear(
    server: &Server,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    knock: &mut Knock,
) -> Result<(), RestError> {
    let head = in_time(ask(server, &mut stream)).await;
    let head = head.map_err(|source| RestError::Interrupted { server: server.clone(), source })?;
    let garbled = RestError::Garbled { server: server.clone(), what: Garbled::NotProtocol };
    knock.answer = Some(answer(&head).ok_or(garbled)?);
    Ok(())
}

/// Connects to the first address that takes it.
async fn connect(server: &Server, addresses: &[SocketAddr]) -> Result<TcpStream, RestError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match in_time(TcpStream::connect(address)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(RestError::Connect { server: server.clone(), source: last })
}

/// Asks the server how it is; returns the head of its answer.
async fn ask(server: &Server, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<String> {
    let host = server.host();
    let request = format!("GET /api/server/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while head.len() < LONGEST_HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn answer(head: &str) -> Option<Answer> {
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let fields = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    let date = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("date")).map(|(_, date)| date.trim());
    // The format of HTTP is the one of mail with a fixed zone (RFC 9110 §5.6.7).
    let date = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    Some(Answer { date: date.and_then(seconds), status })
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STEP, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Finds the two times in a certificate (RFC 5280 §4.1); `None` if it is not made as it should be.
fn validity(certificate: &[u8]) -> Option<Certificate> {
    let (_, outer, _) = element(certificate)?;
    let (_, mut inner, _) = element(outer)?;
    // Version, which may be left out, then serial number, signature algorithm and issuer.
    let before = if inner.first() == Some(&VERSION) { 4 } else { 3 };
    for _ in 0..before {
        inner = element(inner)?.2;
    }
    let (_, times, _) = element(inner)?;
    let (from_kind, from, rest) = element(times)?;
    let (until_kind, until, _) = element(rest)?;
    Some(Certificate { from: moment(from_kind, from), until: moment(until_kind, until) })
}

/// Splits the first element off: its tag, what it holds, and what comes after it (X.690 §8.1).
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f).min(5))?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Reads `YYMMDDhhmmssZ`, or the same with four digits for the year (RFC 5280 §4.1.2.5).
fn moment(kind: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match kind {
        UTC_TIME => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u16>().ok();
    let small = |from: usize| u8::try_from(number(from, from + 2)?).ok();
    let month = Month::try_from(small(4)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(0, 4)?), month, small(6)?).ok()?;
    let time = Time::from_hms(small(8)?, small(10)?, small(12)?).ok()?;
    seconds(PrimitiveDateTime::new(date, time).assume_offset(UtcOffset::UTC))
}

fn seconds(time: OffsetDateTime) -> Option<u64> {
    u64::try_from(time.unix_timestamp()).ok()
}

/// How long each step may take.
const STEP: Duration = Duration::from_secs(10);

/// Bytes; heads are far shorter.
const LONGEST_HEAD: usize = 16 << 10;

/// Tag of the version in a certificate, explicit and context-specific.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_times_of_a_certificate() {
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 2, 29);
        params.not_after = rcgen::date_time_ymd(2061, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();

        let certificate = validity(params.self_signed(&key).unwrap().der()).unwrap();

        assert_eq!(certificate, Certificate { from: Some(1_582_934_400), until: Some(2_871_763_200) });
    }

    #[test]
    fn what_is_no_certificate_has_no_times() {
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x02", &[0x30; 64]] {
            assert_eq!(validity(bytes), None, "{bytes:?}");
        }
        for (kind, text) in [(UTC_TIME, "991332000000Z"), (UTC_TIME, "20"), (0x04, "200229000000Z")] {
            assert_eq!(moment(kind, text.as_bytes()), None, "{text}");
        }
        assert_eq!(moment(UTC_TIME, b"200229000000Z"), Some(1_582_934_400));
    }

    #[test]
    fn reads_the_head_of_an_answer() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nDate: x";

        assert_eq!(answer(head), Some(Answer { date: Some(784_111_777), status: 200 }));
        assert_eq!(answer("HTTP/1.0 502 Bad\r\n\r\n"), Some(Answer { date: None, status: 502 }));
        assert_eq!(answer("SSH-2.0-x\r\n"), None);
    }
}
