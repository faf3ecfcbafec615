//! What this host says about itself to the server: public facts only.

use std::{net::IpAddr, num::NonZeroU16};

use uuid::Uuid;

use super::{seal, wire};
use crate::{
    model::{Facts, Identity, Mac, Membership, Nat, Outside, Policy, Secret},
    plan::DEFAULT_MTU,
};

/// Writes the host document for a registration.
///
/// It always is the complete one: a field left out would be cleared on the server (protocol page, "Check-in").
pub fn host(membership: &Membership, facts: &Facts, listen_port: NonZeroU16) -> wire::Host {
    let Membership { identity, interface, policy, .. } = membership;
    let Identity { former_key: _, host_id, mac: Mac(mac), next_key: _, password, private_key: _, traffic } = identity;
    let assigned_mtu = membership.enrolled().and_then(|enrolled| enrolled.assignment.mtu);
    let Endpoint { nat, port: public_port, v4, v6 } = endpoint(policy, &facts.outside, listen_port);
    let interfaces = facts.interfaces.iter().map(|(name, net)| wire::HostInterface {
        name: name.clone(),
        address: (*net).into(),
        address_text: String::new(),
    });
    wire::Host {
        id: *host_id,
        firewall_in_use: facts.firewall.to_owned(),
        version: PROTOCOL_VERSION.to_owned(),
        ip_forwarding: facts.ip_forwarding,
        daemon_installed: true,
        password: password.clone(),
        name: policy.name.clone().unwrap_or_else(|| host_name(&facts.host_name, *host_id)),
        os: "linux".to_owned(),
        os_family: facts.os_family.clone(),
        os_version: facts.os_version.clone(),
        kernel_version: facts.kernel_version.clone(),
        interface: interface.to_string(),
        listen_port: listen_port.get().into(),
        public_listen_port: public_port.into(),
        mtu: policy.mtu.or(assigned_mtu).unwrap_or(DEFAULT_MTU).into(),
        public_key: identity.announced_key().into(),
        mac_address: mac.as_slice().into(),
        traffic_key_public: seal::gob::encode(&traffic.private_key.public_key().0, traffic.name.as_ref())
            .as_slice()
            .into(),
        nodes: None,
        interfaces: Some(interfaces.collect()),
        default_interface: facts.default_interface.clone(),
        endpoint_ip: wire::GoIp(v4),
        endpoint_ipv6: wire::GoIp(v6),
        is_docker: facts.in_container,
        // Peers use the listen port of a host that has this, which is not what a port forwarded from another one needs.
        is_static_port: policy.listen_port.is_some_and(|port| [0, port.get()].contains(&public_port)),
        is_static: policy.endpoint.is_some(),
        is_default: false,
        nat_type: nat.word().to_owned(),
        location: UNKNOWN_LOCATION.to_owned(),
        country_code: UNKNOWN_COUNTRY.to_owned(),
        ..wire::Host::default()
    }
}

