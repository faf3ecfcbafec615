//! The API as an `OpenAPI` document, made from the calls themselves.

use axum::http::{Method, header};
use serde_json::{Map, Value, json};

use super::calls::{Call, Credential};
use crate::control::wire::ErrorResponse;

/// The call that answers with the description of `others` and itself.
pub(super) fn call(others: &[Call]) -> Call {
    let described = |text: String| {
        let answer = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
        Call::get("/api/ext/v1/openapi.json", answer, "Describe the API").by(Credential::None)
    };
    // It has to be there before it can describe itself.
    let itself = described(String::new());
    described(document(others.iter().chain([&itself])).to_string())
}

/// Describes calls.
fn document<'a>(calls: impl Iterator<Item = &'a Call>) -> Value {
    let mut paths = Map::new();
    for call in calls {
        let methods = paths.entry(call.path).or_insert_with(|| json!({}));
        methods[call.method.as_str().to_ascii_lowercase()] = operation(call);
    }
    let refusal = schema(&serde_json::to_value(ErrorResponse::default()).unwrap_or_default());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Bundled enrollment server",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Netmaker's enrollment API, and extensions below /api/ext/v1. A field that is missing or \
                            null has its zero value.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Refusal": refusal},
            "securitySchemes": {
                "administrator": {"type": "http", "scheme": "bearer", "description": "the master key or a user's session"},
                "host": {"type": "http", "scheme": "bearer", "description": "a host's session or the master key"},
            },
        },
    })
}

fn operation(call: &Call) -> Value {
    let in_path = call.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path =
        in_path.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = call.query.iter().map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}));
    let refusal = json!({
        "description": "refused",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
    });
    let mut operation = json!({
        "summary": call.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": {"2XX": {"description": "done"}, "4XX": refusal, "5XX": refusal},
    });
    match call.credential {
        Credential::Administrator => operation["security"] = json!([{"administrator": []}]),
        Credential::Host => operation["security"] = json!([{"host": []}]),
        Credential::None => {}
    }
    if let Some(blank) = &call.takes {
        let required = call.method != Method::DELETE;
        operation["requestBody"] =
            json!({"required": required, "content": {"application/json": {"schema": schema(blank)}}});
    }
    operation
}

/// Describes the type of a value; what is `null` may be anything.
fn schema(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(_) => json!({"type": ["boolean", "null"]}),
        Value::Number(_) => json!({"type": ["integer", "null"]}),
        Value::String(_) => json!({"type": ["string", "null"]}),
        Value::Array(items) => json!({"type": ["array", "null"], "items": items.first().map_or(json!({}), schema)}),
        Value::Object(fields) => {
            let properties: Map<_, _> = fields.iter().map(|(name, value)| (name.clone(), schema(value))).collect();
            json!({"type": "object", "properties": properties})
        }
    }
}
