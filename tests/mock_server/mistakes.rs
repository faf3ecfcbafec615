//! Mistakes of the real server and certificates that are wrong, switched on while the server runs.

use std::sync::Arc;

use enroll_agent::mock_server::{
    Flaw, Login, Mistake, NewKey, Options, Scheme, Trouble,
    scenario::{Do, Scenario},
};
use reqwest::Method;
use rumqttc::{AsyncClient, ConnectionError};
use serde_json::json;

use crate::{bench::*, mqtt::*};

#[tokio::test(flavor = "multi_thread")]
async fn uses_can_be_spent_twice_by_those_who_come_together() {
    for (mistakes, expected) in [(vec![], 1), (vec![Mistake::OverUse], 8)] {
        let bench = Arc::new(Bench::new().await);
        bench.handle.faults().set_mistakes(mistakes);
        let token = bench.key(NewKey { uses: Some(1), ..key("one-use", &["plant-a"]) });

        // Connections first, so that the requests themselves come together.
        let health = format!("{}/health", bench.base);
        futures_util::future::join_all((0..8).map(|_| bench.client.get(&health).send())).await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (bench, token) = (bench.clone(), token.clone());
            tasks.spawn(async move { bench.register(&token, &device("many", number)).await.status().as_u16() });
        }
        let statuses = tasks.join_all().await;

        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), expected);
        assert_eq!(bench.register(&token, &device("late", 9)).await.status(), 400);
    }
}

#[tokio::test]
async fn a_key_that_is_unlimited_beside_its_limit_can_go_on() {
    let bench = Bench::new().await;
    let token = bench.key(NewKey { uses: Some(1), unlimited: true, ..key("both", &["plant-a"]) });
    assert_eq!(bench.register(&token, &device("a", 1)).await.status(), 200);
    assert_eq!(bench.register(&token, &device("b", 2)).await.status(), 400);

    let trouble = json!({"kind": "mistakes", "which": ["unlimited-goes-on"]});
    assert_eq!(bench.admin(Method::POST, "/api/ext/v1/faults", trouble).await.status(), 200);

    assert_eq!(bench.register(&token, &device("b", 2)).await.status(), 200);
    assert_eq!(bench.delete("/api/ext/v1/faults", bench.handle.master_key()).await.status(), 200);
    assert_eq!(bench.register(&token, &device("c", 3)).await.status(), 400);
}

#[tokio::test]
async fn coming_again_can_cost_another_use() {
    let bench = Bench::new().await;
    bench.handle.make(Trouble::Mistakes { which: [Mistake::SpendAgain].into() }).await.unwrap();
    let token = bench.key(NewKey { uses: Some(2), ..key("two-uses", &["plant-a"]) });
    let host = device("a", 1);

    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(bench.register(&token, &host).await.status().as_u16());
    }

    assert_eq!(statuses, [200, 200, 400]);
}

#[tokio::test]
async fn a_plain_pull_can_be_as_old_as_the_last_broadcast() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let (host, gone) = (bench.join("plant-a", "a", 1).await, bench.join("plant-a", "b", 2).await);
    let session = bench.session(&host).await;
    let peers = async |path: &str| {
        let pull: serde_json::Value = bench.get(path, &session).await.document().await;
        pull["peers"].as_array().unwrap().len()
    };
    bench.handle.make(Trouble::Mistakes { which: [Mistake::StalePull].into() }).await.unwrap();
    assert_eq!(peers("/api/v1/host").await, 1);

    bench.handle.delete_host(gone.id).unwrap();

    assert_eq!(peers("/api/v1/host").await, 1);
    assert_eq!(peers("/api/v1/host?reset_failovered=true").await, 0);
    assert_eq!(peers("/api/v1/host").await, 0);
    bench.join("plant-a", "c", 3).await;
    assert_eq!(peers("/api/v1/host").await, 1, "whoever joins makes a broadcast");
}

