//! Trouble on purpose: through the library and through the extension API.

use std::time::Duration;

use enroll_agent::mock_server::{Fault, Login, NodeCreation, Scheme, Trouble};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench::*, mqtt::*};

#[tokio::test]
async fn an_answer_can_end_with_a_reset() {
    let bench = Bench::new().await;
    bench.handle.faults().inject(1, "/api/server/health", Fault::Reset(3));

    let answer = bench.client.get(format!("{}/api/server/health", bench.base)).send().await.unwrap();

    let error = answer.text().await.unwrap_err();
    assert!(format!("{error:?}").contains("reset"), "{error:?}");
}

#[tokio::test]
async fn a_body_can_be_slow() {
    let bench = Bench::new().await;
    let pause = Duration::from_millis(200);
    bench.handle.faults().inject(1, "/api/server/status", Fault::SlowBody(pause));

    let answer = bench.get("/api/server/status", "").await;

    // At 64 bytes a piece it has more than two.
    let length = answer.content_length().unwrap();
    assert!(length > 128, "{length}");
    assert!(tokio::time::timeout(pause * 2, answer.text()).await.is_err(), "it is too quick");
}

#[tokio::test]
async fn answers_can_be_malformed_misnamed_or_busy() {
    let bench = Bench::new().await;
    for fault in [
        json!({"kind": "request", "path": "/api/server/status", "fault": "malformed"}),
        json!({"kind": "request", "path": "/api/server/status", "fault": {"content-type": "text/html"}}),
        json!({"kind": "request", "path": "/api/server/status", "fault": {"busy": {"status": 429, "retry_after": 7}}}),
    ] {
        assert_eq!(bench.admin(Method::POST, "/api/ext/v1/faults", fault).await.status(), 200);
    }

    let malformed = bench.get("/api/server/status", "").await.text().await.unwrap();
    assert!(serde_json::from_str::<Value>(&malformed).is_err(), "{malformed}");
    assert_eq!(content_type(&bench.get("/api/server/status", "").await), "text/html");
    let busy = bench.get("/api/server/status", "").await;
    assert_eq!((busy.status().as_u16(), &busy.headers()["retry-after"]), (429, &"7".parse().unwrap()));
    assert_eq!(bench.get("/api/server/status", "").await.status(), 200);
}

#[tokio::test]
async fn only_an_administrator_makes_trouble() {
    let bench = Bench::new().await;
    let trouble = json!({"kind": "request", "path": "/", "fault": "empty-ok"});

    let refused = bench.send(Method::POST, "/api/ext/v1/faults", trouble.to_string(), Some("guess")).await;

    assert_eq!(refused.status(), 401);
    let unknown = bench.admin(Method::POST, "/api/ext/v1/faults", json!({"kind": "earthquake"})).await;
    assert_eq!(unknown.status(), 400);
    assert_eq!(bench.delete("/api/ext/v1/faults", bench.handle.master_key()).await.status(), 200);
}

#[tokio::test]
async fn a_clock_that_is_ahead_ends_sessions() {
    let bench = Bench::new().await;
    let host = bench.join("plant-a", "a", 1).await;
    let session = bench.session(&host).await;
    assert_eq!(bench.get("/api/v1/host", &session).await.status(), 200);

    bench.handle.make(Trouble::ClockSkew { seconds: 901 }).await.unwrap();

    assert_eq!(bench.get("/api/v1/host", &session).await.status(), 401);
    bench.handle.make(Trouble::Clear).await.unwrap();
    assert_eq!(bench.get("/api/v1/host", &session).await.status(), 200);
}

#[tokio::test]
async fn nodes_can_wait_for_approval_or_never_come() {
    let bench = Bench::new().await;
    bench.handle.make(Trouble::NodeCreation { when: NodeCreation::Pending }).await.unwrap();
    let waiting = bench.join("plant-a", "a", 1).await;
    bench.handle.make(Trouble::NodeCreation { when: NodeCreation::Refused }).await.unwrap();
    let refused = bench.join("plant-a", "b", 2).await;
    assert!(bench.handle.nodes().unwrap().is_empty());

    bench.handle.make(Trouble::ApproveNodes).await.unwrap();

    let hosts: Vec<_> = bench.handle.nodes().unwrap().iter().map(|node| node.host_id).collect();
    assert_eq!(hosts, [waiting.id]);
    let (_, pull) = bench.pull(&refused).await;
    assert_eq!(pull.nodes, Some(vec![]));
}

#[tokio::test]
async fn the_state_can_go_back_to_a_snapshot() {
    let bench = Bench::new().await;
    let stays = bench.join("plant-a", "a", 1).await;
    bench.handle.make(Trouble::Snapshot { snapshot: "before".into() }).await.unwrap();
    let forgotten = bench.join("plant-a", "b", 2).await;

    bench.handle.make(Trouble::Rollback { snapshot: "before".into() }).await.unwrap();

    let hosts: Vec<_> = bench.handle.hosts().unwrap().iter().map(|host| host.id).collect();
    assert_eq!(hosts, [stays.id]);
    let body = json!({"macaddress": "", "id": forgotten.id, "password": forgotten.password}).to_string();
    let answer = bench.send(Method::POST, "/api/hosts/adm/authenticate", body, None).await;
    assert_eq!(message(answer).await, (400, "record not found".into()));
    let missing = bench.handle.make(Trouble::Rollback { snapshot: "none".into() }).await.unwrap_err();
    assert_eq!(missing.message, "no such snapshot");
}

#[tokio::test]
async fn a_restart_ends_every_connection_and_loses_nothing() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let device = Device::connect(&bench, &host).await;

    let restart = json!({"kind": "restart", "milliseconds": 300});
    assert_eq!(bench.admin(Method::POST, "/api/ext/v1/faults", restart).await.status(), 200);

    device.lost().await;
    assert!(bench.client.get(format!("{}/health", bench.base)).send().await.is_err());
    let answers = async {
        while bench.client.get(format!("{}/health", bench.base)).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, answers).await.expect("the server comes back");
    let (_, pull) = bench.pull(&host).await;
    assert_eq!(pull.nodes.unwrap().len(), 1);
    let mut device = Device::connect(&bench, &host).await;
    device.peers(|peers| peers["replace_peers"] == true).await;
}
