use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::model::{EventKind, PublicKey, Subject};

#[test]
fn lines_are_chained_and_only_their_owner_reads_them() {
    let (folder, store) = world(3);

    let Receipts { broken, lines } = store.receipts().unwrap();

    assert_eq!((broken, lines.len()), (None, 3));
    let receipts: Vec<Receipt> = lines.iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(receipts.iter().map(|receipt| receipt.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(receipts[0].previous, "0".repeat(64));
    assert!(lines[0].contains(&format!("\"hash\":\"{}\"}}", receipts[1].previous)));
    assert_eq!((receipts[0].event.as_str(), receipts[0].time.as_str()), ("joined", "2026-01-01T00:00:00Z"));
    let mode = fs::metadata(folder.path().join("state/receipts.jsonl")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn every_change_is_found_where_it_is() {
    let (folder, store) = world(4);
    let file = folder.path().join("state/receipts.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let broken = |text: String| {
        fs::write(&file, text).unwrap();
        store.receipts().unwrap().broken
    };

    let changed = broken(text.replacen("\"event\":\"joined\"", "\"event\":\"left\"", 2));
    let removed = broken(format!("{}\n{}\n{}\n", lines[0], lines[2], lines[3]));
    let beheaded = broken(format!("{}\n{}\n", lines[2], lines[3]));
    let doubled = broken(format!("{}\n{}\n", lines[0], lines[0]));

    assert_eq!(changed, Some(ReceiptError::Changed { file: RECEIPTS, line: 1 }));
    assert_eq!(removed, Some(ReceiptError::Unlinked { file: RECEIPTS, line: 2 }));
    assert_eq!(doubled, Some(ReceiptError::Unlinked { file: RECEIPTS, line: 2 }));
    // What was given up with an old file looks the same; the number of the first line tells.
    assert_eq!(beheaded, None);
}

#[test]
fn the_same_is_not_written_twice_in_a_row() {
    let (_folder, store) = world(1);

    store.record(AT + 5, &event(EventKind::Held, 1)).unwrap();
    store.record(AT + 60, &event(EventKind::Held, 1)).unwrap();

    assert_eq!(store.receipts().unwrap().lines.len(), 2);
}

#[test]
fn a_long_file_makes_room_and_the_chain_goes_on() {
    let (folder, store) = world(1);
    let file = folder.path().join("state/receipts.jsonl");
    let mut host = 1;
    while !folder.path().join("state/receipts.earlier.jsonl").exists() {
        host += 1;
        let long = Event { detail: Some("x".repeat(200_000)), ..event(EventKind::Joined, host) };
        store.record(AT, &long).unwrap();
    }

    let Receipts { broken, lines } = store.receipts().unwrap();

    assert_eq!((broken, lines.len()), (None, usize::try_from(host).unwrap()));
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
}

proptest! {
    #[test]
    fn wherever_a_crash_tears_the_last_line_the_chain_goes_on(torn in 1_usize..2000) {
        let (folder, store) = world(3);
        let file = folder.path().join("state/receipts.jsonl");
        let text = fs::read(&file).unwrap();
        let last = text.iter().rev().skip(1).position(|byte| *byte == b'\n').unwrap() + 1;
        let torn = 1 + torn % last;
        fs::write(&file, &text[..text.len() - torn]).unwrap();

        let seen = store.receipts().unwrap();
        store.record(AT, &event(EventKind::Left, 9)).unwrap();
        let after = store.receipts().unwrap();

        // Without its end alone the last line is whole.
        let kept = if torn == 1 { 3 } else { 2 };
        prop_assert_eq!((seen.broken, seen.lines.len()), (None, kept));
        prop_assert_eq!((after.broken, after.lines.len()), (None, kept + 1));
    }
}

/// A store with some receipts.
fn world(lines: u128) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("state"));
    for host in 1..=lines {
        store.record(AT, &event(EventKind::Joined, host)).unwrap();
    }
    (folder, store)
}

fn event(kind: EventKind, host: u128) -> Event {
    let subject = Subject {
        default_gateway: None,
        host_id: Uuid::from_u128(host),
        interface: "enroll0".parse().unwrap(),
        keys: BTreeSet::from(["GLM4TRKX2A".to_owned()]),
        name: "one".into(),
        networks: BTreeMap::new(),
        public_key: PublicKey([1; 32]),
        server: "a.example".parse().unwrap(),
    };
    Event::new(kind, subject)
}

/// The beginning of 2026.
const AT: u64 = 1_767_225_600;
