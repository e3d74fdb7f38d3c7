//! JavaScript codecs as makers publish them: as a route of a tenant, from a broker to lines, and on their own examples.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::gateway::{Gateway, GatewayDir, tidegate};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

const OUTPUT: &str = "[output]\nkind = \"file\"\n[admission]\ncredentials = \"broker\"\nrate_per_s = 0\n";

/// A thermometer with everything that a codec may do to its surroundings.
const CODEC: &str = r#"
var calls = 0;
function deep(n) { return deep(n + 1) + 1; }
function decodeUplink(input) {
  calls += 1;
  switch (input.bytes[0]) {
    case 1: for (;;) {}
    case 2: return { data: { a: /^(x+x+)+y$/.test("x".repeat(60)) } };
    case 3: return { data: { a: deep(0) } };
    case 4: { var all = []; for (;;) all.push(new Array(1000).fill(7)); }
    case 5: return { data: { a: new Array(1e9).fill(0) } };
    case 6: return { errors: ["no such frame"] };
    case 7: return { data: { a: input.none.such } };
    case 8: return { data: { temperature: 1 }, warnings: ["battery low"] };
  }
  console.log("port", input.fPort, { calls: calls });
  return {
    data: {
      temperature: (input.bytes[1] * 256 + input.bytes[2]) / 10,
      calls: calls,
      same_time: input.recvTime.getTime() === Date.now() && new Date().getTimezoneOffset() === 0,
      random: Math.random(),
    },
  };
}
"#;

/// A scene with one device whose messages of the type `up` a script decodes.
fn scene(broker: &Mosquitto, script: &str) -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    fs::create_dir_all(scene.path("guests/acme")).unwrap();
    fs::write(scene.path("guests/acme/up.js"), script).unwrap();
    scene.configure_broker(&broker.url(), OUTPUT);
    scene
}

#[test]
fn a_script_alone_is_a_route_and_whatever_it_does_costs_its_own_message_only() {
    let broker = Mosquitto::start_in_memory();
    let mut scene = scene(&broker, CODEC);
    scene.set_token("operator");
    let gateway = scene.start();
    let topic = "tenant/acme/device/dev-1/up".to_owned();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    let good = vec![0, 0, 215];
    for bomb in 1..=7 {
        publisher.publish_all([(topic.clone(), vec![bomb]), (topic.clone(), good.clone())]);
    }
    publisher.publish_all([(topic, vec![8])]);
    gateway.wait("the refused ones", |gateway| gateway.book("acme", "messages", "quarantined") == 7);
    gateway.wait("the good ones", |gateway| gateway.book("acme", "messages", "lines") == 8);
    gateway.wait("the lines", |gateway| gateway.book("acme", "lines", "pending") == 0);
    let reasons = gateway.json("/api/v1/quarantine")["reasons"].clone();
    // What takes memory without end ends at either limit: that of the memory, or that of the time.
    assert!(reasons["GUEST_DEADLINE"].as_u64().unwrap() >= 2, "{reasons}");
    assert_eq!(reasons["GUEST_TRAP"], 1, "{reasons}");
    let details = gateway.json("/api/v1/quarantine").to_string();
    for text in ["CODEC_ERRORS: no such frame", "at line 13, column ", "call stack exhausted"] {
        assert!(details.contains(text), "{text} is not in {details}");
    }
    let logged = gateway.get("/api/v1/guests/acme/up/log").1;
    assert!(logged.contains("port 1 {\\\"calls\\\":1}") && logged.contains("battery low"), "{logged}");
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
    let lines = scene.lines("telemetry_acme");
    let head = "up,device_id=dev-1,site_id=lab-1 temperature=21.5,calls=1.0,same_time=true,random=0.";
    assert_eq!(lines.iter().filter(|line| line.starts_with(head)).count(), 7, "{lines:#?}");
}

