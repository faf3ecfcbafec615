//! Whom the agent takes for the server: pins, plain HTTP, redirects, and a clock that is not set yet.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use enroll_agent::mock_server::{Fault, Flaw, Options, Tls, Trouble};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    lab::{Case, Exit, Lab, Output, eventually},
    status::{report, stop, wait_for, wait_pushed, wait_up, with_broker},
    world::{DONE, JOINED, World, ended_with},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a_pin_decides_beside_the_authority", a_pin_decides),
        ("a_pin_may_be_beside_the_key", a_pin_beside_the_key),
        ("a_pin_does_not_bind_the_broker", a_pin_does_not_bind_the_broker),
        ("no_redirect_is_followed", no_redirect_is_followed),
        ("plain_http_is_for_loopback_alone", plain_http_is_for_loopback),
        ("a_join_waits_for_the_clock_and_spends_one_use", a_join_waits_for_the_clock),
        ("a_service_waits_for_the_clock", a_service_waits_for_the_clock),
    ]
}

fn a_pin_decides(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let other = "07".repeat(32);

    let refused = world.run(&node, &["join", "--pin", &other, &key])?;
    let wrong = world.run(&node, &["join", "--pin", "sha256//AAAA", &key])?;

    ended_with(&refused, 75, "has none of the pinned keys; its own is sha256//");
    ended_with(&refused, 75, "nothing was sent");
    ended_with(&wrong, 2, "is not a pin");
    ensure!(world.server.faults().observed().is_empty(), "something was sent");
    assert_eq!((world.uses_left("team")?, world.saved(&node)?.len()), (1, 0));
    let pin = shown(&refused)?;
    let (serving, _) = world.join(&node, &key, &["--pin", &format!("{other},{pin}")])?;
    serving.kill()?;
    assert!(world.saved(&node)?[0]["policy"]["pins"].as_array().is_some_and(|pins| pins.len() == 2));
    // The server has another key now, and the pin is remembered.
    lab.block_on(world.server.make(Trouble::Certificate { flaw: Flaw::Soon }))?;
    lab.block_on(world.server.make(Trouble::Certificate { flaw: Flaw::None }))?;
    let renewed = world.start_join(&node, &key, &[])?;
    let again = renewed.json(JOINED)?;
    assert_eq!(again["result"], "already-enrolled-offline", "{again}");
    renewed.kill()?;
    let (_serving, taken_back) = world.join(&node, &key, &["--pin", "off"])?;
    assert_eq!(taken_back["result"], "already-enrolled", "{taken_back}");
    Ok(())
}

fn a_pin_beside_the_key(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = World::new(lab)?;
    let key = world.key("team", &["office"], 1)?;
    let file = world.folder.path().join("pinned.key");
    let path = file.display().to_string();
    let beside = |pin: &str| private(&file, &format!("pin: {pin}\n{key}\n"));

    beside(&"07".repeat(32))?;
    let refused = world.run(&node, &["join", "--key-file", &path])?;
    beside("sha256//")?;
    let wrong = world.run(&node, &["join", "--key-file", &path])?;
    beside(&shown(&refused)?)?;
    let service = world.serve(&node, &[])?;
    let joined = world.run(&node, &["join", "--key-file", &path])?;

    ended_with(&wrong, 78, "is not a pin");
    assert_eq!(joined.exit, Some(Exit::Code(0)), "{joined:?}");
    assert_eq!(world.saved(&node)?[0]["policy"]["pins"], json!([shown(&refused)?]));
    assert_eq!(world.uses_left("team")?, 0);
    stop(&service)
}

fn a_pin_does_not_bind_the_broker(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let world = with_broker(lab, enroll_agent::mock_server::Scheme::Mqtts)?;
    let key = world.key("team", &["office"], 1)?;
    let refused = world.run(&node, &["join", "--pin", &"07".repeat(32), &key])?;
    let service = world.serve(&node, &["--pin", &shown(&refused)?])?;
    ended_with(&world.run(&node, &["join", &key])?, 0, "");

    wait_pushed(&world, &node)?;

    stop(&service)
}

fn no_redirect_is_followed(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let (world, elsewhere) = (World::new(lab)?, World::new(lab)?);
    let key = world.key("team", &["office"], 1)?;
    // Both are trusted, so that nothing but the agent itself is in the way.
    let trusted = [world.server.ca_pem(), elsewhere.server.ca_pem()].concat();
    fs::write(world.folder.path().join("ca.pem"), trusted)?;
    let place = |path: &str| format!("https://{}{path}", elsewhere.server.addr());
    let redirect = |path: &str| world.server.faults().inject(usize::MAX, path, Fault::Redirect(place(path)));

    redirect("/api/v1/host/register");
    let register = world.run(&node, &["join", &key])?;
    world.server.faults().clear();
    for path in ["/api/hosts/adm/authenticate", "/api/v1/host"] {
        redirect(path);
        // Registered by now, or refused to: the key may only have gone where it belongs.
        ended_with(&world.run(&node, &["join", "--timeout", "3", &key])?, 1, "answered 307");
        world.server.faults().clear();
    }
    let (_serving, _) = world.join(&node, &key, &[])?;
    for (path, command) in [("/api/v1/fallback", "sync"), ("/api/hosts", "leave")] {
        redirect(path);
        let output = world.run(&node, &[command])?;
        ended_with(&output, 1, "answered 307");
    }

    ended_with(&register, 1, "answered 307");
    ended_with(&register, 1, "redirects are not followed");
    let seen = elsewhere.server.faults().observed();
    ensure!(seen.is_empty(), "{seen:?}");
    Ok(())
}

