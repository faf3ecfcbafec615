//! Checks of the check: the recorded pull, whole and spoiled.

use serde_json::{Value, json};

use super::*;

#[test]
fn reads_the_recorded_pull() {
    let assignment = check(|_| {}).unwrap();

    let plant = &assignment.nodes[&"plant-a".parse().unwrap()];
    let office = &assignment.nodes[&"office".parse().unwrap()];
    assert_eq!(plant.addresses, nets(&["10.101.0.3/16"]));
    assert_eq!(plant.relay.as_ref().map(|relay| relay.node_id.to_string()), Some(RELAY.to_owned()));
    assert_eq!(plant.tags, BTreeSet::from(["plant-a.line3".to_owned(), "plant-a.plc".to_owned()]));
    assert_eq!(office.addresses, nets(&["10.202.0.3/24", "fd00:202::3/64"]));
    assert_eq!(office.relay, None);
    assert!(assignment.access.is_open());
    assert_eq!(assignment.peers.len(), 2, "the third entry is a removal");
    assert_eq!((assignment.mtu, assignment.listen_port), (Some(1420), NonZeroU16::new(51821)));
    let relay = &assignment.peers.values().find(|peer| peer.endpoint.is_some()).unwrap();
    assert_eq!(relay.endpoint, "198.51.100.20:51821".parse().ok());
    assert_eq!(relay.persistent_keepalive, NonZeroU16::new(20));
    assert_eq!(relay.allowed_ips, nets(&["10.101.0.1/32", "10.101.0.2/32", "10.202.0.1/32", "fd00:202::1/128"]));
}

#[test]
fn names_the_value_that_cannot_be_used() {
    type Spoil = fn(&mut Value);
    let cases: [(Spoil, &str); 13] = [
        (|pull| pull["nodes"][0]["address"]["Mask"] = json!("/wD/AA=="), "network plant-a: address 10.101.0.3"),
        (|pull| pull["nodes"][0]["address"]["IP"] = json!("127.0.0.1"), "network plant-a: address 127.0.0.1"),
        (|pull| pull["nodes"][0]["address"]["Mask"] = json!("AAAAAA=="), "network plant-a: address 10.101.0.3"),
        (|pull| pull["nodes"][1]["address"]["IP"] = json!("10.101.9.9"), "overlap"),
        (|pull| pull["nodes"][1]["network"] = json!("plant-a"), "network plant-a is assigned twice"),
        (|pull| pull["nodes"][1]["network"] = json!("../x"), "a network has an unusable name"),
        (|pull| pull["peers"][2]["AllowedIPs"] = pull["peers"][0]["AllowedIPs"].clone(), "both claim"),
        (|pull| pull["peers"][0]["Endpoint"]["Port"] = json!(70000), "port 70000"),
        (|pull| pull["peers"][0]["PersistentKeepaliveInterval"] = json!(-1_000_000_000), "keepalive"),
        (|pull| pull["peers"][0]["PublicKey"] = json!(vec![0; 32]), "a peer has no key"),
        (|pull| pull["host"]["mtu"] = json!(100), "MTU 100"),
        (|pull| pull["host"]["mtu"] = json!(100_000), "MTU 100000"),
        (|pull| pull["host"]["listenport"] = json!(65536), "listen port 65536"),
    ];
    for (spoil, expected) in cases {
        let message = check(spoil).unwrap_err().to_string();

        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    }
}

#[test]
fn an_answer_for_another_host_or_key_is_refused() {
    let other = check(|pull| pull["host"]["id"] = json!("680b6391-5727-4de2-8464-078566bccb44"));
    let key = check(|pull| pull["host"]["publickey"] = json!(vec![7; 32]));

    assert!(matches!(other, Err(AssignmentError::ForeignHost(_))));
    assert_eq!(key, Err(AssignmentError::ForeignKey));
}

#[test]
fn our_own_key_among_the_peers_is_skipped_with_a_remark() {
    let assignment = check(|pull| pull["peers"][2]["PublicKey"] = pull["host"]["publickey"].clone()).unwrap();

    assert_eq!(assignment.peers.len(), 1);
    assert_eq!(assignment.remarks, BTreeSet::from([Remark::OwnKeyAmongPeers]));
}

#[test]
fn a_network_without_an_address_hinders_no_other() {
    let assignment = check(|pull| pull["nodes"][0]["address"] = json!({"IP": "", "Mask": "//8AAA=="})).unwrap();

    let plant: NetworkName = "plant-a".parse().unwrap();
    assert!(assignment.nodes[&plant].addresses.is_empty());
    assert!(!assignment.nodes[&"office".parse().unwrap()].addresses.is_empty());
    assert_eq!(assignment.remarks, BTreeSet::from([Remark::NetworkWithoutAddress(plant)]));
}

#[test]
fn an_egress_gateway_is_told_that_it_is_none() {
    let assignment = check(|pull| pull["fw_update"]["is_egress_gw"] = json!(true)).unwrap();

    assert_eq!(assignment.remarks, BTreeSet::from([Remark::EgressGatewayUnsupported]));
}

#[test]
fn an_empty_endpoint_waits_for_the_peer() {
    let assignment = check(|pull| pull["peers"][0]["Endpoint"]["Port"] = json!(0)).unwrap();

    assert!(assignment.peers.values().all(|peer| peer.endpoint.is_none()));
    assert!(matches!(assignment.remarks.first(), Some(Remark::EndpointWithoutPort(_))));
}

