use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use tokio::{net::UdpSocket, sync::broadcast};

use super::*;
use crate::endpoint::{Datagram, door::bind};

#[tokio::test]
async fn a_server_tells_where_we_are() {
    let server = Fake::on("127.0.0.1:0", Answer::Mapped("198.51.100.7:40000")).await;

    let outside = look(&[&server]).await;

    let seen = outside.v4.unwrap();
    assert_eq!((seen.address, seen.nat), ("198.51.100.7:40000".parse().unwrap(), Nat::BehindNat));
    assert_eq!(outside.v6, None);
}

#[tokio::test]
async fn both_families_are_asked_and_a_request_that_got_lost_is_sent_again() {
    let v4 = Fake::on("127.0.0.1:0", Answer::Mapped("198.51.100.7:40000")).await;
    let v6 = Fake::on("[::1]:0", Answer::Late(1, "[2001:db8::7]:40000")).await;

    let outside = look(&[&v4, &v6]).await;

    assert!(outside.v4.is_some());
    assert_eq!(outside.v6.unwrap().address, "[2001:db8::7]:40000".parse().unwrap());
    assert_eq!((v4.requests(), v6.requests()), (1, 2));
}

#[tokio::test]
async fn only_the_right_answer_from_the_right_place_counts() {
    let wrong = Fake::on("127.0.0.1:0", Answer::WrongTransaction("198.51.100.9:1")).await;
    let elsewhere = Fake::on("127.0.0.1:0", Answer::FromElsewhere("198.51.100.8:1")).await;
    let useless = Fake::on("127.0.0.1:0", Answer::Mapped("127.0.0.1:7")).await;
    let other_family = Fake::on("127.0.0.1:0", Answer::Mapped("[2001:db8::7]:7")).await;

    let outside = look(&[&wrong, &elsewhere, &useless, &other_family]).await;

    assert_eq!(outside, Outside::default());
    for server in [wrong, elsewhere, useless, other_family] {
        assert_eq!(server.requests(), 2);
    }
}

#[tokio::test]
async fn the_next_server_is_asked_when_the_first_is_silent() {
    let silent = Fake::on("127.0.0.1:0", Answer::Nothing).await;
    let second = Fake::on("127.0.0.1:0", Answer::Mapped("198.51.100.7:40000")).await;

    let outside = look(&[&silent, &second]).await;

    assert!(outside.v4.is_some());
    assert_eq!(silent.requests(), 1);
}

#[tokio::test]
async fn nobody_to_ask_is_no_wait_and_a_port_is_free_after_a_stop() {
    let mut nobody = Look::begin(None, &[], &[]);
    assert_eq!(timeout(RETRANSMIT, nobody.finished()).await, Ok(Outside::default()));
    let silent = Fake::on("127.0.0.1:0", Answer::Nothing).await;
    let port = NonZeroU16::new(std::net::UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port());

    let look = Look::begin(port, &[silent.server()], &[]);
    silent.asked().await;
    assert_eq!(look.stop().await, Outside::default());

    bind(Family::V4, port).unwrap();
    bind(Family::V6, port).unwrap();
}

#[tokio::test]
async fn what_was_found_before_the_stop_is_kept() {
    let server = Fake::on("127.0.0.1:0", Answer::Mapped("198.51.100.7:40000")).await;
    let silent = Fake::on("[::1]:0", Answer::Nothing).await;

    let mut look = Look::begin(None, &[server.server(), silent.server()], &[]);
    assert!(timeout(RETRANSMIT, look.finished()).await.is_err(), "the other family is not answered");

    assert!(look.stop().await.v4.is_some());
}

#[tokio::test]
async fn a_server_behind_the_tunnel_is_not_asked() {
    let server = Fake::on("127.0.0.1:0", Answer::Mapped("198.51.100.7:40000")).await;

    let mut look = Look::begin(None, &[server.server()], &["127.0.0.1".parse().unwrap()]);

    assert_eq!(timeout(RETRANSMIT, look.finished()).await, Ok(Outside::default()));
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_socket_that_is_lent_is_asked_through() {
    let server = Fake::on("127.0.0.1:0", Answer::Mapped("198.51.100.7:40000")).await;
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let port = NonZeroU16::new(socket.local_addr().unwrap().port()).unwrap();
    let lent = Lent { heard: broadcast::channel(4).0, socket: Arc::clone(&socket) };
    let heard = lent.heard.clone();
    let door: Arc<dyn Door> = Arc::new(lent);

    let mut look = Look::through(&door, port, &[server.server()], &[]);
    let mut buffer = [0; 100];
    let (length, sender) = socket.recv_from(&mut buffer).await.unwrap();
    heard.send((buffer[..length].to_vec(), sender)).unwrap();
    let seen = look.finished().await.v4.unwrap();

    assert_eq!((seen.address, seen.asked_from), ("198.51.100.7:40000".parse().unwrap(), port));
}

/// What a server says.
#[derive(Clone, Copy)]
enum Answer {
    FromElsewhere(&'static str),
    /// From the request with this number on.
    Late(u32, &'static str),
    Mapped(&'static str),
    Nothing,
    WrongTransaction(&'static str),
}

/// A socket whose owner passes on what is heard.
#[derive(Debug)]
struct Lent {
    heard: broadcast::Sender<Datagram>,
    socket: Arc<UdpSocket>,
}

impl Door for Lent {
    fn send(&self, message: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.try_send_to(message, to).map(drop)
    }

    fn listen(&self) -> broadcast::Receiver<Datagram> {
        self.heard.subscribe()
    }
}

struct Fake {
    address: SocketAddr,
    requests: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    async fn on(address: &str, answer: Answer) -> Self {
        let socket = UdpSocket::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let requests = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 100];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                assert_eq!(length, 20);
                let count = counter.fetch_add(1, SeqCst);
                let mut transaction: Transaction = buffer[8..20].try_into().unwrap();
                match answer {
                    Answer::FromElsewhere(told) => {
                        let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                        other.send_to(&response(told, &transaction), client).await.unwrap();
                    }
                    Answer::Late(from, _) if count < from => {}
                    Answer::Late(_, told) | Answer::Mapped(told) => {
                        socket.send_to(&response(told, &transaction), client).await.unwrap();
                    }
                    Answer::Nothing => {}
                    Answer::WrongTransaction(told) => {
                        transaction[11] ^= 1;
                        socket.send_to(&response(told, &transaction), client).await.unwrap();
                    }
                }
            }
        });
        Self { address, requests, task }
    }

    fn server(&self) -> StunServer {
        self.address.to_string().parse().unwrap()
    }

    fn requests(&self) -> u32 {
        self.requests.load(SeqCst)
    }

    async fn asked(&self) {
        while self.requests() == 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Tells an address as it is, not mixed.
fn response(told: &str, transaction: &Transaction) -> Vec<u8> {
    let told: SocketAddr = told.parse().unwrap();
    let (family, ip) = match told.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let length = u8::try_from(ip.len() + 4).unwrap();
    let head = [1, 1, 0, length + 4, 0x21, 0x12, 0xa4, 0x42];
    [&head[..], transaction, &[0, 1, 0, length, 0, family], &told.port().to_be_bytes(), &ip].concat()
}

async fn look(servers: &[&Fake]) -> Outside {
    let servers: Vec<_> = servers.iter().map(|server| server.server()).collect();
    Look::begin(None, &servers, &[]).finished().await
}
