//! The server with Debian's Mosquitto as its broker, over TCP and WebSocket.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, reason = "helpers of the mock server's tests")]
#[path = "mock_server/bench.rs"]
mod bench;
#[expect(dead_code, reason = "helpers of the mock server's tests")]
#[path = "mock_server/mqtt.rs"]
mod mqtt;

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use enroll_agent::mock_server::{Broker, Elsewhere, Login, Options};
use libtest_mimic::{Arguments, Completion, Trial};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    bench::{Bench, eventually},
    mqtt::{Device, sealing},
};

fn main() {
    let trial = |name: &str, scheme: &'static str| {
        Trial::ignorable_test(name, move || match program("mosquitto") {
            Some(program) => {
                let runtime = tokio::runtime::Runtime::new()?;
                runtime.block_on(carries_the_messages_of_an_enrollment(&program, scheme));
                Ok(Completion::Completed)
            }
            None => Ok(Completion::ignored_with("mosquitto is not installed")),
        })
    };
    let trials = vec![
        trial("carries_the_messages_of_an_enrollment_over_tcp", "mqtt"),
        trial("carries_the_messages_of_an_enrollment_over_websocket", "ws"),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

async fn carries_the_messages_of_an_enrollment(program: &Path, scheme: &str) {
    let mosquitto = Mosquitto::start(program, scheme).await;
    let broker = Elsewhere {
        url: format!("{scheme}://127.0.0.1:{}", mosquitto.port),
        user: "server".into(),
        password: "of the server".into(),
        ca_pem: None,
        login: Login::Shared,
        announce: None,
    };
    let bench = Bench::with(Options { broker: Some(Broker::Elsewhere(broker)), ..Options::default() }).await;
    let host = sealing("a", 1);
    assert_eq!(bench.register(&bench.token("plant-a"), &host).await.status(), 200);
    let mut device = Device::connect(&bench, &host).await;

    assert_eq!(device.action().await["Action"], "REQ_ACK");
    device.say("ACK", "mock.test").await;
    assert_eq!(device.action().await["Node"]["network"], json!("plant-a"));
    device.say("ACK", "mock.test").await;
    assert_eq!(device.action().await["Action"], "UPDATE_HOST");
    bench.join("plant-a", "b", 2).await;
    device.peers(|peers| peers["host_peers"].as_array().unwrap().len() == 1).await;
}

/// A broker of its own, that ends with the test.
struct Mosquitto {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Mosquitto {
    async fn start(program: &Path, scheme: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It drops its rights when it is started by root, and must be able to read its files then.
        let user = if nix::unistd::geteuid().is_root() { "root" } else { "mosquitto" };
        let port = free_port();
        let passwords = folder.path().join("passwords");
        fs::write(&passwords, "server:of the server\n").unwrap();
        let hashed = Command::new(self::program("mosquitto_passwd").unwrap()).arg("-U").arg(&passwords).status();
        assert!(hashed.unwrap().success());
        let config = folder.path().join("mosquitto.conf");
        // Version 2.0.11 refuses to start with WebSocket listeners alone.
        let more = if scheme == "ws" {
            format!("listener {} 127.0.0.1\nlistener {port} 127.0.0.1\nprotocol websockets\n", free_port())
        } else {
            format!("listener {port} 127.0.0.1\n")
        };
        let text = format!("user {user}\nallow_anonymous false\npassword_file {}\n{more}", passwords.display());
        fs::write(&config, text).unwrap();
        let child = Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
        let mosquitto = Self { child, port, _folder: folder };
        eventually(|| TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(1)).is_ok()).await;
        mosquitto
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Finds a program; Debian has brokers where only root looks.
#[expect(clippy::disallowed_methods, reason = "the search path of a test")]
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let places = env::split_paths(&path).chain(["/usr/sbin".into()]);
    places.map(|place| place.join(name)).find(|program| program.is_file())
}
