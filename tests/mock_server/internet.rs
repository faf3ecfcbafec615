//! What goes through a gateway: all traffic to the internet, and everything of a relayed host; and hosts that share
//! several networks.

use enroll_agent::control::wire::{Acl, EgressRequest};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    bench::*,
    traffic::{allowed, peer},
};

#[tokio::test]
async fn an_internet_gateway_takes_all_traffic_of_its_clients() {
    let bench = Bench::new().await;
    let (gateway, client) = (bench.join("office", "gateway", 1).await, bench.join("office", "b", 2).await);
    let other = bench.join("office", "c", 3).await;
    let [node, client_node] = [&gateway, &client].map(|host| bench.node(host.id, "office"));
    let path = format!("/api/nodes/office/{node}/gateway");

    let body = json!({"is_internet_gw": true, "inet_node_client_ids": [client_node]});
    let made: Value = bench.admin(Method::POST, &path, body).await.document().await;

    assert_eq!((&made["isinternetgateway"], &made["ingressdns"]), (&json!(true), &json!("1.1.1.1")));
    let (document, pull) = bench.pull(&client).await;
    assert_eq!((&document["change_default_gw"], &document["default_gw_ip"]), (&json!(true), &json!("10.202.0.1")));
    assert_eq!(allowed(&pull, &gateway), ["10.202.0.1/32", "fd00:202::1/128", "0.0.0.0/0", "::/0"]);
    assert_eq!(pull.nodes.as_ref().unwrap()[0].internet_gateway_node_id, node.to_string());
    let (document, _) = bench.pull(&gateway).await;
    assert_eq!((&document["is_inet_gw"], &document["change_default_gw"]), (&json!(true), &json!(false)));
    let inet = &document["fw_update"]["egress_info"][format!("{node}-inet")];
    assert_eq!(inet["egress_gateway_cfg"]["ranges"], json!(["0.0.0.0/0", "::/0"]));
    let (document, _) = bench.pull(&other).await;
    assert_eq!((&document["is_inet_gw"], &document["default_gw_ip"]), (&json!(false), &json!("")));

    assert_eq!(bench.admin(Method::DELETE, &path, json!({})).await.status(), 200);
    let (document, pull) = bench.pull(&client).await;
    assert_eq!(
        (&document["change_default_gw"], pull.nodes.unwrap()[0].internet_gateway_node_id.as_str()),
        (&json!(false), "")
    );
}

#[tokio::test]
async fn who_is_behind_a_client_of_an_internet_gateway_goes_there_too() {
    let bench = Bench::new().await;
    let (gateway, relay) = (bench.join("plant-a", "gateway", 1).await, bench.join("plant-a", "relay", 2).await);
    let behind = bench.join("plant-a", "c", 3).await;
    let [gateway, relay_node, node] = [&gateway, &relay, &behind].map(|host| bench.node(host.id, "plant-a"));
    bench.handle.make_internet_gateway("plant-a", gateway, &[relay_node]).unwrap();

    bench.handle.make_gateway("plant-a", relay_node, &[node]).unwrap();

    let (document, pull) = bench.pull(&behind).await;
    assert_eq!((&document["change_default_gw"], &document["default_gw_ip"]), (&json!(true), &json!("10.101.0.2")));
    assert_eq!(allowed(&pull, &relay), ["10.101.0.2/32", "0.0.0.0/0"]);
}

