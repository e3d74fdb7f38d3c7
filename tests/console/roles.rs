//! Each endpoint with each role, and each answer against the document of the API.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ACME, GLOBEX, OPERATOR, READER, payload, scene, send, send_some};
use crate::harness::gateway::GatewayDir;

/// An endpoint, and the statuses that it gives to: the operator, a reader, the tenant acme, the tenant globex, and
/// nobody. Its path names what is acme's.
struct Endpoint {
    method: &'static str,
    path: &'static str,
    /// In the document.
    template: &'static str,
    body: &'static str,
    status: [u16; 5],
}

const fn endpoint(
    method: &'static str,
    path: &'static str,
    template: &'static str,
    status: [u16; 5],
) -> Endpoint {
    Endpoint { method, path, template, body: "", status }
}

/// Everybody may, and sees its own.
const OWN: [u16; 5] = [200, 200, 200, 200, 401];

/// Only acme's, and for those who see all.
const ACMES: [u16; 5] = [200, 200, 200, 403, 401];

/// In the order of what they change: what removes stands last.
const ENDPOINTS: &[Endpoint] = &[
    endpoint("GET", "/api/v1/session", "/session", [200; 5]),
    endpoint("POST", "/api/v1/session", "/session", [400; 5]),
    endpoint("DELETE", "/api/v1/session", "/session", [204; 5]),
    endpoint("GET", "/api/v1/overview", "/overview", OWN),
    endpoint("GET", "/api/v1/history", "/history", OWN),
    endpoint("GET", "/api/v1/history?tenant=acme", "/history", ACMES),
    endpoint("GET", "/api/v1/books", "/books", OWN),
    endpoint("GET", "/api/v1/tenants", "/tenants", OWN),
    endpoint("GET", "/api/v1/tenants/acme", "/tenants/{tenant}", ACMES),
    endpoint("GET", "/api/v1/devices", "/devices", OWN),
    endpoint("GET", "/api/v1/devices?tenant=acme", "/devices", ACMES),
    endpoint("GET", "/api/v1/devices/acme/dev-1", "/devices/{tenant}/{device}", ACMES),
    endpoint("GET", "/api/v1/tap/1", "/tap/{id}", [404, 403, 404, 404, 401]),
    endpoint("GET", "/api/v1/tap?bad=1", "/tap", [400, 400, 400, 400, 401]),
    endpoint("GET", "/api/v1/quarantine", "/quarantine", OWN),
    endpoint("GET", "/api/v1/quarantine/entries", "/quarantine/entries", OWN),
    endpoint("GET", "/api/v1/quarantine/entries?tenant=acme", "/quarantine/entries", ACMES),
    endpoint("GET", "/api/v1/spool", "/spool", OWN),
    endpoint("POST", "/api/v1/spool/retry", "/spool/retry", [200, 403, 200, 200, 401]),
    endpoint("GET", "/api/v1/guests", "/guests", OWN),
    endpoint("GET", "/api/v1/guests/acme", "/guests/{tenant}", ACMES),
    endpoint(
        "GET",
        "/api/v1/guests/acme/steps/history",
        "/guests/{tenant}/{type}/history",
        [404, 404, 404, 403, 401],
    ),
    endpoint(
        "GET",
        "/api/v1/guests/acme/steps/log",
        "/guests/{tenant}/{type}/log",
        [404, 403, 404, 403, 401],
    ),
    endpoint(
        "GET",
        "/api/v1/guests/acme/steps/source",
        "/guests/{tenant}/{type}/source",
        [404, 403, 404, 403, 401],
    ),
    endpoint(
        "GET",
        "/api/v1/guests/acme/steps/state",
        "/guests/{tenant}/{type}/state",
        [200, 403, 200, 403, 401],
    ),
    endpoint(
        "POST",
        "/api/v1/guests/acme/steps/rollback",
        "/guests/{tenant}/{type}/rollback",
        [404, 403, 404, 403, 401],
    ),
    endpoint("PUT", "/api/v1/guests/acme/steps", "/guests/{tenant}/{type}", [422, 403, 422, 403, 401]),
    endpoint("DELETE", "/api/v1/guests/acme/none", "/guests/{tenant}/{type}", [404, 403, 404, 403, 401]),
    endpoint(
        "GET",
        "/api/v1/playground?topic=tenant%2Facme%2Fdevice%2Fdev-1%2Ftelemetry",
        "/playground",
        [200, 403, 200, 403, 401],
    ),
    Endpoint {
        body: "{}",
        ..endpoint(
            "POST",
            "/api/v1/playground?topic=tenant%2Facme%2Fdevice%2Fdev-1%2Ftelemetry",
            "/playground",
            [200, 403, 200, 403, 401],
        )
    },
    endpoint("GET", "/api/v1/configuration", "/configuration", OWN),
    endpoint("POST", "/api/v1/drain", "/drain", [200, 403, 403, 403, 401]),
    endpoint("DELETE", "/api/v1/drain", "/drain", [200, 403, 403, 403, 401]),
    endpoint("GET", "/api/v1/drain", "/drain", [200, 200, 403, 403, 401]),
    endpoint("GET", "/api/v1/fleet", "/fleet", [404, 404, 403, 403, 401]),
    endpoint("GET", "/api/v1/fleet/books", "/fleet/books", [404, 404, 403, 403, 401]),
    Endpoint {
        body: r#"{"tenant":"acme","reason":"NO_GUEST"}"#,
        ..endpoint("POST", "/api/v1/quarantine/replay", "/quarantine/replay", [200, 403, 200, 403, 401])
    },
    endpoint(
        "DELETE",
        "/api/v1/quarantine/entries?tenant=acme&reason=SCHEMA_MISMATCH",
        "/quarantine/entries",
        [400, 403, 400, 403, 401],
    ),
    endpoint(
        "DELETE",
        "/api/v1/quarantine/entries?tenant=acme&reason=BAD_PAYLOAD",
        "/quarantine/entries",
        [200, 403, 200, 403, 401],
    ),
];

