//! What questions go out through: a socket of their own, or one that somebody lends.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn6, sockopt::Ipv6V6Only};
use tokio::{net::UdpSocket, sync::broadcast, time::sleep};

/// A datagram and where it came from.
pub type Datagram = (Vec<u8>, SocketAddr);

/// A socket of somebody else, through which questions may go.
pub trait Door: fmt::Debug + Send + Sync {
    /// Sends a datagram.
    ///
    /// # Errors
    /// The system's.
    fn send(&self, message: &[u8], to: SocketAddr) -> io::Result<()>;

    /// Hears from now on what comes in and is not its owner's.
    fn listen(&self) -> broadcast::Receiver<Datagram>;
}

/// The family of addresses that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// The way out.
pub(super) enum Mouth {
    Lent(Arc<dyn Door>),
    Own(Arc<UdpSocket>),
}

/// The way in.
pub(super) enum Ear {
    Lent(broadcast::Receiver<Datagram>),
    Own(Arc<UdpSocket>),
}

/// Opens a socket for one family on `port`, or on any free one; returns the port as well.
pub(super) fn open(family: Family, port: Option<NonZeroU16>) -> io::Result<(Mouth, Ear, NonZeroU16)> {
    let socket = Arc::new(bind(family, port)?);
    let port = NonZeroU16::new(socket.local_addr()?.port()).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((Mouth::Own(Arc::clone(&socket)), Ear::Own(socket), port))
}

/// Goes through a socket that is lent.
pub(super) fn borrow(door: Arc<dyn Door>) -> (Mouth, Ear) {
    let ear = Ear::Lent(door.listen());
    (Mouth::Lent(door), ear)
}

impl Mouth {
    pub(super) async fn send(&self, message: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Self::Lent(door) => door.send(message, to),
            Self::Own(socket) => socket.send_to(message, to).await.map(drop),
        }
    }
}

impl Ear {
    /// Waits for a datagram; what is longer than any answer is cut off.
    ///
    /// # Errors
    /// If there will be no more.
    pub(super) async fn hear(&mut self) -> io::Result<Datagram> {
        loop {
            match self {
                Self::Lent(heard) => match heard.recv().await {
                    Ok(datagram) => return Ok(datagram),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Err(io::ErrorKind::NotConnected.into()),
                },
                Self::Own(socket) => {
                    let mut buffer = [0; LONGEST_ANSWER];
                    match socket.recv_from(&mut buffer).await {
                        Ok((length, sender)) => return Ok((buffer[..length].to_vec(), sender)),
                        // One that was not delivered, as to a closed port: another server may still answer.
                        Err(_) => sleep(ERROR_GAP).await,
                    }
                }
            }
        }
    }
}

pub(super) fn bind(family: Family, port: Option<NonZeroU16>) -> io::Result<UdpSocket> {
    let port = port.map_or(0, NonZeroU16::get);
    let bound = match family {
        Family::V4 => std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?,
        Family::V6 => {
            // Without this it would claim the IPv4 port as well, which the other family's socket has.
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket::socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
            socket::setsockopt(&socket, Ipv6V6Only, &true)?;
            let address = SockaddrIn6::from(std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0));
            socket::bind(socket.as_raw_fd(), &address)?;
            socket.into()
        }
    };
    bound.set_nonblocking(true)?;
    UdpSocket::from_std(bound)
}

/// Bytes; what is longer has more in it than an address.
const LONGEST_ANSWER: usize = 1280;

const ERROR_GAP: Duration = Duration::from_millis(10);
