//! What happened between two looks at a membership.

use std::collections::BTreeMap;

use crate::model::{Event, EventKind, NetworkName, Part, PartGateway, Subject};

/// Tells what made `now` of `before`; `None` stands for a host that was not enrolled.
pub fn events(before: Option<&Subject>, now: &Subject) -> Vec<Event> {
    let event = |kind| Event::new(kind, now.clone());
    let Some(before) = before else { return vec![event(EventKind::Joined)] };
    let mut kinds = Vec::new();
    if !now.keys.is_subset(&before.keys) {
        kinds.push(EventKind::KeyRedeemed);
    }
    if before.public_key != now.public_key {
        kinds.push(EventKind::KeysRotated);
    }
    if own(before) != own(now) {
        kinds.push(EventKind::NetworksChanged);
    }
    let both = |network: &NetworkName| before.networks.contains_key(network) && now.networks.contains_key(network);
    let gateways = |subject: &Subject| -> BTreeMap<_, _> {
        let told = subject.networks.iter().filter(|(network, _)| both(network));
        told.map(|(network, part)| (network.clone(), gateway(part))).collect()
    };
    if gateways(before) != gateways(now) || before.default_gateway != now.default_gateway {
        kinds.push(EventKind::GatewayChanged);
    }
    kinds.into_iter().map(event).collect()
}

/// The networks without their gateways.
fn own(subject: &Subject) -> BTreeMap<NetworkName, Part> {
    let without = |part: &Part| Part { gateway: None, ..part.clone() };
    subject.networks.iter().map(|(network, part)| (network.clone(), without(part))).collect()
}

/// A gateway is the same under another name.
fn gateway(part: &Part) -> Option<uuid::Uuid> {
    part.gateway.as_ref().map(|PartGateway { address: _, name: _, node_id }| *node_id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;
    use crate::model::{Connection, PublicKey};

    #[test]
    fn each_change_is_told_by_its_kind() {
        let before = subject();
        let kinds = |change: fn(&mut Subject)| {
            let mut now = before.clone();
            change(&mut now);
            events(Some(&before), &now).iter().map(|event| event.kind).collect::<Vec<_>>()
        };

        assert_eq!(kinds(|_| {}), []);
        assert_eq!(kinds(|now| now.keys = BTreeSet::from(["A".into(), "B".into()])), [EventKind::KeyRedeemed]);
        assert_eq!(kinds(|now| now.public_key = PublicKey([2; 32])), [EventKind::KeysRotated]);
        assert_eq!(kinds(|now| now.networks.clear()), [EventKind::NetworksChanged]);
        let tagged = |now: &mut Subject| office(now).tags.extend(["office.new".to_owned()]);
        assert_eq!(kinds(tagged), [EventKind::NetworksChanged]);
        assert_eq!(kinds(|now| office(now).gateway = None), [EventKind::GatewayChanged]);
        assert_eq!(kinds(|now| now.default_gateway = "10.0.0.1".parse().ok()), [EventKind::GatewayChanged]);
        // Its name is learnt later.
        let named = |now: &mut Subject| office(now).gateway = Some(relay(Some("relay".into())));
        assert_eq!(kinds(named), []);
    }

    #[test]
    fn a_host_that_was_not_enrolled_has_joined() {
        let now = subject();

        assert_eq!(events(None, &now), [Event::new(EventKind::Joined, now)]);
    }

    fn office(subject: &mut Subject) -> &mut Part {
        subject.networks.get_mut(&"office".parse::<NetworkName>().unwrap()).unwrap()
    }

    fn relay(name: Option<String>) -> PartGateway {
        PartGateway { address: None, name, node_id: Uuid::from_u128(7) }
    }

    fn subject() -> Subject {
        let addresses = BTreeSet::from(["10.202.0.3/24".parse().unwrap()]);
        let (gateway, tags) = (Some(relay(None)), BTreeSet::new());
        let part = Part { addresses, connection: Connection::Connected, gateway, tags };
        Subject {
            default_gateway: None,
            host_id: Uuid::from_u128(1),
            interface: "enroll0".parse().unwrap(),
            keys: BTreeSet::from(["A".into()]),
            name: "one".into(),
            networks: BTreeMap::from([("office".parse().unwrap(), part)]),
            public_key: PublicKey([1; 32]),
            server: "a.example".parse().unwrap(),
        }
    }
}
