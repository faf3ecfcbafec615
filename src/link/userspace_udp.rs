//! The data plane's UDP socket, with a side door: datagrams of another protocol can be sent from WireGuard's own port, and
//! the answers are heard.
//!
//! The data plane closes its socket when its port changes, so the door only knows the one that is open now.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use gotatun::{
    packet::{Packet, PacketBufPool},
    udp::{
        UdpRecv, UdpSend, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};
use nix::sys::socket::{self, MsgFlags, SockaddrStorage};
use tokio::sync::broadcast;

/// A datagram and where it came from.
pub type Datagram = (Vec<u8>, SocketAddr);

/// Makes the data plane's sockets.
pub(super) struct Sockets {
    door: SideDoor,
    factory: UdpSocketFactory,
}

/// The way to send and hear what is not WireGuard's on the data plane's socket.
#[derive(Clone, Debug)]
pub struct SideDoor {
    heard: broadcast::Sender<Datagram>,
    open: Arc<Mutex<Weak<Outlet>>>,
}

/// The open socket.
struct Outlet(UdpSocket);

/// The socket as the data plane sends on it.
#[derive(Clone)]
pub(super) struct Out(Arc<Outlet>);

/// The socket as the data plane receives from it.
pub(super) struct In {
    heard: broadcast::Sender<Datagram>,
    socket: UdpSocket,
}

impl Sockets {
    /// Sockets with buffers of `buffer` bytes.
    pub(super) fn new(buffer: usize) -> Self {
        let factory = UdpSocketFactory { recv_buffer_size: Some(buffer), send_buffer_size: Some(buffer) };
        let (heard, _) = broadcast::channel(BACKLOG);
        Self { door: SideDoor { heard, open: Arc::default() }, factory }
    }

    /// The door beside all sockets that are made here.
    pub(super) fn door(&self) -> SideDoor {
        self.door.clone()
    }
}

impl SideDoor {
    /// Sends a datagram from WireGuard's port.
    ///
    /// # Errors
    /// The system's; `NotConnected` while the data plane has no socket.
    pub fn send(&self, message: &[u8], to: SocketAddr) -> io::Result<()> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let open = open.ok_or(io::ErrorKind::NotConnected)?;
        // The socket belongs to the data plane's runtime, and this caller to another.
        let socket = open.0.as_fd().as_raw_fd();
        socket::sendto(socket, message, &SockaddrStorage::from(to), MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// Hears from now on what comes to WireGuard's port and is not WireGuard's.
    pub fn listen(&self) -> broadcast::Receiver<Datagram> {
        self.heard.subscribe()
    }
}

impl UdpTransportFactory for Sockets {
    type Send = Out;
    type Recv = In;

    async fn bind(&mut self, params: &UdpTransportFactoryParams) -> io::Result<(Out, In)> {
        let (sending, socket) = self.factory.bind(params).await?;
        let outlet = Arc::new(Outlet(sending));
        *self.door.open.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&outlet);
        Ok((Out(outlet), In { heard: self.door.heard.clone(), socket }))
    }
}

impl UdpSend for Out {
    type SendManyBuf = <UdpSocket as UdpSend>::SendManyBuf;

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        self.0.0.send_to(packet, destination).await
    }

    fn max_number_of_packets_to_send(&self) -> usize {
        self.0.0.max_number_of_packets_to_send()
    }

    async fn send_many_to(
        &self,
        buffer: &mut Self::SendManyBuf,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        self.0.0.send_many_to(buffer, packets).await
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        UdpSend::local_addr(&self.0.0)
    }

    fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        self.0.0.set_fwmark(mark)
    }
}

impl UdpRecv for In {
    type RecvManyBuf = <UdpSocket as UdpRecv>::RecvManyBuf;

    async fn recv_from(&mut self, pool: &mut PacketBufPool) -> io::Result<(Packet, SocketAddr)> {
        loop {
            let (packet, sender) = self.socket.recv_from(pool).await?;
            if !self.put_aside(&packet, sender) {
                return Ok((packet, sender));
            }
        }
    }

    async fn recv_many_from(
        &mut self,
        buffer: &mut Self::RecvManyBuf,
        pool: &mut PacketBufPool,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        self.socket.recv_many_from(buffer, pool, packets).await?;
        if self.heard.receiver_count() > 0 {
            packets.retain(|(packet, sender)| !self.put_aside(packet, *sender));
        }
        Ok(())
    }

    fn enable_udp_gro(&self) -> io::Result<()> {
        self.socket.enable_udp_gro()
    }
}

impl In {
    /// Gives a datagram that is not WireGuard's to whoever listens; returns whether it was one.
    fn put_aside(&self, packet: &[u8], sender: SocketAddr) -> bool {
        if is_wireguard(packet) {
            return false;
        }
        // Perhaps nobody listens any more.
        drop(self.heard.send((packet.to_vec(), sender)));
        true
    }
}

/// A message of WireGuard begins with its type, 1 to 4, and three zero bytes (whitepaper §5.4).
fn is_wireguard(packet: &[u8]) -> bool {
    matches!(packet, [1..=4, 0, 0, 0, ..])
}

/// Answers that nobody has heard yet; more get lost, as others do on the way.
const BACKLOG: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_wireguards_goes_aside_and_is_answered_from_the_same_port() {
        let mut sockets = Sockets::new(1 << 16);
        let door = sockets.door();
        assert_eq!(door.send(&[0], "127.0.0.1:9".parse().unwrap()).unwrap_err().kind(), io::ErrorKind::NotConnected);
        let params = UdpTransportFactoryParams { addr: None, port: 0, fwmark: None };
        let (out, mut incoming) = sockets.bind(&params).await.unwrap();
        let port = out.local_addr().unwrap().unwrap().port();
        let other = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut heard = door.listen();

        door.send(&[9; 20], other.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 32];
        let (length, sender) = other.recv_from(&mut buffer).await.unwrap();
        other.send_to(&[1, 1, 0, 8], sender).await.unwrap();
        other.send_to(&[1, 0, 0, 0], sender).await.unwrap();
        let mut pool = PacketBufPool::new(4);
        let (packet, _) = incoming.recv_from(&mut pool).await.unwrap();

        assert_eq!((length, sender.port()), (20, port));
        assert_eq!(packet[..], [1, 0, 0, 0]);
        assert_eq!(heard.try_recv().unwrap(), (vec![1, 1, 0, 8], other.local_addr().unwrap()));
        drop(out);
        assert!(door.send(&[0], sender).is_err(), "the data plane has closed its socket");
    }

    #[test]
    fn messages_of_wireguard_are_told_by_their_beginning() {
        for kind in 1..=4 {
            assert!(is_wireguard(&[kind, 0, 0, 0, 7]));
        }
        for other in [&[1, 1, 0, 0][..], &[0, 0, 0, 0], &[5, 0, 0, 0], &[1, 0, 0], &[]] {
            assert!(!is_wireguard(other), "{other:?}");
        }
    }
}
