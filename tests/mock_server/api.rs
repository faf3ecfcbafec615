//! The rest of what the real admin tool calls: users, hosts, nodes, gateways, networks, and the API's description.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use enroll_agent::{
    control::wire::Host,
    mock_server::{AuditFilter, Event, Options, Store},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bench::*;

#[tokio::test]
async fn users_log_in_and_are_administrators() {
    let seconds = Arc::new(AtomicI64::new(START));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::File(dir.path().join("state.sqlite"));
    let bench = Bench::with(Options { clock: clock(&seconds), store, ..Options::default() }).await;
    let post = async |path: &str, body: Value| bench.send(Method::POST, path, body.to_string(), None).await;
    let has = async || bench.get("/api/users/adm/hassuperadmin", "").await.text().await.unwrap();
    let (create, log_in) = ("/api/users/adm/createsuperadmin", "/api/users/adm/authenticate");
    let alice = json!({"username": "alice", "password": "open sesame"});

    assert_eq!(has().await, "false\n");
    let short = message(post(create, json!({"username": "alice", "password": "1234"})).await).await;
    assert_eq!(short, (400, "password must have at least 5 characters".into()));
    let made: Value = post(create, alice.clone()).await.document().await;
    assert_eq!((&made["username"], &made["platform_role_id"]), (&json!("alice"), &json!("super-admin")));
    assert_eq!(has().await, "true\n");
    assert_eq!(message(post(create, alice.clone()).await).await, (400, "superadmin user already exists".into()));

    let wrong = message(post(log_in, json!({"username": "alice", "password": "sesame"})).await).await;
    assert_eq!(wrong, (400, "incorrect credentials".into()));
    let nobody = message(post(log_in, json!({"username": "bob", "password": "open sesame"})).await).await;
    assert_eq!(nobody, (401, "unauthorized".into()));
    let answer: Value = post(log_in, alice).await.document().await;
    assert_eq!(answer["Response"]["UserName"], "alice");
    let session = answer["Response"]["AuthToken"].as_str().unwrap();

    let body = json!({"tags": ["by-alice"], "networks": ["plant-a"], "uses_remaining": 1}).to_string();
    let made = bench.send(Method::POST, "/api/v1/enrollment-keys", body, Some(session)).await;
    assert_eq!(made.status(), 200);
    let entries = bench.handle.audit(&AuditFilter::default()).unwrap().entries;
    assert_eq!(entries.last().unwrap().actor, "user alice");
    let host = message(bench.get("/api/v1/host", session).await).await;
    assert_eq!(host, (401, "unauthorized".into()));
    seconds.fetch_add(43_200, Ordering::Relaxed);
    assert_eq!(message(bench.get("/api/hosts", session).await).await, (401, "unauthorized".into()));
}