#[test]
fn a_script_that_does_not_start_says_why_and_one_that_is_put_right_serves() {
    let broker = Mosquitto::start_in_memory();
    for (script, expected) in [
        ("for (;;) {}", "GUEST_DEADLINE"),
        ("function decodeUplink(i) {\n  return {;\n}", "SyntaxError"),
        ("var x = 1;", "decodeUplink(input), Decoder(bytes, port)"),
        ("let all = []; for (;;) all.push(new Array(1000).fill(1));", "out of memory"),
        ("/^(x+x+)+y$/.test('x'.repeat(60))", "GUEST_DEADLINE"),
    ] {
        let scene = scene(&broker, script);
        let gateway = scene.start();
        let listed = gateway.get("/api/v1/guests").1;
        assert!(listed.contains(expected), "{script}: {listed}");
        let staged = scene.path("guests/acme/.up.new");
        fs::write(&staged, "function Decoder(bytes, port) { return { fine: bytes.length }; }").unwrap();
        fs::rename(staged, scene.path("guests/acme/up.js")).unwrap();
        gateway.wait("the new script", |gateway| !gateway.get("/api/v1/guests").1.contains(expected));
        let topic = "tenant/acme/device/dev-1/up".to_owned();
        MqttClient::to_broker(broker.port, "publisher").publish_all([(topic, vec![1, 2])]);
        gateway.wait("the lines", |gateway| gateway.book("acme", "messages", "lines") == 1);
        assert_eq!(gateway.stop().code(), Some(0));
        assert!(scene.lines("telemetry_acme")[0].contains(" fine=2.0 "));
    }
}

fn codecs(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let place = TempDir::new().unwrap();
    let output = tidegate()
        .current_dir(place.path())
        .args(["codecs", "test"])
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn cases() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cases/codecs"))
}

#[test]
fn codecs_of_each_layout_give_what_their_examples_say() {
    let (code, text, error) = codecs(cases(), &[]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "ok     actility/vendors/acme/drivers/meter/index.js: 2 examples",
            "ok     chirpstack/vendors/acme/codecs/level.js: 2 examples, 1 numbers rounded",
            "ok     milesight/ac-series/ac1/ac1-decoder.js: 1 examples",
            "ok     things_stack/vendor/acme/thermo.js: 3 examples",
            "4 codecs, 8 examples: 8 passed, 0 failed in 0 codecs; 1 numbers rounded; 0 files unreadable",
        ],
        "{error}"
    );
    assert_eq!(code, Some(0));
    let (_, again, _) = codecs(cases(), &["--json"]);
    let objects: Vec<Value> = again.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[1]["layout"], "chirpstack");
    assert_eq!(objects[4]["sum"]["passed"], 8);
    // Nothing that depends on the moment or the machine: the same bytes again.
    assert_eq!(codecs(cases(), &["--json"]).1, again);
}

