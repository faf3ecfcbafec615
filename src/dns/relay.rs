//! Asking the servers that know, with the very bytes of the question: what they say is passed on as it is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use simple_dns::RCODE;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::message::reply_code;

/// How a question came, and so how it is passed on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Tcp,
    Udp,
}

/// Asks one server after the other; `None` if none of them answers.
///
/// A server that fails or refuses is no answer while there is another to ask; that there is no such name is one.
pub(super) async fn ask(servers: &[IpAddr], port: u16, question: &[u8], way: Way) -> Option<Vec<u8>> {
    let mut poor = None;
    for server in servers {
        let server = SocketAddr::new(*server, port);
        let asked = async {
            match way {
                Way::Tcp => over_tcp(server, question).await,
                Way::Udp => over_udp(server, question).await,
            }
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(reply)) => match reply_code(question, &reply) {
                Some(RCODE::ServerFailure | RCODE::Refused) => poor = Some(reply),
                Some(_) => return Some(reply),
                None => {}
            },
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
            Err(_) => tracing::debug!(%server, "a name server does not answer"),
        }
    }
    poor
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of its own for each question, which a forger would have to guess.
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut reply = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut reply).await?;
        if reply_code(question, &reply[..length]).is_some() {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write(&mut stream, question).await?;
    read(&mut stream).await
}

/// Reads a message with its length before it (RFC 1035 §4.2.2).
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message with its length before it; one that has none is not written.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let whole: Vec<u8> = length.to_be_bytes().iter().chain(message).copied().collect();
    stream.write_all(&whole).await
}

/// For one server; systemd-resolved waits 5 s for all of it.
const PATIENCE: Duration = Duration::from_secs(2);
