use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn every_missing_or_wrong_field_is_named() {
    let (host, servers) = files([1; 32], [2; 32]);
    for field in ["id", "hostpass", "macaddress", "privatekey", "publickey", "traffickeyprivate", "traffickeypublic"] {
        let mut without = host.clone();
        without.as_object_mut().unwrap().remove(field);
        assert_eq!(said(&without, &servers), format!("netclient's netclient.json has no {field}"));
        let mut wrong = host.clone();
        wrong[field] = json!({ "SECRET": "SECRET" });
        let said = said(&wrong, &servers);
        assert!(said.starts_with(&format!("{field} in netclient's netclient.json is not ")), "{said}");
        assert!(!said.contains("SECRET"), "{said}");
    }
    assert_eq!(said(&host, &json!({})), "netclient is enrolled with no server");
    assert_eq!(said(&host, &json!({ "a": { "Server": "a" } })), "netclient's servers.json has no API");
    assert_eq!(said(&host, &json!([])), "netclient's servers.json is not a JSON object");
    let other = json!({ "a": { "API": "a.example", "mqid": Uuid::from_u128(9) } });
    assert_eq!(said(&host, &other), "mqid in netclient's servers.json is not the id in netclient.json");
    let mut foreign = host.clone();
    foreign["publickey"] = json!([9_u8; 32].to_vec());
    assert_eq!(
        said(&foreign, &servers),
        "publickey in netclient's netclient.json is not the public half of privatekey"
    );
}

#[test]
fn names_of_fields_count_whatever_their_case() {
    let (mut host, servers) = files([1; 32], [2; 32]);
    let id = host.as_object_mut().unwrap().remove("id").unwrap();
    host["ID"] = id;

    assert!(takeover(&host.to_string(), &servers.to_string()).is_ok());
}

#[test]
fn a_traffic_key_that_is_written_in_another_way_is_told() {
    let (mut host, servers) = files([1; 32], [2; 32]);
    let public = PrivateKey::from_bytes([2; 32]).public_key().0;
    host["traffickeypublic"] = BASE64.encode(&gob::encode(&public, Some(&[7; 32]))).into();

    let read = takeover(&host.to_string(), &servers.to_string()).unwrap();

    assert!(!read.is_push_readable);
}

proptest! {
    #[test]
    fn reads_what_go_writes(private in any::<[u8; 32]>(), traffic in any::<[u8; 32]>()) {
        prop_assume!(private != [0; 32]);
        let (host, servers) = files(private, traffic);

        let read = takeover(&host.to_string(), &servers.to_string()).unwrap();

        prop_assert_eq!(read.identity.private_key, PrivateKey::from_bytes(private));
        prop_assert_eq!(read.identity.traffic.private_key, PrivateKey::from_bytes(traffic));
        prop_assert_eq!(read.identity.mac.to_string(), "02:42:ac:11:00:02");
        prop_assert_eq!(read.identity.host_id, Uuid::from_u128(1));
        prop_assert_eq!(read.interface, "netmaker");
        prop_assert!(read.is_push_readable);
        let servers: Vec<_> = read.servers.values().map(ToString::to_string).collect();
        prop_assert_eq!(servers, ["a.example", "b.example:8443"]);
    }

    #[test]
    fn whatever_is_in_the_files_is_read_or_refused(host in texts(), servers in texts()) {
        let _ = takeover(&host, &servers);
    }
}

/// Anything from no JSON at all to a file with one field that is something else.
fn texts() -> impl Strategy<Value = String> {
    let values = prop_oneof![
        Just(json!(null)),
        Just(json!(-1)),
        Just(json!("")),
        Just(json!("AAAA")),
        Just(json!([1, 2, 300])),
        Just(json!({}))
    ];
    let fields = prop::sample::select(vec![
        "id",
        "hostpass",
        "macaddress",
        "privatekey",
        "publickey",
        "traffickeyprivate",
        "traffickeypublic",
        "a.example",
        "x",
    ]);
    let changed = (fields, values, any::<bool>()).prop_map(|(field, value, of_host)| {
        let (host, servers) = files([1; 32], [2; 32]);
        let mut document = if of_host { host } else { servers };
        document[field] = value;
        document.to_string()
    });
    prop_oneof![".*", changed]
}

fn said(host: &Value, servers: &Value) -> String {
    takeover(&host.to_string(), &servers.to_string()).unwrap_err().to_string()
}

/// The files of a host with two servers, as netclient writes them.
fn files(private: [u8; 32], traffic: [u8; 32]) -> (Value, Value) {
    let public = PrivateKey::from_bytes(private).public_key().0;
    let traffic_public = PrivateKey::from_bytes(traffic).public_key().0;
    let host = json!({
        "id": Uuid::from_u128(1),
        "hostpass": "SECRET",
        "interface": "netmaker",
        "macaddress": BASE64.encode(&[0x02, 0x42, 0xac, 0x11, 0x00, 0x02]),
        "publickey": public,
        "privatekey": private,
        "traffickeypublic": BASE64.encode(&gob::encode(&traffic_public, None)),
        "traffickeyprivate": BASE64.encode(&gob::encode(&traffic, None)),
    });
    let server =
        |api: &str| json!({ "API": api, "Server": "a", "mqid": Uuid::from_u128(1), "nodes": { "office": true } });
    (host, json!({ "a.example": server("a.example:443"), "b.example": server("b.example:8443") }))
}