#[test]
fn an_example_that_lies_is_shown_value_by_value_and_a_broken_file_is_named() {
    let folder = TempDir::new().unwrap();
    let copy = |from: &str, to: &str| fs::copy(cases().join(from), folder.path().join(to)).unwrap();
    copy("chirpstack/vendors/acme/codecs/level.js", "level.js");
    copy("things_stack/vendor/acme/thermo.js", "thermo.js");
    let examples = r#"[{name: "wrong", input: {fPort: 1, bytes: [0, 10]}, expected: {data: {level_percent: 11, more: 1}}}]"#;
    fs::write(folder.path().join("test_decode_level.json"), examples).unwrap();
    fs::write(folder.path().join("thermo-codec.yaml"), "uplinkDecoder:\n  fileName: none.js\n").unwrap();
    fs::write(folder.path().join("broken.yaml"), "uplinkDecoder:\n  - [\n").unwrap();
    let (code, text, error) = codecs(folder.path(), &[]);
    assert_eq!(code, Some(1), "{error}");
    for expected in [
        "FAILED level.js: 1 of 1 examples",
        "example 1: wrong",
        "data.level_percent: expected 11, got 10.0",
        "data.more: expected 1, got nothing",
        "data.at: expected nothing, got \"2024-01-01T00:00:00.000Z\"",
        "UNREADABLE broken.yaml: not YAML",
        "UNREADABLE thermo-codec.yaml: there is no none.js",
        "1 codecs, 1 examples: 0 passed, 1 failed in 1 codecs; 0 numbers rounded; 2 files unreadable",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert_eq!(codecs(&folder.path().join("none"), &[]).0, Some(2));
}

#[test]
fn a_script_in_several_files_is_a_route_and_a_change_of_any_of_them_a_version() {
    let broker = Mosquitto::start_in_memory();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let guests = scene.path("guests/acme");
    let write = |path: &str, text: &str| {
        let path = guests.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "up/index.js",
        "const { decode } = require('./lib/decode'); exports.decodeUplink = (i) => ({ data: decode(i.bytes) });",
    );
    write(
        "up/lib/decode.js",
        "const unit = require('../unit.json'); exports.decode = (b) => ({ t: b[0] / 2, unit: unit.name });",
    );
    write("up/unit.json", "{\"name\": \"C\"}");
    write("up/examples.json", "[]");
    write("up.toml", "[options]\nmeasurement = \"climate\"\n");
    scene.configure_broker(&broker.url(), OUTPUT);
    scene.set_token("operator");
    let gateway = scene.start();
    let topic = "tenant/acme/device/dev-1/up".to_owned();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all([(topic.clone(), vec![42])]);
    gateway.wait("the first", |gateway| gateway.book("acme", "messages", "lines") == 1);
    let versions = |gateway: &Gateway<'_>| {
        gateway.json("/api/v1/guests/acme/up/history")["versions"].as_array().unwrap().len()
    };
    let before = versions(&gateway);
    write("up/lib/decode.js", "exports.decode = (b) => ({ t: b[0] / 4 });");
    gateway.wait("the new version", |gateway| versions(gateway) > before);
    publisher.publish_all([(topic.clone(), vec![42])]);
    gateway.wait("the second", |gateway| gateway.book("acme", "messages", "lines") == 2);

    // The same from elsewhere, as one file; and a test of a folder.
    write(
        "up.cases.jsonl",
        "{\"name\": \"a quarter\", \"topic\": \"tenant/acme/device/dev-1/up\", \"payload_base64\": \"Kg==\", \"received_at\": \"2026-01-01T00:00:00Z\", \"site\": \"lab\", \"expect\": {\"lines\": [\"climate,device_id=dev-1,site_id=lab t=10.5 1767225600000000000\"]}}",
    );
    let folder = scene.path("guests/acme/up");
    let folder = folder.to_str().unwrap();
    let (status, shown, errors) = scene.verb(&["guest", "put", "acme", "copy", folder], "");
    assert!(status.success(), "{shown}{errors}");
    let copy = fs::read_to_string(scene.path("guests/acme/copy.js")).unwrap();
    assert!(copy.contains("lib/decode.js") && !copy.contains("examples"), "{copy}");
    let (status, shown, errors) = scene.verb(&["test", folder], "");
    assert!(status.success() && shown.contains("1 passed"), "{shown}{errors}");
    let (status, shown, errors) = scene.verb(&["guest", "rm", "acme", "up"], "");
    assert!(!status.success() && errors.contains("up/index.js makes the route"), "{shown}{errors}");
    assert_eq!(gateway.stop().code(), Some(0));
    let lines = scene.lines("telemetry_acme");
    assert!(lines[0].starts_with("climate,device_id=dev-1,site_id=lab-1 t=21.0,unit=\"C\" "), "{lines:?}");
    assert!(lines[1].starts_with("climate,device_id=dev-1,site_id=lab-1 t=10.5 "), "{lines:?}");
}

#[test]
fn drivers_of_a_collection_require_files_of_it() {
    let folder = TempDir::new().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let examples = r#"[{"type": "uplink", "description": "a", "input": {"bytes": [42], "fPort": 1},
        "output": {"data": {"t": 21}}}]"#;
    write(
        "vendors/v/drivers/a/index.js",
        "let v = require('../../codec/read.js'); exports.decodeUplink = v.read;",
    );
    write("vendors/v/drivers/a/examples.json", examples);
    write("vendors/v/codec/read.js", "exports.read = (i) => ({ data: { t: i.bytes[0] / 2 } });");
    write(
        "vendors/v/drivers/b/index.js",
        "require('../../codec/read.js'); exports.decodeUplink = require('../../../../../b').f;",
    );
    write("vendors/v/drivers/b/examples.json", examples);
    let (status, shown, errors) = codecs(folder.path(), &[]);
    assert_eq!(status, Some(1), "{shown}{errors}");
    assert!(shown.contains("ok     vendors/v/drivers/a/index.js: 1 examples"), "{shown}");
    assert!(shown.contains("leads out of the script's folder"), "{shown}");
}
