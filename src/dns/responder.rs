//! A small name server for this machine alone.
//!
//! It has ears for this machine alone, answers what it knows, and asks others only for the domains that they are for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{
    message::{Verdict, judge},
    relay::{self, Way},
};
use crate::plan::Answers;

/// The responder; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Responder {
    address: SocketAddr,
    answers: watch::Sender<Arc<Answers>>,
    tasks: [JoinHandle<()>; 2],
}

impl Responder {
    /// Begins to answer at a free port of the first loopback address.
    pub(super) async fn at_any_port() -> io::Result<Self> {
        let mut result = Self::open((Ipv4Addr::LOCALHOST, 0).into(), NAME_SERVER).await;
        for _ in 1..ATTEMPTS {
            match &result {
                // The port was free for the one, and not for the other.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    result = Self::open((Ipv4Addr::LOCALHOST, 0).into(), NAME_SERVER).await;
                }
                Err(_) | Ok(_) => break,
            }
        }
        result
    }

    /// Begins to answer at the port of name servers, at one of this machine's addresses.
    pub(super) async fn at_the_usual_port(own: IpAddr) -> io::Result<Self> {
        Self::open((own, NAME_SERVER).into(), NAME_SERVER).await
    }

    /// Begins to answer at `address`, and asks others at `port`.
    async fn open(address: SocketAddr, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let socket = UdpSocket::bind(address).await?;
        let (answers, known) = watch::channel(Arc::default());
        let [questions, visitors] = [AT_ONCE; 2].map(|most| Arc::new(Semaphore::new(most)));
        let desk = Desk { known, own: address.ip(), port, questions, visitors };
        let tasks = [
            tokio::spawn(desk.clone().answer_packets(Arc::new(socket))),
            tokio::spawn(desk.answer_connections(listener)),
        ];
        Ok(Self { address, answers, tasks })
    }

    /// Where it answers.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers like this from now on.
    pub(super) fn know(&self, answers: &Answers) {
        self.answers.send_if_modified(|known| {
            let is_new = **known != *answers;
            if is_new {
                *known = Arc::new(answers.clone());
            }
            is_new
        });
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Where questions are taken.
#[derive(Clone)]
struct Desk {
    known: watch::Receiver<Arc<Answers>>,
    /// Where questions come to.
    own: IpAddr,
    /// Where other servers are asked.
    port: u16,
    /// Questions that wait for others.
    questions: Arc<Semaphore>,
    visitors: Arc<Semaphore>,
}

impl Desk {
    fn known(&self) -> Arc<Answers> {
        self.known.borrow().clone()
    }

    async fn answer_packets(self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; LARGEST_QUESTION];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // As after an answer to somebody who is gone.
                    tracing::debug!(%error, "no question");
                    continue;
                }
            };
            if !is_near(from.ip(), self.own) {
                continue;
            }
            match judge(&buffer[..length], &self.known(), SMALLEST_PORTION) {
                Verdict::Answer(reply) => send(&socket, &reply, from).await,
                Verdict::Ask(servers, failure) => {
                    // Whoever asks too much is asked to try later, by silence.
                    let Ok(permit) = self.questions.clone().try_acquire_owned() else { continue };
                    let (socket, question, port) = (socket.clone(), buffer[..length].to_vec(), self.port);
                    tokio::spawn(async move {
                        let reply = relay::ask(&servers, port, &question, Way::Udp).await;
                        send(&socket, &reply.unwrap_or(failure), from).await;
                        drop(permit);
                    });
                }
                Verdict::Ignore => {}
            }
        }
    }

    async fn answer_connections(self, listener: TcpListener) {
        loop {
            // Nobody is let in before somebody leaves.
            let Ok(permit) = self.visitors.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((_, from)) if !is_near(from.ip(), self.own) => {}
                Ok((stream, _)) => {
                    let desk = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = desk.converse(stream).await {
                            tracing::debug!(%error, "a conversation about names ended early");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "nobody could be let in");
                    tokio::time::sleep(RECOVERY).await;
                }
            }
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let question = match timeout(IDLE, relay::read(&mut stream)).await {
                Ok(Ok(question)) => question,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            let reply = match judge(&question, &self.known(), usize::from(u16::MAX)) {
                Verdict::Answer(reply) => reply,
                Verdict::Ask(servers, failure) => {
                    relay::ask(&servers, self.port, &question, Way::Tcp).await.unwrap_or(failure)
                }
                Verdict::Ignore => return Ok(()),
            };
            timeout(IDLE, relay::write(&mut stream, &reply)).await??;
        }
    }
}

/// Whether somebody on this machine asks, who has the very address that is asked unless that is a loopback one. Nobody
/// else can have it: a peer is heard only from addresses that are its own.
fn is_near(from: IpAddr, own: IpAddr) -> bool {
    from == own || from.is_loopback()
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(reply, to).await {
        tracing::debug!(%error, "an answer did not get out");
    }
}

/// Questions that wait for other servers at the same time, and as many connections.
const AT_ONCE: usize = 64;

/// Ports that are tried.
const ATTEMPTS: usize = 16;