#[tokio::test]
async fn a_relayed_host_reaches_ranges_through_its_relay() {
    let bench = Bench::new().await;
    let (relay, gateway) = (bench.join("plant-a", "relay", 1).await, bench.join("plant-a", "gateway", 2).await);
    let host = bench.join("plant-a", "c", 3).await;
    let [relay_node, node] = [&relay, &host].map(|host| bench.node(host.id, "plant-a"));
    let nodes = Some([(bench.node(gateway.id, "plant-a").to_string(), 9)].into());
    let (network, range) = ("plant-a".to_owned(), "192.168.7.0/24".to_owned());
    bench.handle.create_egress(EgressRequest { network, range, nodes, ..EgressRequest::default() }).unwrap();

    bench.handle.make_gateway("plant-a", relay_node, &[node]).unwrap();

    let (_, pull) = bench.pull(&host).await;
    assert_eq!(allowed(&pull, &relay), ["10.101.0.1/32", "10.101.0.2/32", "192.168.7.0/24"]);
    assert!(peer(&pull, &gateway).remove);
    // As from the real server the route names the gateway, although packets go to the relay.
    let routes = pull.egress_network_routes.unwrap();
    assert_eq!((routes.len(), &routes[0].peer_key), (1, &gateway.public_key.to_base64()));
}

#[tokio::test]
async fn a_relay_does_not_carry_what_policies_forbid() {
    let bench = Bench::new().await;
    let (relay, other) = (bench.join("plant-a", "relay", 1).await, bench.join("plant-a", "b", 2).await);
    let host = bench.join("plant-a", "c", 3).await;
    let [relay_node, node] = [&relay, &host].map(|host| bench.node(host.id, "plant-a"));
    bench.handle.make_gateway("plant-a", relay_node, &[node]).unwrap();
    assert_eq!(allowed(&bench.pull(&host).await.1, &relay), ["10.101.0.1/32", "10.101.0.2/32"]);

    // What is left lets everybody talk to gateways.
    let all = bench.handle.acls("plant-a").unwrap().into_iter().find(|acl| acl.id == "plant-a.all-nodes").unwrap();
    bench.handle.edit_acl(Acl { enabled: false, ..all }).unwrap();

    let (_, pull) = bench.pull(&host).await;
    assert_eq!(allowed(&pull, &relay), ["10.101.0.1/32"]);
    assert!(peer(&pull, &other).remove);
}

#[tokio::test]
async fn who_may_not_talk_in_one_network_may_in_another() {
    let bench = Bench::new().await;
    let both = bench.key(key("both-nets", &["plant-a", "office"]));
    let (one, other) = (device("a", 1), device("b", 2));
    for host in [&one, &other] {
        assert_eq!(bench.register(&both, host).await.status(), 200);
    }

    for acl in bench.handle.acls("plant-a").unwrap() {
        bench.handle.edit_acl(Acl { enabled: false, ..acl }).unwrap();
    }

    let (_, pull) = bench.pull(&one).await;
    assert_eq!(allowed(&pull, &other), ["10.202.0.2/32", "fd00:202::2/128"]);
    assert!(!peer(&pull, &other).remove);
}

#[tokio::test]
async fn internet_gateways_that_cannot_be_are_refused() {
    let bench = Bench::new().await;
    let hosts = [bench.join("plant-a", "a", 1).await, bench.join("plant-a", "b", 2).await];
    let third = bench.join("plant-a", "c", 3).await;
    let [a, b] = [0, 1].map(|index: usize| bench.node(hosts[index].id, "plant-a"));
    let c = bench.node(third.id, "plant-a");
    let make = async |node: uuid::Uuid, clients: Value| {
        let body = json!({"is_internet_gw": true, "inet_node_client_ids": clients});
        bench.admin(Method::POST, &format!("/api/nodes/plant-a/{node}/gateway"), body).await
    };
    assert_eq!(make(a, json!([b])).await.status(), 200);

    let cases = [
        (c, json!([b]), "node b is already using a internet gateway"),
        (c, json!([a]), "node a acting as internet gateway cannot use another internet gateway"),
        (b, json!([c]), "node b is using a internet gateway already"),
        (c, json!([uuid::Uuid::from_u128(1)]), "no result found"),
    ];
    for (node, clients, expected) in cases {
        assert_eq!(message(make(node, clients).await).await, (400, expected.to_owned()));
    }
    assert_eq!(message(make(a, json!([])).await).await, (500, "node is already acting as a relay".into()));
    assert!(!peer(&bench.pull(&third).await.1, &hosts[0]).remove);
}
