//! Ranges behind nodes and policies: what hosts learn of them.

use enroll_agent::{
    control::wire::{Acl, Egress, EgressRequest, Host, HostPull, PeerConfig},
    mock_server::{Edition, Login, NewKey, Options, Scheme},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{bench::*, mqtt::*};

#[tokio::test]
async fn a_range_behind_a_node_is_a_route_and_an_allowed_ip() {
    let bench = Bench::new().await;
    let (gateway, other) = (bench.join("plant-a", "gateway", 1).await, bench.join("plant-a", "b", 2).await);
    let node = bench.node(gateway.id, "plant-a");

    let egress = egress(&bench, json!({"range": "192.168.7.9/24", "nodes": {node.to_string(): 100}})).await;

    assert_eq!((egress.range.as_str(), egress.status, egress.nat), ("192.168.7.0/24", true, false));
    let (document, pull) = bench.pull(&other).await;
    assert_eq!(allowed(&pull, &gateway), ["10.101.0.1/32", "192.168.7.0/24"]);
    let metric = json!({
        "network": "192.168.7.0/24", "virtual_network": "", "route_metric": 100, "nat": false, "nat_mode": "",
    });
    assert_eq!(
        document["egress_network_routes"],
        json!([{
            "peer_key": gateway.public_key.to_base64(),
            "egress_gw_addr": {"IP": "10.101.0.1", "Mask": "//8AAA=="}, "egress_gw_addr6": {"IP": "", "Mask": null},
            "node_addr": {"IP": "10.101.0.2", "Mask": "//8AAA=="}, "node_addr6": {"IP": "", "Mask": null},
            "egress_ranges": ["192.168.7.0/24"], "egress_ranges_metric": [metric], "network": "plant-a",
        }])
    );
    assert_eq!(document["fw_update"]["is_egress_gw"], false);
    let (document, pull) = bench.pull(&gateway).await;
    let update = pull.fw_update.unwrap();
    assert_eq!((update.is_egress_gateway, update.allow_all), (true, true));
    let info = &document["fw_update"]["egress_info"][node.to_string()];
    assert_eq!(info["egress_gw_addr"], json!({"IP": "10.101.0.1", "Mask": "/////w=="}));
    let expected = json!({
        "nodeid": node, "netid": "plant-a", "natenabled": "yes", "ranges": ["192.168.7.0/24"],
        "ranges_with_metric": [metric],
    });
    assert_eq!((&info["egress_gateway_cfg"], &info["egress_fw_rules"]), (&expected, &json!({})));
    assert_eq!(document["egress_network_routes"], json!([]));
}

#[tokio::test]
async fn a_range_of_a_relayed_gateway_is_reached_by_its_relay() {
    let bench = Bench::new().await;
    let relay = bench.join("plant-a", "relay", 1).await;
    let (gateway, other) = (bench.join("plant-a", "gateway", 2).await, bench.join("plant-a", "c", 3).await);
    let node = bench.node(gateway.id, "plant-a");
    egress(&bench, json!({"range": "192.168.7.0/24", "nodes": {node.to_string(): 256}, "nat": true})).await;

    bench.handle.make_gateway("plant-a", bench.node(relay.id, "plant-a"), &[node]).unwrap();

    let (_, pull) = bench.pull(&other).await;
    assert_eq!(allowed(&pull, &relay), ["10.101.0.1/32", "10.101.0.2/32", "192.168.7.0/24"]);
    assert!(peer(&pull, &gateway).remove);
    let routes = pull.egress_network_routes.unwrap();
    assert_eq!((routes.len(), &routes[0].peer_key), (1, &relay.public_key.to_base64()));
    let metric = &routes[0].ranges_with_metric.as_ref().unwrap()[0];
    assert_eq!((metric.nat, metric.nat_mode.as_str()), (true, "direct_nat"));
    let (_, pull) = bench.pull(&relay).await;
    assert_eq!(allowed(&pull, &gateway), ["10.101.0.2/32", "192.168.7.0/24"]);
    assert_eq!(pull.egress_network_routes.unwrap()[0].peer_key, gateway.public_key.to_base64());
}

#[tokio::test]
async fn a_range_with_the_gateway_s_own_endpoint_in_it_is_no_allowed_ip() {
    let bench = Bench::new().await;
    let (gateway, other) = (bench.join("plant-a", "gateway", 1).await, bench.join("plant-a", "b", 2).await);
    let node = bench.node(gateway.id, "plant-a");

    egress(&bench, json!({"range": "198.51.100.0/24", "nodes": {node.to_string(): 1}})).await;

    let (_, pull) = bench.pull(&other).await;
    assert_eq!(allowed(&pull, &gateway), ["10.101.0.1/32"]);
    assert_eq!(pull.egress_network_routes.unwrap().len(), 1);
}

#[tokio::test]
async fn egress_is_changed_switched_off_and_forgotten() {
    let bench = Bench::new().await;
    let (gateway, other) = (bench.join("plant-a", "gateway", 1).await, bench.join("plant-a", "b", 2).await);
    let node = bench.node(gateway.id, "plant-a").to_string();
    let made = egress(&bench, json!({"range": "192.168.7.0/24", "nodes": {&node: 100}})).await;
    let put = async |body: Value| bench.admin(Method::PUT, "/api/v1/egress", body).await;
    let asked = |range: &str, status: bool| json!({"id": made.id, "network": "plant-a", "name": "lab", "range": range, "status": status, "nodes": {&node: 5}});

    let changed: Value = put(asked("192.168.8.0/24", true)).await.document().await;
    assert_eq!((&changed["Message"], &changed["Response"]["name"]), (&json!("updated egress resource"), &json!("lab")));
    let (_, pull) = bench.pull(&other).await;
    assert_eq!(allowed(&pull, &gateway), ["10.101.0.1/32", "192.168.8.0/24"]);

    assert_eq!(put(asked("192.168.8.0/24", false)).await.status(), 200);
    assert_eq!(bench.pull(&other).await.1.egress_network_routes, Some(vec![]));
    let listed: Value = bench.admin(Method::GET, "/api/v1/egress?network=plant-a", json!(null)).await.document().await;
    assert_eq!((&listed["Response"][0]["id"], listed["Response"].as_array().unwrap().len()), (&json!(made.id), 1));

    let path = format!("/api/v1/egress?id={}", made.id);
    assert_eq!(
        message(bench.admin(Method::DELETE, &path, json!(null)).await).await,
        (200, "deleted egress resource".into())
    );
    assert_eq!(message(bench.admin(Method::DELETE, &path, json!(null)).await).await, (400, "record not found".into()));
}

#[tokio::test]
async fn egress_that_cannot_be_is_refused() {
    let bench = Bench::new().await;
    let two = [bench.join("plant-a", "a", 1).await, bench.join("plant-a", "b", 2).await];
    let two = two.map(|host| bench.node(host.id, "plant-a").to_string());
    let cases = [
        (json!({"network": "plant-a", "range": "10/8"}), "invalid CIDR address: 10/8"),
        (json!({"network": "plant-a", "domain": "nowhere"}), "bad domain name"),
        (json!({"network": "none", "range": "10.0.0.0/8"}), "record not found"),
        (json!({"network": "plant-a", "nodes": {&two[0]: 1, &two[1]: 1}}), "can only set one routing node on CE"),
        (
            json!({"network": "plant-a", "nodes": {Uuid::from_u128(1).to_string(): 1}}),
            "invalid routing node no result found",
        ),
    ];
    for (body, expected) in cases {
        let refused = message(bench.admin(Method::POST, "/api/v1/egress", body).await).await;
        assert_eq!(refused, (400, expected.to_owned()));
    }
    let refused = message(bench.admin(Method::GET, "/api/v1/egress", json!(null)).await).await;
    assert_eq!(refused, (400, "network is required".into()));
}

#[tokio::test]
async fn a_domain_is_resolved_by_its_gateway_and_pushed_to_the_others() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let (gateway, other) = (sealing("gateway", 1), sealing("b", 2));
    for host in [&gateway, &other] {
        assert_eq!(bench.register(&bench.token("plant-a"), host).await.status(), 200);
    }
    let node = bench.node(gateway.id, "plant-a").to_string();
    let mut device = Device::connect(&bench, &gateway).await;
    let mut listener = Device::connect(&bench, &other).await;
    assert_eq!(device.action().await["Action"], "REQ_ACK");

    let made = egress(&bench, json!({"domain": "files.example.net", "nodes": {&node: 100}})).await;

    let asked = device.action().await;
    assert_eq!((&asked["Action"], &asked["EgressDomain"]["domain"]), (&json!("EGRESS_UPDATE"), &json!(made.domain)));
    let answer = |range: &str| {
        let (domain, node) = (json!({"id": made.id}), json!({"egressgatewayranges": [range]}));
        json!({"Action": "EGRESS_UPDATE", "Host": {}, "EgressDomain": domain, "Node": node}).to_string()
    };
    let path = format!("/api/v1/fallback/host/{}", gateway.id);
    let session = bench.session(&gateway).await;
    assert_eq!(bench.send(Method::PUT, &path, answer("203.0.113.7"), Some(&session)).await.status(), 400);
    assert_eq!(bench.send(Method::PUT, &path, answer("203.0.113.7/32"), Some(&session)).await.status(), 200);
    let told = listener.peers(|peers| peers["egress_network_routes"][0]["egress_ranges"].is_array()).await;
    assert_eq!(told["egress_network_routes"][0]["egress_ranges"], json!(["203.0.113.7/32"]));
    assert_eq!(told["dns_nameservers"][0]["match_domain"], "example.net");
    let thief = bench.session(&other).await;
    let path = format!("/api/v1/fallback/host/{}", other.id);
    assert_eq!(bench.send(Method::PUT, &path, answer("203.0.113.8/32"), Some(&thief)).await.status(), 403);
}

