//! What every link does, whoever carries its packets.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32};

use enroll_agent::{
    link::{self, LeftOut, Link, LinkError},
    model::{Backend, Device, Family, LinkState, Peer, PresharedKey, Route, Rule, Table},
    plan::{Change, diff},
};
use ipnet::IpNet;

use crate::{
    Case, On,
    tools::{bring, delete, device, device_of, name, net, nets, open, open_as, own_key, peer, peer_key},
};

macro_rules! cases {
    ($($name:ident)*) => {
        &[$(Case { name: stringify!($name), run: |on| Box::pin($name(on)) }),*]
    };
}
pub(crate) use cases;

/// For any link, memory included.
pub(crate) const EVERYWHERE: &[Case] = cases! {
    adds_updates_and_removes_peers
    applies_a_device_and_then_has_nothing_to_do
    changes_addresses_and_keeps_the_routes
    changes_endpoint_and_keepalive_in_place
    changes_mtu_port_and_key
    changes_routes_rules_and_mark
    clears_an_endpoint_by_making_the_peer_anew
    goes_down_and_up
    makes_a_blank_interface
    moves_an_allowed_ip
    removes_the_interface
    removes_what_is_left_of_an_earlier_plan
    sets_and_clears_a_preshared_key
};

/// For links with a real interface.
pub(crate) const REAL: &[Case] = cases! {
    carries_a_thousand_routes
    chooses_a_backend_that_works
    keeps_an_address_whose_neighbour_goes
    leaves_out_ipv6_where_it_is_disabled
    lists_interfaces
    leaves_out_a_route_that_is_taken
    names_what_was_refused_and_why
    notices_that_the_interface_was_deleted
    refuses_an_interface_of_somebody_else
    removes_its_rules_with_the_interface
    survives_a_port_that_is_taken
};

async fn makes_a_blank_interface(on: On) {
    let mut link = open(on).await;
    assert_eq!(link.observe().await.unwrap(), None);

    link.apply(&[Change::CreateInterface]).await.unwrap();

    assert_eq!(device_of(&mut link).await, Device::blank());
}

async fn applies_a_device_and_then_has_nothing_to_do(on: On) {
    let mut link = open(on).await;

    bring(&mut link, &device()).await;
    link.apply(&[]).await.unwrap();
    bring(&mut link, &device()).await;
}

async fn adds_updates_and_removes_peers(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    bring(&mut link, &want).await;

    want.peers.insert(peer_key(2), peer(["10.99.0.3/32"]));
    want.peers.insert(peer_key(3), Peer::default());
    bring(&mut link, &want).await;
    want.peers.get_mut(&peer_key(2)).unwrap().allowed_ips = nets(["10.99.0.3/32", "10.97.0.0/16"]);
    want.peers.get_mut(&peer_key(1)).unwrap().allowed_ips.remove(&net("10.98.0.0/16"));
    bring(&mut link, &want).await;
    want.peers.remove(&peer_key(1));
    bring(&mut link, &want).await;
}

async fn moves_an_allowed_ip(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    want.peers.insert(peer_key(2), peer(["10.99.0.3/32"]));
    bring(&mut link, &want).await;

    // To and fro: once from the smaller key to the larger, once back.
    for (from, to) in [(1, 2), (2, 1)] {
        want.peers.get_mut(&peer_key(from)).unwrap().allowed_ips.remove(&net("10.98.0.0/16"));
        want.peers.get_mut(&peer_key(to)).unwrap().allowed_ips.insert(net("10.98.0.0/16"));
        bring(&mut link, &want).await;
    }
    let swapped = [want.peers[&peer_key(1)].clone(), want.peers[&peer_key(2)].clone()];
    want.peers.get_mut(&peer_key(2)).unwrap().allowed_ips.clone_from(&swapped[0].allowed_ips);
    want.peers.get_mut(&peer_key(1)).unwrap().allowed_ips.clone_from(&swapped[1].allowed_ips);
    bring(&mut link, &want).await;
}

async fn changes_endpoint_and_keepalive_in_place(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    bring(&mut link, &want).await;

    let peer = want.peers.get_mut(&peer_key(1)).unwrap();
    peer.endpoint = Some("[2001:db8::2]:7".parse().unwrap());
    peer.persistent_keepalive = 5.try_into().ok();
    bring(&mut link, &want).await;
    want.peers.get_mut(&peer_key(1)).unwrap().persistent_keepalive = None;
    bring(&mut link, &want).await;
}

async fn clears_an_endpoint_by_making_the_peer_anew(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    bring(&mut link, &want).await;

    want.peers.get_mut(&peer_key(1)).unwrap().endpoint = None;
    bring(&mut link, &want).await;
}

async fn sets_and_clears_a_preshared_key(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    for key in [Some(PresharedKey([9; 32])), Some(PresharedKey([8; 32])), None] {
        want.peers.get_mut(&peer_key(1)).unwrap().preshared_key = key;
        bring(&mut link, &want).await;
    }
}

