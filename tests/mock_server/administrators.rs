//! Networks and keys, the store, the edges of HTTP, trouble on purpose.

use std::{net::TcpListener, time::Duration};

use enroll_agent::{
    control::wire::{EnrollmentKey, Host},
    mock_server::{self, Fault, Flaw, NewKey, Options, Store, Tls, WithNodes},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bench::*;

#[tokio::test]
async fn a_file_store_survives_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options {
        store: Store::File(dir.path().join("state.sqlite")),
        tls: Tls { dir: Some(dir.path().join("tls")), ..Tls::default() },
        ..Options::default()
    };
    let bench = Bench::with(options()).await;
    let token = bench.key(NewKey { uses: Some(2), ..key("two-uses", &["plant-a"]) });
    let host = device("a", 1);
    bench.register(&token, &host).await;
    let (before, ca) = (bench.pull(&host).await.0, bench.handle.ca_pem().to_owned());
    let second = mock_server::start(TcpListener::bind("127.0.0.1:0").unwrap(), options()).await;
    assert!(second.is_err(), "two servers on one file");
    bench.handle.shutdown().await;

    let bench = Bench::start(options()).await;

    assert_eq!(bench.handle.ca_pem(), ca);
    let after = bench.pull(&host).await.0;
    assert_eq!((&after["host"], &after["nodes"]), (&before["host"], &before["nodes"]));
    assert_eq!(after["server_config"]["TrafficKey"], before["server_config"]["TrafficKey"]);
    assert_eq!(bench.register(&token, &host).await.status(), 200);
    assert_eq!(bench.register(&token, &device("b", 2)).await.status(), 200);
    assert_eq!(bench.register(&token, &device("c", 3)).await.status(), 400);
}

#[tokio::test]
async fn administrators_manage_keys_with_the_real_messages() {
    let bench = Bench::new().await;
    let create = |body: Value| bench.admin(Method::POST, "/api/v1/enrollment-keys", body);
    let refused = [
        (
            json!({"unlimited": true}),
            400,
            "validation error: name length must be between 3 and 32: Key: 'APIEnrollmentKey.Tags' Error:Field validation \
             for 'Tags' failed on the 'required' tag",
        ),
        (
            json!({"tags": ["abc", "ab"], "unlimited": true}),
            400,
            "validation error: name length must be between 3 and 32: Key: 'APIEnrollmentKey.Tags[1]' Error:Field \
             validation for 'Tags[1]' failed on the 'min' tag",
        ),
        (json!({"tags": ["office"], "unlimited": true}), 400, "key names must be unique"),
        (json!({"tags": ["abc"], "relay": "12", "unlimited": true}), 400, "invalid UUID length: 2"),
        (json!({"tags": ["abc"], "relay": Uuid::from_u128(1), "unlimited": true}), 500, "no result found"),
        (
            json!({"tags": ["abc"], "expiration": 1000}),
            500,
            "enrollment key is not valid: uses remaining: 0, expiration: 1970-01-01 00:16:40 +0000 UTC, unlimited: false",
        ),
        (
            json!({"tags": ["abc"], "uses_remaining": -1}),
            500,
            "enrollment key is not valid: uses remaining: 0, expiration: 0001-01-01 00:00:00 +0000 UTC, unlimited: false",
        ),
    ];
    for (body, status, text) in refused {
        assert_eq!(message(create(body).await).await, (status, text.to_owned()));
    }

    let answer = create(json!({"tags": ["abc"], "networks": ["plant-a"], "uses_remaining": 3, "expiration": 9})).await;
    assert_eq!(content_type(&answer), TEXT);
    let made: Value = answer.document().await;
    assert_eq!(
        (&made["type"], &made["expiration"], &made["groups"]),
        (&json!(2), &json!("0001-01-01T00:00:00Z"), &Value::Null)
    );
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["fingerprint"], mock_server::fingerprint(made["value"].as_str().unwrap()));

    let path = format!("/api/v1/enrollment-keys/{id}");
    let changed: Value = bench.admin(Method::PUT, &path, json!({"groups": ["plant-a.x"]})).await.document().await;
    assert_eq!((&changed["groups"], &changed["uses_remaining"]), (&json!(["plant-a.x"]), &json!(3)));
    let listed: Vec<EnrollmentKey> =
        bench.admin(Method::GET, "/api/v1/enrollment-keys", json!(null)).await.document().await;
    assert_eq!(listed.iter().filter(|key| key.is_default).count(), 2);
    let gone = bench.admin(Method::DELETE, &path, json!(null)).await;
    assert_eq!((gone.status().as_u16(), gone.text().await.unwrap().as_str()), (200, ""));
    let answer = bench.admin(Method::DELETE, &path, json!(null)).await;
    assert_eq!(message(answer).await, (400, "no enrollmentkey found".into()));
    let keys = bench.handle.keys().unwrap();
    let default = keys.iter().find(|key| key.is_default).unwrap();
    let answer = bench.admin(Method::DELETE, &format!("/api/v1/enrollment-keys/{}", default.id), json!(null)).await;
    assert_eq!(message(answer).await, (500, "cannot delete default network key".into()));
}