#[tokio::test]
async fn a_policy_says_who_may_be_a_peer() {
    let bench = Bench::new().await;
    let hosts = [bench.join("plant-a", "a", 1).await, bench.join("plant-a", "b", 2).await];
    let third = bench.join("plant-a", "c", 3).await;
    let [a, b] = [0, 1].map(|index: usize| bench.node(hosts[index].id, "plant-a"));

    allow_nobody(&bench).await;
    let (_, pull) = bench.pull(&hosts[0]).await;
    let forbidden = peer(&pull, &third);
    assert_eq!((forbidden.remove, &forbidden.allowed_ips), (true, &None));
    let session = bench.session(&hosts[0]).await;
    let path = format!("/api/v1/host/{}/peer_info", hosts[0].id);
    let info: Value = bench.get(&path, &session).await.document().await;
    assert_eq!(info["Response"]["network_peers"], json!({"plant-a": {}}));

    let made = policy(&bench, json!({"name": "a-b", "src_type": [device_tag(a)], "dst_type": [device_tag(b)]})).await;

    assert_eq!((made.is_default, made.sources.as_ref().unwrap()[0].name.as_str()), (false, "a"));
    for (host, other) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])] {
        let (_, pull) = bench.pull(host).await;
        assert!(!peer(&pull, other).remove && peer(&pull, &third).remove, "{pull:?}");
    }
    let (_, pull) = bench.pull(&third).await;
    assert!(pull.peers.unwrap().iter().all(|peer| peer.remove));
    bench.handle.delete_host(hosts[1].id).unwrap();
    let acls = acls(&bench, "plant-a").await;
    assert!(acls.iter().all(|acl| acl.id != made.id), "a policy about nobody is gone");
}

