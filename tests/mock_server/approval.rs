//! Hosts that wait: to be let into a network, and for what they have not heard of yet; and what programs prove
//! themselves with.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use enroll_agent::mock_server::{Edition, Login, NewKey, NodeCreation, Options, Scheme, Store, Trouble};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{bench::*, mqtt::*};

#[tokio::test]
async fn a_network_of_the_paid_edition_may_want_its_hosts_approved() {
    let options = Options { edition: Edition::Pro, ..inside(Scheme::Mqtt, Login::Shared) };
    let bench = Bench::with(options).await;
    let careful = json!({"netid": "plant-a", "auto_join": false, "defaultkeepalive": 20, "defaultmtu": 1280});
    assert_eq!(bench.admin(Method::PUT, "/api/networks/plant-a", careful).await.status(), 200);
    let token = bench.key(NewKey { groups: vec!["plant-a.plc".into()], ..key("both-nets", &["plant-a", "office"]) });
    let (host, other) = (sealing("a", 1), sealing("b", 2));
    for host in [&host, &other, &host] {
        assert_eq!(bench.register(&token, host).await.status(), 200);
    }

    let waiting = waiting(&bench, "plant-a").await;

    assert_eq!(waiting.len(), 2, "who asks again waits once");
    let asked = waiting.iter().find(|pending| pending["host_id"] == json!(host.id)).unwrap();
    assert_eq!((&asked["host_name"], &asked["network"]), (&json!("a"), &json!("plant-a")));
    assert_eq!(asked["enrollment_key_id"]["groups"], json!(["plant-a.plc"]));
    let networks: Vec<_> = bench.handle.nodes().unwrap().into_iter().map(|node| node.network).collect();
    assert_eq!(networks, ["office", "office"]);

    let mut device = Device::connect(&bench, &host).await;
    let path =
        |verb: &str, pending: &Value| format!("/api/v1/pending_hosts/{verb}/{}", pending["id"].as_str().unwrap());
    let answer: Value = bench.admin(Method::POST, &path("approve", asked), json!({})).await.document().await;
    assert_eq!(answer["Message"], "added pending host to plant-a");
    assert_eq!(answer["Response"]["tags"], json!({"plant-a.plc": {}}));
    loop {
        let update = device.action().await;
        if update["Action"] == "JOIN_HOST_TO_NETWORK" {
            assert_eq!(update["Node"]["network"], "plant-a");
            break;
        }
    }
    let rejected = waiting.iter().find(|pending| pending["host_id"] == json!(other.id)).unwrap();
    let answer: Value = bench.admin(Method::POST, &path("reject", rejected), json!({})).await.document().await;
    assert_eq!(
        (&answer["Message"], &answer["Response"]["id"]),
        (&json!("deleted pending host from plant-a"), &rejected["id"])
    );
    for pending in [asked, rejected] {
        let gone = bench.admin(Method::POST, &path("approve", pending), json!({})).await;
        assert_eq!(message(gone).await, (400, "record not found".into()));
    }
    assert_eq!(bench.handle.nodes().unwrap().len(), 3);
}

#[tokio::test]
async fn the_community_edition_knows_no_approval() {
    for (edition, expected) in [(Edition::Community, true), (Edition::Pro, false)] {
        let bench = Bench::with(Options { edition, ..Options::default() }).await;

        let new = json!({"netid": "line-3", "addressrange": "10.103.0.0/24", "auto_join": false});
        let made: Value = bench.admin(Method::POST, "/api/networks", new).await.document().await;
        let kept = json!({"auto_join": false});
        let changed: Value = bench.admin(Method::PUT, "/api/networks/plant-a", kept).await.document().await;

        assert_eq!((&made["auto_join"], &changed["auto_join"]), (&json!(expected), &json!(expected)), "{edition:?}");
    }
}

#[tokio::test]
async fn every_network_can_be_made_to_wait_for_approval() {
    let bench = Bench::new().await;
    bench.handle.make(Trouble::NodeCreation { when: NodeCreation::Pending }).await.unwrap();
    let host = bench.join("plant-a", "a", 1).await;
    assert_eq!(bench.pull(&host).await.1.nodes, Some(vec![]));
    let waiting = waiting(&bench, "plant-a").await;
    assert_eq!(waiting.len(), 1);

    bench.handle.delete_host(host.id).unwrap();

    assert_eq!(self::waiting(&bench, "plant-a").await.len(), 0, "who is gone does not wait");
    let refused = bench.admin(Method::GET, "/api/v1/pending_hosts", json!(null)).await;
    assert_eq!(message(refused).await, (400, "network id param is missing".into()));
}

