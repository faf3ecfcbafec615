//! What the server tells hosts through its broker, and what it hears from them.

use enroll_agent::{
    control::{
        seal::{gob, open_box},
        wire::{GoBytes, Host, WgKey},
    },
    mock_server::{Broker, Elsewhere, Login, Names, Options, Repeat, Scheme, Trouble},
};
use rumqttc::ConnectReturnCode;
use serde_json::{Value, json};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{bench::*, mqtt::*};

#[tokio::test]
async fn every_transport_delivers_what_stayed() {
    for scheme in [Scheme::Mqtt, Scheme::Mqtts, Scheme::Ws, Scheme::Wss] {
        let bench = Bench::with(inside(scheme, Login::Shared)).await;
        let host = sealing("a", 1);
        assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
        assert!(bench.handle.broker_url().unwrap().starts_with(&format!("{}://127.0.0.1:", scheme.as_str())));

        let mut device = Device::connect(&bench, &host).await;

        assert_eq!(device.action().await["Action"], "REQ_ACK", "{scheme:?}");
    }
}

#[tokio::test]
async fn each_ack_brings_one_node_and_then_the_record() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let token = bench.key(key("both-nets", &["plant-a", "office"]));
    let host = sealing("a", 1);
    assert_eq!(bench.register(&token, &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;
    let topic = format!("host/update/{}/mock.test", host.id);

    assert_eq!(device.action().await["Action"], "REQ_ACK");
    device.clear(&topic).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        device.say("ACK", "mock.test").await;
        let update = device.action().await;
        told.push((update["Action"].clone(), update["Node"]["network"].clone()));
        device.peers(|_| true).await;
    }

    assert_eq!(
        told,
        [
            (json!("JOIN_HOST_TO_NETWORK"), json!("plant-a")),
            (json!("JOIN_HOST_TO_NETWORK"), json!("office")),
            (json!("UPDATE_HOST"), json!("")),
        ]
    );
}

#[tokio::test]
async fn an_action_is_asked_for_at_each_connect_until_its_topic_is_cleared() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let topic = format!("host/update/{}/mock.test", host.id);
    for _ in 0..2 {
        let mut device = Device::connect(&bench, &host).await;
        let (heard, stayed, _) = loop {
            let next = device.next().await;
            if next.0 == topic {
                break next;
            }
        };
        assert_eq!((&heard, stayed), (&topic, true));
    }

    let device = Device::connect(&bench, &host).await;
    device.clear(&topic).await;
    device.say("CHECK_IN", "mock.test").await;
    eventually(|| bench.handle.faults().observed().iter().any(|seen| seen.path == "/CHECK_IN")).await;
    drop(device);

    let mut device = Device::connect(&bench, &host).await;
    bench.join("plant-a", "b", 2).await;
    let peers = device.peers(|peers| peers["host_peers"].as_array().is_some_and(|peers| !peers.is_empty())).await;
    assert_eq!(peers["host"]["id"], json!(host.id));
}

#[tokio::test]
async fn peers_come_in_the_recorded_shape() {
    let bench = Bench::with(inside(Scheme::Ws, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;
    bench.join("plant-a", "b", 2).await;

    let peers = device.peers(|peers| peers["host_peers"].as_array().is_some_and(|peers| peers.len() == 1)).await;

    let recorded: Value = serde_json::from_str(include_str!("../wire-examples/host-peer-update.json")).unwrap();
    assert_eq!(names(&peers), names(&recorded));
    let (_, pull) = bench.pull(&host).await;
    assert_eq!(peers["host_peers"], json!(pull.peers));
    assert_eq!((&peers["Peers"], &peers["peers"]), (&peers["host_peers"], &json!([])));
    assert_eq!((&peers["server"], &peers["Server"]), (&json!("mock.test"), &json!("mock.test")));
    assert_eq!(peers["Broker"], json!(bench.handle.broker_url().unwrap()));
    assert_eq!(peers["node_peers"], json!([]));
}

#[tokio::test]
async fn a_new_key_replaces_the_peers_of_everybody() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let other = bench.join("plant-a", "b", 2).await;
    let mut device = Device::connect(&bench, &host).await;
    // The first broadcast after the start replaces, too; the one after an ACK does not.
    device.peers(|peers| peers["replace_peers"] == true && peers["host_peers"].as_array().unwrap().len() == 1).await;
    device.say("ACK", "mock.test").await;
    device.peers(|peers| peers["replace_peers"] == false).await;

    let rekeyed = Host { public_key: WgKey([0x77; 32]), ..other };
    bench.tell(&rekeyed, "UPDATE_HOST").await;

    let peers = device.peers(|peers| peers["replace_peers"] == true).await;
    assert_eq!(peers["host_peers"][0]["PublicKey"], json!(WgKey([0x77; 32])));
}

#[tokio::test]
async fn a_deletion_is_told_at_once_to_all_and_to_the_deleted() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let (stays, goes) = (sealing("a", 1), sealing("b", 2));
    for host in [&stays, &goes] {
        assert_eq!(bench.register(&bench.token("plant-a"), host).await.status(), 200);
    }
    let mut staying = Device::connect(&bench, &stays).await;
    let mut going = Device::connect(&bench, &goes).await;
    let node = bench.node(goes.id, "plant-a");
    going.subscribe(&format!("node/update/plant-a/{node}")).await;
    staying.peers(|peers| peers["host_peers"].as_array().unwrap().len() == 1).await;

    bench.handle.delete_host(goes.id).unwrap();

    let peers = staying.peers(|peers| peers["host_peers"][0]["Remove"] == true).await;
    assert_eq!(peers["host_peers"], json!([removed(&goes)]));
    assert_eq!(peers["replace_peers"], false);
    let (mut asked, mut node_told) = (false, false);
    while !(asked && node_told) {
        let (topic, _, document) = going.next().await;
        asked |= topic.starts_with("host/update/") && document["Action"] == "DELETE_HOST";
        node_told |=
            topic.starts_with("node/update/") && document["action"] == "delete" && document["pendingdelete"] == true;
    }
}

