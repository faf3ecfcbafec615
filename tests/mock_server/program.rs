//! The program: what it prints, what it leaves on disk, how it ends.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use data_encoding::BASE64;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Client;
use serde_json::{Value, json};

use crate::bench::{Document, client, device};

#[test]
fn prints_where_it_is_and_the_key_of_each_network() {
    let dir = tempfile::tempdir().unwrap();

    let (child, lines) = serve(dir.path(), &["--network", "plant-a=10.101.0.0/16,fd00:1::/64"], 4);

    let url = lines[0].strip_prefix("url: https://").unwrap();
    assert_eq!(lines[1], format!("ca-file: {}", dir.path().join("tls/ca.pem").display()));
    assert_eq!(lines[2], format!("master-key-file: {}", dir.path().join("tls/master.key").display()));
    let token = BASE64.decode(lines[3].strip_prefix("key plant-a: ").unwrap().as_bytes()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&token).unwrap()["server"], url);
    for secret in ["tls/master.key", "tls/ca-key.pem", "state.sqlite"] {
        assert_eq!(fs::metadata(dir.path().join(secret)).unwrap().permissions().mode() & 0o777, 0o600, "{secret}");
    }
    end(child, Signal::SIGTERM);
}

#[test]
fn keeps_keys_and_certificates_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let network = ["--network", "plant-a=10.101.0.0/16", "--api", "enroll.test:443", "--netmaker-compat"];
    let (child, first) = serve(dir.path(), &network, 4);
    let (ca, key) =
        (fs::read(dir.path().join("tls/ca.pem")).unwrap(), fs::read(dir.path().join("tls/master.key")).unwrap());
    end(child, Signal::SIGINT);

    let (child, second) = serve(dir.path(), &network, 4);

    assert_eq!(second, first);
    assert_eq!(fs::read(dir.path().join("tls/ca.pem")).unwrap(), ca);
    assert_eq!(fs::read(dir.path().join("tls/master.key")).unwrap(), key);
    end(child, Signal::SIGTERM);
}

#[test]
fn shows_the_key_of_a_network_once() {
    let dir = tempfile::tempdir().unwrap();
    let network = ["--network", "plant-a=10.101.0.0/16"];
    let (child, first) = serve(dir.path(), &network, 4);
    end(child, Signal::SIGTERM);

    let (child, second) = serve(dir.path(), &network, 4);

    assert!(first[3].starts_with("key plant-a: eyJ"), "{first:?}");
    assert!(
        second[3].starts_with("key-id plant-a: ") && second[3].ends_with(" (rotate it to see a token)"),
        "{second:?}"
    );
    end(child, Signal::SIGTERM);
}

#[test]
fn is_like_the_paid_edition_if_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let (child, lines) = serve(dir.path(), &["--network", "plant-a=10.101.0.0/16", "--pro", "--manage-names"], 4);
    let url = lines[0].strip_prefix("url: ").unwrap();
    let client = client(&fs::read_to_string(dir.path().join("tls/ca.pem")).unwrap());
    let key = fs::read_to_string(dir.path().join("tls/master.key")).unwrap();

    let config: Value = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let request = client.get(format!("{url}/api/server/getserverinfo")).bearer_auth(key.trim());
        request.send().await.unwrap().document().await
    });

    assert_eq!((&config["Is_EE"], &config["ManageDNS"]), (&json!(true), &json!(true)));
    end(child, Signal::SIGTERM);
}

#[test]
fn manages_keys_on_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let (child, lines) = serve(dir.path(), &["--network", "plant-a=10.101.0.0/16"], 4);
    let url = lines[0].strip_prefix("url: ").unwrap();
    let run = |arguments: &[&str]| {
        let server = ["--url", url, "--ca-file", "tls/ca.pem", "--master-key-file", "tls/master.key"];
        let output = Command::new(PROGRAM).args(arguments).args(server).current_dir(dir.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };

    let (code, created, _) = run(&["key", "create", "line-3", "--network", "plant-a", "--uses", "2"]);
    assert_eq!(code, Some(0));
    let created: Value = serde_json::from_str(&created).unwrap();
    assert_eq!((&created["type"], &created["uses_remaining"]), (&Value::from(2), &Value::from(2)));
    let (code, _, reason) = run(&["key", "create", "line-3", "--network", "plant-a"]);
    assert_eq!((code, reason.as_str()), (Some(1), "mock-server: 400 Bad Request: key names must be unique\n"));
    let id = created["id"].as_str().unwrap();
    let json = |arguments: &[&str]| {
        let (code, output, reason) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?} {reason}");
        serde_json::from_str::<Value>(&output).unwrap()
    };
    let edited = json(&["key", "edit", id, "--note", "for the packers", "--tag", "plant-a.packer", "--auto-gateway"]);
    assert_eq!((&edited["note"], &edited["auto_assign_gw"]), (&json!("for the packers"), &json!(true)));
    assert_eq!(json(&["key", "edit", id, "--no-tags", "--no-gateway"])["auto_assign_gw"], false);
    let rotated = json(&["key", "rotate", id, "--grace", "60"]);
    assert_eq!((&rotated["id"], &rotated["tags"]), (&created["id"], &created["tags"]));
    assert_ne!(rotated["token"], created["token"]);
    assert_eq!(json(&["key", "disable", id])["disabled"], true);
    assert_eq!(json(&["key", "enable", id])["disabled"], false);
    let shown = json(&["key", "show", id]);
    assert_eq!((&shown["value"], &shown["groups"]), (&json!("*".repeat(32)), &json!([])));
    assert_eq!(run(&["key", "edit", id]).0, Some(2));
    assert_eq!(run(&["key", "delete", id]).0, Some(0));
    let page = json(&["audit", "list", "--key", id, "--limit", "3"]);
    assert_eq!((&page["entries"][0]["action"], &page["entries"][0]["actor"]), (&json!("create"), &json!("master key")));
    assert_eq!(page["next"], page["entries"][2]["number"]);
    let (_, lines, _) = run(&["audit", "export", "--key", id]);
    let actions: Vec<_> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["action"].clone()).collect();
    assert_eq!(actions, ["create", "edit", "edit", "rotate", "disable", "enable", "delete"]);
    assert!(!lines.contains(created["value"].as_str().unwrap()));
    assert_eq!(run(&["network", "create", "office=10.202.0.0/24"]).0, Some(0));
    let keys: Value = serde_json::from_str(&run(&["key", "list"]).1).unwrap();
    assert_eq!(keys.as_array().unwrap().len(), 2);
    end(child, Signal::SIGTERM);
}