#[tokio::test]
async fn nodes_that_a_host_has_not_heard_of_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        || Options { store: Store::File(dir.path().join("state.sqlite")), ..inside(Scheme::Mqtt, Login::Shared) };
    let bench = Bench::with(options()).await;
    let token = bench.key(key("both-nets", &["plant-a", "office"]));
    let host = sealing("a", 1);
    assert_eq!(bench.register(&token, &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;
    assert_eq!(device.action().await["Action"], "REQ_ACK");
    device.say("ACK", "mock.test").await;
    assert_eq!(device.action().await["Node"]["network"], "plant-a");
    bench.handle.shutdown().await;

    let bench = Bench::start(options()).await;
    let mut device = Device::connect(&bench, &host).await;

    assert_eq!(device.action().await["Action"], "REQ_ACK");
    device.say("ACK", "mock.test").await;
    let update = device.action().await;
    assert_eq!((&update["Action"], &update["Node"]["network"]), (&json!("JOIN_HOST_TO_NETWORK"), &json!("office")));
    device.say("ACK", "mock.test").await;
    assert_eq!(device.action().await["Action"], "UPDATE_HOST");
}

#[tokio::test]
async fn a_user_gives_a_program_a_token_until_it_is_revoked() {
    let bench = Bench::new().await;
    let session = log_in(&bench).await;
    let body = |end: &str| json!({"name": "ci", "user_name": "admin", "expires_at": end}).to_string();
    let create = async |bearer: &str, body: String| {
        bench.send(Method::POST, "/api/v1/users/access_token", body, Some(bearer)).await
    };

    let answer: Value = create(&session, body("2100-01-01T00:00:00Z")).await.document().await;

    assert_eq!(answer["Message"], "api access token has generated for user admin");
    let token = answer["Response"]["AuthToken"].as_str().unwrap();
    assert_eq!(bench.get("/api/networks", token).await.status(), 200);
    let path = "/api/v1/users/access_token?username=admin";
    let listed: Value = bench.get(path, token).await.document().await;
    let listed = &listed["Response"][0];
    assert_eq!((&listed["name"], &listed["created_by"]), (&json!("ci"), &json!("admin")));
    assert!(!listed["last_used"].as_str().unwrap().starts_with("0001"), "its use is noted");
    assert!(!listed.to_string().contains(token), "it is shown once");

    let path = format!("/api/v1/users/access_token?id={}", listed["id"].as_str().unwrap());
    assert_eq!(message(bench.delete(&path, &session).await).await, (200, "revoked access token".into()));
    assert_eq!(bench.get("/api/networks", token).await.status(), 401);
    assert_eq!(message(bench.delete(&path, &session).await).await, (400, "token does not exist".into()));
    let master = create(bench.handle.master_key(), body("2100-01-01T00:00:00Z")).await;
    assert_eq!(message(master).await, (401, "record not found".into()));
    for (body, expected) in [
        (json!({"user_name": "admin"}), (400, "name is required")),
        (json!({"name": "ci"}), (400, "username is required")),
        (json!({"name": "ci", "user_name": "nobody"}), (401, "record not found")),
    ] {
        let (status, text) = message(create(&session, body.to_string()).await).await;
        assert_eq!((status, text.as_str()), expected);
    }
}

#[tokio::test]
async fn an_access_token_ends_when_it_says_and_is_no_host() {
    let seconds = Arc::new(AtomicI64::new(START));
    let bench = Bench::with(Options { clock: clock(&seconds), ..Options::default() }).await;
    let session = log_in(&bench).await;
    let body = json!({"name": "ci", "user_name": "admin", "expires_at": "2026-12-01T00:00:00Z"}).to_string();
    let answer = bench.send(Method::POST, "/api/v1/users/access_token", body, Some(&session)).await;
    let answer: Value = answer.document().await;
    let token = answer["Response"]["AuthToken"].as_str().unwrap();
    assert_eq!(bench.get("/api/networks", token).await.status(), 200);
    assert_eq!(bench.get("/api/v1/host", token).await.status(), 401);

    seconds.fetch_add(8 * 24 * 3600, Ordering::Relaxed);

    assert_eq!(bench.get("/api/networks", token).await.status(), 401);
}

#[tokio::test]
async fn the_access_tokens_of_a_user_go_with_it() {
    let bench = Bench::new().await;
    let session = log_in(&bench).await;
    let account = json!({"username": "second", "password": Uuid::from_u128(9), "platform_role_id": "admin"});
    let made = bench.send(Method::POST, "/api/users/second", account.to_string(), Some(&session)).await;
    assert_eq!(made.status(), 200);
    let body = json!({"name": "ci", "user_name": "second", "expires_at": "2100-01-01T00:00:00Z"}).to_string();
    let answer = bench.send(Method::POST, "/api/v1/users/access_token", body, Some(&session)).await;
    let answer: Value = answer.document().await;
    let token = answer["Response"]["AuthToken"].as_str().unwrap();
    let listed: Value = bench.get("/api/users", token).await.document().await;
    assert_eq!((&listed[0]["num_access_tokens"], &listed[1]["num_access_tokens"]), (&json!(0), &json!(1)));

    assert_eq!(bench.delete("/api/users/second", &session).await.status(), 200);

    assert_eq!(bench.get("/api/users", token).await.status(), 401);
    let path = "/api/v1/users/access_token?username=second";
    let left: Value = bench.get(path, &session).await.document().await;
    assert_eq!(left["Response"], json!([]));
}

async fn log_in(bench: &Bench) -> String {
    let user = json!({"username": "admin", "password": Uuid::from_u128(7)}).to_string();
    let made = bench.send(Method::POST, "/api/users/adm/createsuperadmin", user.clone(), None).await;
    assert_eq!(made.status(), 200);
    let answer: Value = bench.send(Method::POST, "/api/users/adm/authenticate", user, None).await.document().await;
    answer["Response"]["AuthToken"].as_str().unwrap().to_owned()
}

async fn waiting(bench: &Bench, network: &str) -> Vec<Value> {
    let path = format!("/api/v1/pending_hosts?network={network}");
    let answer: Value = bench.admin(Method::GET, &path, json!(null)).await.document().await;
    answer["Response"].as_array().unwrap().clone()
}
