//! How the bundled server grows with its hosts: `cargo bench --bench scale`, a few minutes on two cores.
//!
//! The server runs as a program of its own, on a file store with full sync, and is asked over HTTPS with keep-alive from
//! this one, so both share the cores. Nothing is judged; the figures are for people.
//!
//! "push CPU" is what one change costs the server afterwards, with one of its peers listening to the broker: snapshots
//! are computed only for hosts that ask.

#![expect(clippy::disallowed_methods, reason = "measuring is looking at the clock")]
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use enroll_agent::control::{
    seal::gob,
    wire::{AuthToken, Host, HostPull, Success, WgKey},
};
use reqwest::{Client, Method};
use rumqttc::{AsyncClient, MqttOptions, QoS};
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    println!("enrolling 10,000 hosts into 100 networks, {CLIENTS} connections");
    let bench = Bench::start(100).await?;
    bench.enroll(0, 10_000).await?.print(&bench)?;
    drop(bench);

    println!("\nenrolling 1,000 hosts into one network, {CLIENTS} connections");
    let bench = Bench::start(1).await?;
    bench.enroll(0, 1_000).await?.print(&bench)?;
    drop(bench);

    for (title, per_network) in [("networks of 100", 100), ("one network", u64::MAX)] {
        println!("\none after another, {title}; milliseconds, median of {SAMPLES}");
        println!("{:>8} {:>10} {:>8} {:>8} {:>10} {:>8}", "hosts", "register", "pull", "change", "push CPU", "RSS MB");
        for hosts in [10_u64, 100, 1_000, 10_000] {
            let bench = Bench::start(hosts.div_ceil(per_network)).await?;
            bench.enroll(0, hosts).await?;
            bench.grown(hosts).await?;
        }
    }
    Ok(())
}

/// A server with empty networks, and a client that trusts it.
struct Bench {
    server: Child,
    client: Client,
    url: String,
    master_key: String,
    tokens: Vec<String>,
    // Removed last.
    _folder: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

impl Bench {
    async fn start(networks: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let tls = folder.path().join("tls");
        let mut server = Command::new(env!("CARGO_BIN_EXE_mock-server"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--broker-listen", "127.0.0.1:0", "--broker-scheme", "mqtt"])
            .arg("--tls-dir")
            .arg(&tls)
            .arg("--store")
            .arg(folder.path().join("state.sqlite"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = server.stdout.take().context("the server's output is piped")?;
        let mut lines = BufReader::new(out).lines();
        let url = lines.next().context("the server says where it is")??;
        let url = url.strip_prefix("url: ").context("its URL comes first")?.to_owned();
        while !tls.join("master.key").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let master_key = fs::read_to_string(tls.join("master.key"))?.trim().to_owned();
        let client = client(&tls.join("ca.pem"))?;
        let mut bench = Self { server, client, url, master_key, tokens: Vec::new(), _folder: folder };
        for number in 0..networks {
            // 65,534 addresses each.
            let body = json!({"netid": format!("net-{number}"), "addressrange": format!("10.{number}.0.0/16")});
            let made: Value = bench.call(Method::POST, "/api/networks", &body, &bench.master_key).await?;
            let token = made["enrollment_key"]["token"].as_str().context("a network comes with a token")?;
            bench.tokens.push(token.to_owned());
        }
        Ok(bench)
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        bearer: &str,
    ) -> anyhow::Result<T> {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(bearer);
        let answer = request.body(body.to_string()).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == 200, "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    async fn register(&self, number: u64) -> anyhow::Result<Duration> {
        let networks = u64::try_from(self.tokens.len())?;
        let token = &self.tokens[usize::try_from(number % networks)?];
        let body = json!(host(number));
        let started = Instant::now();
        let _: Value = self.call(Method::POST, &format!("/api/v1/host/register/{token}"), &body, "").await?;
        Ok(started.elapsed())
    }

    /// Enrolls hosts as fast as the connections allow.
    async fn enroll(&self, first: u64, hosts: u64) -> anyhow::Result<Storm> {
        let (next, started, cpu) = (Arc::new(AtomicU64::new(first)), Instant::now(), self.cpu()?);
        let work = async || {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= first + hosts {
                    return anyhow::Ok(times);
                }
                times.push(self.register(number).await?);
            }
        };
        let mut times = Vec::new();
        for done in futures_util::future::join_all((0..CLIENTS).map(|_| work())).await {
            times.extend(done?);
        }
        Ok(Storm { times, took: started.elapsed(), cpu: self.cpu()? - cpu })
    }

    /// Measures single requests to a server with this many hosts.
    async fn grown(&self, hosts: u64) -> anyhow::Result<()> {
        let session = self.session(0).await?;
        let listener = self.listen(&session).await?;
        let (mut registered, mut pulled, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for sample in 0..SAMPLES {
            registered.push(self.register(hosts + sample).await?);
            let started = Instant::now();
            let _: HostPull = self.call(Method::GET, "/api/v1/host", &Value::Null, &session).await?;
            pulled.push(started.elapsed());
        }
        // What the registrations are still to be told for is over after the longest wait of a broadcast.
        tokio::time::sleep(BROADCAST).await;
        let cpu = self.cpu()?;
        for sample in 0..SAMPLES {
            let moved = Host { listen_port: 40_000 + i64::try_from(sample)?, ..host(0) };
            let body = json!({"Action": "UPDATE_HOST", "Host": moved});
            let path = format!("/api/v1/fallback/host/{}", moved.id);
            let started = Instant::now();
            let _: Value = self.call(Method::PUT, &path, &body, &session).await?;
            changed.push(started.elapsed());
        }
        tokio::time::sleep(BROADCAST).await;
        let push = (self.cpu()? - cpu) * 1000.0 / f64::from(u32::try_from(SAMPLES)?);
        listener.abort();
        println!(
            "{hosts:>8} {:>10.2} {:>8.2} {:>8.2} {push:>10.2} {:>8.1}",
            milliseconds(percentile(&mut registered, 50)),
            milliseconds(percentile(&mut pulled, 50)),
            milliseconds(percentile(&mut changed, 50)),
            self.megabytes()?,
        );
        Ok(())
    }

    /// Listens to what the first host is told of its peers, so that it is computed at all.
    async fn listen(&self, session: &str) -> anyhow::Result<JoinHandle<()>> {
        let pull: HostPull = self.call(Method::GET, "/api/v1/host", &Value::Null, session).await?;
        let config = pull.server_config;
        let (place, port) =
            config.broker.strip_prefix("mqtt://").and_then(|url| url.rsplit_once(':')).context("a URL")?;
        let mut options = MqttOptions::new("listener", (place.to_owned(), port.parse()?));
        options.set_credentials(config.mq_user_name, config.mq_password.expose().to_owned());
        options.set_max_packet_size(1 << 26, 1 << 26);
        let (client, mut events) = AsyncClient::builder(options).build();
        client.subscribe(format!("peers/host/{}/{}", pull.host.id, config.server), QoS::AtMostOnce).await?;
        Ok(tokio::spawn(async move {
            // The client is kept, or the connection would end.
            let _client = client;
            while events.poll().await.is_ok() {}
        }))
    }

    async fn session(&self, number: u64) -> anyhow::Result<String> {
        let Host { id, password, .. } = host(number);
        let body = json!({"macaddress": "", "id": id, "password": password});
        let answer: Success<AuthToken> = self.call(Method::POST, "/api/hosts/adm/authenticate", &body, "").await?;
        Ok(answer.response.context("a session comes with a token")?.auth_token.expose().to_owned())
    }

    /// Processor time that the server has used, in seconds.
    fn cpu(&self) -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.server.id()))?;
        let fields: Vec<_> = text.rsplit(')').next().context("a name in brackets")?.split_whitespace().collect();
        // Linux counts in hundredths of a second here, whatever the kernel's own rate.
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10).as_secs_f64())
    }