#[tokio::test]
async fn the_first_user_makes_and_deletes_the_others() {
    let bench = Bench::new().await;
    let send = async |method: Method, path: &str, body: Value, session: &str| {
        bench.send(method, path, body.to_string(), Some(session)).await
    };
    let log_in = async |name: &str, password: &str| {
        let body = json!({"username": name, "password": password}).to_string();
        let answer = bench.send(Method::POST, "/api/users/adm/authenticate", body, None).await;
        let answer: Value = answer.document().await;
        answer["Response"]["AuthToken"].as_str().unwrap_or_default().to_owned()
    };
    let alice = json!({"username": "alice", "password": "open sesame"});
    bench.send(Method::POST, "/api/users/adm/createsuperadmin", alice.to_string(), None).await;
    let alice = log_in("alice", "open sesame").await;

    let refused = [
        ("bob", "12345", "username must have more than 3 characters"),
        ("joe 5", "12345", "invalid character(s) in username"),
        ("bobby", "1234", "password must have a minimum of 5 characters"),
    ];
    for (name, password, text) in refused {
        let body = json!({"username": name, "password": password, "platform_role_id": "admin"});
        let answer = send(Method::POST, "/api/users/new", body, &alice).await;
        assert_eq!(message(answer).await, (400, text.to_owned()));
    }
    let bobby = json!({"username": "bobby", "password": "12345", "platform_role_id": "service-user"});
    let made: Value = send(Method::POST, "/api/users/bobby", bobby.clone(), &alice).await.document().await;
    assert_eq!((&made["platform_role_id"], &made["issuperadmin"]), (&json!("admin"), &json!(false)));
    let by_master = message(bench.admin(Method::POST, "/api/users/bobby", bobby).await).await;
    assert_eq!(by_master, (400, "record not found".into()));
    let listed: Value = send(Method::GET, "/api/users", json!(null), &alice).await.document().await;
    assert_eq!(listed.as_array().unwrap().len(), 2);

    let changed = json!({"username": "bobby", "password": "54321"});
    assert_eq!(send(Method::PUT, "/api/users/bobby", changed, &alice).await.status(), 200);
    let bobby = log_in("bobby", "54321").await;
    let own: Value = send(Method::GET, "/api/users/bobby", json!(null), &bobby).await.document().await;
    assert_eq!(own["username"], "bobby");
    let other = message(send(Method::GET, "/api/users/alice", json!(null), &bobby).await).await;
    assert_eq!(other, (403, "forbidden".into()));

    let first = message(send(Method::DELETE, "/api/users/alice", json!(null), &bobby).await).await;
    assert_eq!(first, (500, "superadmin cannot be deleted".into()));
    let gone = send(Method::DELETE, "/api/users/bobby", json!(null), &alice).await;
    assert_eq!(gone.text().await.unwrap(), "\"bobby deleted.\"\n");
    assert_eq!(send(Method::GET, "/api/users", json!(null), &bobby).await.status(), 401);
}

#[tokio::test]
async fn hosts_are_listed_in_pages_and_changed() {
    let bench = Bench::new().await;
    for (name, number) in [("c", 3), ("a", 1), ("b", 2)] {
        bench.join("plant-a", name, number).await;
    }
    let mut events = bench.handle.events();

    let page: Value = bench.admin(Method::GET, "/api/v1/hosts?page=2&per_page=2", json!(null)).await.document().await;
    let page = &page["Response"];
    assert_eq!((&page["page"], &page["per_page"]), (&json!(2), &json!(2)));
    assert_eq!((&page["total"], &page["total_pages"]), (&json!(3), &json!(2)));
    assert_eq!((page["data"].as_array().unwrap().len(), &page["data"][0]["name"]), (1, &json!("c")));
    let found: Value = bench.admin(Method::GET, "/api/v1/hosts?q=b&os=linux", json!(null)).await.document().await;
    assert_eq!(found["Response"]["total"], 1);

    let path = format!("/api/hosts/{}", device("a", 1).id);
    let shown: Value = bench.admin(Method::GET, &path, json!(null)).await.document().await;
    let mut host = shown["Response"].clone();
    host["name"] = json!("renamed");
    host["mtu"] = json!(1300);
    host["persistentkeepalive"] = json!(7);
    let changed: Value = bench.admin(Method::PUT, &path, host.clone()).await.document().await;
    host["wg_public_listen_port"] = json!(0);
    assert_eq!(changed, host);
    let emptied =
        json!({"id": host["id"], "name": "", "mtu": 0, "listenport": 0, "persistentkeepalive": 0, "dns": " "});
    let kept: Value = bench.admin(Method::PUT, &path, emptied).await.document().await;
    for field in ["name", "mtu", "listenport", "persistentkeepalive", "dns"] {
        assert_eq!(kept[field], host[field], "{field}");
    }
    let pulled = bench.pull(&device("a", 1)).await.1.host;
    assert_eq!((pulled.name.as_str(), pulled.mtu, pulled.persistent_keepalive), ("renamed", 1300, 7_000_000_000));
    assert_eq!(events.try_recv(), Ok(Event::HostUpdated { host: device("a", 1).id }));
}

