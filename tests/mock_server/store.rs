//! What is on disk: older schemas, the audit trail, no values of keys.

use std::{fs, path::Path};

use enroll_agent::{
    control::wire::Host,
    mock_server::{Action, AuditFilter, NewKey, Options, Store},
};
use rusqlite::Connection;

use crate::bench::*;

#[tokio::test]
async fn a_store_of_version_1_goes_on_under_ids() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.sqlite");
    Connection::open(&file).unwrap().execute_batch(include_str!("version-1.sql")).unwrap();

    let bench = Bench::start(on(&file, false)).await;

    let keys = bench.handle.keys().unwrap();
    let names: Vec<_> = keys.iter().flat_map(|key| key.names.clone().unwrap()).collect();
    assert!(keys.len() == 2 && names.contains(&"two-uses".to_owned()), "{names:?}");
    assert!(!bench.handle.default_key("plant-a").unwrap().is_empty());
    let known = Host { id: KNOWN.parse().unwrap(), ..device("a", 1) };
    assert_eq!(bench.register(TWO_USES, &known).await.status(), 200, "a retry is free");
    assert_eq!(bench.register(TWO_USES, &device("b", 2)).await.status(), 200);
    assert_eq!(bench.register(TWO_USES, &device("c", 3)).await.status(), 400);
    bench.handle.shutdown().await;
    assert_eq!(version(&file), 5);
    assert!(!bytes(dir.path()).windows(VALUE.len()).any(|text| text == VALUE.as_bytes()), "the value is still there");
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.sqlite");
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();

    let error = enroll_agent::mock_server::start(listener, on(&file, false)).await.err().unwrap();

    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "the store has version 99, this program knows 5");
    assert_eq!(version(&file), 99);
}

#[tokio::test]
async fn values_are_stored_only_where_they_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.sqlite");
    let is_there = |value: &str| bytes(dir.path()).windows(value.len()).any(|text| text == value.as_bytes());

    let bench = Bench::with(on(&file, false)).await;
    let hidden = bench.handle.create_key(key("hidden", &["plant-a"])).unwrap();
    bench.handle.shutdown().await;
    assert!(!is_there(hidden.value.expose()));

    let bench = Bench::start(on(&file, true)).await;
    let listed = bench.handle.create_key(key("listed", &["plant-a"])).unwrap();
    let keys = bench.handle.keys().unwrap();
    assert!(keys.iter().any(|key| key.value == listed.value && key.token == listed.token));
    bench.handle.shutdown().await;
    assert!(is_there(listed.value.expose()));

    let bench = Bench::start(on(&file, false)).await;
    assert!(!is_there(listed.value.expose()), "hiding removes what was stored");
    assert_eq!(bench.register(listed.token.expose(), &device("a", 1)).await.status(), 200);
}

#[tokio::test]
async fn the_audit_trail_refuses_to_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.sqlite");
    let bench = Bench::with(on(&file, false)).await;
    bench.key(NewKey { uses: Some(1), ..key("one-use", &["plant-a"]) });
    bench.handle.shutdown().await;

    let connection = Connection::open(&file).unwrap();
    for sql in ["UPDATE audit SET at = 0", "DELETE FROM audit", "DELETE FROM audit WHERE number = 1"] {
        assert_eq!(connection.execute(sql, ()).unwrap_err().to_string(), "the audit trail only grows");
    }
    drop(connection);

    let bench = Bench::start(on(&file, false)).await;
    let filter = AuditFilter { action: Some(Action::Create), ..AuditFilter::default() };
    assert_eq!(bench.handle.audit(&filter).unwrap().entries.len(), 3);
}

fn on(file: &Path, netmaker_compat: bool) -> Options {
    Options { store: Store::File(file.to_owned()), netmaker_compat, ..Options::default() }
}

fn version(file: &Path) -> i64 {
    Connection::open(file).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// Everything in a folder.
fn bytes(folder: &Path) -> Vec<u8> {
    fs::read_dir(folder).unwrap().flat_map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// The host in the store of version 1.
const KNOWN: &str = "00000000-0000-0000-0000-00000000a001";

/// The value of its key, and what devices were given.
const VALUE: &str = "HT75B6LER5IRXRXF7SMPSC7CHPHB2HSX";
const TWO_USES: &str =
    "eyJzZXJ2ZXIiOiJlbnJvbGwudGVzdDo0NDMiLCJ2YWx1ZSI6IkhUNzVCNkxFUjVJUlhSWEY3U01QU0M3Q0hQSEIySFNYIn0=";
