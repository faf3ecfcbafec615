//! What hosts are asked to do: choose a gateway, update, pull, make new keys, move.

use enroll_agent::mock_server::{Edition, Login, NewKey, Options, Scheme};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench::*, mqtt::*};

#[tokio::test]
async fn a_host_that_may_choose_its_gateway_is_asked_to() {
    let options = Options { edition: Edition::Pro, ..inside(Scheme::Mqtt, Login::Shared) };
    let bench = Bench::with(options).await;
    let token = bench.key(NewKey { auto_assign_gateway: true, ..key("choosing", &["plant-a"]) });
    let host = sealing("a", 1);
    assert_eq!(bench.register(&token, &host).await.status(), 200);
    let gateway = bench.join("plant-a", "gateway", 2).await;
    let (node, gateway) = (bench.node(host.id, "plant-a"), bench.node(gateway.id, "plant-a"));
    let mut device = Device::connect(&bench, &host).await;
    bench.handle.make_gateway("plant-a", gateway, &[]).unwrap();

    let asked = loop {
        let update = device.action().await;
        if update["Action"] == "CHECK_AUTO_ASSIGN_GW" {
            break update;
        }
    };
    assert_eq!(asked["Node"]["id"], json!(node));
    let peers = device.peers(|peers| peers["gw_nodes"]["plant-a"].is_array()).await;
    let best = peers["gw_nodes"]["plant-a"][0]["id"].clone();
    let session = bench.session(&host).await;
    let choose = async |gateway: &Value| {
        let body = json!({"auto_relay_gw_id": gateway}).to_string();
        let path = format!("/api/v1/node/{node}/auto_relay_me");
        bench.send(Method::PUT, &path, body, Some(&session)).await.status()
    };
    assert_eq!(choose(&best).await, 200);
    device.peers(|peers| peers["nodes"][0]["relayedby"] == json!(gateway)).await;
    assert_eq!(choose(&json!("")).await, 200);
    device.peers(|peers| peers["nodes"][0]["isrelayed"] == false).await;
}

#[tokio::test]
async fn only_the_paid_edition_lets_hosts_choose() {
    let bench = Bench::new().await;
    let host = bench.join("plant-a", "a", 1).await;
    let session = bench.session(&host).await;
    let path = format!("/api/v1/node/{}/auto_relay_me", bench.node(host.id, "plant-a"));

    assert_eq!(bench.send(Method::PUT, &path, "{}".into(), Some(&session)).await.status(), 404);
}

#[tokio::test]
async fn what_administrators_ask_for_reaches_the_host() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;
    assert_eq!(device.action().await["Action"], "REQ_ACK");
    let path = format!("/api/hosts/{}", host.id);
    let mut edited: Value = bench.get(&path, bench.handle.master_key()).await.document().await;
    if edited["Response"].is_object() {
        edited = edited["Response"].take();
    }
    edited["name"] = json!("b");
    let calls = [
        (Method::PUT, path.clone(), edited, "UPDATE_HOST"),
        (Method::PUT, format!("{path}/keys"), json!({}), "UPDATE_KEYS"),
        (Method::POST, format!("{path}/sync"), json!({}), "REQ_PULL"),
        (Method::PUT, format!("{path}/upgrade"), json!({}), "UPGRADE"),
    ];
    for (method, path, body, action) in calls {
        assert_eq!(bench.admin(method, &path, body).await.status(), 200, "{path}");

        let asked = device.action().await;
        assert_eq!((&asked["Action"], &asked["Host"]["name"]), (&json!(action), &json!("b")));
    }
}

#[tokio::test]
async fn a_node_that_is_moved_is_told_and_asked_to_pull() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("office"), &host).await.status(), 200);
    let other = bench.join("office", "b", 2).await;
    let node = bench.node(host.id, "office");
    let mut device = Device::connect(&bench, &host).await;
    assert_eq!(device.action().await["Action"], "REQ_ACK");
    let path = format!("/api/nodes/office/{node}");
    let put =
        async |address: &str| bench.admin(Method::PUT, &path, json!({"address": address, "connected": true})).await;

    let moved: Value = put("10.202.0.77/24").await.document().await;

    assert_eq!((&moved["address"], &moved["address6"]), (&json!("10.202.0.77/24"), &json!("fd00:202::1/64")));
    assert_eq!(device.action().await["Action"], "REQ_PULL");
    let (_, pull) = bench.pull(&other).await;
    let peers = pull.peers.unwrap();
    let allowed = peers[0].allowed_ips.as_ref().unwrap()[0].to_net().unwrap().unwrap();
    assert_eq!(allowed.to_string(), "10.202.0.77/32");
    let taken = message(put("10.202.0.2/24").await).await;
    assert_eq!(taken, (400, "ip specified is already allocated:  10.202.0.2/24".into()));
    let third = bench.join("office", "c", 3).await;
    let (_, pull) = bench.pull(&third).await;
    assert_eq!(pull.nodes.unwrap()[0].address.ip, ip("10.202.0.1"), "the address it left is free");
}

#[tokio::test]
async fn a_default_host_is_a_gateway_in_every_network() {
    let bench = Bench::new().await;
    let host = bench.join("plant-a", "a", 1).await;
    let path = format!("/api/hosts/{}", host.id);
    let shown: Value = bench.get(&path, bench.handle.master_key()).await.document().await;
    let mut shown = shown["Response"].clone();
    shown["isdefault"] = json!(true);

    assert_eq!(bench.admin(Method::PUT, &path, shown).await.status(), 200);
    let new = json!({"netid": "line-3", "addressrange": "10.103.0.0/24"});
    assert_eq!(bench.admin(Method::POST, "/api/networks", new).await.status(), 200);

    let nodes = bench.pull(&host).await.1.nodes.unwrap();
    let gateways: Vec<_> = nodes.iter().map(|node| (node.network.as_str(), node.is_gateway)).collect();
    assert_eq!(gateways, [("plant-a", false), ("office", true), ("line-3", true)]);
}

#[tokio::test]
async fn who_did_not_listen_is_told_once_what_it_missed() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;
    device.peers(|peers| peers["host_peers"] == json!([])).await;
    device.peers_after_ack().await;
    drop(device);
    let gone = bench.join("plant-a", "b", 2).await;
    bench.handle.delete_host(gone.id).unwrap();
    bench.join("plant-a", "c", 3).await;
    // A broadcast has happened when another host has heard it.
    let other = sealing("d", 4);
    assert_eq!(bench.register(&bench.token("plant-a"), &other).await.status(), 200);
    let mut listener = Device::connect(&bench, &other).await;
    listener.peers(|peers| peers["host_peers"].as_array().unwrap().len() == 2).await;

    let mut device = Device::connect(&bench, &host).await;
    let told = device.peers(|_| true).await;

    let peers = told["host_peers"].as_array().unwrap();
    let removed: Vec<_> = peers.iter().filter(|peer| peer["Remove"] == true).map(|peer| &peer["PublicKey"]).collect();
    assert_eq!((peers.len(), removed), (3, vec![&json!(gone.public_key)]));
}