#[tokio::test]
async fn a_deletion_can_be_told_to_nobody() {
    let bench = Bench::with(inside(Scheme::Mqtt, Login::Shared)).await;
    let (stays, goes) = (sealing("a", 1), sealing("b", 2));
    for host in [&stays, &goes] {
        assert_eq!(bench.register(&bench.token("plant-a"), host).await.status(), 200);
    }
    let mut device = Device::connect(&bench, &stays).await;
    device.peers(|peers| peers["host_peers"].as_array().unwrap().len() == 1).await;
    device.peers_after_ack().await;
    bench.handle.make(Trouble::Mistakes { which: [Mistake::DroppedDeletions].into() }).await.unwrap();

    bench.handle.delete_host(goes.id).unwrap();

    let told = device.peers(|peers| peers["host_peers"].as_array().unwrap().is_empty()).await;
    assert_eq!(told["replace_peers"], false);
}

#[tokio::test]
async fn a_certificate_can_go_wrong_while_the_server_runs() {
    let bench = Bench::with(inside(Scheme::Mqtts, Login::Shared)).await;
    let url = bench.handle.broker_url().unwrap();
    let health = format!("{}/health", bench.base);
    assert_eq!(bench.client.get(&health).send().await.unwrap().status(), 200);
    let cases = [
        (Flaw::Expired, "expired"),
        (Flaw::NotYetValid, "NotValidYet"),
        (Flaw::WrongName, "NotValidForName"),
        (Flaw::Untrusted, "UnknownIssuer"),
    ];

    for (flaw, expected) in cases {
        bench.handle.make(Trouble::Certificate { flaw }).await.unwrap();

        // The connection that was there is gone, too.
        eventually_fails(&bench, &health, expected).await;
        let (_client, mut events) = AsyncClient::builder(options(&bench.handle, &url)).build();
        let error = events.poll().await.unwrap_err();
        assert!(matches!(error, ConnectionError::Tls(_)), "{error:?}");
    }

    bench.handle.make(Trouble::Clear).await.unwrap();
    assert_eq!(bench.client.get(&health).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn whoever_asks_for_a_wrong_certificate_is_answered() {
    let bench = Bench::new().await;
    let trouble = json!({"kind": "certificate", "flaw": "expired"});

    assert_eq!(bench.admin(Method::POST, "/api/ext/v1/faults", trouble).await.status(), 200);

    eventually_fails(&bench, &format!("{}/health", bench.base), "expired").await;
}

#[test]
fn a_scenario_can_make_mistakes_and_spoil_certificates() {
    let text = r#"
        name = "a"
        network = [{ name = "plant-a", range4 = "10.101.0.0/16" }]
        expect = []
        [[step]]
        do = { kind = "mistakes", which = ["over-use", "stale-pull"] }
        [[step]]
        when = { after = 5 }
        do = { kind = "certificate", flaw = "expired" }
    "#;

    let scenario = Scenario::from_toml(text).unwrap();

    let steps: Vec<_> = scenario.steps.into_iter().map(|step| step.what).collect();
    let which = [Mistake::OverUse, Mistake::StalePull].into();
    let expected = [Trouble::Mistakes { which }, Trouble::Certificate { flaw: Flaw::Expired }];
    assert_eq!(steps, expected.map(Do::Trouble));
}

#[test]
fn the_scenarios_that_come_along_can_be_played() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/scenarios");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();

    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(Scenario::from_toml(&text).is_ok(), "{}", file.display());
    }

    assert_eq!(files.len(), 3);
}

#[tokio::test]
async fn a_server_can_begin_with_a_flaw_and_lose_it() {
    let tls = enroll_agent::mock_server::Tls { flaw: Flaw::Expired, ..Default::default() };
    let bench = Bench::start(Options { tls, ..Options::default() }).await;
    let health = format!("{}/health", bench.base);
    assert!(bench.client.get(&health).send().await.is_err());

    bench.handle.make(Trouble::Certificate { flaw: Flaw::None }).await.unwrap();

    assert_eq!(bench.client.get(&health).send().await.unwrap().status(), 200);
}

/// Waits until requests fail as expected; a connection that just ends may fail in another way once.
async fn eventually_fails(bench: &Bench, url: &str, expected: &str) {
    let fails = async {
        loop {
            let failure = bench.client.get(url).send().await.err().map(|error| format!("{error:?}").to_lowercase());
            if failure.is_some_and(|failure| failure.contains(&expected.to_lowercase())) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, fails).await.unwrap_or_else(|_| panic!("no failure has {expected:?} in it"));
}
