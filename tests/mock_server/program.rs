//! The program: what it prints, what it leaves on disk, how it ends.

use std::{
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
use serde_json::Value;

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
    let network = ["--network", "plant-a=10.101.0.0/16", "--api", "enroll.test:443"];
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
    assert_eq!(run(&["key", "delete", created["id"].as_str().unwrap()]).0, Some(0));
    assert_eq!(run(&["network", "create", "office=10.202.0.0/24"]).0, Some(0));
    let keys: Value = serde_json::from_str(&run(&["key", "list"]).1).unwrap();
    assert_eq!(keys.as_array().unwrap().len(), 2);
    end(child, Signal::SIGTERM);
}

#[test]
fn says_what_is_wrong_with_a_network() {
    let output = Command::new(PROGRAM).args(["serve", "--network", "plant-a=10.101.0.0/33"]).output().unwrap();

    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(r#""10.101.0.0/33" is not a range such as 10.101.0.0/16"#), "{text}");
}

fn serve(dir: &Path, arguments: &[&str], lines: usize) -> (Child, Vec<String>) {
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0", "--store", "state.sqlite"])
        .arg("--tls-dir")
        .arg(dir.join("tls"))
        .args(arguments)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let printed = output.lines().take(lines).map(Result::unwrap).collect();
    (child, printed)
}

fn end(mut child: Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    assert!(child.wait().unwrap().success());
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_mock-server");