#[tokio::test]
async fn a_network_comes_with_two_policies_that_can_only_be_switched() {
    let bench = Bench::new().await;
    let default = acls(&bench, "office").await;
    let ids: Vec<_> = default.iter().map(|acl| acl.id.as_str()).collect();
    assert_eq!(ids, ["office.all-gateways", "office.all-nodes"]);
    assert_eq!(default[1].metadata, "This Policy allows all nodes in the network to communicate with each other");

    let renamed = Acl { name: "mine".into(), enabled: false, sources: Some(vec![]), ..default[1].clone() };
    let answer: Value = bench.admin(Method::PUT, "/api/v1/acls", json!(renamed)).await.document().await;
    assert_eq!(answer["Message"], "updated acl All Nodes");
    assert_eq!(
        (&answer["Response"]["enabled"], &answer["Response"]["src_type"][0]["value"]),
        (&json!(false), &json!("*"))
    );
    let path = "/api/v1/acls?acl_id=office.all-nodes";
    let refused = message(bench.admin(Method::DELETE, path, json!(null)).await).await;
    assert_eq!(refused, (400, "cannot delete default policy".into()));

    bench.handle.delete_network("office", enroll_agent::mock_server::WithNodes::Refuse).unwrap();
    let gone = message(bench.admin(Method::GET, "/api/v1/acls?network=office", json!(null)).await).await;
    assert_eq!(gone, (400, "record not found".into()));
}

