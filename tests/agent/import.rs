//! Taking over the enrollment that netclient has: its files as it writes them, the identity as the server knows it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use enroll_agent::{control::seal::gob, mock_server::Scheme, model::PrivateKey};
use serde_json::{Value, json};

use crate::{
    lab::{Case, Lab, Node, Program},
    status::{host_id, membership, peers, stop, wait_for, wait_pushed, with_broker},
    world::{World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("an_enrollment_of_netclient_is_taken_over", an_enrollment_is_taken_over),
        ("enrollments_with_several_servers_are_several_memberships", several_servers),
        ("netclient_has_to_be_out_of_the_way", netclient_has_to_be_out_of_the_way),
        ("files_that_cannot_be_taken_over_are_told", files_that_cannot_be_taken_over),
    ]
}

fn an_enrollment_is_taken_over(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);
    let world = with_broker(lab, Scheme::Mqtt)?;
    let other = world.enrolled(&two, &world.key("other", &["office"], 1)?)?;
    let folder = enrolled(lab, &world, &one)?;
    let before = contents(&folder)?;
    let dir = folder.to_string_lossy().into_owned();
    let import = ["import", "netclient", "--dir", &dir, "--backend", "userspace"];

    let tried = world.run(&one, &[&import[..], &["--dry-run"]].concat())?;
    assert_eq!(world.saved(&one)?.len(), 0, "nothing is saved");
    let imported = world.run(&one, &[&import[..], &["--json"]].concat())?;

    ended_with(&tried, 0, "");
    assert!(tried.stdout.join("\n").contains("would be taken over, as plc-4"), "{tried:?}");
    ended_with(&imported, 0, "netclient's files stay");
    let said: Value = serde_json::from_str(&imported.stdout.join("\n"))?;
    assert_eq!(said["imported"][0]["networks"], json!(["office"]), "{said}");
    let service = world.serve(&one, &[])?;
    let status = wait_pushed(&world, &one)?;
    assert_eq!(host_id(&status)?.to_string(), ID);
    assert_eq!((world.server.hosts()?.len(), world.uses_left("netclient")?), (2, 0), "no key, no other host");
    // What is pushed can be read: it comes much sooner than the next pull.
    wait_for(&world, &one, "the peer", |status| peers(status) == 1)?;
    stop(&other)?;
    let gone = world.server.hosts()?.into_iter().find(|host| host.name == "two").context("no other host")?;
    world.server.delete_host(gone.id)?;
    wait_for(&world, &one, "the push", |status| peers(status) == 0)?;
    let receipts = world.run(&one, &["receipts"])?;
    assert!(receipts.stdout[0].contains("imported"), "{receipts:?}");
    ended_with(&world.run(&one, &import)?, 2, "an agent is serving");
    stop(&service)?;
    let again = world.run(&one, &import)?;
    assert!(again.stdout.join("\n").contains("was taken over before"), "{again:?}");
    assert_eq!(contents(&folder)?, before, "netclient's files are as they were");
    Ok(())
}

fn several_servers(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let (world, elsewhere) = (World::new(lab)?, World::new(lab)?);
    let folder = enrolled(lab, &world, &node)?;
    let also = enrolled(lab, &elsewhere, &node)?;
    let mut servers: Value = serde_json::from_str(&fs::read_to_string(folder.join("servers.json"))?)?;
    let more: Value = serde_json::from_str(&fs::read_to_string(also.join("servers.json"))?)?;
    servers["elsewhere"] = more["nm.example"].clone();
    fs::write(folder.join("servers.json"), servers.to_string())?;
    // Two servers with certificates of their own.
    let both = world.folder.path().join("both.pem");
    fs::write(&both, format!("{}{}", world.server.ca_pem(), elsewhere.server.ca_pem()))?;
    let (dir, ca) = (folder.to_string_lossy().into_owned(), both.to_string_lossy().into_owned());

    let imported =
        world.run(&node, &["import", "netclient", "--dir", &dir, "--ca-file", &ca, "--backend", "userspace"])?;

    ended_with(&imported, 0, "");
    let saved = world.saved(&node)?;
    let mut interfaces: Vec<_> = saved.iter().filter_map(|saved| saved["interface"].as_str()).collect();
    interfaces.sort_unstable();
    assert_eq!(interfaces, ["enroll0", "enroll1"]);
    assert!(saved.iter().all(|saved| saved["identity"]["host_id"] == ID));
    Ok(())
}

fn netclient_has_to_be_out_of_the_way(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let folder = enrolled(lab, &world, &node)?;
    let dir = folder.to_string_lossy().into_owned();
    let program = world.own(&node).join("netclient");
    fs::copy("/bin/sleep", &program)?;
    let daemon = node.spawn(Program::new(&program).args(["600"]))?;

    let runs = world.run(&node, &["import", "netclient", "--dir", &dir])?;
    daemon.kill()?;
    let (serving, _) = world.join(&node, &world.key("own", &["plant-a"], 1)?, &["--interface", "netmaker"])?;
    let other = world.own(&node).join("other-state").to_string_lossy().into_owned();
    let elsewhere = ["import", "netclient", "--dir", &dir, "--standalone", "--state-dir", &other];
    let there = world.run(&node, &elsewhere)?;
    serving.kill()?;

    ended_with(&runs, 6, "netclient runs, as process");
    ended_with(&there, 6, "netclient's interface netmaker is still there");
    assert!(!PathBuf::from(other).exists(), "nothing is saved");
    let taken = world.run(&node, &["import", "netclient", "--dir", &dir])?;
    ended_with(&taken, 6, "as another host");
    Ok(())
}

