use std::collections::BTreeSet;

use proptest::{collection::btree_set, option, prelude::*, sample::select};
use uuid::Uuid;

use super::*;
use crate::{
    daemon::clock,
    model::{Connection, LinkState, Node, Peer, PeerStats, PrivateKey, RelayChoice},
};

#[test]
fn a_silent_peer_is_looked_for_at_the_servers_place_then_nearby_then_rested() {
    let assignment = assignment(Some("198.51.100.2:51821"), &["192.168.1.2:51821", "192.168.1.3:51821"]);
    let mut trials = Trials::default();
    let start = clock::now();
    let mut course = Vec::new();

    let mut now = start;
    for _ in 0..7 {
        trials.advance(&assignment, None, HERE, now);
        let next = trials.deadline().unwrap();
        course.push(((now - start).as_secs(), endpoint(&trials, &assignment)));
        now = next;
    }

    let at = |seconds, text: &str| (seconds, text.parse().ok());
    let expected = [
        at(0, "198.51.100.2:51821"),
        at(7, "192.168.1.2:51821"),
        at(14, "192.168.1.3:51821"),
        at(21, "198.51.100.2:51821"),
        at(51, "192.168.1.2:51821"),
        at(58, "192.168.1.3:51821"),
        at(65, "198.51.100.2:51821"),
    ];
    assert_eq!(course, expected);
    assert_eq!(now - start, Duration::from_secs(125), "the second rest is twice as long");
}

#[test]
fn a_peer_behind_our_own_nat_or_without_an_endpoint_is_looked_for_nearby_at_once() {
    for known in [Some("198.51.100.1:4000"), None] {
        let assignment = assignment(known, &["192.168.1.2:51821"]);
        let mut trials = Trials::default();

        trials.advance(&assignment, None, HERE, clock::now());

        assert_eq!(endpoint(&trials, &assignment), "192.168.1.2:51821".parse().ok());
    }
}

#[test]
fn what_the_server_said_is_not_tried_a_second_time() {
    let assignment = assignment(Some("192.168.1.2:51821"), &["192.168.1.2:51821"]);
    let mut trials = Trials::default();

    trials.advance(&assignment, None, HERE, clock::now());

    assert_eq!(trials.deadline(), None);
}

#[test]
fn a_session_that_lives_nearby_stays_there() {
    let assignment = assignment(Some("198.51.100.1:4000"), &["192.168.1.2:51821"]);
    let mut trials = Trials::default();
    let now = clock::now();
    trials.advance(&assignment, None, HERE, now);

    trials.advance(&assignment, Some(&observed(&assignment, "192.168.1.2:51821", 3)), HERE, now + SLOT);

    assert_eq!(endpoint(&trials, &assignment), "192.168.1.2:51821".parse().ok());
    assert_eq!(trials.deadline(), None);
}

#[test]
fn a_peer_that_fell_silent_is_looked_for() {
    let assignment = assignment(Some("198.51.100.2:51821"), &["192.168.1.2:51821"]);
    let mut trials = Trials::default();
    let now = clock::now();

    trials.advance(&assignment, Some(&observed(&assignment, "198.51.100.2:51821", 179)), HERE, now);
    assert_eq!(trials.deadline(), None);
    trials.advance(&assignment, Some(&observed(&assignment, "198.51.100.2:51821", 180)), HERE, now);
    assert_eq!(trials.deadline(), Some(now + SLOT));
}

#[test]
fn nothing_is_sent_to_strangers_to_ourselves_or_into_the_overlay() {
    let told = [
        "192.168.2.2:51821",
        "192.168.1.1:51821",
        "192.168.1.0:51821",
        "192.168.1.255:51821",
        "10.101.0.9:51821",
        "[fd00::9]:51821",
    ];
    let assignment = assignment(None, &told);
    let attached = ["192.168.1.1/24".parse().unwrap(), "10.0.0.1/8".parse().unwrap()];
    let mut trials = Trials::default();

    trials.advance(&assignment, None, Vicinity { attached: &attached, public: &[] }, clock::now());

    assert_eq!((endpoint(&trials, &assignment), trials.deadline()), (None, None));
}

