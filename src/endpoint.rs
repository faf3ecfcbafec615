//! How far other hosts are, and where this one is seen from outside; decides nothing.

mod door;
mod message;
mod stun;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{net::TcpStream, time::timeout};

pub use self::{
    door::{Datagram, Door},
    stun::Look,
};

/// Measures the time to each of `addresses`, all at once; `None` for one that does not answer in time.
///
/// A refused connection is an answer: somebody is there. `now` tells the time.
pub async fn distances(addresses: &[SocketAddr], now: fn() -> Instant) -> Vec<Option<Duration>> {
    join_all(addresses.iter().map(|address| distance(*address, now))).await
}

async fn distance(address: SocketAddr, now: fn() -> Instant) -> Option<Duration> {
    let since = now();
    let answered = match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    };
    answered.then(|| now().saturating_duration_since(since))
}

/// One that is farther than this is no help.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::daemon::clock;

    #[tokio::test]
    async fn an_open_and_a_closed_port_answer_and_nobody_does_not() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // A link-local address without its link leads nowhere.
        let nowhere = "[fe80::1]:9".parse().unwrap();

        let distances = distances(&[open.local_addr().unwrap(), closed, nowhere], clock::now).await;

        assert!(distances[0].is_some() && distances[1].is_some());
        assert_eq!(distances[2], None);
    }
}
