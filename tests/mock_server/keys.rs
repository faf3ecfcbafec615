//! Enrollment keys over their lives: made, changed, rotated, switched off, deleted, and the trail of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use enroll_agent::mock_server::{Action, AuditFilter, GatewayChoice, KeyEdit, NewKey, NewNetwork, Options, WithNodes};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bench::*;

#[tokio::test]
async fn values_are_shown_once() {
    let bench = Bench::new().await;

    let body = json!({"tags": ["line-3"], "networks": ["plant-a"], "uses_remaining": 2, "note": "packers"});
    let made: Value = bench.admin(Method::POST, KEYS, body).await.document().await;
    let list: Value = bench.admin(Method::GET, KEYS, json!(null)).await.document().await;
    let shown: Value = bench.admin(Method::GET, &extended(&made, ""), json!(null)).await.document().await;

    assert_eq!((made["value"].as_str().unwrap().len(), &made["note"]), (32, &json!("packers")));
    assert!(!made["token"].as_str().unwrap().is_empty());
    assert_eq!(list.as_array().unwrap().len(), 3);
    for key in list.as_array().unwrap().iter().chain([&shown]) {
        assert_eq!((&key["value"], key.get("token")), (&json!("*".repeat(32)), None));
    }
    assert_eq!((&shown["id"], &shown["fingerprint"]), (&made["id"], &made["fingerprint"]));
    assert_eq!(list.as_array().unwrap().iter().filter(|key| **key == shown).count(), 1);
}