#[tokio::test]
async fn who_leaves_by_itself_is_not_told_to() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let (stays, goes) = (sealing("a", 1), sealing("b", 2));
    for host in [&stays, &goes] {
        assert_eq!(bench.register(&bench.token("plant-a"), host).await.status(), 200);
    }
    let mut staying = Device::connect(&bench, &stays).await;
    let mut going = Device::connect(&bench, &goes).await;
    assert_eq!(going.action().await["Action"], "REQ_ACK");

    going.say("DELETE_HOST", "mock.test").await;

    staying.peers(|peers| peers["host_peers"][0]["Remove"] == true).await;
    assert_eq!(bench.handle.hosts().unwrap().len(), 1);
    // What came before this is there when this is.
    let last = format!("peers/host/{}/mock.test", stays.id);
    going.subscribe(&last).await;
    loop {
        let (topic, _, document) = going.next().await;
        assert_ne!(document["Action"], "DELETE_HOST");
        if topic == last {
            break;
        }
    }
}

#[tokio::test]
async fn a_relay_is_told_as_a_node_and_as_peers() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let gateway = bench.join("plant-a", "gateway", 2).await;
    let (node, gateway) = (bench.node(host.id, "plant-a"), bench.node(gateway.id, "plant-a"));
    let mut device = Device::connect(&bench, &host).await;
    device.subscribe(&format!("node/update/plant-a/{node}")).await;

    bench.handle.make_gateway("plant-a", gateway, &[node]).unwrap();

    loop {
        let (topic, _, document) = device.next().await;
        if topic.starts_with("node/update/") {
            assert_eq!((&document["isrelayed"], &document["relayedby"]), (&json!(true), &json!(gateway)));
            break;
        }
    }
    device.peers(|peers| peers["nodes"][0]["isrelayed"] == true).await;
}

#[tokio::test]
async fn a_broker_elsewhere_carries_the_same_messages() {
    let elsewhere = Bench::with(inside(Scheme::Wss, Login::Shared)).await;
    // The other server tells its password to every host.
    let host = elsewhere.join("plant-a", "a", 1).await;
    let (_, pull) = elsewhere.pull(&host).await;
    let broker = Elsewhere {
        url: elsewhere.handle.broker_url().unwrap(),
        user: pull.server_config.mq_user_name,
        password: pull.server_config.mq_password,
        ca_pem: Some(elsewhere.handle.ca_pem().to_owned()),
        login: Login::Shared,
        announce: None,
    };
    let options =
        Options { server_name: "other.test".into(), broker: Some(Broker::Elsewhere(broker)), ..Options::default() };
    let bench = Bench::with(options).await;
    let host = sealing("b", 2);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);

    let mut device = Device::connect_trusting(&bench, &elsewhere, &host).await;

    assert_eq!(device.action().await["Action"], "REQ_ACK");
    device.say("ACK", "other.test").await;
    assert_eq!(device.action().await["Action"], "JOIN_HOST_TO_NETWORK");
}

#[tokio::test]
async fn the_broker_lets_in_only_who_knows_the_password() {
    let bench = Bench::with(inside(Scheme::Wss, Login::Shared)).await;
    let url = bench.handle.broker_url().unwrap();

    assert_eq!(attempt(&bench.handle, &url, "netmaker", "guess").await, ConnectReturnCode::NotAuthorized);
    assert_eq!(attempt(&bench.handle, &url, "", "").await, ConnectReturnCode::NotAuthorized);
}