fn call(scene: &GatewayDir, endpoint: &Endpoint, token: Option<&str>) -> (u16, String) {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", &**bearer)).collect();
    let (status, _, body) =
        send(&scene.admin, endpoint.method, endpoint.path, &headers, endpoint.body.as_bytes());
    (status, body)
}

#[test]
fn each_endpoint_answers_each_role_as_it_may() {
    let scene = scene();
    let gateway = scene.start();
    send_some(&scene);
    for endpoint in ENDPOINTS {
        let roles = [Some(OPERATOR), Some(READER), Some(ACME), Some(GLOBEX), None];
        for (role, (token, expected)) in roles.into_iter().zip(endpoint.status).enumerate() {
            let (status, body) = call(&scene, endpoint, token);
            assert_eq!(
                status, expected,
                "{} {} as role {role} ({token:?}): {body}",
                endpoint.method, endpoint.path
            );
            if token == Some(GLOBEX) && status == 200 {
                // No name of another tenant, of its device or of a key of its payloads.
                for foreign in ["secret_acme", "lab-1", "dev-1"] {
                    assert!(!body.contains(foreign), "{foreign} in {} for globex: {body}", endpoint.path);
                }
                let of_itself = body.replace("\"tenant\":\"globex\"", "");
                assert!(!of_itself.contains("\"acme\""), "acme in {} for globex: {body}", endpoint.path);
            }
            if matches!(token, Some(READER) | None) {
                assert!(!body.contains("secret_"), "a payload in {}: {body}", endpoint.path);
            }
        }
    }
    // An entry by its number: the same for each role.
    let entries = gateway.json_by("/api/v1/quarantine/entries", ACME);
    let id = entries["entries"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/quarantine/entries/{id}");
    let of = |token| gateway.get_with_token(&path, token);
    let roles = [Some(OPERATOR), Some(READER), Some(ACME), Some(GLOBEX), None];
    assert_eq!(roles.map(|token| of(token).0), [200, 200, 200, 404, 401]);
    assert!(of(Some(ACME)).1.contains("secret_acme") && !of(Some(READER)).1.contains("secret_acme"));
    // The tap is a stream: it is asked for beside the others.
    gateway.assert_balanced_by(OPERATOR);
}

#[test]
fn without_tokens_this_machine_reads_what_holds_no_payload() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let _gateway = scene.start();
    super::publish(&scene, "acme", "telemetry", &payload("acme", 1));
    super::publish(&scene, "acme", "nonsense", &payload("acme", 2));
    for endpoint in ENDPOINTS.iter().filter(|endpoint| !endpoint.path.contains("session")) {
        let (status, body) = call(&scene, endpoint, None);
        let is_read = endpoint.status[1] == 200 && endpoint.method == "GET";
        let expected: &[u16] = match is_read {
            true => &[200],
            false => &[400, 403, 404],
        };
        assert!(expected.contains(&status), "{} {}: {status} {body}", endpoint.method, endpoint.path);
        assert!(!body.contains("secret_"), "{}: {body}", endpoint.path);
    }
}

