use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::{Identity, Outside, Phase, Policy, Redeeming, Secret};

#[test]
fn reads_back_what_it_saved() {
    let (folder, store, membership) = world();

    store.save(&membership).unwrap();

    assert_eq!(store.load(&membership.server).unwrap(), Some(membership.clone()));
    assert_eq!(store.servers().unwrap(), std::slice::from_ref(&membership.server));
    let file = folder.path().join("state/api.example.net:8443/membership.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(folder.path().join("state")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn missing_damaged_newer_older_and_unreadable_are_five_answers() {
    let (folder, store, membership) = world();
    let file = folder.path().join("state/api.example.net:8443/membership.json");

    assert!(store.load(&membership.server).unwrap().is_none());
    store.save(&membership).unwrap();
    fs::write(&file, "{\"version\":1,").unwrap();
    assert!(matches!(store.load(&membership.server), Err(StoreError::Corrupt { .. })));
    fs::write(&file, "{\"version\":3}").unwrap();
    assert!(matches!(store.load(&membership.server), Err(StoreError::Newer { version: 3, .. })));
    fs::write(&file, "{\"version\":0}").unwrap();
    assert!(matches!(store.load(&membership.server), Err(StoreError::Older { version: 0, .. })));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(store.load(&membership.server), Err(StoreError::Read { .. })));
}

#[test]
fn what_is_another_machines_is_kept_aside_for_its_owner_alone_and_can_come_back() {
    let (folder, store, membership) = world();
    let server = &membership.server;
    store.save(&membership).unwrap();
    let file = folder.path().join("state/api.example.net:8443/membership.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();

    store.quarantine(server).unwrap();

    assert_eq!((store.load(server).unwrap(), store.servers().unwrap()), (None, Vec::new()));
    assert_eq!(store.servers_inherited().unwrap(), std::slice::from_ref(server));
    assert_eq!(store.load_inherited(server).unwrap(), Some(membership.clone()));
    let aside = folder.path().join("state/.inherited-api.example.net:8443/membership.json");
    assert_eq!(fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o600);
    store.remove(server).unwrap();
    assert!(store.is_inherited(server), "a membership of this machine's own goes without it");
    store.release(server).unwrap();
    assert_eq!((store.load(server).unwrap(), store.is_inherited(server)), (Some(membership), false));
}

#[test]
fn wiping_leaves_only_what_is_somebody_elses_and_nothing_is_wiped_under_an_agent() {
    let (folder, store, membership) = world();
    store.save(&membership).unwrap();
    store.quarantine(&membership.server).unwrap();
    store.save(&membership).unwrap();
    let foreign = folder.path().join("state/notes.txt");
    fs::write(&foreign, "").unwrap();

    let lock = store.lock(&membership.server).unwrap();
    assert!(matches!(store.wipe(), Err(StoreError::Busy { .. })));
    assert!(store.load(&membership.server).unwrap().is_some());
    drop(lock);
    store.wipe().unwrap();

    assert_eq!(store.contents().unwrap(), [foreign]);
}

#[test]
fn a_file_of_the_first_version_is_still_read() {
    let (folder, store, membership) = world();
    store.save(&membership).unwrap();
    let file = folder.path().join("state/api.example.net:8443/membership.json");
    let mut document: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    document["version"] = 1.into();
    let fields = document.as_object_mut().unwrap();
    fields.remove("switch");
    fields.remove("sent");
    let identity = fields.get_mut("identity").and_then(serde_json::Value::as_object_mut).unwrap();
    identity.remove("former_key");
    identity.remove("next_key");
    fs::write(&file, document.to_string()).unwrap();

    assert_eq!(store.load(&membership.server).unwrap(), Some(membership));
}

#[test]
fn a_left_over_of_a_crash_does_not_hinder_the_next_write() {
    let (folder, store, membership) = world();
    store.save(&membership).unwrap();
    fs::write(folder.path().join("state/api.example.net:8443/.membership.json.new"), "half").unwrap();

    store.save(&membership).unwrap();

    assert_eq!(store.load(&membership.server).unwrap(), Some(membership));
}

#[test]
fn one_process_at_a_time() {
    let (_folder, store, membership) = world();
    let held = store.lock(&membership.server).unwrap();

    assert!(matches!(store.lock(&membership.server), Err(StoreError::Busy { .. })));
    drop(held);
    store.lock(&membership.server).unwrap();
}

#[test]
fn leaving_forgets() {
    let (_folder, store, membership) = world();
    store.save(&membership).unwrap();

    store.remove(&membership.server).unwrap();
    store.remove(&membership.server).unwrap();

    assert!(store.load(&membership.server).unwrap().is_none());
    assert!(store.servers().unwrap().is_empty());
}

#[test]
fn what_is_set_aside_is_out_of_sight() {
    let (folder, store, membership) = world();
    store.save(&membership).unwrap();

    store.set_aside(&membership.server).unwrap();

    assert!(store.servers().unwrap().is_empty());
    assert!(folder.path().join("state/.deleted-api.example.net:8443/membership.json").exists());
    assert!(store.is_set_aside(&membership.server));
    store.remove(&membership.server).unwrap();
    assert!(!store.is_set_aside(&membership.server));
}

fn world() -> (tempfile::TempDir, Store, Membership) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("state"));
    let identity = Identity::generate(|buffer| {
        buffer.fill(9);
        Ok::<(), std::convert::Infallible>(())
    })
    .unwrap();
    let token = Secret::from("secret");
    let redeeming = Redeeming { attempts: 0, baseline: None, fingerprint: "ABC".into(), sent_at: None, token };
    let membership = Membership {
        binding: None,
        identity,
        interface: "enroll0".parse().unwrap(),
        phase: Phase::Pending { redeeming },
        last_check_in: None,
        outside: Outside::default(),
        policy: Policy::default(),
        sent: std::collections::BTreeSet::new(),
        server: "api.example.net:8443".parse().unwrap(),
        switch: crate::model::Switch::On,
    };
    (folder, store, membership)
}
