//! Decoders that are written in the playground, and put when they are right.

use serde_json::{Value, json};

use super::{ACME, GLOBEX, OPERATOR, payload, publish, scene, send};
use crate::harness::gateway::GatewayDir;

/// The topic of a device of acme.
fn topic(message_type: &str) -> String {
    format!("tenant%2Facme%2Fdevice%2Fdev-1%2F{message_type}")
}

fn call(scene: &GatewayDir, token: &str, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let bearer = format!("Bearer {token}");
    let (status, _, body) = send(&scene.admin, method, path, &[("Authorization", &bearer)], body);
    (status, serde_json::from_str(&body).unwrap_or_default())
}

/// A payload through a text that is brought along.
fn attempt(scene: &GatewayDir, message_type: &str, file: &str, payload: &[u8], text: &str) -> (u16, Value) {
    let topic = topic(message_type);
    let path = format!("/api/v1/playground?topic={topic}&payload_bytes={}&file={file}", payload.len());
    call(scene, ACME, "POST", &path, &[payload, text.as_bytes()].concat())
}

fn put(scene: &GatewayDir, token: &str, query: &str, script: &str) -> (u16, Value) {
    call(scene, token, "PUT", &format!("/api/v1/guests/acme/up?file=js{query}"), script.as_bytes())
}

fn script(field: &str) -> String {
    format!("function decodeUplink(input) {{ return {{ data: {{ {field}: input.bytes.length }} }}; }}")
}

#[test]
fn a_topic_leads_to_its_decoder_with_the_texts_of_it() {
    let scene = scene();
    let gateway = scene.start();
    let path = format!("/api/v1/playground?topic={}", topic("up"));
    let places = |answer: &Value| -> Vec<String> {
        let places = answer["places"].as_array().unwrap().iter();
        places.map(|place| format!("{}/{}", place["tenant"], place["type"]).replace('"', "")).collect()
    };
    let (status, before) = call(&scene, ACME, "GET", &path, &[]);
    assert_eq!((status, &before["serves"]), (200, &Value::Null), "{before:#}");
    assert_eq!(places(&before), ["acme/up"]);
    assert_eq!(places(&call(&scene, OPERATOR, "GET", &path, &[]).1), ["acme/up", "_default/up"]);
    assert_eq!(call(&scene, GLOBEX, "GET", &path, &[]).0, 403);
    let text = script("n");
    assert_eq!(put(&scene, ACME, "", &text).0, 200);
    let (_, after) = call(&scene, ACME, "GET", &path, &[]);
    let serves = &after["serves"];
    assert_eq!((&serves["file"], &serves["built_in"]), (&json!("js"), &json!("js")), "{after:#}");
    let source = |token| call(&scene, token, "GET", "/api/v1/guests/acme/up/source", &[]);
    let (status, texts) = source(ACME);
    assert_eq!((status, &texts["texts"]), (200, &json!({"js": text})), "{texts:#}");
    assert_eq!(texts["version"], serves["version"]);
    assert_eq!(gateway.json_by("/api/v1/guests/acme", ACME)["guests"][0]["version"], texts["version"]);
    assert_eq!(source(GLOBEX).0, 403);
    assert_eq!(call(&scene, ACME, "GET", "/api/v1/guests/_default/telemetry/source", &[]).0, 403);
    // Another place than those at which the topic is looked up, and one of all tenants.
    for (place, expected) in [("acme%2Fother", 400), ("_default%2Fup", 403)] {
        let path = format!("{path}&payload_bytes=0&file=js&place={place}");
        assert_eq!(call(&scene, ACME, "POST", &path, script("n").as_bytes()).0, expected, "{place}");
    }
}

#[test]
fn a_script_is_tried_before_it_is_put_and_one_that_loops_ends_at_its_deadline() {
    let scene = scene();
    let gateway = scene.start();
    let (status, answer) = attempt(&scene, "up", "js", &[1, 2, 3], &script("n"));
    assert_eq!((status, &answer["outcome"]), (200, &json!("lines")), "{answer:#}");
    let line = answer["lines"][0].as_str().unwrap();
    assert!(line.starts_with("up,") && line.contains(" n=3.0 "), "{line}");
    let received_at = answer["received_at"].as_str().unwrap();
    let received: jiff::Timestamp = received_at.parse().unwrap();
    assert!(line.ends_with(&format!(" {}", received.as_nanosecond())), "{line} at {received_at}");
    assert_eq!((&answer["put"]["state"], &answer["values"]), (&json!("tried"), &Value::Null), "{answer:#}");
    let endless = "function decodeUplink(input) { for (;;) {} }";
    let (status, answer) = attempt(&scene, "up", "js", &[1], endless);
    assert_eq!((status, &answer["reason"]), (200, &json!("GUEST_DEADLINE")), "{answer:#}");
    let (status, answer) = attempt(&scene, "up", "js", &[1], "for (;;) {}");
    assert_eq!((status, &answer["error"]), (422, &json!("MAY_NOT_SERVE")), "{answer:#}");
    assert!(answer["message"].as_str().unwrap().contains("GUEST_DEADLINE"), "{answer:#}");
    assert_eq!(gateway.json_by("/api/v1/guests/acme", ACME)["guests"], json!([]));
}