proptest! {
    #[test]
    fn whatever_happens_live_sessions_stay_and_only_neighbours_are_tried(
        steps in proptest::collection::vec((told(), option::of((0_u64..400, place())), 0_u64..90), 1..40),
        known in option::of(select(&["198.51.100.1:4000", "198.51.100.2:51821"][..])),
    ) {
        let mut trials = Trials::default();
        let mut now = clock::now();
        for (told, session, passed) in steps {
            now += Duration::from_secs(passed);
            let told: Vec<_> = told.into_iter().collect();
            let assignment = assignment(known, &told);
            let have = session.map(|(age, place)| observed(&assignment, place, age));

            trials.advance(&assignment, have.as_ref(), HERE, now);

            let tried = endpoint(&trials, &assignment);
            let from_server = assignment.peers[&KEY].endpoint;
            let alive = session.filter(|(age, _)| *age < 180);
            let neighbour = |place: SocketAddr| told.iter().any(|told| told.parse() == Ok(place))
                && HERE.attached[0].contains(&place.ip()) && place.ip() != HERE.attached[0].addr();
            prop_assert!(tried == from_server || tried.is_some_and(neighbour));
            if let Some((_, place)) = alive {
                prop_assert!(tried == from_server || tried == place.parse().ok(), "{tried:?} is not {place}");
                prop_assert_eq!(trials.deadline(), None);
            }
            prop_assert!(trials.deadline().is_none_or(|at| at > now && at <= now + LONGEST_REST));
        }
    }

    #[test]
    fn a_peer_that_never_answers_costs_little(told in told()) {
        let assignment = assignment(Some("198.51.100.2:51821"), &told.into_iter().collect::<Vec<_>>());
        let mut trials = Trials::default();
        let start = clock::now();
        let (mut now, mut looks) = (start, 0);

        while now < start + Duration::from_secs(24 * 3600) {
            trials.advance(&assignment, None, HERE, now);
            let Some(next) = trials.deadline() else { break };
            looks += 1;
            now = next;
        }

        prop_assert!(looks < 150 * 5, "{looks} looks a day");
    }
}

fn place() -> impl Strategy<Value = &'static str> {
    select(&["192.168.1.1:1", "192.168.1.2:2", "192.168.1.3:3", "192.168.2.2:2", "10.101.0.2:2", "[fd00::2]:2"][..])
}

fn told() -> impl Strategy<Value = BTreeSet<&'static str>> {
    btree_set(place(), 0..6)
}

const KEY: PublicKey = PublicKey([2; 32]);

const HERE: Vicinity<'_> = Vicinity {
    attached: &[IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(192, 168, 1, 1), 24))],
    public: &[IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1))],
};

/// Where the peer's packets would go, with what the server said where no trial is on.
fn endpoint(trials: &Trials, assignment: &Assignment) -> Option<SocketAddr> {
    trials.put_into(device(assignment)).peers[&KEY].endpoint
}

fn device(assignment: &Assignment) -> Device {
    Device {
        peers: assignment.peers.clone(),
        state: LinkState::Up,
        private_key: PrivateKey::blank(),
        ..Device::blank()
    }
}

fn observed(assignment: &Assignment, endpoint: &str, age: u64) -> Observation {
    let mut device = device(assignment);
    for peer in device.peers.values_mut() {
        peer.endpoint = endpoint.parse().ok();
    }
    let stats = PeerStats { handshake_age: Some(Duration::from_secs(age)), ..PeerStats::default() };
    Observation { device, stats: BTreeMap::from([(KEY, stats)]) }
}

fn assignment(endpoint: Option<&str>, nearby: &[&str]) -> Assignment {
    let node = Node {
        addresses: BTreeSet::from(["10.101.0.3/16".parse().unwrap()]),
        connection: Connection::Connected,
        id: Uuid::nil(),
        relay: None,
        relay_choice: RelayChoice::Fixed,
        tags: BTreeSet::new(),
    };
    let peer = Peer { endpoint: endpoint.map(|text| text.parse().unwrap()), ..Peer::default() };
    Assignment {
        nearby: BTreeMap::from([(KEY, nearby.iter().map(|text| text.parse().unwrap()).collect())]),
        nodes: BTreeMap::from([("plant-a".parse().unwrap(), node)]),
        peers: BTreeMap::from([(KEY, peer)]),
        ..Assignment::default()
    }
}