async fn changes_addresses_and_keeps_the_routes(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    bring(&mut link, &want).await;

    want.addresses = nets(["10.99.1.1/24", "fd99:1::1/64"]);
    bring(&mut link, &want).await;
    want.addresses.clear();
    want.routes.insert(Route::main(net("10.96.0.0/16")));
    bring(&mut link, &want).await;
    want.routes.clear();
    bring(&mut link, &want).await;
}

async fn keeps_an_address_whose_neighbour_goes(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    want.addresses = nets(["10.99.0.1/24", "10.99.0.7/24"]);
    bring(&mut link, &want).await;

    want.addresses.remove(&net("10.99.0.1/24"));
    bring(&mut link, &want).await;
}

async fn changes_mtu_port_and_key(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    bring(&mut link, &want).await;

    want.mtu = 1280;
    bring(&mut link, &want).await;
    want.listen_port = 51900.try_into().ok();
    bring(&mut link, &want).await;
    want.private_key = own_key(2);
    bring(&mut link, &want).await;
}

async fn changes_routes_rules_and_mark(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    bring(&mut link, &want).await;

    let own = |text: &str| Route::new(net(text), None, Table::Own);
    want.routes.extend([own("0.0.0.0/0"), own("::/0"), own("10.98.0.0/16")]);
    want.routes.insert(Route::new(net("10.94.0.0/16"), NonZeroU32::new(300), Table::Main));
    want.routes.insert(Route::new(net("fd94::/48"), NonZeroU32::new(300), Table::Main));
    want.rules = rules();
    want.fwmark = Some(name("enroll0").mark());
    bring(&mut link, &want).await;
    want.rules.pop_first();
    want.rules.pop_last();
    want.routes.remove(&own("0.0.0.0/0"));
    bring(&mut link, &want).await;
    // A mark lasts over other changes of the socket.
    want.listen_port = 51900.try_into().ok();
    bring(&mut link, &want).await;
    want = device();
    bring(&mut link, &want).await;
}

async fn goes_down_and_up(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    bring(&mut link, &want).await;

    want.state = LinkState::Down;
    want.routes.clear();
    bring(&mut link, &want).await;
    bring(&mut link, &device()).await;
}

async fn removes_the_interface(on: On) {
    let mut link = open(on).await;
    bring(&mut link, &device()).await;

    link.remove().await.unwrap();
    link.remove().await.unwrap();

    assert_eq!(link.observe().await.unwrap(), None);
    bring(&mut link, &device()).await;
}

async fn removes_what_is_left_of_an_earlier_plan(on: On) {
    let mut link = open(on).await;
    let planned = diff(None, &device());

    // As if the process had died half way through.
    link.apply(&planned[..planned.len() / 2]).await.unwrap();

    bring(&mut link, &device()).await;
}

async fn carries_a_thousand_routes(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    for number in 0..1000_u16 {
        let [high, low] = number.to_be_bytes();
        want.routes.insert(Route::main(IpNet::new([10, 50 + high, low, 0].into(), 24).unwrap()));
    }
    bring(&mut link, &want).await;

    want.routes.clear();
    bring(&mut link, &want).await;
}

async fn notices_that_the_interface_was_deleted(on: On) {
    let mut link = open(on).await;
    bring(&mut link, &device()).await;

    delete("enroll0").await;

    assert_eq!(link.observe().await.unwrap(), None);
    bring(&mut link, &device()).await;
}

async fn removes_its_rules_with_the_interface(on: On) {
    let mut link = open(on).await;
    let want = Device { rules: rules(), ..device() };
    bring(&mut link, &want).await;
    link.remove().await.unwrap();
    assert_eq!(link::sweep(&[]).await.unwrap(), 0);

    // As after a crash and the end of the interface.
    bring(&mut link, &want).await;
    delete("enroll0").await;
    assert_eq!(link::sweep(&[name("enroll0")]).await.unwrap(), 0, "whose interface may come again");
    let fewer = Device { rules: rules().into_iter().take(1).collect(), ..device() };
    assert_eq!(link.observe().await.unwrap(), None);
    link.apply(&diff(None, &fewer)).await.unwrap();
    assert_eq!(device_of(&mut link).await, fewer);
    delete("enroll0").await;
    assert_eq!(link::sweep(&[name("enroll1")]).await.unwrap(), 1);
    assert_eq!(link::sweep(&[]).await.unwrap(), 0);
}

fn rules() -> BTreeSet<Rule> {
    let ips: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let tables = [Table::Main, Table::Own];
    let of_ips = ips.into_iter().flat_map(|ip| {
        let from = tables.map(|table| Rule::From { source: ip, table });
        from.into_iter().chain([Rule::To(ip)])
    });
    let of_families = [Family::V4, Family::V6].map(|family| [Rule::Specific(family), Rule::Unmarked(family)]);
    of_ips.chain(of_families.into_iter().flatten()).collect()
}

pub(crate) fn routes<const N: usize>(texts: [&str; N]) -> BTreeSet<Route> {
    texts.map(|text| Route::main(net(text))).into()
}