#[test]
fn a_membership_that_the_server_wants_gone_is_to_be_confirmed() {
    let pending = check(|pull| pull["nodes"][0]["pendingdelete"] = json!(true)).unwrap();
    let action = check(|pull| pull["nodes"][0]["action"] = json!("delete")).unwrap();

    for assignment in [pending, action] {
        assert!(!assignment.nodes.contains_key(&"plant-a".parse().unwrap()));
        assert!(assignment.leaving.contains_key(&"plant-a".parse().unwrap()));
    }
}

#[test]
fn nothing_at_all_is_a_host_that_waits() {
    let assignment = check(|pull| {
        for list in ["nodes", "peers", "egress_network_routes", "dns_nameservers"] {
            pull[list] = Value::Null;
        }
    });

    assert!(assignment.unwrap().nodes.is_empty());
}

#[test]
fn what_nobody_uses_may_be_anything() {
    let whole: Value = fixture("host-pull");
    let mut strange = whole.clone();
    for (part, value) in
        [("change_default_gw", json!("none")), ("dns_nameservers", json!({})), ("gw_nodes", json!([1]))]
    {
        strange[part] = value;
    }
    strange["nodes"][0]["static_node"] = json!(7);
    strange["fw_update"]["egress_info"] = json!(7);
    strange["host"]["created_at"] = json!("yesterday");
    strange["server_config"]["MetricsPort"] = json!("51821");
    assert!(serde_json::from_value::<wire::HostPull>(strange.clone()).is_err());

    let read = |pull: Value| -> wire::HostPull { serde_json::from_value(wire::essential::pull(pull)).unwrap() };

    let mut identity = someone();
    identity.host_id = whole["host"]["id"].as_str().unwrap().parse().unwrap();
    let known = |mut pull: wire::HostPull| {
        pull.host.public_key = identity.private_key.public_key().into();
        // What is said about names is nothing that a host could not do without.
        Assignment { names: Names::default(), ..assignment(&pull, &identity).unwrap() }
    };
    assert_eq!(known(read(strange.clone())), known(serde_json::from_value(whole).unwrap()));
    strange["host_network_info"] = json!([]);
    strange["server_config"]["StunServers"] = json!(7);
    let without = known(read(strange));
    assert_eq!((without.nearby.len(), without.stun.len(), without.peers.len()), (0, 0, 2));
}

#[test]
fn a_push_tells_where_peers_may_be_nearby_as_a_pull_does() {
    let mut update: wire::HostPeerUpdate = serde_json::from_value(fixture("host-peer-update")).unwrap();
    let mut identity = someone();
    identity.host_id = update.host.id;

    let wanted = pushed_peers(&update, &identity).unwrap();
    update.endpoint_detection_compat = false;
    let unwanted = pushed_peers(&update, &identity).unwrap();

    let places: BTreeSet<_> = wanted.nearby.values().flatten().copied().collect();
    assert_eq!(places, BTreeSet::from(["192.168.7.71:51821".parse().unwrap()]));
    assert!(unwanted.nearby.is_empty() && unwanted.peers == wanted.peers);
}

#[test]
fn an_unreadable_packet_filter_is_not_an_open_one() {
    let mut pull: Value = fixture("host-pull");
    pull["fw_update"]["acl_rules"] = json!("none");

    let read = serde_json::from_value::<wire::HostPull>(wire::essential::pull(pull));

    assert!(read.unwrap_err().to_string().contains("invalid type"));
}

#[test]
fn a_sub_second_keepalive_is_rounded_up() {
    let assignment = check(|pull| pull["peers"][0]["PersistentKeepaliveInterval"] = json!(1)).unwrap();

    assert!(assignment.peers.values().any(|peer| peer.persistent_keepalive == NonZeroU16::new(1)));
}

#[test]
fn relays_get_the_names_the_server_knows() {
    let mut assignment = check(|_| {}).unwrap();
    let answer: wire::Success<wire::PeerInfo> = fixture("peer-info-response");

    name_relays(&mut assignment, &answer.response.unwrap());

    let relay = assignment.nodes[&"plant-a".parse().unwrap()].relay.clone().unwrap();
    assert_eq!((relay.name.as_deref(), relay.address), (Some("relay-fra1"), "10.101.0.1".parse().ok()));
    assert!(assignment.peers.contains_key(&relay.public_key.unwrap()));
}

const RELAY: &str = "92097b8c-ee97-4a38-835b-a76596d11f90";

/// Checks the recorded pull after `spoil` changed it, as the host it was recorded for.
pub(super) fn check(spoil: impl FnOnce(&mut Value)) -> Result<Assignment, AssignmentError> {
    let mut pull: Value = fixture("host-pull");
    let mut identity = someone();
    identity.host_id = pull["host"]["id"].as_str().unwrap().parse().unwrap();
    // The recorded host's private key is nobody's: ours takes its place.
    pull["host"]["publickey"] = json!(identity.private_key.public_key().0);
    spoil(&mut pull);
    assignment(&serde_json::from_value(pull).unwrap(), &identity)
}

fn someone() -> Identity {
    let identity = Identity::generate(|buffer| {
        buffer.fill(3);
        Ok::<(), std::convert::Infallible>(())
    });
    identity.unwrap()
}

pub(super) fn fixture<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/tests/wire-examples/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