#[tokio::test]
async fn policies_that_cannot_be_are_refused() {
    let bench = Bench::new().await;
    let cases = [
        (json!({"network_id": "none"}), "failed to get network details for none"),
        (json!({"allowed_traffic_direction": 0}), "uni traffic flow not allowed on CE"),
        (json!({"policy_type": "user-policy"}), "unknown acl policy type user-policy"),
        (json!({"src_type": [{"id": "device", "value": "x"}]}), "invalid node x"),
        (json!({"src_type": [{"id": "egress-id", "value": "x"}]}), "invalid egress"),
        (json!({"src_type": [{"id": "tag", "value": "plant-a.x"}]}), "invalid policy"),
    ];
    for (body, expected) in cases {
        let refused = message(bench.admin(Method::POST, "/api/v1/acls", acl_body(&body)).await).await;
        assert_eq!(refused, (400, expected.to_owned()));
    }
    assert_eq!(acls(&bench, "plant-a").await.len(), 2);
}

#[tokio::test]
async fn a_gateway_s_packet_filter_knows_the_policies() {
    let bench = Bench::new().await;
    let (gateway, a) = (bench.join("plant-a", "gateway", 1).await, bench.join("plant-a", "a", 2).await);
    let b = bench.join("plant-a", "b", 3).await;
    let [node, a_node] = [&gateway, &a].map(|host| bench.node(host.id, "plant-a"));
    let range = egress(&bench, json!({"range": "192.168.7.0/24", "nodes": {node.to_string(): 100}})).await;
    allow_nobody(&bench).await;

    let to_range = json!([{"id": "egress-id", "value": range.id}]);
    let made = policy(&bench, json!({"name": "lab", "src_type": [device_tag(a_node)], "dst_type": to_range})).await;

    let (document, pull) = bench.pull(&gateway).await;
    assert!(!pull.fw_update.unwrap().allow_all);
    let rule = &document["fw_update"]["acl_rules"][&made.id];
    assert_eq!(rule["ip_list"], json!([{"IP": "10.101.0.2", "Mask": "/////w=="}]));
    assert_eq!(rule["dst"][1], json!({"IP": "192.168.7.0", "Mask": "////AA=="}));
    assert_eq!((&rule["Allowed"], &rule["direction"]), (&json!(true), &json!(1)));
    let forwarded = &document["fw_update"]["egress_info"][node.to_string()]["egress_fw_rules"][&made.id];
    assert_eq!(forwarded["dst"], json!([{"IP": "192.168.7.0", "Mask": "////AA=="}]));
    let (_, pull) = bench.pull(&a).await;
    assert_eq!(allowed(&pull, &gateway), ["10.101.0.1/32", "192.168.7.0/24"]);
    // As in the community edition, an ordinary node's filter is not told.
    assert!(pull.fw_update.as_ref().unwrap().allow_all);
    let (_, pull) = bench.pull(&b).await;
    assert!(peer(&pull, &gateway).remove);
    assert_eq!(pull.egress_network_routes, Some(vec![]));
}

#[tokio::test]
async fn ports_and_tags_are_for_the_paid_edition() {
    let bench = Bench::with(Options { edition: Edition::Pro, ..Options::default() }).await;
    let tagged = bench.key(NewKey { groups: vec!["plant-a.web".into()], ..key("web", &["plant-a"]) });
    let web = device("web", 1);
    assert_eq!(bench.register(&tagged, &web).await.status(), 200);
    let other = bench.join("plant-a", "b", 2).await;
    allow_nobody(&bench).await;

    let made = policy(
        &bench,
        json!({
            "name": "https", "src_type": [{"id": "tag", "value": "*"}],
            "dst_type": [{"id": "tag", "value": "plant-a.web"}], "protocol": "tcp", "type": "HTTPS", "ports": ["443"],
            "allowed_traffic_direction": 0,
        }),
    )
    .await;

    let (document, pull) = bench.pull(&web).await;
    let update = pull.fw_update.as_ref().unwrap();
    assert!(!update.allow_all && !peer(&pull, &other).remove);
    let rule = &document["fw_update"]["acl_rules"][&made.id];
    assert_eq!((&rule["allowed_ports"], &rule["allowed_protocols"]), (&json!(["443"]), &json!("tcp")));
    assert_eq!(rule["ip_list"], json!([{"IP": "10.101.0.2", "Mask": "/////w=="}]));
    assert!(update.networks.as_ref().unwrap().is_empty());
}