#[tokio::test]
async fn deleting_a_network_takes_nodes_and_keys_along() {
    let bench = Bench::new().await;
    bench.key(NewKey {
        groups: vec!["office.a".into(), "plant-a.b".into()],
        ..key("both-nets", &["plant-a", "office"])
    });
    bench.join("office", "a", 1).await;

    assert_eq!(bench.admin(Method::DELETE, "/api/networks/office", json!(null)).await.status(), 400);
    bench.handle.delete_network("office", WithNodes::Delete).unwrap();

    assert_eq!(bench.handle.nodes().unwrap(), []);
    let keys = bench.handle.keys().unwrap();
    let rest = keys.iter().find(|key| !key.is_default).unwrap();
    assert_eq!((keys.len(), &rest.networks), (2, &Some(vec!["plant-a".to_owned()])));
    assert_eq!(rest.groups, Some(vec!["plant-a.b".to_owned()]));
}

#[tokio::test]
async fn content_types_and_router_errors_are_the_real_ones() {
    let bench = Bench::new().await;
    let host = bench.join("plant-a", "a", 1).await;
    let session = bench.session(&host).await;
    let master = bench.handle.master_key();

    assert_eq!(content_type(&bench.get("/api/networks", master).await), TEXT);
    assert_eq!(content_type(&bench.get("/api/v1/enrollment-keys", master).await), TEXT);
    assert_eq!(content_type(&bench.get("/api/hosts", master).await), "application/json");
    assert_eq!(content_type(&bench.get("/api/v1/host", &session).await), "application/json");
    let missing = bench.get("/api/nothing", master).await;
    assert_eq!((missing.status().as_u16(), content_type(&missing)), (404, TEXT));
    assert_eq!(missing.text().await.unwrap(), "404 page not found\n");
    let wrong = bench.send(Method::DELETE, "/api/v1/host", String::new(), Some(&session)).await;
    assert_eq!((wrong.status().as_u16(), wrong.text().await.unwrap().as_str()), (405, ""));
    let status: Value = bench.get("/api/server/status", "").await.document().await;
    assert_eq!(status["is_broker_conn_open"], false);
    assert_eq!(bench.get("/getip", "").await.text().await.unwrap(), "127.0.0.1");
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused() {
    let bench = Bench::new().await;

    let path = format!("/api/v1/host/register/{}", bench.token("plant-a"));
    let answer = bench.send(Method::POST, &path, "x".repeat(2_000_000), None).await;

    assert_eq!(answer.status(), 413);
}

#[tokio::test]
async fn planned_trouble_happens_as_often_as_planned() {
    let bench = Bench::new().await;
    let token = bench.token("plant-a");
    let path = format!("{}/api/v1/host/register/{token}", bench.base);
    let send = |number| bench.client.post(&path).body(json!(device("a", number)).to_string()).send();
    let faults = bench.handle.faults();
    let prefix = "/api/v1/host/register/";

    faults.inject(1, prefix, Fault::DropBeforeCommit);
    assert!(send(1).await.is_err());
    assert_eq!(bench.handle.hosts().unwrap().len(), 0);
    faults.inject(1, prefix, Fault::DropAfterCommit);
    assert!(send(1).await.is_err());
    assert_eq!(bench.handle.hosts().unwrap().len(), 1);
    faults.inject(1, prefix, Fault::EmptyOk);
    let empty = send(2).await.unwrap();
    assert_eq!((empty.status().as_u16(), empty.text().await.unwrap().as_str()), (200, ""));
    let body = "<html>".to_owned();
    faults.inject(1, prefix, Fault::Status { status: 502, body, content_type: "text/html".to_owned() });
    assert_eq!(send(2).await.unwrap().status(), 502);
    faults.inject(1, prefix, Fault::Truncate(10));
    assert!(send(2).await.unwrap().text().await.is_err());
    faults.inject(1, prefix, Fault::Delay(Duration::from_millis(10)));
    assert_eq!(send(3).await.unwrap().status(), 200);
    assert_eq!(send(4).await.unwrap().status(), 200);
    assert_eq!(bench.handle.hosts().unwrap().len(), 4);

    let seen = faults.observed();
    assert_eq!((seen.len(), seen[0].path.as_str()), (7, "/api/v1/host/register/…"));
    assert_eq!(serde_json::from_slice::<Host>(&seen[0].body).unwrap(), device("a", 1));
    assert!(!format!("{seen:?}").contains(&token));
}

#[tokio::test]
async fn pulls_can_be_edited() {
    let bench = Bench::new().await;
    let host = bench.join("plant-a", "a", 1).await;

    bench.handle.faults().edit_pull(|pull| pull["host"]["mtu"] = json!(-7));

    assert_eq!(bench.pull(&host).await.1.host.mtu, -7);
    bench.handle.faults().clear();
    assert_eq!(bench.pull(&host).await.1.host.mtu, 1420);
}

#[tokio::test]
async fn flawed_certificates_are_refused_by_clients() {
    for (flaw, reason) in
        [(Flaw::Expired, "ExpiredContext"), (Flaw::NotYetValid, "NotValidYet"), (Flaw::WrongName, "NotValidForName")]
    {
        let tls = Tls { flaw, ..Tls::default() };
        let bench = Bench::start(Options { tls, ..Options::default() }).await;

        let error = bench.client.get(format!("{}/health", bench.base)).send().await.unwrap_err();

        assert!(format!("{error:?}").contains(reason), "{error:?}");
    }
}

#[tokio::test]
async fn administrators_move_hosts_between_networks_and_gateways() {
    let bench = Bench::new().await;
    let (gateway, host) = (bench.join("plant-a", "gateway", 1).await, bench.join("plant-a", "b", 2).await);
    let (gateway, node) = (bench.node(gateway.id, "plant-a"), bench.node(host.id, "plant-a"));
    let post = async |path: String| bench.admin(Method::POST, &path, json!({})).await;

    let made: Value = post(format!("/api/nodes/plant-a/{gateway}/gateway")).await.document().await;
    assert_eq!(
        (&made["is_gw"], &made["tags"], &made["status"]),
        (&json!(true), &json!({"plant-a.gateways": {}}), &json!("online"))
    );
    let assign = format!("/api/nodes/plant-a/{node}/gateway/assign?gw_id={gateway}");
    assert_eq!(post(assign.clone()).await.status(), 200);
    assert_eq!(message(post(assign).await).await, (400, "node is already using a gw".into()));
    let nodes: Value = bench.admin(Method::GET, "/api/nodes/plant-a", json!(null)).await.document().await;
    let relayed = nodes.as_array().unwrap().iter().find(|found| found["id"] == json!(node)).unwrap();
    assert_eq!((&relayed["isrelayed"], &relayed["relayedby"]), (&json!(true), &json!(gateway)));
    assert_eq!(
        bench.admin(Method::DELETE, &format!("/api/nodes/plant-a/{gateway}/gateway"), json!(null)).await.status(),
        200
    );
    assert!(bench.handle.nodes().unwrap().iter().all(|node| !node.is_relayed && !node.is_relay));

    let office = format!("/api/hosts/{}/networks/office", host.id);
    let added = post(office.clone()).await;
    assert_eq!((added.status().as_u16(), added.text().await.unwrap().as_str()), (200, ""));
    assert_eq!(message(post(office.clone()).await).await, (500, "host already part of network office".into()));
    let nowhere = format!("/api/hosts/{}/networks/nosuch", host.id);
    assert_eq!(message(post(nowhere).await).await, (500, "record not found".into()));
    assert_eq!(bench.pull(&host).await.1.nodes.unwrap().len(), 2);
    assert_eq!(bench.admin(Method::DELETE, &office, json!(null)).await.status(), 200);
    assert!(bench.pull(&host).await.1.nodes.unwrap()[1].pending_delete);
    assert_eq!(bench.admin(Method::DELETE, &format!("{office}?force=true"), json!(null)).await.status(), 200);
    assert_eq!(bench.pull(&host).await.1.nodes.unwrap().len(), 1);

    let path = format!("/api/v1/ui/hosts/{}?force=true", host.id);
    assert_eq!(message(bench.admin(Method::DELETE, &path, json!(null)).await).await, (200, "deleted host b".into()));
    let hosts: Value = bench.admin(Method::GET, "/api/hosts", json!(null)).await.document().await;
    assert_eq!(hosts.as_array().unwrap().len(), 1);
}
