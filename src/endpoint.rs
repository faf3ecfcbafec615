//! How far other hosts are, and where this one is seen from outside; decides nothing.

mod door;
mod message;
mod stun;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

pub use self::{
    door::{Datagram, Door},
    stun::Look,
};
use crate::plan::Probed;

/// Probes each of `addresses` a few times, all at once. `now` tells the time.
///
/// A refused connection is an answer: somebody is there.
pub async fn probe(addresses: &[SocketAddr], now: fn() -> Instant) -> Vec<Probed> {
    join_all(addresses.iter().map(|address| probe_one(*address, now))).await
}

/// Returns those of `addresses` that do not answer, all asked at once.
pub async fn silent(addresses: BTreeSet<SocketAddr>, now: fn() -> Instant) -> BTreeSet<SocketAddr> {
    let asked = addresses.into_iter().map(async |address| distance(address, now).await.is_none().then_some(address));
    join_all(asked).await.into_iter().flatten().collect()
}

async fn probe_one(address: SocketAddr, now: fn() -> Instant) -> Probed {
    let probes = (0..PROBES).map(async |number| {
        // One after the other, so that one burst of something else does not lose them all.
        sleep(SPACING * number).await;
        distance(address, now).await
    });
    let mut times: Vec<Duration> = join_all(probes).await.into_iter().flatten().collect();
    times.sort();
    let time = times.get(times.len() / 2).copied().unwrap_or_default();
    Probed { answered: u32::try_from(times.len()).unwrap_or(PROBES), sent: PROBES, time }
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

/// Probes of one measurement, and the time between them.
const PROBES: u32 = 3;
const SPACING: Duration = Duration::from_millis(50);

/// One that is farther than this is no help.
const PATIENCE: Duration = Duration::from_millis(800);

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

        let all = [open.local_addr().unwrap(), closed, nowhere];
        let probed = probe(&all, clock::now).await;
        let silent = silent(all.into(), clock::now).await;

        assert!(probed[..2].iter().all(|probed| (probed.answered, probed.sent) == (3, 3)), "{probed:?}");
        assert!(probed[0].time > Duration::ZERO);
        assert_eq!(probed[2].answered, 0);
        assert_eq!(silent, [nowhere].into());
    }
}