#[tokio::test]
async fn a_changed_policy_is_pushed_and_replaces_peers() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    bench.join("plant-a", "b", 2).await;
    let mut device = Device::connect(&bench, &host).await;
    device.peers(|peers| peers["host_peers"][0]["Remove"] == false).await;

    allow_nobody(&bench).await;

    let told = device.peers(|peers| peers["host_peers"][0]["Remove"] == true).await;
    assert_eq!((&told["replace_peers"], &told["host_peers"][0]["AllowedIPs"]), (&json!(true), &Value::Null));
}

#[tokio::test]
async fn the_library_decides_about_traffic_too() {
    let bench = Bench::new().await;
    let (gateway, other) = (bench.join("plant-a", "gateway", 1).await, bench.join("plant-a", "b", 2).await);
    let nodes = [(bench.node(gateway.id, "plant-a").to_string(), 7)].into();
    let (network, range) = ("plant-a".to_owned(), "192.168.7.0/24".to_owned());
    let asked = EgressRequest { network, range, nodes: Some(nodes), ..EgressRequest::default() };

    let made = bench.handle.create_egress(asked.clone()).unwrap();
    let changed = EgressRequest { id: made.id.clone(), range: "192.168.8.0/24".into(), status: true, ..asked };
    bench.handle.edit_egress(changed).unwrap();

    assert_eq!(allowed(&bench.pull(&other).await.1, &gateway), ["10.101.0.1/32", "192.168.8.0/24"]);
    bench.handle.delete_egress(&made.id).unwrap();
    assert_eq!(bench.pull(&other).await.1.egress_network_routes, Some(vec![]));
    for acl in bench.handle.acls("plant-a").unwrap() {
        bench.handle.edit_acl(Acl { enabled: false, ..acl }).unwrap();
    }
    assert!(peer(&bench.pull(&other).await.1, &gateway).remove);
    let all = serde_json::from_value(acl_body(&json!({"src_type": [{"value": "*"}], "dst_type": [{"value": "*"}]})));
    let all = bench.handle.create_acl(all.unwrap()).unwrap();
    assert!(!peer(&bench.pull(&other).await.1, &gateway).remove);
    bench.handle.delete_acl(&all.id).unwrap();
    assert!(peer(&bench.pull(&other).await.1, &gateway).remove);
}

async fn egress(bench: &Bench, mut body: Value) -> Egress {
    body["network"] = json!("plant-a");
    let answer: Value = bench.admin(Method::POST, "/api/v1/egress", body).await.document().await;
    assert_eq!(answer["Message"], "created egress resource", "{answer}");
    serde_json::from_value(answer["Response"].clone()).unwrap()
}

async fn policy(bench: &Bench, body: Value) -> Acl {
    let answer: Value = bench.admin(Method::POST, "/api/v1/acls", acl_body(&body)).await.document().await;
    assert_eq!(answer["Message"], "created acl successfully", "{answer}");
    serde_json::from_value(answer["Response"].clone()).unwrap()
}

/// A policy that allows everything both ways, with some fields changed.
fn acl_body(changes: &Value) -> Value {
    let mut body = json!({
        "name": "a-policy", "network_id": "plant-a", "policy_type": "device-policy", "protocol": "all", "type": "Any",
        "allowed_traffic_direction": 1, "enabled": true,
    });
    for (field, value) in changes.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

async fn acls(bench: &Bench, network: &str) -> Vec<Acl> {
    let path = format!("/api/v1/acls?network={network}");
    let answer: Value = bench.admin(Method::GET, &path, json!(null)).await.document().await;
    serde_json::from_value(answer["Response"].clone()).unwrap()
}

/// Switches off what lets everybody talk to everybody.
async fn allow_nobody(bench: &Bench) {
    for acl in acls(bench, "plant-a").await {
        let off = Acl { enabled: false, ..acl };
        assert_eq!(bench.admin(Method::PUT, "/api/v1/acls", json!(off)).await.status(), 200);
    }
}

fn device_tag(node: Uuid) -> Value {
    json!({"id": "device", "value": node})
}

pub(crate) fn peer<'a>(pull: &'a HostPull, host: &Host) -> &'a PeerConfig {
    pull.peers.as_ref().unwrap().iter().find(|peer| peer.public_key == host.public_key).unwrap()
}

pub(crate) fn allowed(pull: &HostPull, host: &Host) -> Vec<String> {
    let allowed = peer(pull, host).allowed_ips.iter().flatten();
    allowed.map(|net| net.to_net().unwrap().unwrap().to_string()).collect()
}