/// A connection without a question is closed.
const IDLE: Duration = Duration::from_secs(5);

/// Bytes of a question in a packet; real ones have less than 300.
const LARGEST_QUESTION: usize = 4096;

/// Where name servers listen.
const NAME_SERVER: u16 = 53;

/// After a failure that comes again at once, as when there are no descriptors left.
const RECOVERY: Duration = Duration::from_millis(100);

/// Bytes of an answer to whoever does not say how much it takes (RFC 1035 §4.2.1).
const SMALLEST_PORTION: usize = 512;

#[cfg(test)]
mod tests {
    use simple_dns::{Packet, RCODE, TYPE};

    use super::{
        super::message::tests::{answers, data, question},
        *,
    };

    #[tokio::test]
    async fn answers_over_udp_and_tcp() {
        let responder = responder(0, &answers()).await;
        let question = question(9, "plc-1.plant-a.nm.internal", TYPE::AAAA.into());

        for way in [Way::Udp, Way::Tcp] {
            let reply = asked(&responder, &question, way).await;
            assert_eq!(data(&Packet::parse(&reply).unwrap()), ["fd00::2"], "{way:?}");
        }
    }

    #[tokio::test]
    async fn learns_and_forgets() {
        let responder = responder(0, &answers()).await;
        let question = question(9, "plc-1.plant-a.nm.internal", TYPE::A.into());

        let before = asked(&responder, &question, Way::Udp).await;
        responder.know(&Answers::default());
        let after = asked(&responder, &question, Way::Udp).await;

        assert_eq!(Packet::parse(&before).unwrap().rcode(), RCODE::NoError);
        assert_eq!(Packet::parse(&after).unwrap().rcode(), RCODE::Refused);
    }

    #[tokio::test]
    async fn passes_on_what_others_say_as_it_is() {
        let mut others = answers();
        others.zones.insert("corp.example".parse().unwrap());
        others.forward.clear();
        others.hosts.insert("git.corp.example".parse().unwrap(), ["10.101.0.9".parse().unwrap()].into());
        let upstream = responder(0, &others).await;
        let mut own = answers();
        own.forward.insert("corp.example".parse().unwrap(), vec![upstream.address().ip()]);
        let responder = responder(upstream.address().port(), &own).await;

        for way in [Way::Udp, Way::Tcp] {
            let known = asked(&responder, &question(9, "git.corp.example", TYPE::A.into()), way).await;
            let unknown = asked(&responder, &question(9, "no.corp.example", TYPE::A.into()), way).await;

            assert_eq!(data(&Packet::parse(&known).unwrap()), ["10.101.0.9"], "{way:?}");
            assert_eq!(Packet::parse(&unknown).unwrap().rcode(), RCODE::NameError, "{way:?}");
        }
    }

    #[tokio::test]
    async fn asks_the_next_server_where_one_is_silent_and_fails_after_the_last() {
        let mut others = answers();
        others.zones.insert("corp.example".parse().unwrap());
        others.forward.clear();
        let upstream = responder(0, &others).await;
        let port = upstream.address().port();
        // Nobody listens there: the system says so at once.
        let silent: IpAddr = "127.0.0.77".parse().unwrap();
        let mut own = answers();
        own.forward.insert("corp.example".parse().unwrap(), vec![silent, upstream.address().ip()]);
        own.forward.insert("dead.example".parse().unwrap(), vec![silent]);
        let responder = responder(port, &own).await;

        for way in [Way::Udp, Way::Tcp] {
            for (name, code) in [("no.corp.example", RCODE::NameError), ("x.dead.example", RCODE::ServerFailure)] {
                let reply = asked(&responder, &question(9, name, TYPE::A.into()), way).await;
                assert_eq!(Packet::parse(&reply).unwrap().rcode(), code, "{name} {way:?}");
            }
        }
    }

    #[tokio::test]
    async fn answers_again_after_nonsense() {
        let responder = responder(0, &answers()).await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for nonsense in [&[][..], &[0; 11], &[255; 5000]] {
            socket.send_to(nonsense, responder.address()).await.unwrap();
        }

        let reply = asked(&responder, &question(9, "plc-1.plant-a.nm.internal", TYPE::A.into()), Way::Udp).await;

        assert_eq!(data(&Packet::parse(&reply).unwrap()), ["10.101.0.2"]);
    }

    #[test]
    fn nobody_else_is_answered() {
        let [own, peer, local] = ["10.101.0.3", "10.101.0.2", "127.0.0.1"].map(|text| text.parse::<IpAddr>().unwrap());

        assert!(is_near(own, own) && is_near(local, local));
        assert!(!is_near(peer, own) && !is_near(peer, local));
    }

    async fn responder(port: u16, answers: &Answers) -> Responder {
        let responder = Responder::open("127.0.0.1:0".parse().unwrap(), port).await.unwrap();
        responder.know(answers);
        responder
    }

    async fn asked(responder: &Responder, question: &[u8], way: Way) -> Vec<u8> {
        let address = responder.address();
        relay::ask(&[address.ip()], address.port(), question, way).await.expect("an answer in time")
    }
}