/// Where peers reach this host.
struct Endpoint {
    nat: Nat,
    /// Zero is the listen port, also when the server moves that one.
    port: u16,
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

/// What the owner says goes before what was found; a host that nobody reaches is behind something.
fn endpoint(policy: &Policy, outside: &Outside, listen_port: NonZeroU16) -> Endpoint {
    let fixed = policy.listen_port.map_or(0, NonZeroU16::get);
    if let Some(endpoint) = policy.endpoint {
        let port = if endpoint.port() == 0 { fixed } else { endpoint.port() };
        let ip = Some(endpoint.ip());
        return Endpoint { nat: Nat::Public, port, v4: ip.filter(IpAddr::is_ipv4), v6: ip.filter(IpAddr::is_ipv6) };
    }
    let main = outside.main();
    let found = main.and_then(|seen| seen.port_of(listen_port)).filter(|port| *port != listen_port.get());
    Endpoint {
        nat: main.map_or(Nat::BehindNat, |seen| seen.nat),
        port: if fixed == 0 { found.unwrap_or(0) } else { fixed },
        v4: outside.v4.map(|seen| seen.address.ip()),
        v6: outside.v6.map(|seen| seen.address.ip()),
    }
}

/// Writes a check-in: the host document without the password, which a check-in cannot change.
pub fn check_in(membership: &Membership, facts: &Facts, listen_port: NonZeroU16) -> wire::HostUpdate {
    let host = wire::Host { password: Secret::default(), ..host(membership, facts, listen_port) };
    wire::HostUpdate { action: wire::HostAction::CheckIn, host, ..wire::HostUpdate::default() }
}

/// Writes an update of the host's own settings: the complete document without the password, which it cannot change.
pub fn update_host(membership: &Membership, facts: &Facts, listen_port: NonZeroU16) -> wire::HostUpdate {
    wire::HostUpdate { action: wire::HostAction::UpdateHost, ..check_in(membership, facts, listen_port) }
}

/// Writes a host document that every server refuses for its version, with nothing in it that identifies this host.
pub fn inadmissible_host(membership: &Membership, facts: &Facts, listen_port: NonZeroU16) -> wire::Host {
    wire::Host {
        id: Uuid::new_v4(),
        name: String::new(),
        password: Secret::default(),
        public_key: wire::WgKey::default(),
        version: INADMISSIBLE_VERSION.to_owned(),
        ..host(membership, facts, listen_port)
    }
}

/// What the server tells others of this host: its public addresses, and whether it relays for them.
pub fn told_of_host(pull: &wire::HostPull) -> (Vec<IpAddr>, bool) {
    let endpoints = [pull.host.endpoint_ip, pull.host.endpoint_ipv6].into_iter().filter_map(|ip| ip.0);
    let relays = pull.nodes.iter().flatten().any(|node| node.is_relay || node.is_gateway);
    (endpoints.filter(|ip| !ip.is_unspecified()).collect(), relays)
}

/// The machine's name, unless it has none of its own yet, as images on first boot.
fn host_name(name: &str, host_id: Uuid) -> String {
    match name {
        "" | "(none)" | "localhost" => format!("host-{}", &host_id.simple().to_string()[..8]),
        name => name.to_owned(),
    }
}

/// Below every server's lowest.
const INADMISSIBLE_VERSION: &str = "v0.0.1";

/// The protocol level we speak. A server refuses a smaller one than 0.17, and encrypts otherwise below 0.30.
const PROTOCOL_VERSION: &str = "v1.5.1";

/// An empty location makes the server look one up inside the request, without a timeout.
const UNKNOWN_LOCATION: &str = "0,0";

/// ISO 3166 user-assigned code for "unknown".
const UNKNOWN_COUNTRY: &str = "ZZ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Phase, Redeeming, Seen};

