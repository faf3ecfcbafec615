//! What peers cost, from 10 to 10,000: `cargo bench --bench peers`, about a minute; `.ci/kernel --bench` for the kernel's
//! WireGuard beside `wg` from wireguard-tools, in the same virtual machine and in turns, a few minutes.
//!
//! "first" makes the interface with everything on it; "nothing" looks and finds it as it should be; "pushed" changes one
//! peer from what is remembered, "pulled" after a look; "look" reads everything back; "remove" ends it. Each includes what is
//! decided, except "change", which only tells the kernel.
//! Nothing is judged; the figures are for people.

#![expect(clippy::disallowed_methods, reason = "measuring is looking at the clock")]
#![expect(clippy::print_stdout, reason = "the figures are the result")]

mod deciding;
#[path = "../link/namespace.rs"]
mod namespace;
mod reference;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    env, fmt, fs,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use enroll_agent::{
    link::{self, Link},
    membership::{Look, Tunnel, Whereabouts},
    model::{
        Assignment, Backend, Connection, Identity, Membership, Node, Outside, Peer, Phase, Policy, PublicKey,
        Redeeming, RelayChoice, Switch,
    },
    plan::Change,
};
use ipnet::IpNet;
use uuid::Uuid;

use self::reference::Reference;

fn main() -> Result<()> {
    let beside_wg = env::args().any(|argument| argument == "kernel");
    let wanted: Vec<u16> = env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = SIZES.into_iter().filter(|(count, _)| wanted.is_empty() || wanted.contains(count));
    // Before there is a second thread.
    namespace::enter().map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if !beside_wg {
        deciding::print()?;
        println!();
    }
    runtime.block_on(async {
        println!("{} backend, milliseconds, median [min-max]", if beside_wg { "kernel" } else { "userspace" });
        for (count, rounds) in sizes {
            if beside_wg { compare(count, rounds).await? } else { alone(count, rounds).await? }
        }
        Ok(())
    })
}

/// Our own figures.
async fn alone(count: u16, rounds: usize) -> Result<()> {
    let mut ours = Costs::default();
    for _ in 0..rounds {
        ours.add(round(Backend::Userspace, count).await?);
    }
    println!("{count:>6} peers, {} MB resident", resident()?);
    for (what, samples) in &ours.0 {
        println!("  {what:<8} {samples}");
    }
    Ok(())
}

/// Our figures beside those of `wg`, taken in turns.
async fn compare(count: u16, rounds: usize) -> Result<()> {
    let (mut ours, mut theirs) = (Costs::default(), Costs::default());
    for _ in 0..rounds {
        ours.add(round(Backend::Kernel, count).await?);
        theirs.add(Reference::round(&assignment(count)).await?);
    }
    println!("{count:>6} peers, {} MB resident", resident()?);
    for (what, command, of) in [
        ("first", "wg setconf", "setconf"),
        ("nothing", "wg syncconf", "syncconf"),
        ("change", "wg set", "set"),
        ("pushed", "wg set", "set"),
        ("pulled", "wg set", "set"),
        ("look", "wg show dump", "dump"),
        ("remove", "wg setconf", "clear"),
    ] {
        let (ours, theirs) = (&ours.0[what], &theirs.0[of]);
        let ratios = Samples(ours.0.iter().zip(&theirs.0).map(|(ours, theirs)| ours / theirs).collect());
        println!("  {what:<8} {ours:<26} {command:<13} {theirs:<26} ratio {ratios}");
    }
    Ok(())
}

/// One interface from its making to its end.
async fn round(backend: Backend, count: u16) -> Result<Vec<(&'static str, Duration)>> {
    let membership = membership();
    let mut assignment = assignment(count);
    let mut tunnel = Tunnel::open(backend, &membership)?;
    let mut costs = Vec::new();
    for (what, look) in
        [("first", Look::Afresh), ("nothing", Look::Afresh), ("pushed", Look::Remembered), ("pulled", Look::Afresh)]
    {
        if look == Look::Remembered || what == "pulled" {
            let peer = assignment.peers.get_mut(&key(count / 2)).context("there is a peer in the middle")?;
            let port = peer.endpoint.map_or(1, |endpoint| endpoint.port() + 1);
            peer.endpoint = Some((Ipv4Addr::new(198, 51, 100, 1), port).into());
        }
        let start = Instant::now();
        let changes = tunnel.apply(&membership, &assignment, Whereabouts::default(), &[], look).await?;
        costs.push((what, start.elapsed()));
        ensure!(what == "first" || changes == usize::from(what != "nothing"), "{what}: {changes} changes");
    }
    let start = Instant::now();
    let seen = tunnel.observe().await?.map(|seen| seen.device.peers.len());
    costs.push(("look", start.elapsed()));
    ensure!(seen == Some(count.into()), "{seen:?} instead of {count} peers");
    if backend == Backend::Kernel {
        costs.push(("change", change(&membership, &assignment, count).await?));
    }
    let start = Instant::now();
    tunnel.remove().await?;
    costs.push(("remove", start.elapsed()));
    Ok(costs)
}