fn plain_http_is_for_loopback(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let front = TcpListener::bind("127.0.0.1:0")?;
    let address = front.local_addr()?.to_string();
    let world = World::with(lab, Options { api: Some(address.clone()), ..Options::default() })?;
    let behind = world.server.addr();
    let ca = world.server.ca_pem().to_owned();
    thread::spawn(move || {
        for stream in front.incoming().flatten() {
            // What is no request is answered as servers do.
            if pass_on(&stream, behind, &ca).is_err() {
                drop((&stream).write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"));
            }
        }
    });
    let key = world.key("team", &["office"], 1)?;
    let own = world.folder.path().join("hub");
    // Loopback is the hub's own.
    let join = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
        command.args(["join", "--json", "--backend", "userspace", "--timeout", "5"]).args(more).arg(&key);
        command.env("ENROLL_AGENT_CONFIG", world.folder.path().join("agent.toml"));
        command.env("ENROLL_AGENT_STATE_DIR", own.join("state")).env("ENROLL_AGENT_RUNTIME_DIR", own.join("run"));
        command.env("ENROLL_AGENT_CA_FILE", world.folder.path().join("ca.pem"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };

    let without = join(&[]).output()?;
    let mut serving = join(&["--allow-http"]).spawn()?;

    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert_eq!(without.status.code(), Some(75), "{said}");
    ensure!(said.contains("needs --allow-http"), "{said}");
    let mut line = String::new();
    BufReader::new(serving.stdout.take().context("no output")?).read_line(&mut line)?;
    kill(Pid::from_raw(serving.id().cast_signed()), Signal::SIGTERM)?;
    serving.wait()?;
    let joined: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    assert_eq!((&joined["result"], &joined["server"]), (&json!("enrolled"), &json!(address)), "{joined}");
    // Anywhere else it makes no difference, whatever the key says.
    let elsewhere = World::new(lab)?;
    let server = elsewhere.server.api();
    let token = |server: &str| BASE64.encode(format!(r#"{{"server":"{server}","value":"A"}}"#).as_bytes());
    let refused = elsewhere.run(&node, &["join", "--allow-http", &token(&format!("http://{server}"))])?;
    ended_with(&refused, 5, "plain HTTP is only for loopback addresses");
    let (_serving, over_tls) = elsewhere.join(&node, &elsewhere.key("team", &["office"], 1)?, &["--allow-http"])?;
    assert_eq!(over_tls["state"], "up");
    Ok(())
}

fn a_join_waits_for_the_clock(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let tls = Tls { flaw: Flaw::NotYetValid, ..Tls::default() };
    let world = World::with(lab, Options { tls, ..Options::default() })?;
    let key = world.key("team", &["office"], 1)?;

    let bounded = world.run(&node, &["join", "--timeout", "2", &key])?;
    lab.block_on(world.server.make(Trouble::Certificate { flaw: Flaw::Soon }))?;
    let joining = world.start_join(&node, &key, &[])?;
    let joined = joining.json(JOINED)?;

    ended_with(&bounded, 75, "is not valid yet by this machine's clock, which says 20");
    ended_with(&bounded, 75, "waiting for this machine's clock");
    assert_eq!(joined["result"], "enrolled", "{joined}");
    assert!(joined["timings_ms"]["clock"].as_f64().is_some_and(|waited| waited > 0.0), "{joined}");
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (0, 1));
    let registrations = world.server.faults().observed();
    let sent = registrations.iter().filter(|seen| seen.path.contains("register")).count();
    assert_eq!(sent, 1, "the key went out more than once");
    Ok(())
}

fn a_service_waits_for_the_clock(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let tls = Tls { flaw: Flaw::NotYetValid, ..Tls::default() };
    let world = World::with(lab, Options { tls, ..Options::default() })?;
    let key = world.key("team", &["office"], 1)?;
    world.configure(&node, &format!("key = \"{key}\"\ntimeout = 2\n"))?;
    let service = world.serve(&node, &[])?;

    let seen = eventually("the clock's part in it", DONE, || {
        let report = report(&world, &node).ok()?;
        let enrolling = report["enrolling"][0].clone();
        (enrolling["state"] == "clock" && enrolling["last_error"]["class"] == "clock").then_some(enrolling)
    })?;
    let text = world.run(&node, &["status"])?.stdout.join("\n");
    lab.block_on(world.server.make(Trouble::Certificate { flaw: Flaw::None }))?;

    ensure!(text.contains("waiting for this machine's clock"), "{text}{seen}");
    wait_up(&world, &node)?;
    wait_for(&world, &node, "the first contact", |status| status["contact"]["online"] == true)?;
    assert_eq!((world.uses_left("team")?, world.server.hosts()?.len()), (0, 1));
    stop(&service)
}

/// The pin that a refusal shows.
fn shown(refused: &Output) -> Result<String> {
    let said = refused.stderr.join("\n");
    let pin = said.split("its own is ").nth(1).and_then(|rest| rest.split_whitespace().next());
    pin.map(str::to_owned).context(said.clone())
}

/// Writes a file that its owner alone can read.
fn private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

/// Takes one plain request, asks the server behind over TLS, and passes its answer on.
fn pass_on(mut stream: &TcpStream, behind: std::net::SocketAddr, ca: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(std::io::Error::other)?,
            "connection" => continue,
            _ => {}
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls::pki_types::pem::PemObject::from_pem_slice(ca.as_bytes()).map_err(std::io::Error::other)?;
    roots.add(root).map_err(std::io::Error::other)?;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(std::io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    let name = "localhost".try_into().map_err(std::io::Error::other)?;
    let connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name);
    let mut server = rustls::StreamOwned::new(connection.map_err(std::io::Error::other)?, TcpStream::connect(behind)?);
    write!(server, "{head}content-length: {length}\r\nconnection: close\r\n\r\n")?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    stream.write_all(&answer)
}