#[tokio::test]
async fn hosts_may_log_in_as_themselves() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Host)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let (_, pull) = bench.pull(&host).await;
    let url = bench.handle.broker_url().unwrap();
    let id = host.id.to_string();

    assert_eq!(pull.server_config.broker_type, "emqx");
    assert_eq!(pull.server_config.mq_user_name, "HOST_ID");
    assert_eq!(attempt(&bench.handle, &url, &id, host.password.expose()).await, ConnectReturnCode::Success);
    assert_eq!(attempt(&bench.handle, &url, &id, "guess").await, ConnectReturnCode::NotAuthorized);
    bench.handle.delete_host(host.id).unwrap();
    assert_eq!(attempt(&bench.handle, &url, &id, host.password.expose()).await, ConnectReturnCode::NotAuthorized);
}

#[tokio::test]
async fn an_old_host_gets_boxes() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let own = StaticSecret::from([9; 32]);
    let traffic_key = gob::encode(PublicKey::from(&own).as_bytes(), None);
    let host = Host { version: "v0.29.0".into(), traffic_key_public: traffic_key[..].into(), ..device("old", 1) };
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;

    let (_, _, sealed) = device.next().await;

    let sealed: Vec<u8> = serde_json::from_value(sealed).unwrap();
    let (_, pull) = bench.pull(&host).await;
    let GoBytes(server_key) = pull.server_config.traffic_key;
    let opened = open_box(&gob::decode(&server_key.unwrap()).unwrap(), own.as_bytes(), &sealed).unwrap();
    let opened: Value = serde_json::from_slice(&opened).unwrap();
    assert!(opened["Action"] == "REQ_ACK" || opened["host_peers"].is_array(), "{opened}");
}

#[tokio::test]
async fn a_signal_reaches_its_host() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let (from, to) = (bench.join("plant-a", "a", 1).await, sealing("b", 2));
    assert_eq!(bench.register(&bench.token("plant-a"), &to).await.status(), 200);
    let mut device = Device::connect(&bench, &to).await;
    assert_eq!(device.action().await["Action"], "REQ_ACK");

    let signal = json!({
        "to_host_id": to.id, "to_host_pubkey": "a key", "from_host_id": from.id, "action": "CONNECTION_NEGOTIATION",
    });
    let session = bench.session(&from).await;
    let path = format!("/api/v1/host/{}/signalpeer", from.id);
    assert_eq!(bench.send(reqwest::Method::POST, &path, signal.to_string(), Some(&session)).await.status(), 200);

    let update = device.action().await;
    assert_eq!((&update["Action"], &update["Signal"]["from_host_id"]), (&json!("SIGNAL_HOST"), &json!(from.id)));
}

#[tokio::test]
async fn managed_names_are_told_to_everybody_in_plain_text() {
    let bench = Bench::with(Options { names: Names::Managed, ..inside(Scheme::Mqtt, Login::Shared) }).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;
    device.subscribe("host/dns/sync/plant-a/mock.test").await;

    loop {
        let (topic, stayed, names) = device.next().await;
        if topic == "host/dns/sync/plant-a/mock.test" {
            let name = json!({
                "address": "10.101.0.1", "address6": "", "name": "a.plant-a.nm.internal", "network": "plant-a",
            });
            assert_eq!((stayed, names), (true, json!([name])));
            break;
        }
    }
}

#[tokio::test]
async fn a_broker_that_is_down_puts_everybody_out_and_keeps_what_stays() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;
    assert_eq!(device.action().await["Action"], "REQ_ACK");

    bench.handle.make(Trouble::BrokerDown).await.unwrap();

    device.lost().await;
    let status: Value = bench.get("/api/server/status", "").await.document().await;
    assert_eq!(status["is_broker_conn_open"], false);
    bench.handle.make(Trouble::BrokerUp).await.unwrap();
    let mut device = Device::connect(&bench, &host).await;
    assert_eq!(device.action().await["Action"], "REQ_ACK");
}

#[tokio::test]
async fn messages_can_come_twice_or_too_late() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;
    assert_eq!(device.action().await["Action"], "REQ_ACK");
    device.say("ACK", "mock.test").await;
    assert_eq!(device.action().await["Action"], "JOIN_HOST_TO_NETWORK");

    bench.handle.make(Trouble::Repeat { which: Repeat::Last }).await.unwrap();
    bench.handle.make(Trouble::Repeat { which: Repeat::Stale }).await.unwrap();

    assert_eq!(device.action().await["Action"], "JOIN_HOST_TO_NETWORK");
    assert_eq!(device.action().await["Action"], "REQ_ACK");
}

#[tokio::test]
async fn the_server_says_that_its_broker_is_there() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;

    let status: Value = bench.get("/api/server/status", "").await.document().await;

    assert_eq!((&status["broker_connected"], &status["is_broker_conn_open"]), (&json!(true), &json!(true)));
}

fn removed(host: &Host) -> Value {
    json!({
        "PublicKey": host.public_key, "Remove": true, "UpdateOnly": false, "PresharedKey": null, "Endpoint": null,
        "PersistentKeepaliveInterval": null, "ReplaceAllowedIPs": false, "AllowedIPs": null,
    })
}
