//! A tenant's token on every operation of the document, with everything in its place that names another tenant.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::tap::Viewer;
use super::{ACME, GLOBEX, OPERATOR, scene, send, send_some};
use crate::harness::gateway::{GatewayDir, built_guest};

/// The texts that only acme and those who see all may read.
const SECRETS: [&str; 4] = ["secret_acme", "lab-1", "tok-dev-1", "telemetry_acme"];

/// Names of acme and of all tenants, as somebody writes them who wants to get around a check.
const TENANTS: [&str; 7] =
    ["acme", "%61cme", "acme%2F", "..%2Facme", "acme%00", "globex%2F..%2Facme", "_default"];

/// The values of a parameter of acme's, for a path or a query.
fn values(name: &str, entry: &str, tapped: &str, template: &str) -> Vec<String> {
    let texts: &[&str] = match name {
        "tenant" => &TENANTS,
        "type" => &["steps", "telemetry", "_any"],
        "device" => &["dev-1"],
        "topic" => &["tenant%2Facme%2Fdevice%2Fdev-1%2Ftelemetry"],
        "place" => &["acme%2Ftelemetry", "_default%2Ftelemetry"],
        "id" if template.contains("/tap/") => return vec![tapped.to_owned()],
        "id" => return vec![entry.to_owned()],
        "reason" => &["NO_GUEST"],
        "partition" => &["dev-1"],
        "database" => &["telemetry_acme"],
        "expect_version" => &["none"],
        "expect_same" | "all" => &["true"],
        "file" => &["toml"],
        _ => &["1"],
    };
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// All ways to fill in a template with one value of each of its parameters.
fn filled(template: &str, of: &dyn Fn(&str) -> Vec<String>) -> Vec<String> {
    let mut paths = vec![template.to_owned()];
    while let Some(name) =
        paths[0].split_once('{').map(|(_, rest)| rest.split('}').next().unwrap().to_owned())
    {
        let place = format!("{{{name}}}");
        let fill = |path: &String| of(&name).into_iter().map(|value| path.replace(&place, &value)).collect();
        paths = paths.iter().flat_map(|path: &String| -> Vec<String> { fill(path) }).collect();
    }
    paths
}

/// Calls with globex's token; one that came too fast is made again.
fn call(scene: &GatewayDir, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let bearer = format!("Bearer {GLOBEX}");
    loop {
        let (status, _, body) = send(&scene.admin, method, path, &[("Authorization", &bearer)], body);
        if status != 429 {
            return (status, body);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_hostile_tenants_token_reads_and_changes_nothing_of_another_at_any_endpoint() {
    let scene = scene();
    scene.guest("acme", "steps", "steady");
    let gateway = scene.start();
    // A message that is remembered is one that somebody may see.
    let mut viewer = Viewer::open(&scene, ACME, "").unwrap();
    send_some(&scene);
    let tapped = viewer.message()["id"].to_string();
    let entries = |token| gateway.json_by("/api/v1/quarantine/entries", token)["entries"].clone();
    let entry = entries(ACME)[0]["id"].as_str().unwrap().to_owned();
    let kept = || {
        (
            entries(ACME),
            gateway.json_by("/api/v1/guests", OPERATOR)["guests"].clone(),
            books(&gateway.json_by("/api/v1/books", ACME)),
        )
    };
    let before = kept();
    let component = fs::read(built_guest("strict")).unwrap();
    let route_file = b"decoder = \"json\"\n".to_vec();
    let filter = |text: &str| text.as_bytes().to_vec();
    let bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        filter(r#"{"tenant":"acme"}"#),
        filter(&format!(r#"{{"id":"{entry}"}}"#)),
        filter(r#"{"tenant":"acme","all":true}"#),
        route_file,
        component,
    ];
    let document = gateway.json_by("/api/v1/openapi.json", GLOBEX);
    let (mut calls, mut statuses) = (0, BTreeSet::new());
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            // A stream has no end: of its filters each is tried, and one of acme's is refused at once.
            let is_stream = template.ends_with("/tap");
            let (method, of) = (method.to_uppercase(), |name: &str| values(name, &entry, &tapped, template));
            let query: Vec<&str> = parameters(operation, "query");
            let mut queries = vec![String::new()];
            for name in &query {
                queries.extend(of(name).into_iter().map(|value| format!("{name}={value}")));
            }
            let all = query.iter().map(|name| format!("{name}={}", of(name)[0])).collect::<Vec<_>>();
            queries.push(all.join("&"));
            if is_stream {
                queries.retain(|query| query.contains("tenant="));
            }
            for path in filled(template, &of) {
                for query in &queries {
                    let path = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
                    let with_body = matches!(&*method, "POST" | "PUT") && !template.ends_with("/session");
                    for body in bodies.iter().take(if with_body { bodies.len() } else { 1 }) {
                        let (status, answer) = call(&scene, &method, &path, body);
                        calls += 1;
                        statuses.insert(status);
                        assert!(status < 500 || status == 503, "{method} {path}: {status} {answer}");
                        for secret in SECRETS {
                            // What was asked for may be named in the answer.
                            let is_named = answer.contains(secret) && !path.contains(secret);
                            assert!(!is_named, "{secret} in {method} {path} for globex: {answer}");
                        }
                    }
                }
            }
        }
    }
    assert!(calls > 300 && statuses.contains(&403), "{calls} calls, {statuses:?}");
    assert_eq!(kept(), before, "something of acme's has changed");
    gateway.assert_balanced_by(OPERATOR);
}

/// The names of the parameters of an operation, in the path or in the query.
fn parameters<'a>(operation: &'a Value, place: &str) -> Vec<&'a str> {
    let all = operation["parameters"].as_array().into_iter().flatten();
    all.filter(|one| one["in"] == place).filter_map(|one| one["name"].as_str()).collect()
}

/// The books of a tenant but for what passes by itself.
fn books(of: &Value) -> Value {
    let acme = &of["tenants"]["acme"];
    serde_json::json!([
        acme["messages"]["received"],
        acme["messages"]["quarantined"],
        acme["quarantine"]["entries"]
    ])
}
