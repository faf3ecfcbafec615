//! Where a host is seen from outside, and how neighbours find each other.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use enroll_agent::{
    control::wire::Host,
    mock_server::{Discovery, Options},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    lab::{Case, Lab, Node, Process, eventually},
    status::{peers, stop, wait_for},
    world::{DONE, JOINED, NOTICED, World, address},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_join_tells_where_the_host_is_seen", a_join_tells_where_the_host_is_seen),
        ("a_host_without_nat_is_public", a_host_without_nat_is_public),
        ("a_silent_stun_server_holds_nobody_up", a_silent_stun_server_holds_nobody_up),
        ("only_the_family_that_is_answered_rightly_counts", only_the_family_that_is_answered_rightly),
        ("the_owner_decides_who_is_asked", the_owner_decides_who_is_asked),
        ("a_fixed_port_and_a_given_endpoint_are_not_touched", a_fixed_port_and_a_given_endpoint),
        ("a_host_that_is_seen_elsewhere_tells_so", a_host_that_is_seen_elsewhere_tells_so),
        ("neighbours_behind_one_nat_find_each_other_at_once", neighbours_behind_one_nat),
        ("neighbours_with_endpoints_that_lead_nowhere_find_each_other", neighbours_with_wrong_endpoints),
        ("nobody_is_looked_for_nearby_unless_the_server_wants_it", nobody_is_looked_for_unasked),
    ]
}

fn a_join_tells_where_the_host_is_seen(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let (v4, v6) =
        (Stun::at(Lab::V4, mapped("198.51.100.7:40000"))?, Stun::at(Lab::V6, mapped("[2001:db8::7]:51821"))?);
    let world = World::with(lab, naming(&[&v4, &v6]))?;

    let (_serving, result) = join(&world, &node, &[])?;

    let host = host(&world)?;
    assert_eq!(host.endpoint_ip.0, "198.51.100.7".parse().ok());
    assert_eq!(host.endpoint_ipv6.0, "2001:db8::7".parse().ok());
    assert_eq!((host.listen_port, host.public_listen_port), (51821, 40000));
    assert_eq!((&*host.nat_type, host.is_static, host.is_static_port), ("behind_nat", false, false));
    assert_eq!(v4.heard()[0], SocketAddr::new(node.v4.into(), 51821), "asked from WireGuard's own port");
    assert_eq!(v6.heard()[0], SocketAddr::new(node.v6.into(), 51821));
    let shown = serde_json::json!([
        {"address": "198.51.100.7", "nat": "behind_nat", "port": 40000},
        {"address": "2001:db8::7", "nat": "behind_nat", "port": 51821},
    ]);
    assert_eq!(result["public_endpoints"], shown);
    Ok(())
}

fn a_host_without_nat_is_public(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let stun = Stun::at(Lab::V4, Answer::Mirror)?;
    let world = World::with(lab, naming(&[&stun]))?;

    let (_serving, first) = join(&world, &one, &[])?;
    let known = host(&world)?;
    let (_other, _) = join(&world, &two, &[])?;

    assert_eq!((known.endpoint_ip.0, known.public_listen_port), (Some(one.v4.into()), 0));
    assert_eq!(known.nat_type, "public");
    let pings = two.ping(address(&first, "office", 0)?, 3, DONE)?;
    ensure!(pings.replies.len() >= 3, "{pings:?}");
    Ok(())
}

fn a_silent_stun_server_holds_nobody_up(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let stun = Stun::at(Lab::V4, Answer::Nothing)?;
    let options = Options { node_delay: Duration::ZERO, ..naming(&[&stun]) };
    let world = World::with(lab, options)?;

    let (_serving, result) = join(&world, &node, &[])?;

    let timings = result["timings_ms"].as_object().context("no timings")?;
    let sum: f64 = timings.values().filter_map(Value::as_f64).sum();
    assert!(sum < 1000.0, "{timings:?}");
    assert!(!stun.heard().is_empty());
    assert_eq!(result["public_endpoints"], serde_json::json!([]));
    assert_eq!((host(&world)?.endpoint_ip.0, &*host(&world)?.nat_type), (None, "behind_nat"));
    Ok(())
}

fn only_the_family_that_is_answered_rightly(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let wrong = Answer::WrongTransaction("198.51.100.9:1".parse()?);
    let (v4, v6) = (Stun::at(Lab::V4, wrong)?, Stun::at(Lab::V6, Answer::Mirror)?);
    let world = World::with(lab, naming(&[&v4, &v6]))?;

    let (_serving, result) = join(&world, &node, &[])?;

    let host = host(&world)?;
    assert_eq!((host.endpoint_ip.0, host.endpoint_ipv6.0), (None, Some(node.v6.into())));
    assert_eq!(host.nat_type, "public");
    assert!(!v4.heard().is_empty());
    assert_eq!(result["public_endpoints"].as_array().map(Vec::len), Some(1), "{result}");
    Ok(())
}

