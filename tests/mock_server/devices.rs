//! Registration, sessions, pulls, leaving.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use enroll_agent::{
    control::{
        seal::gob,
        wire::{GoBytes, Host, WgKey},
    },
    mock_server::{Event, NewKey, Options},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bench::*;

#[tokio::test]
async fn registration_is_refused_in_the_real_server_s_order() {
    let bench = Bench::new().await;
    let token = bench.token("plant-a");
    let good = device("a", 1);
    let with = |change: fn(&mut Value)| {
        let mut body = json!(good);
        change(&mut body);
        body.to_string()
    };
    let spent = bench.key(NewKey { uses: Some(1), ..key("spent-key", &["plant-a"]) });
    assert_eq!(bench.register(&spent, &device("first", 9)).await.status(), 200);

    let cases = [
        ("no+padding", "not json".to_owned(), 400, "illegal base64 data at input byte 2"),
        ("abc", "not json".to_owned(), 400, "illegal base64 data at input byte 0"),
        ("e30=", "not json".to_owned(), 400, "no enrollmentkey found"),
        (&token, "not json".to_owned(), 500, "expected ident at line 1 column 2"),
        (&token, with(|body| body["version"] = json!("v1.5.1-rc1")), 400, "bad client version on register: v1.5.1-rc1"),
        (&token, with(|body| body["traffickeypublic"] = Value::Null), 400, "missing traffic key"),
        (&spent, with(|body| body["version"] = json!("v0.16.0")), 400, "bad client version on register: v0.16.0"),
        (&spent, with(|_| ()), 400, "invalid enrollment key"),
        (
            &token,
            with(|body| body["hostpass"] = json!("x".repeat(73))),
            500,
            "bcrypt: password length exceeds 72 bytes",
        ),
    ];
    for (token, body, status, message) in cases {
        let token = token.replace('+', "%21");
        let answer = bench.send(Method::POST, &format!("/api/v1/host/register/{token}"), body, None).await;

        assert_eq!(answer.status(), status, "{message}");
        assert_eq!(content_type(&answer), "application/json");
        let body: Value = answer.document().await;
        assert_eq!(body, json!({"Code": status, "Message": message, "Response": null}));
    }
    assert_eq!(bench.handle.hosts().unwrap().len(), 1);
}