    #[test]
    fn says_what_the_protocol_wants_and_nothing_private() {
        let membership = membership(Policy::default());

        let sent = serde_json::to_value(host(&membership, &Facts::default(), PORT)).unwrap();

        assert_eq!(sent["nodes"], serde_json::Value::Null);
        assert_eq!((sent["isdefault"].as_bool(), sent["isstatic"].as_bool()), (Some(false), Some(false)));
        assert_eq!((sent["endpointip"].as_str(), sent["nat_type"].as_str()), (Some(""), Some("behind_nat")));
        assert_eq!((sent["listenport"].as_u64(), sent["wg_public_listen_port"].as_u64()), (Some(51821), Some(0)));
        assert_eq!(sent["version"], "v1.5.1");
        assert!(sent["location"].as_str().is_some_and(|text| !text.is_empty()));
        for absent in ["created_at", "updated_at", "turn_endpoint", "privatekey", "traffickeyprivate"] {
            assert!(sent.get(absent).is_none(), "{absent} was sent");
        }
        let key = data_encoding::BASE64.decode(sent["traffickeypublic"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(seal::gob::decode(&key).unwrap(), membership.identity.traffic.private_key.public_key().0);
        assert!(
            key.windows(32)
                .any(|window| Some(window) == membership.identity.traffic.name.as_ref().map(|name| &name[..])),
            "the type name is ours"
        );
    }

    #[test]
    fn a_configured_endpoint_is_static_and_may_have_its_own_port() {
        let endpoint = "192.0.2.7:4500".parse().ok();
        let membership = membership(Policy { endpoint, ..Policy::default() });

        let sent = host(&membership, &Facts::default(), PORT);

        assert_eq!(sent.endpoint_ip.0, "192.0.2.7".parse().ok());
        assert_eq!((sent.listen_port, sent.public_listen_port), (51821, 4500));
        assert!(sent.is_static && sent.nat_type == "public");
    }

    #[test]
    fn a_forwarded_port_goes_before_a_fixed_one() {
        let listen_port = Some(PORT);
        let forwarded = Policy { endpoint: "192.0.2.7:4500".parse().ok(), listen_port, ..Policy::default() };
        let fixed = Policy { endpoint: "192.0.2.7:0".parse().ok(), listen_port, ..Policy::default() };

        let forwarded = host(&membership(forwarded), &Facts::default(), PORT);
        let fixed = host(&membership(fixed), &Facts::default(), PORT);

        assert_eq!((forwarded.is_static_port, forwarded.public_listen_port), (false, 4500));
        assert_eq!((fixed.is_static_port, fixed.public_listen_port), (true, 51821));
    }

    #[test]
    fn what_was_found_is_told_unless_the_owner_knows_better() {
        let seen = |address: &str, nat| Some(Seen { address: address.parse().unwrap(), asked_from: PORT, nat });
        let v4 = seen("198.51.100.7:40000", Nat::BehindNat);
        let outside = Outside { v4, v6: seen("[2001:db8::7]:51821", Nat::Public) };
        let facts = Facts { outside, ..Facts::default() };
        let given = Policy { endpoint: "192.0.2.7:0".parse().ok(), ..Policy::default() };
        let fixed = Policy { listen_port: Some(PORT), ..Policy::default() };
        let other_port = NonZeroU16::new(51822).unwrap();

        let found = host(&membership(Policy::default()), &facts, PORT);
        let given = host(&membership(given), &facts, PORT);
        let fixed = host(&membership(fixed), &facts, PORT);
        let moved = host(&membership(Policy::default()), &facts, other_port);
        let only6 = Facts { outside: Outside { v4: None, ..outside }, ..Facts::default() };
        let only6 = host(&membership(Policy::default()), &only6, PORT);

        assert_eq!(
            (found.endpoint_ip.0, found.endpoint_ipv6.0),
            ("198.51.100.7".parse().ok(), "2001:db8::7".parse().ok())
        );
        assert_eq!((found.public_listen_port, &*found.nat_type, found.is_static), (40000, "behind_nat", false));
        assert_eq!((given.endpoint_ip.0, given.endpoint_ipv6.0), ("192.0.2.7".parse().ok(), None));
        assert_eq!((given.public_listen_port, &*given.nat_type, given.is_static), (0, "public", true));
        assert_eq!((fixed.public_listen_port, fixed.is_static_port, fixed.is_static), (51821, true, false));
        assert_eq!(moved.public_listen_port, 0, "asked from another port");
        assert_eq!((only6.endpoint_ip.0, only6.public_listen_port, &*only6.nat_type), (None, 0, "public"));
    }

    #[test]
    fn a_machine_without_a_name_is_told_apart() {
        let id = "0c58cfdc-ce0a-44b4-b6ad-58836c4ec152".parse().unwrap();

        assert_eq!(host_name("edge-gw-17", id), "edge-gw-17");
        assert_eq!(host_name("(none)", id), "host-0c58cfdc");
        assert_eq!(host_name("localhost", id), "host-0c58cfdc");
    }

    #[test]
    fn a_check_in_carries_no_password() {
        let sent = check_in(&membership(Policy::default()), &Facts::default(), PORT);

        assert!(sent.host.password.is_empty() && sent.action == wire::HostAction::CheckIn);
    }

    const PORT: NonZeroU16 = NonZeroU16::new(51821).unwrap();

    fn membership(policy: Policy) -> Membership {
        let mut next = 0_u8;
        let identity = Identity::generate(|buffer| {
            buffer.fill_with(|| {
                next = next.wrapping_add(1);
                next
            });
            Ok::<(), std::convert::Infallible>(())
        });
        let redeeming = Redeeming {
            attempts: 0,
            baseline: None,
            fingerprint: String::new(),
            sent_at: None,
            token: Secret::default(),
        };
        Membership {
            binding: None,
            identity: identity.unwrap(),
            interface: "enroll0".parse().unwrap(),
            phase: Phase::Pending { redeeming },
            last_check_in: None,
            outside: Outside::default(),
            policy,
            sent: std::collections::BTreeSet::new(),
            server: "api.example.net".parse().unwrap(),
            switch: crate::model::Switch::On,
        }
    }
}