#[tokio::test]
async fn hosts_are_asked_for_keys_pulls_and_upgrades() {
    let bench = Bench::new().await;
    let host = bench.join("plant-a", "a", 1).await.id;
    let mut events = bench.handle.events();

    let calls = [
        (Method::PUT, format!("/api/hosts/{host}/keys"), Event::KeysRequested { host }),
        (Method::PUT, "/api/hosts/keys".to_owned(), Event::KeysRequested { host }),
        (Method::POST, format!("/api/hosts/{host}/sync"), Event::PullRequested { host }),
        (Method::POST, "/api/hosts/sync".to_owned(), Event::PullRequested { host }),
        (Method::PUT, format!("/api/hosts/{host}/upgrade"), Event::UpgradeRequested { host }),
        (Method::POST, "/api/hosts/upgrade".to_owned(), Event::UpgradeRequested { host }),
    ];
    for (method, path, event) in calls {
        assert_eq!(bench.admin(method, &path, json!(null)).await.status(), 200, "{path}");
        assert_eq!(events.try_recv(), Ok(event), "{path}");
    }
    let missing = format!("/api/hosts/{}/keys", Uuid::from_u128(1));
    let missing = message(bench.admin(Method::PUT, &missing, json!(null)).await).await;
    assert_eq!(missing, (400, "record not found".into()));
    let missing = format!("/api/hosts/{}/upgrade", Uuid::from_u128(1));
    let missing = message(bench.admin(Method::PUT, &missing, json!(null)).await).await;
    assert_eq!(missing, (404, "record not found".into()));
}

#[tokio::test]
async fn nodes_are_changed_one_by_one_and_in_bulk() {
    let bench = Bench::new().await;
    let nodes = [("a", 1), ("b", 2)].map(async |(name, number)| bench.join("plant-a", name, number).await.id);
    let mut ids = Vec::new();
    for node in nodes {
        ids.push(bench.node(node.await, "plant-a"));
    }
    let list: Value = bench.admin(Method::GET, "/api/nodes/plant-a", json!(null)).await.document().await;
    let mut node = list.as_array().unwrap().iter().find(|node| node["id"] == json!(ids[0])).unwrap().clone();

    node["tags"] = json!({"plant-a.x": {}});
    let path = format!("/api/nodes/plant-a/{}", ids[0]);
    let changed: Value = bench.admin(Method::PUT, &path, node.clone()).await.document().await;
    assert_eq!(changed, node);

    node["address"] = json!("10.101.0.77/16");
    let moved: Value = bench.admin(Method::PUT, &path, node.clone()).await.document().await;
    assert_eq!(moved["address"], "10.101.0.77/16");
    node["address"] = json!("10.101.0.2/16");
    let taken = message(bench.admin(Method::PUT, &path, node.clone()).await).await;
    assert_eq!(taken, (400, "ip specified is already allocated:  10.101.0.2/16".into()));
    node["address"] = json!("");
    let kept: Value = bench.admin(Method::PUT, &path, node).await.document().await;
    assert_eq!(kept["address"], "10.101.0.77/16");
    let elsewhere = format!("/api/nodes/office/{}/gateway", ids[0]);
    let elsewhere = message(bench.admin(Method::POST, &elsewhere, json!({})).await).await;
    assert_eq!(elsewhere, (400, "network url param does not match node network".into()));
    let unknown = message(bench.admin(Method::POST, "/api/nodes/office/plant-a/gateway", json!({})).await).await;
    assert_eq!(unknown, (400, "error fetching node during parameter validation: no result found".into()));

    let status = "/api/v1/nodes/plant-a/bulk/status";
    let answer = bench.admin(Method::PUT, status, json!({"ids": ids, "connected": false})).await;
    assert_eq!(message(answer).await, (202, "bulk DISCONNECT of 2 node(s) accepted".into()));
    assert!(bench.handle.nodes().unwrap().iter().all(|node| !node.connected));
    let bulk = "/api/v1/nodes/plant-a/bulk";
    let answer = bench.admin(Method::DELETE, bulk, json!({"ids": []})).await;
    assert_eq!(message(answer).await, (400, "no node IDs provided".into()));
    let answer = bench.admin(Method::DELETE, bulk, json!({"ids": ids})).await;
    assert_eq!(message(answer).await, (202, "bulk delete of 2 node(s) accepted".into()));
    assert_eq!(bench.handle.nodes().unwrap(), []);
}