#[tokio::test]
async fn a_registration_answers_as_recorded() {
    let bench = Bench::with(Options { netmaker_compat: true, ..Options::default() }).await;
    let token =
        bench.key(NewKey { groups: vec!["plant-a.plc".into()], ..key("both-nets", &["plant-a", "office", "gone"]) });

    let answer = bench.register(&token, &device("a", 1)).await;

    assert_eq!(answer.status(), 200);
    assert_eq!(content_type(&answer), TEXT);
    assert_eq!(answer.headers()["enroll-agent-networks"], "plant-a,office");
    let answer: Value = answer.document().await;
    let recorded: Value = serde_json::from_str(include_str!("../wire-examples/register-response.json")).unwrap();
    assert_eq!(names(&answer["server_config"]), names(&recorded["server_config"]));
    let host = &answer["requested_host"];
    assert!(host["hostpass"].as_str().unwrap().starts_with("$2a$05$"));
    assert_eq!((&host["nodes"], &host["persistentkeepalive"]), (&Value::Null, &json!(20_000_000_000_i64)));
    let traffic_key: GoBytes = serde_json::from_value(answer["server_config"]["TrafficKey"].clone()).unwrap();
    assert!(gob::decode(traffic_key.as_slice()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn five_uses_are_five_uses_however_many_ask_at_once() {
    let bench = Arc::new(Bench::new().await);
    let token = bench.key(NewKey { uses: Some(5), ..key("five-uses", &["plant-a"]) });

    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..64 {
        let (bench, token) = (bench.clone(), token.clone());
        tasks.spawn(async move { bench.register(&token, &device("many", number)).await.status().as_u16() });
    }
    let mut statuses = tasks.join_all().await;

    statuses.sort_unstable();
    assert_eq!((&statuses[..5], &statuses[5..]), (&[200; 5][..], &[400; 59][..]));
    assert_eq!(bench.handle.hosts().unwrap().len(), 5);
    let addresses: BTreeSet<_> = bench.handle.nodes().unwrap().iter().map(|node| node.address.ip).collect();
    assert_eq!(addresses.len(), 5);
}

#[tokio::test]
async fn registering_again_is_free_with_proof_and_refused_without() {
    let bench = Bench::new().await;
    let token = bench.key(NewKey { uses: Some(1), ..key("one-use", &["plant-a"]) });
    let host = device("a", 1);

    assert_eq!(bench.register(&token, &host).await.status(), 200);
    assert_eq!(bench.register(&token, &host).await.status(), 200);
    let thief = Host { password: "guess".into(), ..host.clone() };
    assert_eq!(message(bench.register(&token, &thief).await).await, (401, "unauthorized".into()));
    bench.handle.delete_host(host.id).unwrap();
    assert_eq!(message(bench.register(&token, &host).await).await, (400, "invalid enrollment key".into()));
}

#[tokio::test]
async fn a_time_bound_key_ends_with_its_time() {
    let seconds = Arc::new(AtomicI64::new(START));
    let bench = Bench::with(Options { clock: clock(&seconds), ..Options::default() }).await;
    let token = bench.key(NewKey { expiration: Some(START + 60), unlimited: false, ..key("a-minute", &["plant-a"]) });

    assert_eq!(bench.register(&token, &device("a", 1)).await.status(), 200);
    seconds.fetch_add(60, Ordering::Relaxed);

    assert_eq!(message(bench.register(&token, &device("b", 2)).await).await, (400, "invalid enrollment key".into()));
    assert_eq!(bench.register(&token, &device("a", 1)).await.status(), 200);
}

#[tokio::test]
async fn sessions_are_refused_as_recorded_and_end_after_15_minutes() {
    let seconds = Arc::new(AtomicI64::new(START));
    let bench = Bench::with(Options { clock: clock(&seconds), ..Options::default() }).await;
    let host = bench.join("plant-a", "a", 1).await;
    let cases = [
        (json!({"id": "", "password": "x"}), 400, "W1R3: ID can't be empty"),
        (json!({"id": host.id, "password": ""}), 400, "W1R3: Password can't be empty"),
        (json!({"id": "12", "password": "x"}), 400, "failed to parse host id: invalid UUID length: 2"),
        (json!({"id": Uuid::from_u128(7), "password": "x"}), 400, "record not found"),
        (json!({"id": host.id, "password": "x"}), 401, "unauthorized"),
    ];
    for (body, status, text) in cases {
        let answer = bench.send(Method::POST, "/api/hosts/adm/authenticate", body.to_string(), None).await;
        assert_eq!(message(answer).await, (status, text.to_owned()));
    }

    let session = bench.session(&host).await;
    assert_eq!(bench.get("/api/v1/host", &session).await.status(), 200);
    seconds.fetch_add(900, Ordering::Relaxed);
    assert_eq!(message(bench.get("/api/v1/host", &session).await).await, (401, "unauthorized".into()));
    assert_eq!(message(bench.get("/api/v1/host", "none").await).await, (401, "unauthorized".into()));
    let master = bench.handle.master_key().to_owned();
    assert_eq!(bench.get("/api/v1/host", &master).await.status(), 400);
}

#[tokio::test]
async fn a_host_acts_for_itself_alone() {
    let bench = Bench::new().await;
    let (host, other) = (bench.join("plant-a", "a", 1).await, bench.join("plant-a", "b", 2).await);
    let session = bench.session(&host).await;
    let node = bench.node(other.id, "plant-a");

    let answer = bench.get(&format!("/api/v1/host/{}/peer_info", other.id), &session).await;
    assert_eq!(message(answer).await, (403, "forbidden".into()));
    let answer = bench.delete(&format!("/api/nodes/plant-a/{node}"), &session).await;
    assert_eq!(message(answer).await, (403, "forbidden".into()));
    let answer = bench.delete(&format!("/api/nodes/plant-a/{}", Uuid::from_u128(5)), &session).await;
    assert_eq!(message(answer).await, (400, "no result found".into()));
    let answer = bench.get("/api/hosts", &session).await;
    assert_eq!(message(answer).await, (401, "user identifiers not provided".into()));
}

/// The scene of the recorded pull: a relay and a PLC in one network, the relay and a NAS without endpoint in another.
#[tokio::test]
async fn relayed_peers_have_the_recorded_shape() {
    let bench = Bench::new().await;
    let both = bench.key(key("gateways", &["plant-a", "office"]));
    let relay = Host { endpoint_ip: ip("198.51.100.20"), ..device("relay-fra1", 1) };
    assert_eq!(bench.register(&both, &relay).await.status(), 200);
    bench.join("plant-a", "plc-4", 2).await;
    let nas = Host { public_listen_port: 34111, endpoint_ip: ip(""), ..device("nas-1", 3) };
    assert_eq!(bench.register(&bench.token("office"), &nas).await.status(), 200);
    let gateway = bench.node(relay.id, "plant-a");
    bench.handle.make_gateway("plant-a", gateway, &[]).unwrap();
    let groups = vec!["plant-a.plc".to_owned(), "plant-a.line3".to_owned()];
    let token =
        bench.key(NewKey { relay: Some(gateway), groups, uses: Some(25), ..key("line3-edge", &["plant-a", "office"]) });

    let edge = Host { endpoint_ip: ip("192.0.2.17"), ..device("edge-gw-17", 4) };
    assert_eq!(bench.register(&token, &edge).await.status(), 200);
    let (document, pull) = bench.pull(&edge).await;

    let mut recorded: Value = serde_json::from_str(include_str!("../wire-examples/host-pull.json")).unwrap();
    let recorded_keys: Vec<_> =
        recorded["peers"].as_array().unwrap().iter().map(|peer| peer["PublicKey"].clone()).collect();
    assert_eq!(recorded_keys.len(), 3);
    for (peer, number) in recorded["peers"].as_array_mut().unwrap().iter_mut().zip([1_u8, 2, 3]) {
        peer["PublicKey"] = json!(vec![number; 32]);
    }
    assert_eq!(document["peers"], recorded["peers"]);
    assert_eq!(names(&document), names(&recorded));
    assert_eq!(names(&document["nodes"][0]), names(&recorded["nodes"][0]));
    assert_eq!(document["nodes"][0]["tags"], json!({"plant-a.line3": {}, "plant-a.plc": {}}));
    assert_eq!(document["nodes"][1]["tags"], document["nodes"][0]["tags"]);
    assert_eq!(pull.nodes.unwrap()[0].relayed_by, gateway.to_string());
    assert_eq!(document["fw_update"]["networks"].as_array().unwrap().len(), 2);

    let (document, _) = bench.pull(&relay).await;
    let edge_peer = document["peers"].as_array().unwrap().iter().find(|peer| peer["PublicKey"][0] == 4).unwrap();
    assert_eq!(edge_peer["Endpoint"], json!({"IP": "", "Port": 51821, "Zone": ""}));
    assert_eq!(document["nodes"][0]["tags"], json!({"plant-a.gateways": {}}));
}

#[tokio::test]
async fn hosts_at_one_address_get_different_ports() {
    let bench = Bench::new().await;
    let token = bench.token("plant-a");
    let at = |number| Host { endpoint_ip: ip("192.0.2.1"), ..device("nat", number) };
    let fixed = Host { is_static_port: true, ..at(3) };

    let mut ports = Vec::new();
    for host in [at(1), at(2), fixed] {
        let answer: Value = bench.register(&token, &host).await.document().await;
        ports.push(answer["requested_host"]["listenport"].as_i64().unwrap());
    }

    assert_eq!(ports, [51821, 51822, 51821]);
}

#[tokio::test]
async fn check_ins_and_updates_change_what_peers_see() {
    let seconds = Arc::new(AtomicI64::new(START));
    let bench = Bench::with(Options { clock: clock(&seconds), ..Options::default() }).await;
    let (host, other) = (bench.join("plant-a", "a", 1).await, bench.join("plant-a", "b", 2).await);
    let moved = Host { endpoint_ip: ip("203.0.113.9"), public_key: WgKey([7; 32]), ..host.clone() };

    bench.tell(&moved, "UPDATE_HOST").await;
    let (_, pull) = bench.pull(&other).await;
    let peer = &pull.peers.unwrap()[0];
    assert_eq!((peer.public_key, peer.endpoint.as_ref().unwrap().ip), (WgKey([7; 32]), ip("203.0.113.9")));

    seconds.fetch_add(3601, Ordering::Relaxed);
    assert_eq!(bench.pull(&host).await.1.peers, Some(vec![]));
    bench.tell(&host, "CHECK_IN").await;
    assert_eq!(bench.pull(&host).await.1.peers.unwrap().len(), 1);
}

#[tokio::test]
async fn a_disconnected_node_is_removed_from_its_peers() {
    let bench = Bench::new().await;
    let (host, other) = (bench.join("plant-a", "a", 1).await, bench.join("plant-a", "b", 2).await);
    let node = bench.node(host.id, "plant-a");

    let body = json!({"Action": "UPDATE_NODE", "Host": {}, "Node": {"id": node, "connected": false}});
    let session = bench.session(&host).await;
    let path = format!("/api/v1/fallback/host/{}", host.id);
    let answer = bench.send(Method::PUT, &path, body.to_string(), Some(&session)).await;
    assert_eq!(message(answer).await, (200, "updated host data".into()));

    assert_eq!(bench.pull(&host).await.1.peers, Some(vec![]));
    let peer = bench.pull(&other).await.1.peers.unwrap().remove(0);
    assert_eq!((peer.remove, peer.endpoint, peer.allowed_ips), (true, None, None));
}

#[tokio::test]
async fn leaving_a_network_is_at_once_or_marked() {
    let bench = Bench::new().await;
    let token = bench.key(key("both-nets", &["plant-a", "office"]));
    let host = device("a", 1);
    bench.register(&token, &host).await;
    let session = bench.session(&host).await;
    let (plant, office) = (bench.node(host.id, "plant-a"), bench.node(host.id, "office"));

    let answer = bench.delete(&format!("/api/nodes/office/{office}"), &session).await;
    assert_eq!(message(answer).await, (200, format!("{office} deleted.")));
    let marked = bench.pull(&host).await.1.nodes.unwrap().remove(1);
    assert_eq!((marked.pending_delete, marked.action.as_str()), (true, "delete"));

    let path = format!("{}/api/nodes/plant-a/{plant}", bench.base);
    let request = bench.client.delete(path).bearer_auth(&session).header("requestfrom", "node");
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(bench.pull(&host).await.1.nodes.unwrap().len(), 1);

    let path = format!("/api/hosts/{}", host.id);
    let kept = message(bench.delete(&path, &session).await).await;
    assert_eq!(kept, (500, "host still has associated nodes".into()));
    let gone = message(bench.delete(&format!("{path}?force=true"), &session).await).await;
    assert_eq!(gone, (200, "deleted host a".into()));
    assert_eq!(message(bench.get("/api/v1/host", &session).await).await, (500, "record not found".into()));
    let body = json!({"Action": "CHECK_IN"}).to_string();
    let answer = bench.send(Method::PUT, &format!("/api/v1/fallback/host/{}", host.id), body, Some(&session)).await;
    assert_eq!(message(answer).await, (400, "record not found".into()));
}

#[tokio::test]
async fn nodes_may_follow_the_answer() {
    let seconds = Arc::new(AtomicI64::new(START));
    let node_delay = Duration::from_secs(5);
    let bench = Bench::with(Options { clock: clock(&seconds), node_delay, ..Options::default() }).await;
    let host = device("a", 1);

    let answer = bench.register(&bench.token("plant-a"), &host).await;

    assert_eq!(answer.headers()["enroll-agent-networks"], "plant-a");
    assert_eq!(bench.pull(&host).await.1.nodes, Some(vec![]));
    seconds.fetch_add(5, Ordering::Relaxed);
    assert_eq!(bench.pull(&host).await.1.nodes.unwrap().len(), 1);
}

#[tokio::test]
async fn peer_info_has_the_recorded_shape() {
    let bench = Bench::new().await;
    let (host, other) = (bench.join("plant-a", "a", 1).await, bench.join("plant-a", "plc-4", 2).await);
    let session = bench.session(&host).await;

    let answer: Value = bench.get(&format!("/api/v1/host/{}/peer_info", host.id), &session).await.document().await;

    let expected = json!({
        "id": bench.node(other.id, "plant-a"), "host_id": other.id, "address": "10.101.0.2", "address4": "10.101.0.2",
        "address6": "<nil>", "name": "plc-4", "isserver": "", "network": "plant-a", "listen_port": 51821,
        "is_extclient": false, "username": "",
    });
    let peers = json!({"plant-a": {other.public_key.to_base64(): expected}});
    assert_eq!(answer, json!({"Code": 200, "Message": "fetched host peer info", "Response": {"network_peers": peers}}));
}

#[tokio::test]
async fn what_was_stored_is_told_in_order_and_what_failed_is_not() {
    let bench = Bench::new().await;
    let mut events = bench.handle.events();

    let host = bench.join("plant-a", "a", 1).await;
    let node = bench.node(host.id, "plant-a");
    assert!(bench.handle.assign_gateway("plant-a", node, Uuid::from_u128(1)).is_err());
    bench.handle.delete_host(host.id).unwrap();

    let network = "plant-a".to_owned();
    let expected = [
        Event::Registered { host: host.id },
        Event::Joined { host: host.id, node },
        Event::NodeDeleted { host: host.id, network, node },
        Event::HostDeleted { host: host.id },
    ];
    for event in expected {
        assert_eq!(events.try_recv(), Ok(event));
    }
    assert!(events.try_recv().is_err());
}