#[test]
fn runs_a_broker_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();

    let (child, lines) = serve(dir.path(), &["--broker-listen", "127.0.0.1:0", "--broker-scheme", "mqtts"], 4);

    assert!(lines[1].starts_with("broker: mqtts://127.0.0.1:"), "{}", lines[1]);
    end(child, Signal::SIGTERM);
}

#[test]
fn a_broker_elsewhere_needs_a_password() {
    let output = Command::new(PROGRAM).args(["serve", "--broker", "mqtt://127.0.0.1:1"]).output().unwrap();

    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--broker-password-file"), "{text}");
}

#[test]
fn says_what_is_wrong_with_a_network() {
    let output = Command::new(PROGRAM).args(["serve", "--network", "plant-a=10.101.0.0/33"]).output().unwrap();

    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(r#""10.101.0.0/33" is not a range such as 10.101.0.0/16"#), "{text}");
}

/// What was acknowledged is kept, nothing is counted twice, and nobody can take more than there is.
#[tokio::test(flavor = "multi_thread")]
async fn uses_are_counted_exactly_over_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let network = ["--network", "plant-a=10.101.0.0/16"];
    let (mut server, lines) = serve(dir.path(), &network, 4);
    let master_key = fs::read_to_string(dir.path().join("tls/master.key")).unwrap();
    let client = client(&fs::read_to_string(dir.path().join("tls/ca.pem")).unwrap());
    let url = lines[0].strip_prefix("url: ").unwrap().to_owned();
    let keys = format!("{url}/api/v1/enrollment-keys");
    let body = json!({"tags": ["twenty"], "networks": ["plant-a"], "uses_remaining": USES}).to_string();
    let key: Value = client.post(keys).bearer_auth(master_key.trim()).body(body).send().await.unwrap().document().await;
    let token = key["token"].as_str().unwrap().to_owned();

    let mut acknowledged = BTreeSet::new();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    for first in 0..4 {
        let (client, url, token, told) = (client.clone(), url.clone(), token.clone(), told.clone());
        tokio::spawn(async move {
            for number in (first..DEVICES).step_by(4) {
                if register(&client, &url, &token, number).await == Some(200) {
                    told.send(number).unwrap();
                }
            }
        });
    }
    drop(told);
    while let Some(number) = heard.recv().await {
        acknowledged.insert(number);
        if acknowledged.len() == 7 {
            server.0.kill().unwrap();
        }
    }
    drop(server);

    let (_server, lines) = serve(dir.path(), &network, 4);
    let url = lines[0].strip_prefix("url: ").unwrap();
    let list = async |what: &str| {
        let answer = client.get(format!("{url}{what}")).bearer_auth(master_key.trim()).send().await.unwrap();
        answer.document::<Vec<Value>>().await
    };
    let left = async || {
        let keys = list("/api/v1/enrollment-keys").await;
        keys.iter().find(|found| found["id"] == key["id"]).unwrap()["uses_remaining"].as_i64().unwrap()
    };
    let ids: BTreeSet<_> =
        list("/api/hosts").await.iter().map(|host| host["id"].as_str().unwrap().to_owned()).collect();
    assert!(
        acknowledged.iter().all(|number| ids.contains(&device("many", *number).id.to_string())),
        "{acknowledged:?}"
    );
    assert_eq!(left().await + i64::try_from(ids.len()).unwrap(), USES);
    for number in &acknowledged {
        assert_eq!(register(&client, url, &token, *number).await, Some(200), "a retry is free");
    }
    for number in 0..DEVICES {
        register(&client, url, &token, number).await.unwrap();
    }
    assert_eq!((list("/api/hosts").await.len(), left().await), (20, 0));
}

/// Registers a device; `None` if there is no answer.
async fn register(client: &Client, url: &str, token: &str, number: u8) -> Option<u16> {
    let body = json!(device("many", number)).to_string();
    let answer = client.post(format!("{url}/api/v1/host/register/{token}")).body(body).send().await;
    answer.ok().map(|answer| answer.status().as_u16())
}

/// A running program; it does not outlive its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn serve(dir: &Path, arguments: &[&str], lines: usize) -> (Server, Vec<String>) {
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0", "--store", "state.sqlite"])
        .arg("--tls-dir")
        .arg(dir.join("tls"))
        .args(arguments)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let printed = output.lines().take(lines).map(Result::unwrap).collect();
    (Server(child), printed)
}

fn end(mut server: Server, signal: Signal) {
    kill(Pid::from_raw(server.0.id().try_into().unwrap()), signal).unwrap();
    assert!(server.0.wait().unwrap().success());
}

const USES: i64 = 20;

/// Many more than there are uses.
const DEVICES: u8 = 100;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mock-server");