#[tokio::test]
async fn gateways_have_older_names_too() {
    let bench = Bench::new().await;
    let node = bench.node(bench.join("plant-a", "gateway", 1).await.id, "plant-a");
    let phone = Host { os: "android".into(), ..device("phone", 2) };
    bench.register(&bench.token("plant-a"), &phone).await;

    for (create, delete) in [("createrelay", "deleterelay"), ("createingress", "deleteingress")] {
        let path = |call: &str| format!("/api/nodes/plant-a/{node}/{call}");
        let made: Value = bench.admin(Method::POST, &path(create), json!({})).await.document().await;
        assert_eq!((&made["is_gw"], &made["isrelay"]), (&json!(true), &json!(true)));
        let gone: Value = bench.admin(Method::DELETE, &path(delete), json!(null)).await.document().await;
        assert_eq!((&gone["is_gw"], &gone["isrelay"]), (&json!(false), &json!(false)));
    }
    let path = format!("/api/nodes/plant-a/{}/gateway", bench.node(phone.id, "plant-a"));
    let refused = message(bench.admin(Method::POST, &path, json!({})).await).await;
    assert_eq!(refused, (500, "gateway can only be created on linux based node".into()));
}

#[tokio::test]
async fn networks_change_but_for_name_and_ranges() {
    let bench = Bench::new().await;
    let path = "/api/networks/plant-a";
    let mut network: Value = bench.admin(Method::GET, path, json!(null)).await.document().await;

    network["defaultmtu"] = json!(1400);
    let changed: Value = bench.admin(Method::PUT, path, network.clone()).await.document().await;
    assert_eq!(changed["defaultmtu"], 1400);
    network["addressrange"] = json!("10.9.0.0/16");
    let refused = message(bench.admin(Method::PUT, path, network).await).await;
    assert_eq!(refused, (400, "name and ranges of a network cannot be changed".into()));
    assert_eq!(bench.admin(Method::GET, "/api/v1/tags", json!(null)).await.status(), 404, "a Pro call");
}

#[tokio::test]
async fn the_description_has_every_call_of_the_protocol() {
    let bench = Bench::new().await;

    let document: Value = bench.get("/api/ext/v1/openapi.json", "").await.document().await;

    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        described.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    let expected: BTreeSet<_> =
        CALLS.split_whitespace().collect::<Vec<_>>().chunks(2).map(|call| call.join(" ")).collect();
    let missing: Vec<_> = expected.difference(&described).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let create = &document["paths"]["/api/v1/enrollment-keys"]["post"];
    let fields = &create["requestBody"]["content"]["application/json"]["schema"]["properties"];
    assert_eq!(
        (&fields["uses_remaining"]["type"][0], &fields["auto_assign_gw"]["type"][0]),
        (&json!("integer"), &json!("boolean"))
    );
    assert_eq!(create["security"], json!([{"administrator": []}]));
}

