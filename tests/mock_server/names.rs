//! Names: whether the server manages them, and whom hosts should ask.

use enroll_agent::mock_server::{Login, Names, Options, Scheme};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench::*, mqtt::*};

#[tokio::test]
async fn names_are_managed_for_hosts_that_want_it() {
    let bench = Bench::with(Options { names: Names::Managed, ..Options::default() }).await;
    let token = bench.key(key("both-nets", &["plant-a", "office"]));
    let host = device("a", 1);
    assert_eq!(bench.register(&token, &host).await.status(), 200);
    let recorded: Value = serde_json::from_str(include_str!("../wire-examples/host-pull.json")).unwrap();

    let (document, _) = bench.pull(&host).await;

    assert_eq!(document["dns_nameservers"], recorded["dns_nameservers"]);
    assert_eq!(
        (&document["host"]["dns_status"], &document["server_config"]["ManageDNS"]),
        (&json!("yes"), &json!(true))
    );
    let path = format!("/api/hosts/{}", host.id);
    let shown: Value = bench.get(&path, bench.handle.master_key()).await.document().await;
    let mut shown = shown["Response"].clone();
    shown["dns"] = json!("no");
    assert_eq!(bench.admin(Method::PUT, &path, shown).await.status(), 200);
    let (document, _) = bench.pull(&host).await;
    assert_eq!(document["server_config"]["ManageDNS"], false);
}

#[tokio::test]
async fn administrators_say_who_knows_which_names() {
    let bench = Bench::with(Options { names: Names::Managed, ..inside(Scheme::Mqtt, Login::Shared) }).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;
    let call = async |method: Method, body: Value| -> Value {
        bench.admin(method, "/api/v1/nameserver", body).await.document().await
    };
    let split = json!({
        "name": "lab", "network_id": "plant-a", "servers": ["10.101.0.1", "10.101.0.9"],
        "domains": [{"domain": "lab.example", "is_search_domain": true}],
    });

    let made = call(Method::POST, split.clone()).await;

    assert_eq!(made["Message"], "created nameserver");
    // Its own address is left out.
    let told = device.peers(|peers| peers["dns_nameservers"].as_array().is_some_and(|all| all.len() == 2)).await;
    let expected = json!({
        "ips": ["10.101.0.9"], "match_domain": "lab.example", "is_search_domain": true, "is_fallback": false,
        "is_ad_domain": false,
    });
    assert!(told["dns_nameservers"].as_array().unwrap().contains(&expected), "{told}");
    let id = &made["Response"]["id"];
    let mut off = split;
    (off["id"], off["status"]) = (id.clone(), json!(false));
    assert_eq!(call(Method::PUT, off).await["Message"], "updated nameserver");
    assert_eq!(bench.pull(&host).await.1.dns_nameservers.unwrap().len(), 1);
    let path = format!("/api/v1/nameserver?id={}", id.as_str().unwrap());
    let gone = bench.admin(Method::DELETE, &path, json!(null)).await;
    assert_eq!(message(gone).await, (200, "deleted nameserver resource".into()));
    let left: Value =
        bench.admin(Method::GET, "/api/v1/nameserver?network=plant-a", json!(null)).await.document().await;
    let (left, path) = (&left["Response"], |id: &Value| format!("/api/v1/nameserver?id={}", id.as_str().unwrap()));
    assert_eq!((left.as_array().unwrap().len(), &left[0]["name"]), (1, &json!("Google Public DNS")));
    let kept = bench.admin(Method::DELETE, &path(&left[0]["id"]), json!(null)).await;
    assert_eq!(message(kept).await, (400, "cannot delete default nameservers".into()));
}

#[tokio::test]
async fn name_servers_that_cannot_be_are_refused() {
    let bench = Bench::new().await;
    let cases = [
        (json!({"name": ""}), "name is required"),
        (json!({"network_id": ""}), "network is required"),
        (json!({"servers": []}), "atleast one nameserver should be specified"),
        (json!({"network_id": "none"}), "invalid network id"),
        (json!({"servers": ["dns.example"]}), "invalid nameserver dns.example"),
        (json!({"nodes": {"x": {}}}), "invalid node"),
        (json!({"domains": []}), "atleast one match domain is required"),
        (json!({"domains": [{"domain": "*.example"}]}), "invalid match domain"),
    ];
    for (changes, expected) in cases {
        let mut body = json!({
            "name": "lab", "network_id": "plant-a", "servers": ["10.101.0.9"], "domains": [{"domain": "lab.example"}],
        });
        for (field, value) in changes.as_object().unwrap() {
            body[field] = value.clone();
        }
        let refused = message(bench.admin(Method::POST, "/api/v1/nameserver", body).await).await;
        assert_eq!(refused, (400, expected.to_owned()));
    }
}