async fn refuses_an_interface_of_somebody_else(on: On) {
    let mut owner = open_as(On::Userspace, "enroll0", own_key(1).public_key()).await;
    bring(&mut owner, &device()).await;
    let mut link = open_as(on, "enroll0", own_key(3).public_key()).await;

    let taken = Some("interface enroll0 belongs to something else".to_owned());
    assert_eq!(link.observe().await.err().map(|error| error.to_string()), taken);
    assert_eq!(link.apply(&diff(None, &device())).await.err().map(|error| error.to_string()), taken);
    assert_eq!(link.remove().await.err().map(|error| error.to_string()), taken);
    bring(&mut owner, &device()).await;
}

async fn leaves_out_a_route_that_is_taken(on: On) {
    let mut owner = open_as(On::Userspace, "enroll1", own_key(2).public_key()).await;
    let mut theirs = device();
    theirs.listen_port = 51999.try_into().ok();
    theirs.private_key = own_key(2);
    theirs.addresses = nets(["10.95.0.1/24"]);
    theirs.routes = routes(["10.94.7.0/24"]);
    bring(&mut owner, &theirs).await;
    let mut link = open(on).await;
    let mut want = device();
    want.routes = routes(["10.94.6.0/24", "10.94.7.0/24", "10.94.8.0/24"]);

    let left_out = link.apply(&diff(None, &want)).await.unwrap();

    assert_eq!(left_out, LeftOut { routes: routes(["10.94.7.0/24"]), ..LeftOut::default() });
    want.routes = routes(["10.94.6.0/24", "10.94.8.0/24"]);
    assert_eq!(device_of(&mut link).await, want);
    assert_eq!(device_of(&mut owner).await, theirs, "the other keeps its route");
}

async fn leaves_out_ipv6_where_it_is_disabled(on: On) {
    std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let mut link = open(on).await;

    let left_out = link.apply(&diff(None, &device())).await.unwrap();

    assert_eq!(
        left_out,
        LeftOut { addresses: nets(["fd99::1/64"]), routes: routes(["fd98::/48"]), ..LeftOut::default() }
    );
    let seen = device_of(&mut link).await;
    assert_eq!(seen.addresses, nets(["10.99.0.1/24"]));
    assert_eq!(seen.routes, routes(["10.98.0.0/16"]));
    assert_eq!(seen.state, LinkState::Up);
}

async fn names_what_was_refused_and_why(on: On) {
    let mut link = open(on).await;
    let mut want = device();
    want.state = LinkState::Down;
    want.routes.clear();
    bring(&mut link, &want).await;
    for (changes, expected) in [
        (
            vec![Change::AddAddress(net("10.99.0.7/24")), Change::AddAddress(net("10.99.0.1/24"))],
            "cannot add address 10.99.0.1/24 to interface enroll0: File exists (os error 17)",
        ),
        (
            vec![Change::RemoveAddress(net("10.99.0.7/24")), Change::RemoveAddress(net("fd99::7/64"))],
            "cannot remove address fd99::7/64 from interface enroll0: Cannot assign requested address (os error 99)",
        ),
        (
            vec![Change::AddRoute(Route::main(net("10.96.0.0/16")))],
            "cannot add route 10.96.0.0/16 to interface enroll0: Network is down (os error 100)",
        ),
        (
            vec![Change::RemoveRoute(Route::main(net("fd96::/48")))],
            "cannot remove route fd96::/48 from interface enroll0: No such process (os error 3)",
        ),
    ] {
        assert_eq!(told(&link.apply(&changes).await.unwrap_err()), expected);
    }
    assert_eq!(device_of(&mut link).await, want);
}

/// The error with its cause.
fn told(error: &LinkError) -> String {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    format!("{error}{cause}")
}

async fn survives_a_port_that_is_taken(on: On) {
    let other = std::net::UdpSocket::bind("0.0.0.0:51900").unwrap();
    let mut link = open(on).await;
    let mut want = device();
    bring(&mut link, &want).await;
    want.listen_port = 51900.try_into().ok();

    let error = link.apply(&diff(Some(&device()), &want)).await.unwrap_err();

    assert_eq!(told(&error), "cannot set listen port 51900 on interface enroll0: Address already in use (os error 98)");
    assert_eq!(device_of(&mut link).await, device());
    drop(other);
    bring(&mut link, &want).await;
}

async fn lists_interfaces(on: On) {
    let mut link = open(on).await;
    bring(&mut link, &device()).await;

    let names = link::interface_names().await.unwrap();

    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["enroll0", "lo"]);
}

async fn chooses_a_backend_that_works(on: On) {
    let chosen = link::choose(None).await.unwrap();
    let kernel = link::choose(Some(Backend::Kernel)).await;

    match chosen {
        Backend::Kernel => assert!(matches!(kernel, Ok(Backend::Kernel))),
        Backend::Userspace => assert!(matches!(kernel, Err(LinkError::Absent)) && on == On::Userspace),
    }
    assert!(matches!(link::choose(Some(Backend::Userspace)).await, Ok(Backend::Userspace)));
    assert!(!link::interface_names().await.unwrap().contains(name("enroll0").as_str()));
    assert_eq!(link::interface_names().await.unwrap().len(), 1, "the probe leaves nothing behind");
}