/// The calls of sections 1 to 5 and 8 of the protocol that this server has, and its own.
const CALLS: &str = "
    post /api/v1/host/register/{token}
    post /api/hosts/adm/authenticate
    get /api/v1/host
    put /api/v1/fallback/host/{host}
    get /api/v1/host/{host}/peer_info
    post /api/v1/host/{host}/signalpeer
    get /api/nodes/{network}/{node}
    delete /api/nodes/{network}/{node}
    delete /api/hosts/{host}
    get /api/server/status
    get /api/server/health
    get /api/getip
    get /api/users/adm/hassuperadmin
    post /api/users/adm/createsuperadmin
    post /api/users/adm/authenticate
    get /api/networks
    post /api/networks
    get /api/networks/{network}
    put /api/networks/{network}
    delete /api/networks/{network}
    get /api/hosts
    get /api/v1/hosts
    get /api/hosts/{host}
    put /api/hosts/{host}
    delete /api/v1/ui/hosts/{host}
    post /api/hosts/{host}/networks/{network}
    delete /api/hosts/{host}/networks/{network}
    put /api/hosts/{host}/keys
    put /api/hosts/keys
    post /api/hosts/{host}/sync
    post /api/hosts/sync
    put /api/hosts/{host}/upgrade
    post /api/hosts/upgrade
    get /api/nodes
    get /api/nodes/{network}
    put /api/nodes/{network}/{node}
    delete /api/v1/nodes/{network}/bulk
    put /api/v1/nodes/{network}/bulk/status
    post /api/nodes/{network}/{node}/gateway
    delete /api/nodes/{network}/{node}/gateway
    post /api/nodes/{network}/{node}/gateway/assign
    post /api/nodes/{network}/{node}/gateway/unassign
    post /api/nodes/{network}/{node}/createrelay
    delete /api/nodes/{network}/{node}/deleterelay
    post /api/nodes/{network}/{node}/createingress
    delete /api/nodes/{network}/{node}/deleteingress
    post /api/v1/enrollment-keys
    get /api/v1/enrollment-keys
    put /api/v1/enrollment-keys/{key}
    delete /api/v1/enrollment-keys/{key}
    get /api/server/getserverinfo
    get /api/server/getconfig
    get /api/ext/v1/enrollment-keys/{key}
    patch /api/ext/v1/enrollment-keys/{key}
    post /api/ext/v1/enrollment-keys/{key}/rotate
    post /api/ext/v1/enrollment-keys/{key}/disable
    post /api/ext/v1/enrollment-keys/{key}/enable
    get /api/ext/v1/audit
    get /api/ext/v1/audit/export
    get /api/ext/v1/openapi.json
";

#[tokio::test]
async fn networks_are_refused_with_the_real_messages() {
    let bench = Bench::new().await;
    let create = |body: Value| bench.admin(Method::POST, "/api/networks", body);
    let refused = [
        (json!({"netid": "a".repeat(33)}), "network name shouldn't exceed 32 characters"),
        (json!({"netid": "lab"}), "IPv4 or IPv6 CIDR required"),
        (json!({"netid": "lab", "addressrange": "10.55.0.0"}), "invalid CIDR address: 10.55.0.0"),
        (json!({"netid": "lab", "addressrange": "10.55.0.0/31"}), "cannot create network with /31 or /32 cidr"),
        (json!({"netid": "lab", "addressrange6": "fd55::/127"}), "cannot create network with /127 or /128 cidr"),
        (json!({"netid": "plant-a", "addressrange": "10.101.7.0/24"}), "network cidr already in use"),
        (json!({"netid": "lab", "addressrange6": "fd00::/16"}), "network cidr already in use"),
        (json!({"netid": "", "addressrange": "10.55.0.0/16"}), "network name cannot be empty"),
        (json!({"netid": "Lab!", "addressrange": "10.55.0.0/16"}), "invalid character(s) in network name"),
        (json!({"netid": "plant-a", "addressrange": "10.55.0.0/16"}), "invalid network name"),
    ];
    for (body, text) in refused {
        assert_eq!(message(create(body).await).await, (400, text.to_owned()));
    }

    let asked = json!({"netid": "lab", "addressrange": "10.55.0.0/16", "defaultmtu": 1400, "auto_remove": true});
    let made: Value = create(asked).await.document().await;

    assert_eq!((&made["defaultmtu"], &made["defaultkeepalive"]), (&json!(1400), &json!(20)));
    assert_eq!(made["auto_remove_threshold"], 60);
    let unknown = message(bench.admin(Method::GET, "/api/networks/nosuch", json!(null)).await).await;
    assert_eq!(unknown, (404, "record not found".into()));
}

