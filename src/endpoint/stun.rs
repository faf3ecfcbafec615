//! Asking STUN servers where this host is seen from outside.
//!
//! IPv4 and IPv6 are asked at the same time. Of the servers each gets a head start on the next one;
//! the first answer counts. All of it is over after [`PATIENCE`] at the latest.

use std::{
    future::{Future, pending},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    net::lookup_host,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    door::{Door, Ear, Family, Mouth, borrow, open},
    message::{Transaction, mapped_address, request},
};
use crate::model::{Nat, Outside, Seen, StunServer};

/// A look at this host from outside, under way; dropping it ends it.
#[derive(Debug)]
pub struct Look {
    found: Outside,
    tasks: JoinSet<Option<Seen>>,
}

impl Look {
    /// Begins to ask `servers` from `port`, or from any free one. Must be called within a tokio runtime.
    ///
    /// A server that would be reached from one of the addresses in `inner` is not asked: it would see the far end of a
    /// tunnel.
    pub fn begin(port: Option<NonZeroU16>, servers: &[StunServer], inner: &[IpAddr]) -> Self {
        Self::with(servers, inner, |question| async move {
            let (mouth, ear, port) = open(question.family, port)?;
            question.ask(&mouth, ear, port).await
        })
    }

    /// The same through a socket that somebody lends, and that is bound to `port`.
    pub fn through(door: &Arc<dyn Door>, port: NonZeroU16, servers: &[StunServer], inner: &[IpAddr]) -> Self {
        Self::with(servers, inner, |question| {
            let (mouth, ear) = borrow(Arc::clone(door));
            async move { question.ask(&mouth, ear, port).await }
        })
    }

    fn with<F>(servers: &[StunServer], inner: &[IpAddr], ask: impl Fn(Question) -> F) -> Self
    where
        F: Future<Output = io::Result<Option<Seen>>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        let servers: Vec<_> = servers.iter().take(MOST_SERVERS).cloned().collect();
        let families: &[_] = if servers.is_empty() { &[] } else { &[Family::V4, Family::V6] };
        for &family in families {
            let asking = ask(Question { family, inner: inner.to_vec(), servers: servers.clone() });
            tasks.spawn(async move {
                let asked = timeout(PATIENCE, asking).await.unwrap_or(Ok(None));
                asked.inspect_err(|error| tracing::debug!(%error, ?family, "nobody can be asked")).ok().flatten()
            });
        }
        Self { found: Outside::default(), tasks }
    }

    /// Waits for the end, [`PATIENCE`] at most. May be given up and called again.
    pub async fn finished(&mut self) -> Outside {
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Some(seen)) = ended {
                self.found.put(seen);
            }
        }
        self.found
    }

    /// Ends it now, with what was found so far; the port is free afterwards.
    pub async fn stop(mut self) -> Outside {
        self.tasks.abort_all();
        self.finished().await
    }
}

/// What one family's task has to know.
struct Question {
    family: Family,
    inner: Vec<IpAddr>,
    servers: Vec<StunServer>,
}

/// A server that was sent a request.
struct Asked {
    address: SocketAddr,
    /// The address it is reached from.
    from: IpAddr,
    transaction: Transaction,
}

impl Question {
    /// Asks until one answers; `None` if no server can be asked. `port` is where `mouth` sends from.
    async fn ask(&self, mouth: &Mouth, ear: Ear, port: NonZeroU16) -> io::Result<Option<Seen>> {
        let asked = Mutex::new(Vec::new());
        let sending = async {
            let places = (0..).zip(&self.servers);
            join_all(places.map(|(place, server)| self.send(place, server, mouth, &asked))).await;
            if !asked.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            seen = receive(ear, port, &asked) => seen.map(Some),
            () = sending => Ok(None),
        }
    }

    /// Sends a request to one server when it is its turn, and once more.
    async fn send(&self, place: u32, server: &StunServer, mouth: &Mouth, asked: &Mutex<Vec<Asked>>) {
        sleep(HEAD_START * place).await;
        let Some(address) = self.resolve(server).await else { return };
        let (Some(from), Some(transaction)) = (source(address), transaction()) else { return };
        if self.inner.contains(&from) {
            tracing::debug!(%server, "this STUN server is behind the tunnel");
            return;
        }
        let message = request(&transaction);
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { address, from, transaction });
        for _ in 0..TRANSMISSIONS {
            // One that is lost here is sent again as one that is lost elsewhere.
            let _ = mouth.send(&message, address).await;
            sleep(RETRANSMIT).await;
        }
    }

    async fn resolve(&self, server: &StunServer) -> Option<SocketAddr> {
        let found = lookup_host((server.host(), server.port())).await;
        let found =
            found.inspect_err(|error| tracing::debug!(%server, %error, "this STUN server is not found")).ok()?;
        let fits = |address: &SocketAddr| address.is_ipv4() == (self.family == Family::V4);
        found.into_iter().find(fits)
    }
}

/// Waits for an answer to one of the requests in `asked`, from where that one went.
async fn receive(mut ear: Ear, port: NonZeroU16, asked: &Mutex<Vec<Asked>>) -> io::Result<Seen> {
    loop {
        let (message, sender) = ear.hear().await?;
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = |asked: &&Asked| (asked.address.ip(), asked.address.port()) == (sender.ip(), sender.port());
        for Asked { from, transaction, .. } in asked.iter().filter(from_there) {
            let told = mapped_address(&message, transaction);
            if let Some(address) = told.filter(|told| is_usable(*told) && told.is_ipv4() == sender.is_ipv4()) {
                let own = address == SocketAddr::new(*from, port.get());
                let nat = if own { Nat::Public } else { Nat::BehindNat };
                return Ok(Seen { address, asked_from: port, nat });
            }
        }
    }
}

/// Returns the address that packets to `address` go out from; `None` without a way there. Nothing is sent.
fn source(address: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn transaction() -> Option<Transaction> {
    let mut transaction = Transaction::default();
    SystemRandom::new().fill(&mut transaction).ok()?;
    Some(transaction)
}

/// An address that a peer could send to.
fn is_usable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let reachable = match ip {
        IpAddr::V4(ip) => !ip.is_broadcast() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    reachable && address.port() != 0 && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A list that is longer is not gone through to its end.
const MOST_SERVERS: usize = 4;

/// How much later than the one before it a server is asked.
const HEAD_START: Duration = Duration::from_millis(200);

/// Until a request is sent again (RFC 8489 §6.2.1, initial RTO). The next one would be due when all is over.
const RETRANSMIT: Duration = Duration::from_millis(500);
const TRANSMISSIONS: u32 = 2;

#[cfg(test)]
mod tests;
