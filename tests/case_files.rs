//! The verbs that work on case files: `test --bless` and `diff`.

use crate::harness::gateway::{GatewayDir, built_guest};

const TOPIC: &str = "tenant/acme/device/d/telemetry";

/// A case of the decoder pulse with some value, and the end of its line.
fn case(name: &str, value: &str, rest: &str) -> String {
    let payload = format!(r#"{{\"seq\":1,\"ts\":\"2026-01-01T00:00:00Z\",\"metrics\":{{\"t\":{value}}}}}"#);
    format!(
        r#"{{"name": "{name}", "topic": "{TOPIC}", "payload": "{payload}", "received_at": "2026-01-01T00:00:00Z", "site": "lab"{rest}}}"#
    )
}

#[test]
fn bless_writes_what_came_out_and_leaves_the_rest_as_it_is() {
    let scene = GatewayDir::new();
    let line = "telemetry,device_id=d,site_id=lab seq=1i,t=1.5 1767225600000000000";
    let good = case("good", "1.5", &format!(r#",   "expect": {{"lines": ["{line}"]}}"#));
    let wrong = case("wrong", "2.5", r#", "expect": {"lines": ["telemetry t=0 1"]}"#);
    let refused = case("refused", "2.5", r#", "expect": {"lines": []}"#)
        .replace("\"payload\": \"{", "\"payload\": \"x{");
    let new = case("new", "3.5", "");
    let file = scene.path("guests/_default/telemetry.cases.jsonl");
    std::fs::write(&file, format!("{good}\n\n{wrong}\n{refused}\n{new}\n")).unwrap();
    let (status, _, errors) = scene.verb(&["test", "guests"], "");
    assert!(status.code() == Some(2) && errors.contains(":5: expect is missing"), "{errors}");
    let (status, output, errors) = scene.verb(&["test", "guests", "--bless"], "");
    assert_eq!(status.code(), Some(0), "{output}{errors}");
    assert!(output.contains("ok     good") && output.contains("1 passed, 3 blessed"), "{output}");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[1]), (5, good.as_str(), ""));
    assert!(lines[2].contains("t=2.5 1767225600000000000") && lines[4].contains("t=3.5 "), "{text}");
    assert!(lines[3].contains(r#""expect": {"refusal":""#), "{text}");
    let (status, output, _) = scene.verb(&["test", "guests"], "");
    assert!(status.success() && output.contains("4 passed, 0 failed"), "{output}");
    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert!(scene.verb(&["test", "guests", "--bless"], "").0.success());
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), before, "nothing to write");

    // The decoder of another type sees nothing of it.
    let stray = case("stray", "4.5", "").replace("/telemetry", "/other");
    std::fs::write(&file, format!("{stray}\n")).unwrap();
    let (status, _, errors) = scene.verb(&["test", "guests", "--bless"], "");
    assert!(status.code() == Some(2) && errors.contains("nothing to bless"), "{errors}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{stray}\n"));
}

#[test]
fn diff_shows_what_a_new_decoder_would_change() {
    let scene = GatewayDir::new();
    for (name, measurement) in [("old", "lpp"), ("new", "room")] {
        std::fs::copy(built_guest("lpp"), scene.path(&format!("{name}.wasm"))).unwrap();
        let options = format!("[options]\nmeasurement = \"{measurement}\"\n");
        std::fs::write(scene.path(&format!("{name}.toml")), options).unwrap();
    }
    let case = |name: &str, payload: &str| {
        format!(
            r#"{{"name": "{name}", "topic": "tenant/acme/device/d/x", "payload_base64": "{payload}", "received_at": "2026-01-01T00:00:00Z"}}"#
        )
    };
    std::fs::write(scene.path("c.jsonl"), format!("{}\n{}\n", case("warm", "A2cBEA=="), case("cut", "A2cB")))
        .unwrap();
    let diff = |old: &str, new: &str| scene.verb(&["diff", old, new, "--cases", "c.jsonl"], "");
    let (status, output, errors) = diff("old.wasm", "new.wasm");
    assert_eq!(status.code(), Some(1), "{output}{errors}");
    let changed = "warm (c.jsonl:1)\n  - lpp,device_id=d temperature_3=27.2 1767225600000000000\n  \
                   + room,device_id=d temperature_3=27.2 1767225600000000000\n1 of 2 messages decode differently\n";
    assert_eq!(output, changed, "what both refuse alike is no difference");
    let (status, output, _) = diff("old.wasm", "old.wasm");
    assert_eq!((status.code(), output.as_str()), (Some(0), "0 of 2 messages decode differently\n"));
    // Without a file of its own a decoder has that of the other.
    std::fs::remove_file(scene.path("new.toml")).unwrap();
    assert_eq!(diff("old.wasm", "new.wasm").0.code(), Some(0));
    let (status, _, errors) = scene.verb(&["diff", "old.wasm", "none.wasm", "--cases", "c.jsonl"], "");
    assert!(status.code() == Some(1) && errors.contains("none.wasm"), "{errors}");
    assert_eq!(scene.verb(&["diff", "old.wasm", "new.wasm", "--cases", "none"], "").0.code(), Some(2));
}