#[test]
fn a_mapping_shows_the_bytes_of_each_value() {
    let scene = scene();
    let _gateway = scene.start();
    let mapping = "decoder = \"mapping\"\n[options]\nmeasurement = \"meter\"\n\
                   fields.energy_kwh = \"u32be@2 * 0.001\"\nfields.signal = { value = \"u8@6\", none = 0xff }\n";
    let payload = [1, 0x64, 0x00, 0x0f, 0x42, 0x40, 0xff];
    let (status, answer) = attempt(&scene, "meter", "toml", &payload, mapping);
    assert_eq!((status, &answer["outcome"]), (200, &json!("lines")), "{answer:#}");
    let energy = json!({"record": null, "role": "field", "name": "energy_kwh", "place": null, "from": 2, "to": 6,
        "bytes": "00 0f 42 40", "raw": "1000000", "value": "1000"});
    assert_eq!(answer["values"][0], energy, "{answer:#}");
    assert_eq!((&answer["values"][1]["from"], &answer["values"][1]["value"]), (&json!(6), &Value::Null));
    // A payload that is too short: the value at which it ends.
    let (_, answer) = attempt(&scene, "meter", "toml", &payload[..4], mapping);
    assert_eq!(answer["reason"], "GUEST_REFUSED", "{answer:#}");
    assert!(answer["values"].as_array().unwrap().iter().any(|value| value["role"] == "fault"), "{answer:#}");
    // The one that serves shows the same.
    let place = "/api/v1/guests/acme/meter?file=toml";
    assert_eq!(call(&scene, ACME, "PUT", place, mapping.as_bytes()).0, 200);
    let path = format!("/api/v1/playground?topic={}", topic("meter"));
    assert_eq!(call(&scene, ACME, "POST", &path, &payload).1["values"][0], energy);
}

#[test]
fn a_script_that_runs_and_may_not_serve_shows_its_lines_and_the_reason() {
    let scene = scene();
    let _gateway = scene.start();
    assert_eq!(put(&scene, ACME, "", &script("n")).0, 200);
    for seq in 0..4 {
        publish(&scene, "acme", "up", &payload("acme", seq));
    }
    let broken =
        "function decodeUplink(input) { if (input.bytes.length > 9) throw 'no'; return { data: { n: 1 } } }";
    let (status, answer) = attempt(&scene, "up", "js", &[1], broken);
    assert_eq!(
        (status, &answer["outcome"], &answer["put"]),
        (200, &json!("lines"), &Value::Null),
        "{answer:#}"
    );
    let why = answer["may_not_serve"].as_str().unwrap();
    assert!(why.contains("it fails on 4 of the last 4 messages"), "{why}");
}

#[test]
fn of_two_who_put_at_once_the_second_is_told() {
    let scene = scene();
    let gateway = scene.start();
    let version = || gateway.json_by("/api/v1/guests/acme", ACME)["guests"][0]["version"].clone();
    assert_eq!(put(&scene, ACME, "&expect_version=none", &script("a")).0, 200);
    let first = version();
    let first = first.as_str().unwrap();
    let (status, answer) = put(&scene, OPERATOR, "&expect_version=none", &script("b"));
    assert_eq!((status, &answer["error"]), (409, &json!("CHANGED_MEANWHILE")), "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains(&format!("now {first} serves, put by tenant acme at ")), "{message}");
    // The same once more is no conflict: it serves already.
    assert_eq!(put(&scene, ACME, "&expect_version=none", &script("a")).1["state"], "unchanged");
    // Of many at once who began with the same version one is put.
    let began = format!("&expect_version={first}");
    let statuses: Vec<u16> = std::thread::scope(|threads| {
        let put = |n| put(&scene, OPERATOR, &began, &script(&format!("c{n}"))).0;
        let running: Vec<_> = (0..4).map(|n| threads.spawn(move || put(n))).collect();
        running.into_iter().map(|put| put.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 3, "{statuses:?}");
    // The verb has the same guard.
    std::fs::write(scene.path("up.js"), script("d")).unwrap();
    let verb = |version: &str| {
        let verb = ["guest", "put", "acme", "up", "up.js", "--expect-version", version];
        scene.verb(&[&verb[..], &["--token-file", "operator"]].concat(), "")
    };
    let (exit, _, errors) = verb(first);
    assert!(exit.code() == Some(1) && errors.contains("CHANGED_MEANWHILE"), "{errors}");
    let (exit, out, errors) = verb(version().as_str().unwrap());
    assert_eq!(exit.code(), Some(0), "{out}{errors}");
    let (exit, _, errors) = verb("js@1.0.0");
    assert!(exit.code() == Some(2) && errors.contains("expected \"none\""), "{errors}");
}