/// Changes one peer and decides nothing.
async fn change(membership: &Membership, assignment: &Assignment, count: u16) -> Result<Duration> {
    let keys = membership.identity.interface_keys();
    let mut link = link::open(Backend::Kernel, membership.interface.clone(), keys)?;
    let public_key = key(count / 2);
    let have = assignment.peers.get(&public_key).context("there is a peer in the middle")?.clone();
    let want = Peer { endpoint: Some((Ipv4Addr::new(198, 51, 100, 9), 9).into()), ..have.clone() };
    let start = Instant::now();
    link.apply(&[Change::UpdatePeer { have, public_key, want }]).await?;
    Ok(start.elapsed())
}

/// What each step took, over all rounds.
#[derive(Default)]
struct Costs(BTreeMap<&'static str, Samples>);

impl Costs {
    fn add(&mut self, round: Vec<(&'static str, Duration)>) {
        for (what, took) in round {
            self.0.entry(what).or_default().0.push(took.as_secs_f64() * 1e3);
        }
    }
}

/// Figures of one kind; prints as median, smallest and largest.
#[derive(Default)]
struct Samples(Vec<f64>);

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return f.pad("-") };
        f.pad(&format!("{:.2} [{least:.2}-{most:.2}]", sorted[sorted.len() / 2]))
    }
}

fn membership() -> Membership {
    let Ok(identity) = Identity::generate(|buffer| {
        buffer.fill(3);
        Ok::<(), Infallible>(())
    });
    let (fingerprint, token) = (String::new(), String::new().into());
    let redeeming = Redeeming { attempts: 0, baseline: None, fingerprint, sent_at: None, token };
    Membership {
        binding: None,
        identity,
        interface: "enroll0".parse().expect("a name"),
        last_check_in: None,
        outside: Outside::default(),
        phase: Phase::Pending { redeeming },
        policy: Policy { listen_port: 51821.try_into().ok(), ..Policy::default() },
        sent: BTreeSet::new(),
        server: "https://nm.example.net".parse().expect("a server"),
        switch: Switch::On,
    }
}

/// One network; every peer has an address in it and an endpoint.
fn assignment(count: u16) -> Assignment {
    let node = Node {
        addresses: [IpNet::new([10, 101, 255, 254].into(), 16).expect("a network")].into(),
        connection: Connection::Connected,
        id: Uuid::nil(),
        relay: None,
        relay_choice: RelayChoice::Fixed,
        tags: BTreeSet::new(),
    };
    let peer = |number| {
        let peer = Peer {
            allowed_ips: [IpNet::from(overlay(number))].into(),
            endpoint: Some((Ipv4Addr::from(0xC612_0000 + u32::from(number)), 51821).into()),
            // With one, each peer would be sent handshakes as long as the interface is up.
            persistent_keepalive: None,
            preshared_key: None,
        };
        (key(number), peer)
    };
    Assignment {
        nodes: BTreeMap::from([("plant-a".parse().expect("a name"), node)]),
        peers: (0..count).map(peer).collect(),
        ..Assignment::default()
    }
}

fn overlay(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 101, high, low).into()
}

/// The public key of peer `number`: any 32 bytes are one.
fn key(number: u16) -> PublicKey {
    let mut bytes = [77; 32];
    bytes[1..3].copy_from_slice(&number.to_be_bytes());
    PublicKey(bytes)
}

/// Megabytes of this process in memory.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// How many peers, and how often.
const SIZES: [(u16, usize); 4] = [(10, 7), (100, 7), (1_000, 5), (10_000, 3)];