#[tokio::test]
async fn the_real_server_deletes_networks_without_asking() {
    let bench = Bench::with(Options { netmaker_compat: true, ..Options::default() }).await;
    bench.join("office", "a", 1).await;

    for network in ["office", "nosuch"] {
        let path = format!("/api/networks/{network}");
        assert_eq!(bench.admin(Method::DELETE, &path, json!(null)).await.status(), 200, "{network}");
    }

    assert_eq!(bench.handle.nodes().unwrap(), []);
}

#[tokio::test]
async fn hosts_that_are_not_there_cannot_be_deleted() {
    let bench = Bench::new().await;
    let unknown = Uuid::from_u128(1);

    for path in [format!("/api/hosts/{unknown}?force=true"), format!("/api/v1/ui/hosts/{unknown}")] {
        let answer = message(bench.admin(Method::DELETE, &path, json!(null)).await).await;
        assert_eq!(answer, (500, "record not found".into()), "{path}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_as_recorded() {
    let bench = Bench::new().await;
    let (own, other) = (bench.join("plant-a", "a", 1).await, bench.join("plant-a", "b", 2).await);
    let node = bench.node(own.id, "plant-a");
    let (session, master) = (bench.session(&own).await, bench.handle.master_key().to_owned());
    let fallback = format!("/api/v1/fallback/host/{}", own.id);
    let host = format!("/api/hosts/{}", own.id);
    let unknown = "error fetching node during parameter validation: no result found";
    let cases = [
        (Method::POST, "/api/hosts/adm/authenticate".into(), "", &session, 400, "EOF"),
        (Method::POST, "/api/hosts/adm/authenticate".into(), "{", &session, 400, "unexpected EOF"),
        (
            Method::POST,
            "/api/hosts/adm/authenticate".into(),
            "x",
            &session,
            400,
            "invalid character 'x' looking for beginning of value",
        ),
        (Method::POST, "/api/hosts/adm/authenticate".into(), "null", &session, 400, "W1R3: ID can't be empty"),
        (Method::PUT, fallback.clone(), "", &session, 500, "EOF"),
        (Method::PUT, "/api/v1/fallback/host/x".into(), "{}", &session, 403, "forbidden"),
        (Method::GET, format!("/api/v1/host/{}/peer_info", other.id), "", &session, 403, "forbidden"),
        (Method::DELETE, "/api/nodes/plant-a/x".into(), "", &session, 400, "no result found"),
        (Method::DELETE, "/api/nodes/plant-a/x".into(), "", &master, 400, unknown),
        (
            Method::GET,
            format!("/api/nodes/office/{node}"),
            "",
            &session,
            400,
            "network url param does not match node network",
        ),
        (Method::POST, format!("/api/nodes/plant-a/{node}/gateway/unassign"), "", &master, 400, unknown),
        (Method::PUT, host.clone(), "{}", &master, 400, "failed to parse host id: invalid UUID length: 0"),
        (Method::PUT, host.clone(), "", &master, 500, "EOF"),
        (Method::DELETE, format!("{host}/networks/nosuch"), "", &master, 500, "host not part of the network nosuch"),
        (
            Method::DELETE,
            format!("/api/hosts/{}/networks/office", Uuid::from_u128(1)),
            "",
            &master,
            400,
            "node not found",
        ),
        (Method::PUT, "/api/networks/nosuch".into(), "{}", &master, 400, "record not found"),
        (
            Method::POST,
            "/api/networks".into(),
            r#"{"netid": "lab", "addressrange": "10.55.0.0/16", "defaultkeepalive": 2000}"#,
            &master,
            400,
            "default keep alive must be less than 1000",
        ),
    ];

    for (method, path, body, bearer, code, text) in cases {
        let answer = bench.send(method.clone(), &path, body.to_owned(), Some(bearer)).await;
        assert_eq!(message(answer).await, (code, text.to_owned()), "{method} {path}");
    }
}