fn files_that_cannot_be_taken_over(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let folder = enrolled(lab, &world, &node)?;
    let dir = folder.to_string_lossy().into_owned();
    let import = || world.run(&node, &["import", "netclient", "--dir", &dir]);
    let host = fs::read_to_string(folder.join("netclient.json"))?;

    fs::write(folder.join("netclient.json"), host.replace("\"hostpass\"", "\"pass\""))?;
    let incomplete = import()?;
    fs::write(folder.join("netclient.json"), &host[..host.len() / 2])?;
    let torn = import()?;
    fs::remove_file(folder.join("netclient.json"))?;
    let nothing = import()?;
    fs::write(folder.join("netclient.json"), host.replace(PASSWORD, "SECRET"))?;
    let stranger = import()?;

    ended_with(&incomplete, 78, "netclient's netclient.json has no hostpass");
    ended_with(&torn, 78, "netclient's netclient.json is not a JSON object");
    ended_with(&nothing, 3, "there is no enrollment of netclient in");
    ended_with(&stranger, 6, "knows this host's id with another password");
    for output in [incomplete, torn, nothing, stranger] {
        let said = format!("{output:?}");
        assert!(!said.contains(PASSWORD) && !said.contains("SECRET"), "a secret is said: {said}");
    }
    assert_eq!(world.saved(&node)?.len(), 0);
    ensure!(membership(&world, &node).is_err(), "there is a membership");
    Ok(())
}

/// Registers a host as netclient does, with the whole of its configuration, and writes the files that it keeps.
fn enrolled(lab: &Lab, world: &World, node: &Node) -> Result<PathBuf> {
    let token = world.key("netclient", &["office"], 1)?;
    let host = host();
    let path = format!("/api/v1/host/register/{token}");
    let (status, answer) = world.answer(lab, "POST", &path, &host)?;
    ensure!(status == 200, "not registered: {status} {answer}");
    let folder = world.own(node).join("netclient-files");
    fs::create_dir_all(&folder)?;
    let mut server = answer["server_config"].clone();
    let fields = server.as_object_mut().context("no server")?;
    fields.insert("API".into(), world.server.addr().to_string().into());
    fields.extend([
        ("name".to_owned(), json!("nm.example")),
        ("mqid".to_owned(), json!(ID)),
        ("nodes".to_owned(), json!({ "office": true })),
        ("accesskey".to_owned(), json!("")),
        ("name_servers".to_owned(), Value::Null),
        ("dns_nameservers".to_owned(), Value::Null),
    ]);
    for (name, document) in [("netclient.json", host), ("servers.json", json!({ "nm.example": server }))] {
        let file = folder.join(name);
        fs::write(&file, serde_json::to_string_pretty(&document)?)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700))?;
    }
    Ok(folder)
}

/// A `netclient.json`: numbers for WireGuard keys, base64 for bytes, gob in those for traffic keys.
fn host() -> Value {
    let (private, traffic) = ([0x48; 32], [0x50; 32]);
    let public = |key| PrivateKey::from_bytes(key).public_key().0;
    let mut host = json!({
        "id": ID, "verbosity": 0, "firewallinuse": "nftables", "version": "v1.4.0", "ipforwarding": true,
        "daemoninstalled": true, "autoupdate": false, "hostpass": PASSWORD, "name": "plc-4", "os": "linux",
        "interface": "netmaker", "listenport": 51821, "wg_public_listen_port": 51821, "mtu": 1420,
        "macaddress": BASE64.encode(&[0x02, 0x42, 0xac, 0x11, 0x00, 0x02]), "publickey": public(private),
        "traffickeypublic": BASE64.encode(&gob::encode(&public(traffic), None)), "nodes": null, "interfaces": [],
    });
    // What is netclient's own comes after the host's fields.
    let own = json!({
        "privatekey": private, "traffickeyprivate": BASE64.encode(&gob::encode(&traffic, None)), "inittype": 1,
        "original_default_gateway_ip_old": "", "curr_gw_nm_ip": "", "dns_manager_type": "", "name_servers": null,
        "dns_search": "", "dns_options": "",
    });
    if let (Some(host), Some(own)) = (host.as_object_mut(), own.as_object()) {
        host.extend(own.clone());
    }
    host
}

/// Everything in a folder, with its modes.
fn contents(folder: &PathBuf) -> Result<String> {
    let listed = Command::new("ls").arg("-l").arg("--time-style=full-iso").arg(folder).output()?;
    let texts: Result<Vec<_>, _> =
        ["netclient.json", "servers.json"].iter().map(|name| fs::read_to_string(folder.join(name))).collect();
    Ok(format!("{}{}", String::from_utf8(listed.stdout)?, texts?.concat()))
}

const ID: &str = "1c1fe1a7-71f5-4c9c-b5c8-8f1b8e4ea7aa";
const PASSWORD: &str = "kT6eW0rJqQvZ2cX8mN4bL1sD7fG3hP5y";