#[tokio::test]
async fn a_key_for_an_unknown_network_is_refused_unless_the_server_is_as_the_real_one() {
    let body = json!({"tags": ["line-3"], "networks": ["plant-a", "plant-x"], "uses_remaining": 2});
    let bench = Bench::new().await;
    let compatible = Bench::with(Options { netmaker_compat: true, ..Options::default() }).await;

    let refused = message(bench.admin(Method::POST, KEYS, body.clone()).await).await;
    assert_eq!(refused, (400, r#"network "plant-x" does not exist"#.to_owned()));
    let nothing = json!({"tags": ["line-3"], "networks": [], "uses_remaining": 2});
    let refused = message(bench.admin(Method::POST, KEYS, nothing).await).await;
    assert_eq!(refused, (400, "an enrollment key must grant at least one network".to_owned()));
    assert_eq!(compatible.admin(Method::POST, KEYS, body).await.status(), 200);
}

#[tokio::test]
async fn making_a_key_that_grants_much_gives_hints() {
    let bench = Bench::new().await;

    let wide = bench.handle.create_key(key("wide-key", &["plant-a", "office"])).unwrap();
    let narrow = bench.handle.create_key(NewKey { uses: Some(1), ..key("narrow-key", &["plant-a"]) }).unwrap();

    let expected = [
        "it never ends: whoever finds it can enroll devices; think of a number of uses or a date",
        "it grants 2 networks: a device that needs one should get a key for one",
    ];
    assert_eq!((wide.hints, narrow.hints), (expected.map(str::to_owned).to_vec(), vec![]));
}

#[tokio::test]
async fn a_rotated_key_keeps_its_id_and_its_old_value_may_have_some_time() {
    let seconds = Arc::new(AtomicI64::new(START));
    let bench = Bench::with(Options { clock: clock(&seconds), ..Options::default() }).await;
    let made = bench.handle.create_key(NewKey { uses: Some(9), ..key("line-3", &["plant-a"]) }).unwrap();
    let id = made.id.to_string();
    assert_eq!(bench.register(made.token.expose(), &device("a", 1)).await.status(), 200);

    let second = bench.handle.rotate_key(&id, Duration::from_secs(60)).unwrap();
    assert_eq!((second.id, &second.names, second.uses_remaining), (made.id, &made.names, 8));
    assert_eq!(bench.register(made.token.expose(), &device("b", 2)).await.status(), 200);
    assert_eq!(bench.register(second.token.expose(), &device("c", 3)).await.status(), 200);
    seconds.fetch_add(60, Ordering::Relaxed);
    let stopped = message(bench.register(made.token.expose(), &device("d", 4)).await).await;
    assert_eq!(stopped, (400, "no enrollmentkey found".to_owned()));

    let third = bench.handle.rotate_key(&id, Duration::ZERO).unwrap();
    let stopped = message(bench.register(second.token.expose(), &device("d", 4)).await).await;
    assert_eq!(stopped, (400, "no enrollmentkey found".to_owned()));
    assert_eq!(bench.register(third.token.expose(), &device("a", 1)).await.status(), 200);
    assert_eq!(bench.handle.keys().unwrap().iter().find(|key| key.id == made.id).unwrap().uses_remaining, 6);
    assert_eq!(bench.handle.hosts().unwrap().len(), 3);
}

#[tokio::test]
async fn a_disabled_key_says_so_until_it_is_enabled() {
    let bench = Bench::new().await;
    let made = bench.handle.create_key(key("line-3", &["plant-a"])).unwrap();
    let id = made.id.to_string();
    let host = device("a", 1);
    assert_eq!(bench.register(made.token.expose(), &host).await.status(), 200);

    assert!(bench.handle.disable_key(&id).unwrap().disabled);
    let refused = message(bench.register(made.token.expose(), &device("b", 2)).await).await;
    assert_eq!(refused, (400, "enrollment key is disabled".to_owned()));
    assert_eq!(bench.pull(&host).await.1.nodes.unwrap().len(), 1);

    assert!(!bench.handle.enable_key(&id).unwrap().disabled);
    assert_eq!(bench.register(made.token.expose(), &device("b", 2)).await.status(), 200);
}

#[tokio::test]
async fn only_note_tags_and_gateway_can_be_changed() {
    let bench = Bench::new().await;
    let gateway = bench.node(bench.join("plant-a", "gateway", 1).await.id, "plant-a");
    bench.handle.make_gateway("plant-a", gateway, &[]).unwrap();
    let body = json!({"tags": ["line-3"], "networks": ["plant-a"], "uses_remaining": 2, "auto_assign_gw": true});
    let made: Value = bench.admin(Method::POST, KEYS, body).await.document().await;
    let put =
        async |body: Value| bench.admin(Method::PUT, &format!("{KEYS}/{}", made["id"].as_str().unwrap()), body).await;
    let patch = async |body: Value| bench.admin(Method::PATCH, &extended(&made, ""), body).await;
    assert_eq!(made["auto_assign_gw"], true);

    let changes = [
        ("expiration", json!(START)),
        ("uses_remaining", json!(3)),
        ("networks", json!(["plant-a", "office"])),
        ("unlimited", json!(true)),
        ("tags", json!(["line-4"])),
        ("type", json!(3)),
        ("auto_egress", json!(true)),
        ("default", json!(true)),
        ("id", json!(Uuid::from_u128(1))),
        ("value", json!("mine")),
        ("disabled", json!(true)),
    ];
    for (field, value) in changes {
        let expected = (400, format!("{field} of an enrollment key cannot be changed"));
        assert_eq!(message(put(json!({field: value})).await).await, expected);
        assert_eq!(message(patch(json!({field: value})).await).await, expected);
    }

    let edited: Value = patch(json!({"note": "packers", "groups": ["plant-a.x"]})).await.document().await;
    assert_eq!((&edited["note"], &edited["groups"]), (&json!("packers"), &json!(["plant-a.x"])));
    assert_eq!(edited["auto_assign_gw"], true);
    let edited: Value = patch(json!({"relay": gateway, "auto_assign_gw": true})).await.document().await;
    assert_eq!((&edited["relay"], &edited["auto_assign_gw"]), (&json!(gateway), &json!(false)));
    let unchanged: Value = put(edited.clone()).await.document().await;
    assert_eq!(unchanged, edited);
    let same = json!({"expiration": 0, "uses_remaining": 2, "tags": ["line-3"], "networks": null});
    let cleared: Value = put(same).await.document().await;
    assert_eq!((&cleared["relay"], &cleared["groups"]), (&json!(Uuid::nil()), &Value::Null));
    assert_eq!(cleared["note"], "packers");
}

#[tokio::test]
async fn a_server_that_is_as_the_real_one_ignores_what_cannot_be_changed_and_lists_values() {
    let bench = Bench::with(Options { netmaker_compat: true, ..Options::default() }).await;
    let made = bench.handle.create_key(NewKey { uses: Some(2), ..key("line-3", &["plant-a"]) }).unwrap();
    let path = format!("{KEYS}/{}", made.value.expose());

    let body = json!({"uses_remaining": 9, "tags": ["line-4"], "groups": ["plant-a.x"]});
    let changed: Value = bench.admin(Method::PUT, &path, body).await.document().await;
    assert_eq!((&changed["uses_remaining"], &changed["tags"]), (&json!(2), &json!(["line-3"])));
    assert_eq!(changed["groups"], json!(["plant-a.x"]));
    let list: Value = bench.admin(Method::GET, KEYS, json!(null)).await.document().await;
    let tokens: Vec<_> = list.as_array().unwrap().iter().map(|key| key["token"].as_str().unwrap()).collect();
    assert!(tokens.len() == 3 && tokens.contains(&bench.token("office").as_str()));
    assert_eq!(bench.admin(Method::DELETE, &path, json!(null)).await.status(), 200);
    let seen = format!("{:?}", bench.handle.faults().observed());
    assert!(!seen.contains(made.value.expose()), "{seen}");
}

#[tokio::test]
async fn a_network_brings_its_key_and_takes_it_along() {
    let bench = Bench::new().await;
    let body = json!({"netid": "line-3", "addressrange": "10.3.0.0/24"});

    let made: Value = bench.admin(Method::POST, "/api/networks", body).await.document().await;
    let default = &made["enrollment_key"];
    assert_eq!((&default["tags"], &default["networks"]), (&json!(["line-3"]), &json!(["line-3"])));
    assert_eq!((&default["type"], &default["unlimited"], &default["default"]), (&json!(3), &json!(true), &json!(true)));
    let id = default["id"].as_str().unwrap();
    let edit = KeyEdit { groups: Some(vec!["line-3.x".into()]), ..KeyEdit::default() };
    let edited = bench.handle.edit_key(id, edit).unwrap();
    assert_eq!(edited.groups, Some(vec!["line-3.x".to_owned()]));
    let rotated = bench.handle.rotate_key(id, Duration::ZERO).unwrap();
    assert_eq!(bench.handle.default_key("line-3").unwrap(), rotated.token);
    let error = bench.handle.delete_key(id).unwrap_err();
    assert_eq!(error.message, "cannot delete default network key");

    bench.handle.delete_network("line-3", WithNodes::Refuse).unwrap();
    assert!(bench.handle.keys().unwrap().iter().all(|key| key.id.to_string() != id));
    bench.handle.create_key(key("line-3", &["plant-a"])).unwrap();
    let range4 = Some("10.3.0.0/24".parse().unwrap());
    let taken = bench.handle.create_network(&NewNetwork { name: "line-3".into(), range4, range6: None }).unwrap_err();
    assert_eq!(taken.message, r#"an enrollment key is named "line-3", which the network's default key would be"#);
}

#[tokio::test]
async fn the_trail_tells_who_did_what() {
    let seconds = Arc::new(AtomicI64::new(START));
    let bench = Bench::with(Options { clock: clock(&seconds), ..Options::default() }).await;
    let body = json!({"tags": ["line-3"], "networks": ["plant-a"], "uses_remaining": 1});
    let made: Value = bench.admin(Method::POST, KEYS, body).await.document().await;
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let edit = KeyEdit { gateway: Some(GatewayChoice::Automatic), ..KeyEdit::default() };
    bench.handle.edit_key(id, edit).unwrap();
    bench.register(token, &device("a", 1)).await;
    bench.register(token, &device("a", 1)).await;
    seconds.fetch_add(10, Ordering::Relaxed);
    bench.register(token, &device("b", 2)).await;
    bench.admin(Method::PUT, &format!("{KEYS}/{id}"), json!({"uses_remaining": 5})).await;
    bench.admin(Method::DELETE, &format!("{KEYS}/{id}"), json!(null)).await;
    bench.register(token, &device("b", 2)).await;

    let entries = bench.handle.audit(&AuditFilter::default()).unwrap().entries.split_off(2);
    let told: Vec<_> =
        entries.iter().map(|entry| (entry.action, entry.actor.as_str(), entry.reason.as_str())).collect();
    let again = "the host had redeemed it before, nothing is spent";
    let fixed = "uses_remaining of an enrollment key cannot be changed";
    let expected = [
        (Action::Create, "master key", ""),
        (Action::Edit, "library", ""),
        (Action::Redeem, "host", ""),
        (Action::Redeem, "host", again),
        (Action::Refuse, "host", "invalid enrollment key"),
        (Action::Refuse, "master key", fixed),
        (Action::Delete, "master key", ""),
        (Action::Refuse, "host", "no enrollmentkey found"),
    ];
    assert_eq!(told, expected);
    let (before, after) = (entries[1].before.as_ref().unwrap(), entries[1].after.as_ref().unwrap());
    assert_eq!((&before["auto_assign_gw"], &after["auto_assign_gw"]), (&json!(false), &json!(true)));
    assert_eq!((entries[2].host, &entries[2].networks), (Some(device("a", 1).id), &vec!["plant-a".to_owned()]));
    assert_eq!((entries[4].attempted, entries[4].host), (Some(Action::Redeem), Some(device("b", 2).id)));
    assert_eq!(entries[4].key.unwrap().to_string(), id);
    assert_eq!((entries[7].key, entries[7].at.unix_seconds()), (None, START + 10));

    let count = |filter| bench.handle.audit(&filter).unwrap().entries.len();
    assert_eq!(count(AuditFilter { key: entries[0].key, ..AuditFilter::default() }), 7);
    assert_eq!(count(AuditFilter { host: entries[4].host, ..AuditFilter::default() }), 2);
    assert_eq!(count(AuditFilter { since: Some(START + 10), ..AuditFilter::default() }), 4);
    assert_eq!(count(AuditFilter { until: Some(START + 10), ..AuditFilter::default() }), 6);
    let path = "/api/ext/v1/audit?action=refuse&limit=2";
    let page: Value = bench.admin(Method::GET, path, json!(null)).await.document().await;
    let next = format!("{path}&cursor={}", page["next"]);
    let rest: Value = bench.admin(Method::GET, &next, json!(null)).await.document().await;
    assert_eq!((page["entries"].as_array().unwrap().len(), rest["entries"].as_array().unwrap().len()), (2, 1));
    assert_eq!(rest["next"], Value::Null);
    let export = bench.admin(Method::GET, "/api/ext/v1/audit/export", json!(null)).await;
    assert_eq!(content_type(&export), "application/x-ndjson");
    let text = export.text().await.unwrap();
    assert_eq!(text.lines().count(), 10);
    assert!(!text.contains(token) && !text.contains(made["value"].as_str().unwrap()));
}

#[tokio::test]
async fn the_trail_tells_what_befell_a_key_with_its_gateway() {
    let bench = Bench::new().await;
    let host = bench.join("plant-a", "gateway", 1).await;
    let gateway = bench.node(host.id, "plant-a");
    bench.handle.make_gateway("plant-a", gateway, &[]).unwrap();
    let made = bench.handle.create_key(NewKey { relay: Some(gateway), ..key("line-3", &["plant-a"]) }).unwrap();

    bench.admin(Method::DELETE, &format!("/api/v1/ui/hosts/{}?force=true", host.id), json!(null)).await;

    let entry = bench.handle.audit(&AuditFilter::default()).unwrap().entries.pop().unwrap();
    assert_eq!((entry.action, entry.key, entry.actor.as_str()), (Action::Edit, Some(made.id), "master key"));
    assert_eq!(entry.reason, "its gateway is none any more");
    assert_eq!(entry.before.unwrap()["relay"], json!(gateway));
    assert_eq!(entry.after.unwrap()["relay"], json!(Uuid::nil()));
}

fn extended(key: &Value, rest: &str) -> String {
    format!("/api/ext/v1/enrollment-keys/{}{rest}", key["id"].as_str().unwrap())
}

const KEYS: &str = "/api/v1/enrollment-keys";