/// Faults of a value against a schema of the document, by the path of the value. A member that the schema does not name
/// is one.
fn faults(document: &Value, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return faults(document, &document["components"]["schemas"][name], value, path, found);
    }
    for key in ["oneOf", "anyOf"] {
        let Some(options) = schema[key].as_array() else { continue };
        let of_each = options.iter().map(|option| {
            let mut faults_of = Vec::new();
            faults(document, option, value, path, &mut faults_of);
            faults_of
        });
        if let Some(least) = of_each.min_by_key(Vec::len) {
            found.extend(least);
        }
        return;
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // Members of one part are not known to the others: they are looked at together.
        let mut all = serde_json::json!({"type": "object", "properties": {}, "required": []});
        for part in parts {
            let part = match part["$ref"].as_str() {
                Some(name) => &document["components"]["schemas"][name.rsplit('/').next().unwrap()],
                None => part,
            };
            for (name, property) in part["properties"].as_object().into_iter().flatten() {
                all["properties"][name] = property.clone();
            }
        }
        return faults(document, &all, value, path, found);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_known = kinds.contains(&kind) || kind == "integer" && kinds.contains(&"number");
    if !is_known {
        return found.push(format!("{path} is {kind} and not {kinds:?}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{path} = {value} is none of {words:?}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        faults(document, &schema["items"], item, &format!("{path}[{index}]"), found);
    }
    let Some(members) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            found.push(format!("{path}.{name} is not there"));
        }
    }
    let properties = schema["properties"].as_object();
    for (name, member) in members {
        let path = format!("{path}.{name}");
        match properties.and_then(|properties| properties.get(name)) {
            Some(property) => faults(document, property, member, &path, found),
            None if schema["additionalProperties"].is_object() => {
                faults(document, &schema["additionalProperties"], member, &path, found)
            }
            None if properties.is_none() => {}
            None => found.push(format!("{path} is not in the document")),
        }
    }
}

#[test]
fn the_document_describes_each_endpoint_and_each_answer_is_as_it_says() {
    let scene = scene();
    let _gateway = scene.start();
    send_some(&scene);
    let (status, _, body) = send(&scene.admin, "GET", "/api/v1/openapi.json", &[], &[]);
    assert_eq!(status, 200, "{body}");
    let document: Value = serde_json::from_str(&body).unwrap();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let path = path.trim_start_matches("/api/v1").to_owned();
            item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let tested: BTreeSet<(String, String)> = ENDPOINTS
        .iter()
        .map(|endpoint| (endpoint.method.to_owned(), endpoint.template.to_owned()))
        .chain([("GET".to_owned(), "/quarantine/entries/{id}".to_owned())])
        .collect();
    assert_eq!(described, tested);
    let mut found = Vec::new();
    for endpoint in ENDPOINTS {
        for (role, token) in [OPERATOR, ACME].into_iter().enumerate() {
            let (status, body) = call(&scene, endpoint, Some(token));
            if body.is_empty() || status == 400 && endpoint.path.contains("session") {
                continue;
            }
            let answer: Value = serde_json::from_str(&body).unwrap();
            let operation =
                &document["paths"][format!("/api/v1{}", endpoint.template)][endpoint.method.to_lowercase()];
            let schema = match status {
                200 => &operation["responses"]["200"]["content"]["application/json"]["schema"],
                _ => &document["components"]["schemas"]["ApiErrorBody"],
            };
            assert!(schema.is_object(), "{} {} has no schema", endpoint.method, endpoint.path);
            let name = format!("{} {} ({role})", endpoint.method, endpoint.path);
            faults(&document, schema, &answer, &name, &mut found);
        }
    }
    assert!(found.is_empty(), "answers against the document:\n{}", found.join("\n"));
}

#[test]
fn a_fault_of_an_answer_is_found() {
    let document = serde_json::json!({"components": {"schemas": {"A": {
        "type": "object", "required": ["n"],
        "properties": {"n": {"type": "integer"}, "s": {"type": ["string", "null"]}},
    }}}});
    let check = |value: Value| {
        let mut found = Vec::new();
        let schema = serde_json::json!({"$ref": "#/components/schemas/A"});
        faults(&document, &schema, &value, "a", &mut found);
        found.len()
    };
    assert_eq!(check(serde_json::json!({"n": 1, "s": null})), 0);
    for bad in [r#"{"s":"x"}"#, r#"{"n":"1"}"#, r#"{"n":1,"more":2}"#, r#"{"n":1,"s":2}"#, "7"] {
        assert_eq!(check(serde_json::from_str(bad).unwrap()), 1, "{bad}");
    }
}
