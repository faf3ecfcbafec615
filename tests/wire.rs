//! The server's documents and sealed messages, against recordings and vectors of the real server.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{collections::BTreeSet, fs, path::Path};

use data_encoding::{BASE64, HEXLOWER};
use enroll_agent::control::{
    seal::{self, PayloadKey, SealError, gob},
    wire::*,
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

#[test]
fn every_recorded_document_survives_re_encoding() {
    let mut seen = BTreeSet::new();
    let mut golden = |name: &str, again: fn(&str) -> Value| {
        let text = fs::read_to_string(Path::new("tests/wire-examples").join(name)).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();

        assert_eq!(again(&text), document, "{name}");

        seen.insert(name.to_owned());
    };

    golden("api-hosts.json", again::<Vec<ApiHost>>);
    golden("api-nodes.json", again::<Vec<ApiNode>>);
    golden("authenticate-request.json", again::<AuthRequest>);
    golden("authenticate-response.json", again::<Success<AuthToken>>);
    golden("enrollment-key-create-request.json", again::<ApiEnrollmentKey>);
    golden("enrollment-key-create-response.json", again::<EnrollmentKey>);
    golden("enrollment-key-list.json", again::<Vec<EnrollmentKey>>);
    golden("host-peer-update.json", again::<HostPeerUpdate>);
    golden("host-pull.json", again::<HostPull>);
    golden("host-update-join.json", again::<HostUpdate>);
    golden("host-update-req-ack.json", again::<HostUpdate>);
    golden("networks.json", again::<Vec<Network>>);
    golden("node-update-delete.json", again::<Node>);
    golden("node-update-relayed.json", again::<Node>);
    golden("peer-info-response.json", again::<Success<PeerInfo>>);
    golden("register-request.json", again::<Host>);
    golden("register-response.json", again::<RegisterResponse>);
    golden("server-status.json", again::<ServerStatus>);

    let all = fs::read_dir("tests/wire-examples").unwrap();
    let all: BTreeSet<_> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(seen, all);
}

#[test]
fn missing_null_and_unknown_keys_are_taken_as_go_takes_them() {
    assert_eq!(decode::<Host>("{}"), Host::default());
    assert_eq!(decode::<Node>(r#"{"id":null,"network":null,"connected":null,"tags":null,"new":[1]}"#), Node::default());
    assert_eq!(decode::<HostPull>(r#"{"host":null,"server_config":null,"peers":null}"#), HostPull::default());
    assert_eq!(
        decode::<HostPeerUpdate>(r#"{"host":null,"server":null,"default_gw_ip":null}"#),
        HostPeerUpdate::default()
    );
    assert_eq!(decode::<Success<AuthToken>>(r#"{"Code":200,"Message":"x"}"#).response, None);
}

#[test]
fn keys_that_differ_by_case_only_are_kept_apart() {
    let update: HostPeerUpdate =
        decode(r#"{"server":"small","Server":"large","peers":[],"Peers":[{"Remove":true}],"host_peers":null}"#);

    assert_eq!((update.server.as_str(), update.server_config.server.as_str()), ("small", "large"));
    assert_eq!(update.peers, Some(vec![]));
    assert_eq!(update.peers_compat.map(|peers| peers.len()), Some(1));
}

#[test]
fn unset_host_fields_are_left_out() {
    let sent = serde_json::to_value(Host::default()).unwrap();

    for key in ["created_at", "updated_at", "nat_type", "turn_endpoint"] {
        assert_eq!(sent.get(key), None, "{key}");
    }
    assert_eq!(sent["nodes"], Value::Null);
    assert_eq!(sent["isdefault"], false);
}

#[test]
fn keys_are_numbers_only() {
    let mut padded = [0; 32];
    padded[..2].copy_from_slice(&[1, 255]);

    assert_eq!(decode::<WgKey>("[1,255]"), WgKey(padded));
    assert_eq!(decode::<WgKey>("null"), WgKey::default());
    assert_eq!(decode::<WgKey>(&format!("{:?}", [7; 33])), WgKey([7; 32]));
    assert!(refusal::<WgKey>(r#""yNMtzNlL7UJxUFUlxVg9xrtxdaEGVqm9vd47sSbMRns=""#).contains("an array of 32 numbers"));
    assert!(refusal::<WgKey>("[256]").contains("256"));
}

#[test]
fn bytes_are_base64_null_or_numbers() {
    assert_eq!(decode::<GoBytes>(r#""AkKsEQAC""#).as_slice(), [0x02, 0x42, 0xac, 0x11, 0x00, 0x02]);
    assert_eq!(decode::<GoBytes>("[2,66]").as_slice(), [2, 66]);
    assert_eq!(decode::<GoBytes>("null"), GoBytes(None));
    assert!(refusal::<GoBytes>(r#""02:42:ac:11:00:02""#).contains("invalid"));
}

#[test]
fn addresses_are_text_or_nothing() {
    assert_eq!(decode::<GoIp>(r#""""#), GoIp(None));
    assert_eq!(decode::<GoIp>("null"), GoIp(None));
    assert_eq!(decode::<GoIp>(r#""::ffff:192.0.2.1""#), GoIp(Some([192, 0, 2, 1].into())));
    assert_eq!(serde_json::to_string(&GoIp(None)).unwrap(), r#""""#);
    assert!(refusal::<GoIp>(r#""192.0.2.300""#).contains("invalid IP address: 192.0.2.300"));
}

#[test]
fn networks_need_an_address_and_a_prefix_of_its_family() {
    let net = |text: &str| decode::<IpNet>(text).to_net();

    assert_eq!(net(r#"{"IP":"10.101.0.3","Mask":"//8AAA=="}"#), Ok(Some("10.101.0.3/16".parse().unwrap())));
    assert_eq!(net(r#"{"IP":"fd00::3","Mask":"//////////8AAAAAAAAAAA=="}"#), Ok(Some("fd00::3/64".parse().unwrap())));
    assert_eq!(net(r#"{"IP":"0.0.0.0","Mask":"AAAAAA=="}"#), Ok(Some("0.0.0.0/0".parse().unwrap())));
    assert_eq!(net(r#"{"IP":"","Mask":null}"#), Ok(None));
    assert_eq!(net(r#"{"IP":"","Mask":"//8AAA=="}"#), Ok(None));
    let address = [10, 101, 0, 3].into();
    assert_eq!(net(r#"{"IP":"10.101.0.3","Mask":null}"#), Err(NetError::MaskLength { address, length: 0 }));
    assert_eq!(net(r#"{"IP":"10.101.0.3","Mask":"/wD/AA=="}"#), Err(NetError::NotContiguous(address)));
    let mixed = net(r#"{"IP":"10.101.0.3","Mask":"//////////8AAAAAAAAAAA=="}"#);
    assert_eq!(mixed, Err(NetError::MaskLength { address, length: 16 }));
    assert!(refusal::<IpNet>(r#""10.101.0.3/16""#).contains("invalid type: string"));
}

#[test]
fn endpoints_without_an_address_are_none_and_ports_are_checked() {
    let socket = |text: &str| decode::<UdpAddr>(text).to_socket();

    assert_eq!(socket(r#"{"IP":"","Port":34111,"Zone":""}"#), Ok(None));
    assert_eq!(socket(r#"{"IP":"192.0.2.1","Port":34111}"#), Ok(Some("192.0.2.1:34111".parse().unwrap())));
    assert_eq!(socket(r#"{"IP":"192.0.2.1","Port":70000}"#), Err(NetError::Port(70000)));
    assert_eq!(socket(r#"{"IP":"192.0.2.1","Port":-1}"#), Err(NetError::Port(-1)));
}

#[test]
fn times_keep_their_text() {
    let text = r#""2026-11-23T17:41:32.390123125+02:00""#;
    let time: GoTime = decode(text);

    assert_eq!(serde_json::to_string(&time).unwrap(), text);
    assert_eq!(time.unix_seconds(), 1_795_448_492);
    assert!(GoTime::default().is_zero());
    assert!(decode::<GoTime>("null").is_zero());
    assert_eq!(json!(GoTime::from_unix(1_798_761_600, 0)), json!("2027-01-01T00:00:00Z"));
    assert!(refusal::<GoTime>(r#""""#).contains("not RFC 3339"));
}

#[test]
fn unknown_actions_are_kept() {
    let update: HostUpdate = decode(r#"{"Action":"DANCE"}"#);

    assert_eq!(update.action, HostAction::Other("DANCE".to_owned()));
    assert_eq!(json!(update)["Action"], "DANCE");
    assert_eq!(HostAction::from("REQ_PULL".to_owned()), HostAction::RequestPull);
}

#[test]
fn secrets_are_never_shown() {
    let key: EnrollmentKey = decode(r#"{"value":"SESAME","token":"SESAME"}"#);
    let host: Host = decode(r#"{"hostpass":"SESAME"}"#);
    let config: ServerConfig = decode(r#"{"MQPassword":"SESAME"}"#);
    let auth: AuthRequest = decode(r#"{"password":"SESAME"}"#);
    let token: AuthToken = decode(r#"{"AuthToken":"SESAME"}"#);
    let peer: PeerConfig = decode(r#"{"PresharedKey":[83,69,83]}"#);

    let shown = format!("{key:?}{host:?}{config:?}{auth:?}{token:?}{peer:?}");

    assert!(!shown.contains("SESAME") && !shown.contains("U0VT"), "{shown}");
    assert!(shown.contains("Secret(…)"));
    assert_eq!(host.password.expose(), "SESAME");
}

#[test]
fn traffic_key_matches_the_recorded_vectors() {
    let key = hex32("0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8");
    let encoded = gob::encode(&key, None);

    assert_eq!(
        HEXLOWER.encode(&encoded),
        "0d7f010102ff800001060140000034ff80002000081018202830384048505860687078ff80ff88ff90ff98ffa0ffa8ffb0ffb8ffc0ffc8\
         ffd0ffd8ffe0ffe8fff0fff8"
    );
    assert_eq!(
        BASE64.encode(&encoded),
        "DX8BAQL/gAABBgFAAAA0/4AAIAAIEBggKDA4QEhQWGBocHj/gP+I/5D/mP+g/6j/sP+4/8D/yP/Q/9j/4P/o//D/+A=="
    );
    assert_eq!(gob::decode(&encoded), Ok(key));
    let zero = [&HEXLOWER.decode(b"0d7f010102ff800001060140000024ff800020").unwrap()[..], &[0; 32]].concat();
    assert_eq!(gob::encode(&[0; 32], None), zero);
    assert_eq!(gob::decode(&zero), Ok([0; 32]));
}

#[test]
fn traffic_key_with_a_random_type_name_hides_26_bytes_in_the_payload_key() {
    let name: [u8; 32] = std::array::from_fn(|i| 0x90 + u8::try_from(i).unwrap());
    let encoded = gob::encode(&[9; 32], Some(&name));

    assert_eq!(encoded[..6], [0x2f, 0x7f, 0x01, 0x01, 0x01, 0x20]);
    assert_eq!(encoded[6..38], name);
    assert_eq!(HEXLOWER.encode(&encoded[38..53]), "01ff80000106014000002 4ff800020".replace(' ', ""));
    assert_eq!(gob::decode(&encoded), Ok([9; 32]));
    assert_eq!(PayloadKey::from_traffic_key(&encoded).unwrap(), PayloadKey::from_traffic_key(&encoded[..32]).unwrap());
}

#[test]
fn traffic_key_may_have_any_type_id() {
    let other_id = HEXLOWER.decode(b"0eff81010102ff820001060140000024ff820020").unwrap();

    assert_eq!(gob::decode(&[&other_id[..], &[5; 32]].concat()), Ok([5; 32]));
}

#[test]
fn what_is_not_a_32_byte_array_is_no_traffic_key() {
    let good = gob::encode(&[5; 32], None);
    let slice = [&[0x23, 0x0a, 0x00, 0x20][..], &[5; 32]].concat();
    let changed = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        gob::decode(&bad)
    };

    assert_eq!(gob::decode(&slice), Err(gob::GobError::UndefinedType));
    assert!(gob::decode(&[5; 32]).is_err());
    assert_eq!(gob::decode(&[]), Err(gob::GobError::Truncated));
    assert_eq!(gob::decode(&good[..50]), Err(gob::GobError::Truncated));
    assert_eq!(changed(2, 2), Err(gob::GobError::NotAnArray));
    assert_eq!(changed(9, 4), Err(gob::GobError::NotNumbers));
    assert_eq!(changed(11, 0x3e), Err(gob::GobError::Length(31)));
    assert_eq!(changed(18, 0x1f), Err(gob::GobError::Length(31)));
}

#[test]
fn payload_matches_the_recorded_vector() {
    let traffic_key = gob::encode(&hex32("0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8"), None);
    let key = PayloadKey::from_traffic_key(&traffic_key).unwrap();
    let payload = HEXLOWER
        .decode(
            b"000102030405060708090a0be9c1d58f4ab0cd111330310d9e39155a8f873ba0904d34e916f89d37e28cd3897d97d5f5e05a4030\
              a209c564317e38ccc7c107da88fa82589e",
        )
        .unwrap();

    let opened = seal::open_payload(&key, &payload, 1000).unwrap();

    assert_eq!(opened, br#"{"Action":"REQ_PULL"}"#);
    assert_eq!(seal::open_payload(&key, &seal::seal_payload(&key, [3; 12], &opened), 1000).unwrap(), opened);
}

#[test]
fn payloads_that_are_not_ours_are_refused() {
    let key = PayloadKey::from_traffic_key(&[1; 32]).unwrap();
    let other = PayloadKey::from_traffic_key(&[2; 40]).unwrap();
    let payload = seal::seal_payload(&key, [0; 12], &[b'x'; 5000]);

    assert!(matches!(PayloadKey::from_traffic_key(&[1; 31]), Err(SealError::TrafficKey(31))));
    assert!(matches!(seal::open_payload(&other, &payload, 5000), Err(SealError::Broken)));
    assert!(matches!(seal::open_payload(&key, &payload[..11], 5000), Err(SealError::TooShort(11))));
    assert!(matches!(seal::open_payload(&key, &payload, 4999), Err(SealError::TooLarge(4999))));
    assert_eq!(seal::open_payload(&key, &payload, 5000).unwrap().len(), 5000);
}

#[test]
fn box_matches_the_recorded_vector() {
    let server = hex32("a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209");
    let client = hex32("ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59");
    let nonce = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let expected = "000102030405060708090a0b0c0d0e0f1011121314151617c05b46d1601952a9c04439f297859c1099edc2a0ee5889589b6c\
                    5a868fd72585";
    let traffic_key = "0d7f010102ff800001060140000037ff800020ffa4ffe0ff92ff92ffb651ffc278ffb9772c56ff9f5fffa9ffbb13ffd9\
                       06ffb46affb6ff8cff9dfff9ffdc2b4409fff8ffa209";

    let sealed = seal::seal_box(&server, &[2; 32], br#"{"Action":"ACK"}"#, || nonce);

    assert_eq!(HEXLOWER.encode(&sealed), expected);
    assert_eq!(seal::open_box(&client, &[1; 32], &sealed).unwrap(), br#"{"Action":"ACK"}"#);
    assert_eq!(HEXLOWER.encode(&gob::encode(&server, None)), traffic_key);
}

#[test]
fn boxes_that_are_not_ours_are_refused() {
    let server = hex32("a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209");
    let client = hex32("ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59");
    let sealed = seal::seal_box(&server, &[2; 32], b"hello", seal::random);

    assert!(matches!(seal::open_box(&client, &[3; 32], &sealed), Err(SealError::Broken)));
    assert!(matches!(seal::open_box(&client, &[1; 32], &sealed[..23]), Err(SealError::TooShort(23))));
    assert!(matches!(seal::open_box(&client, &[1; 32], &sealed[..30]), Err(SealError::Broken)));
}

proptest! {
    #[test]
    fn any_traffic_key_survives(key: [u8; 32], name: Option<[u8; 32]>) {
        prop_assert_eq!(gob::decode(&gob::encode(&key, name.as_ref())), Ok(key));
    }

    #[test]
    fn decoding_a_traffic_key_never_panics(bytes: Vec<u8>) {
        let _: Result<_, _> = gob::decode(&bytes);
    }

    #[test]
    fn any_payload_survives(key: [u8; 32], nonce: [u8; 12], message: Vec<u8>) {
        let key = PayloadKey::from_traffic_key(&key).unwrap();
        let sealed = seal::seal_payload(&key, nonce, &message);
        prop_assert_eq!(seal::open_payload(&key, &sealed, message.len()).unwrap(), message);
    }

    #[test]
    fn any_box_survives(length in 1_usize..50_000, byte: u8) {
        let server = hex32("a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209");
        let client = hex32("ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59");
        let message = vec![byte; length];
        let sealed = seal::seal_box(&server, &[2; 32], &message, seal::random);
        prop_assert_eq!(seal::open_box(&client, &[1; 32], &sealed).unwrap(), message);
    }
}

fn again<T: DeserializeOwned + Serialize>(text: &str) -> Value {
    serde_json::to_value(serde_json::from_str::<T>(text).unwrap()).unwrap()
}

fn decode<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

fn refusal<T: DeserializeOwned>(text: &str) -> String {
    serde_json::from_str::<T>(text).err().unwrap().to_string()
}

fn hex32(text: &str) -> [u8; 32] {
    HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
}