fn the_owner_decides_who_is_asked(lab: &mut Lab) -> Result<()> {
    let (one, two, three) = (lab.node("one")?, lab.node("two")?, lab.node("three")?);
    let named = Stun::at(Lab::V4, mapped("198.51.100.7:40000"))?;
    let own = Stun::at(Lab::V4, mapped("198.51.100.8:40000"))?;
    let world = World::with(lab, naming(&[&named]))?;
    let own_server = own.address.to_string();

    let (_off, _) = join(&world, &one, &["--stun", "off"])?;
    let (_own, asked) = join(&world, &two, &["--stun", &own_server])?;
    world.configure(&three, &format!("stun = [\"{own_server}\"]\n"))?;
    let config = world.own(&three).join("agent.toml").display().to_string();
    let (_listed, listed) = join(&world, &three, &["--config", &config])?;

    assert_eq!(named.heard(), []);
    for (result, node) in [(asked, &two), (listed, &three)] {
        assert_eq!(result["public_endpoints"][0]["address"], "198.51.100.8");
        assert!(own.heard().iter().any(|from| from.ip() == IpAddr::V4(node.v4)));
    }
    Ok(())
}

fn a_fixed_port_and_a_given_endpoint(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let stun = Stun::at(Lab::V4, mapped("198.51.100.7:40000"))?;
    let world = World::with(lab, naming(&[&stun]))?;

    let (_given, result) = join(&world, &one, &["--endpoint", "203.0.113.5:4500", "--port", "51900"])?;
    let given = host(&world)?;
    assert_eq!(stun.heard(), []);
    let (_fixed, _) = join(&world, &two, &["--port", "51901"])?;
    let fixed = world.server.hosts()?.into_iter().find(|host| host.id != given.id).context("no second host")?;

    assert_eq!((given.endpoint_ip.0, given.public_listen_port), ("203.0.113.5".parse().ok(), 4500));
    assert_eq!((given.is_static, given.is_static_port, &*given.nat_type), (true, false, "public"));
    assert_eq!(result["public_endpoints"][0]["nat"], Value::Null);
    assert_eq!((fixed.endpoint_ip.0, fixed.public_listen_port), ("198.51.100.7".parse().ok(), 51901));
    assert_eq!((fixed.is_static, fixed.is_static_port, fixed.listen_port), (false, true, 51901));
    Ok(())
}

fn a_host_that_is_seen_elsewhere_tells_so(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let stun = Stun::at(Lab::V4, mapped("198.51.100.7:40000"))?;
    let world = World::with(lab, naming(&[&stun]))?;
    world.configure(&node, &format!("key = \"{}\"\n", world.key("team", &["office"], 1)?))?;
    let service = world.serve_as_configured(&node)?;
    let seen_at = |ip: &str, port| {
        let ip = ip.parse().ok();
        move |host: &Host| host.endpoint_ip.0 == ip && host.public_listen_port == port
    };
    wait_told(&world, seen_at("198.51.100.7", 40000))?;

    stun.answer(mapped("198.51.100.8:41000"));
    node.add_address("192.168.77.5/24".parse()?)?;

    wait_told(&world, seen_at("198.51.100.8", 41000))?;
    let last = stun.heard().pop().context("nobody asked")?;
    assert_eq!(last.port(), 51821, "the data plane lends its socket");
    wait_for(&world, &node, "the new address", |status| {
        status["public_endpoints"][0]
            == serde_json::json!({"address": "198.51.100.8", "nat": "behind_nat", "port": 41000})
    })?;
    world.configure(&node, "stun = \"off\"\n")?;
    service.signal(Signal::SIGHUP)?;
    wait_for(&world, &node, "the owner's word", |status| status["public_endpoints"] == serde_json::json!([]))?;
    stop(&service)
}

fn neighbours_behind_one_nat(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    lab.lan((&one, "192.168.5.1/24".parse()?), (&two, "192.168.5.2/24".parse()?))?;
    // A NAT without hairpinning: nothing comes back in at its own address.
    let stun = Stun::at(Lab::V4, mapped("198.51.100.7:40000"))?;
    let world = World::with(lab, nearby(naming(&[&stun])))?;

    let (_serving, first) = join(&world, &one, &[])?;
    let (_other, second) = join(&world, &two, &[])?;

    assert_eq!(second["peers"][0]["endpoint"], "192.168.5.1:51821", "before the way through the NAT");
    let pings = two.ping(address(&first, "office", 0)?, 3, DONE)?;
    ensure!(pings.replies.len() >= 3, "{pings:?}");
    Ok(())
}