    fn megabytes(&self) -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.server.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has memory")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes / 1024.0)
    }
}

/// What came of enrolling many.
struct Storm {
    times: Vec<Duration>,
    took: Duration,
    /// Of the server, in seconds.
    cpu: f64,
}

impl Storm {
    fn print(mut self, bench: &Bench) -> anyhow::Result<()> {
        let count = f64::from(u32::try_from(self.times.len())?);
        println!("  {:.0} redemptions/s, {:.2} s in all", count / self.took.as_secs_f64(), self.took.as_secs_f64());
        println!("  server: {:.0} redemptions per CPU second, {:.0} MB", count / self.cpu, bench.megabytes()?);
        let (p50, p99) = (percentile(&mut self.times, 50), percentile(&mut self.times, 99));
        println!("  p50 {:.1} ms, p99 {:.1} ms", milliseconds(p50), milliseconds(p99));
        Ok(())
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn client(ca: &Path) -> anyhow::Result<Client> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(PemObject::from_pem_slice(&fs::read(ca)?).context("a certificate")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?)
}

/// A device as a fleet has them; each at an address of its own.
fn host(number: u64) -> Host {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(number + 1).to_be_bytes());
    let address = std::net::Ipv4Addr::from_bits(0xc612_0000 + u32::try_from(number).unwrap_or_default());
    Host {
        id: Uuid::from_u128(0xa000_0000_0000 + u128::from(number)),
        version: "v1.5.1".into(),
        password: format!("password of {number}").into(),
        name: format!("host-{number}"),
        os: "linux".into(),
        os_family: "debian".into(),
        firewall_in_use: "nftables".into(),
        listen_port: 51821,
        public_listen_port: 51821,
        mtu: 1420,
        public_key: WgKey(key),
        mac_address: key[2..8].into(),
        traffic_key_public: gob::encode(&key, Some(&[0x55; 32])).as_slice().into(),
        endpoint_ip: std::net::IpAddr::from(address).into(),
        nat_type: "behind_nat".into(),
        location: "0,0".into(),
        country_code: "ZZ".into(),
        ..Host::default()
    }
}

/// Connections at once.
const CLIENTS: usize = 64;

/// Requests of which the median is shown.
const SAMPLES: u64 = 20;

/// A broadcast has happened after this long.
const BROADCAST: Duration = Duration::from_secs(4);
