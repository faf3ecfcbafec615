//! Every call of the API's own description, asked wrongly: each refuses cleanly and changes nothing.

use enroll_agent::control::wire::Host;
use reqwest::{Method, Response};
use serde_json::{Map, Value, json};

use crate::bench::*;

/// A call as the description has it, for things that exist.
struct Call {
    method: Method,
    path: String,
    needs_proof: bool,
    /// The types of a body's fields; `None` if it takes no body.
    fields: Option<Map<String, Value>>,
}

/// A server with one of everything.
struct Scene {
    bench: Bench,
    calls: Vec<Call>,
}

#[tokio::test]
async fn without_proof_every_call_that_needs_it_is_refused() {
    let Scene { bench, calls } = scene().await;
    let before = state(&bench);

    for Call { method, path, .. } in calls.iter().filter(|call| call.needs_proof) {
        for bearer in [None, Some(""), Some("wrong"), Some("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.")] {
            let answer = bench.send(method.clone(), path, "{}".to_owned(), bearer).await;
            assert_eq!(message(answer).await, (401, "unauthorized".to_owned()), "{method} {path} {bearer:?}");
        }
    }

    assert!(calls.iter().filter(|call| call.needs_proof).count() > 40);
    assert_eq!(state(&bench), before);
}

#[tokio::test]
async fn bodies_that_are_no_documents_are_refused() {
    let Scene { bench, calls } = scene().await;
    let before = state(&bench);
    let deep = |open: &str, close: &str| open.repeat(20_000) + &close.repeat(20_000);
    let bodies = [
        "{".to_owned(),
        "not json".to_owned(),
        "\u{0}\u{ffff}".to_owned(),
        "[]".to_owned(),
        "[1, 2]".to_owned(),
        "7".to_owned(),
        "\"text\"".to_owned(),
        "{}{}".to_owned(),
        deep("[", "]"),
        deep("{\"a\":", "}"),
        format!("{{\"unknown\": {}}}", deep("[", "]")),
    ];

    for call in calls.iter().filter(|call| call.fields.is_some()) {
        for body in &bodies {
            let answer = send(&bench, call, body.clone()).await;
            refused(answer, &format!("{} {} {:.40}", call.method, call.path, body)).await;
        }
    }

    assert!(calls.iter().filter(|call| call.fields.is_some()).count() > 15);
    assert_eq!(state(&bench), before);
}

#[tokio::test]
async fn fields_of_a_wrong_type_are_refused() {
    let Scene { bench, calls } = scene().await;
    let before = state(&bench);

    for call in &calls {
        for (field, schema) in call.fields.iter().flatten() {
            let wrong = match schema["type"].get(0).unwrap_or(&schema["type"]).as_str() {
                Some("string") => json!(7),
                Some("integer") => json!("seven"),
                Some("boolean") => json!([]),
                Some("array") => json!({"a": 1}),
                Some("object") => json!("text"),
                // Anything is right.
                Some(_) | None => continue,
            };
            let answer = send(&bench, call, json!({field: wrong}).to_string()).await;
            refused(answer, &format!("{} {} {field}", call.method, call.path)).await;
        }
    }

    assert_eq!(state(&bench), before);
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused_everywhere() {
    let Scene { bench, calls } = scene().await;
    let before = state(&bench);

    for call in &calls {
        let answer = send(&bench, call, " ".repeat(1024 * 1024 + 1)).await;
        assert_eq!(message(answer).await.0, 413, "{} {}", call.method, call.path);
    }

    assert_eq!(state(&bench), before);
}

#[tokio::test]
async fn things_that_do_not_exist_are_refused() {
    let Scene { bench, .. } = scene().await;
    let before = state(&bench);
    let document: Value = bench.get("/api/ext/v1/openapi.json", "").await.document().await;

    for call in described(&document, |_| "%F0%9F%91%BB".to_owned()) {
        let answer = send(&bench, &call, "{}".to_owned()).await;
        let is_list = call.method == Method::GET && answer.status() == 200;
        if call.path.contains("%F0") && !is_list {
            refused(answer, &format!("{} {}", call.method, call.path)).await;
        }
    }
    for path in ["/api/ext/v1/audit?limit=x", "/api/ext/v1/audit?key=x", "/api/networks/%ff", "/api/hosts/%ff%00"] {
        refused(bench.admin(Method::GET, path, json!(null)).await, path).await;
    }

    assert_eq!(state(&bench), before);
}

async fn scene() -> Scene {
    let bench = Bench::new().await;
    let host = Host { os: "linux".into(), ..bench.join("plant-a", "a", 1).await };
    let node = bench.node(host.id, "plant-a");
    let key = bench.handle.create_key(key("a-key", &["plant-a"])).unwrap();
    let document: Value = bench.get("/api/ext/v1/openapi.json", "").await.document().await;
    let calls = described(&document, |name| match name {
        "host" => host.id.to_string(),
        "key" => key.id.to_string(),
        "network" => "plant-a".to_owned(),
        "node" => node.to_string(),
        "pending" => uuid::Uuid::from_u128(9).to_string(),
        "token" => key.token.expose().to_owned(),
        "user" => "alice".to_owned(),
        other => panic!("what is a {other}?"),
    });
    Scene { bench, calls }
}

/// The calls of a description, with `fill` for the parameters of a path.
fn described(document: &Value, fill: impl Fn(&str) -> String) -> Vec<Call> {
    let mut calls = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let parts = path.split('/').map(|part| match part.strip_prefix('{') {
            Some(name) => fill(name.trim_end_matches('}')),
            None => part.to_owned(),
        });
        let path = parts.collect::<Vec<_>>().join("/");
        for (method, operation) in methods.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            calls.push(Call {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                needs_proof: !operation["security"].is_null(),
                fields: schema["properties"].as_object().cloned(),
            });
        }
    }
    calls
}

async fn send(bench: &Bench, call: &Call, body: String) -> Response {
    bench.send(call.method.clone(), &call.path, body, Some(bench.handle.master_key())).await
}

/// Checks that an answer is a refusal, in the shape of one.
async fn refused(answer: Response, what: &str) {
    let status = answer.status().as_u16();
    assert!(status >= 400, "{what}: {status}");
    assert_eq!(content_type(&answer), "application/json", "{what}");
    let text = answer.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    assert!(body["Code"] == status && !body["Message"].as_str().unwrap().is_empty(), "{what}: {text}");
}

/// Everything that a refused call must leave alone.
fn state(bench: &Bench) -> Value {
    let handle = &bench.handle;
    json!({
        "networks": handle.networks().unwrap(), "keys": handle.keys().unwrap(), "hosts": handle.hosts().unwrap(),
        "nodes": handle.nodes().unwrap(),
    })
}