fn neighbours_with_wrong_endpoints(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    lab.lan((&one, "192.168.5.1/24".parse()?), (&two, "192.168.5.2/24".parse()?))?;
    let world = World::with(lab, nearby(Options::default()))?;
    let (_serving, first) = join(&world, &one, &["--endpoint", "203.0.113.5"])?;
    world
        .configure(&two, &format!("key = \"{}\"\nendpoint = \"203.0.113.6\"\n", world.key("other", &["office"], 1)?))?;
    let service = world.serve_as_configured(&two)?;
    let at = |status: &Value, place: &str| status["peers"][0]["endpoint"] == place;
    wait_for(&world, &two, "a peer", |status| peers(status) == 1)?;

    let pings = two.ping(address(&first, "office", 0)?, 3, DONE)?;

    ensure!(pings.replies.len() >= 3, "{pings:?}");
    let status = wait_for(&world, &two, "the neighbour", |status| at(status, "192.168.5.1:51821"))?;
    assert!(status["peers"][0]["handshake_age"].is_u64(), "{status}");
    stop(&service)
}

fn nobody_is_looked_for_unasked(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    lab.lan((&one, "192.168.5.1/24".parse()?), (&two, "192.168.5.2/24".parse()?))?;
    let stun = Stun::at(Lab::V4, mapped("198.51.100.7:40000"))?;
    let world = World::with(lab, naming(&[&stun]))?;

    let (_serving, first) = join(&world, &one, &[])?;
    let (_other, second) = join(&world, &two, &[])?;

    let pings = two.ping(address(&first, "office", 0)?, 1, LONG)?;
    assert_eq!(pings.replies.len(), 0, "{pings:?}");
    assert_eq!(second["peers"][0]["endpoint"], "198.51.100.7:40000");
    Ok(())
}

/// A server that names these STUN servers; its nodes appear late enough for their answers.
fn naming(servers: &[&Stun]) -> Options {
    let stun_servers = servers.iter().map(|server| server.address.to_string()).collect();
    let node_delay = Duration::from_millis(300);
    Options { discovery: Discovery { stun_servers, nearby: false }, node_delay, ..Options::default() }
}

fn nearby(mut options: Options) -> Options {
    options.discovery.nearby = true;
    options
}

/// Joins as a host that does not know its own address.
fn join(world: &World, node: &Node, more: &[&str]) -> Result<(Process, Value)> {
    let file = world.own(node).join("enroll.key");
    fs::create_dir_all(world.own(node))?;
    fs::write(&file, world.key(&format!("key-of-{}", node.name), &["office"], 1)?)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let process = node.spawn(world.agent(node, &["join", "--json", "--key-file"]).arg(file).args(more))?;
    let result = process.json(JOINED)?;
    ensure!(result.get("error").is_none(), "join failed: {result}");
    Ok((process, result))
}

fn host(world: &World) -> Result<Host> {
    world.server.hosts()?.into_iter().next().context("no host")
}

fn wait_told(world: &World, is_it: impl Fn(&Host) -> bool) -> Result<()> {
    let told = || world.server.hosts().ok()?.first().is_some_and(&is_it).then_some(());
    eventually("the server's knowledge", NOTICED, told).with_context(|| format!("{:?}", world.server.hosts()))
}

/// A STUN server of the test.
struct Stun {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    heard: Arc<Mutex<Vec<SocketAddr>>>,
}

#[derive(Clone, Copy)]
enum Answer {
    Mapped(SocketAddr),
    Mirror,
    Nothing,
    WrongTransaction(SocketAddr),
}

impl Stun {
    fn at(ip: impl Into<IpAddr>, answer: Answer) -> Result<Self> {
        let socket = UdpSocket::bind((ip.into(), 0))?;
        let address = socket.local_addr()?;
        let (answer, heard) = (Arc::new(Mutex::new(answer)), Arc::default());
        let server = Self { address, answer: Arc::clone(&answer), heard: Arc::clone(&heard) };
        thread::spawn(move || {
            let mut buffer = [0; 100];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(client);
                let answer = *answer.lock().unwrap_or_else(PoisonError::into_inner);
                let mut transaction = buffer[8..length].to_vec();
                let told = match answer {
                    Answer::Mapped(told) => told,
                    Answer::Mirror => client,
                    Answer::Nothing => continue,
                    Answer::WrongTransaction(told) => {
                        transaction[0] ^= 1;
                        told
                    }
                };
                if let Err(error) = socket.send_to(&response(told, &transaction), client) {
                    eprintln!("STUN server of the test: {error}");
                }
            }
        });
        Ok(server)
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// Who asked, in order.
    fn heard(&self) -> Vec<SocketAddr> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn mapped(address: &str) -> Answer {
    Answer::Mapped(address.parse().expect("the test's own address"))
}

/// A binding success response with an XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
fn response(told: SocketAddr, transaction: &[u8]) -> Vec<u8> {
    let mask = [&[0x21, 0x12, 0xa4, 0x42], transaction].concat();
    let (family, ip) = match told.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mix = |bytes: &[u8]| bytes.iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>();
    let length = u8::from(ip.len() == 16) * 12 + 8;
    let (port, ip) = (mix(&told.port().to_be_bytes()), mix(&ip));
    [&[1, 1, 0, length + 4], &mask[..], &[0, 0x20, 0, length, 0, family], &port, &ip].concat()
}

/// Longer than one place is tried.
const LONG: Duration = Duration::from_secs(8);
