//! Messages of a running gateway as cases: recorded, run, blessed, and failed by another decoder.

use std::fs;
use std::process::{Child, Stdio};

use super::{ACME, OPERATOR, payload, publish, scene};
use crate::harness::gateway::{Gateway, GatewayDir, tidegate};

/// Starts to record, and waits until the gateway has a viewer.
fn capture(scene: &GatewayDir, gateway: &Gateway<'_>, arguments: &[&str]) -> Child {
    let child = tidegate()
        .arg("capture")
        .args(arguments)
        .current_dir(scene.path("."))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    gateway.wait("a viewer", |gateway| gateway.json_by("/api/v1/overview", OPERATOR)["viewers"] == 1);
    child
}

fn ended(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn captured_messages_are_cases_that_pass_and_that_another_decoder_fails() {
    let scene = scene();
    let gateway = scene.start();
    fs::write(scene.path("of-acme"), ACME).unwrap();
    let url = format!("http://{}", scene.admin);
    // By a tenant with its own token, from anywhere.
    let own = ["--gateway", &*url, "--token-file", "of-acme"];
    let file = "guests/_default/telemetry.cases.jsonl";
    let wanted = ["--type", "telemetry", "--topic", "tenant/+/device/dev-1/#", "--count", "2", "--out", file];
    let child = capture(&scene, &gateway, &[&own[..], &wanted].concat());
    publish(&scene, "globex", "telemetry", &payload("globex", 1));
    publish(&scene, "acme", "nonsense", &payload("acme", 2));
    publish(&scene, "acme", "telemetry", &payload("acme", 3).replace("tok-dev-1", "wrong"));
    publish(&scene, "acme", "telemetry", &payload("acme", 4));
    publish(
        &scene,
        "acme",
        "telemetry",
        "{\"site_id\":\"lab-1\",\"provision_token\":\"tok-dev-1\",\"seq\":\"x\"}",
    );
    let (status, _, errors) = ended(child);
    assert!(status == Some(0) && errors.contains("2 cases in guests/_default"), "{errors}");
    assert!(errors.contains("1 messages were refused before a decoder saw them"), "{errors}");
    let text = fs::read_to_string(scene.path(file)).unwrap();
    let cases: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!text.contains("globex") && !text.contains("tok-dev-1"), "{text}");
    assert_eq!((cases.len(), &cases[0]["site"]), (2, &"lab-1".into()), "{text}");
    let line = cases[0]["expect"]["lines"][0].as_str().unwrap();
    assert!(line.contains("secret_acme=1.5") && line.contains("seq=4i"), "{text}");
    assert!(cases[1]["expect"]["refusal"].is_string(), "{text}");

    // As they are they pass, with nothing to bless.
    let test = |arguments: &[&str]| {
        scene.verb(&[&["test", "guests/_default/telemetry.wasm"], arguments].concat(), "")
    };
    let (status, out, errors) = test(&[]);
    assert!(status.success() && out.contains("2 passed, 0 failed"), "{out}{errors}");
    let (status, out, _) = test(&["--bless"]);
    assert!(status.success() && out.contains("2 passed, 0 blessed"), "{out}");
    assert_eq!(fs::read_to_string(scene.path(file)).unwrap(), text);
    // Another decoder makes other lines.
    scene.guest("_default", "telemetry", "steady");
    let (status, out, _) = test(&[]);
    assert!(
        status.code() == Some(1) && out.contains("FAILED tenant/acme/device/dev-1/telemetry at"),
        "{out}"
    );

    // A file that is there is not lost; behind it there is room.
    let again = scene.verb(&[&["capture"], &own[..], &["--out", file, "--for", "1"]].concat(), "");
    assert!(again.0.code() == Some(2) && again.2.contains("--append"), "{}", again.2);
    let more = ["--count", "1", "--append", "--out", file];
    let child = capture(&scene, &gateway, &[&own[..], &more].concat());
    publish(&scene, "acme", "nonsense", &payload("acme", 5));
    let (status, _, errors) = ended(child);
    assert!(status == Some(0) && errors.contains("1 cases expect nothing yet"), "{errors}");
    let longer = fs::read_to_string(scene.path(file)).unwrap();
    assert!(
        longer.starts_with(&text) && longer.lines().count() == 3 && !longer.contains("NO_GUEST"),
        "{longer}"
    );
    // Of a message that no decoder saw nothing is expected.
    let (status, _, errors) = test(&["--bless"]);
    assert!(status.code() == Some(2) && errors.contains("nothing to bless"), "{errors}");
    fs::write(scene.path(file), text).unwrap();
    let (status, out, _) = test(&["--bless"]);
    assert!(status.success() && out.contains("0 passed, 2 blessed"), "{out}");
    let (status, out, _) = test(&[]);
    assert!(status.success() && out.contains("2 passed, 0 failed"), "{out}");
}

#[test]
fn only_those_who_may_see_payloads_record_them_and_no_others() {
    let scene = scene();
    let _gateway = scene.start();
    fs::write(scene.path("of-acme"), ACME).unwrap();
    let by = |token_file: &str, arguments: &[&str]| {
        let fixed = ["capture", "--token-file", token_file, "--for", "2", "--out", "c.jsonl"];
        scene.verb(&[&fixed[..], arguments].concat(), "")
    };
    let (status, _, errors) = by("reader", &[]);
    assert!(status.code() == Some(1) && errors.contains("payloads need the operator's token"), "{errors}");
    let (status, _, errors) = by("of-acme", &["--tenant", "globex"]);
    assert!(status.code() == Some(1) && errors.contains("403"), "{errors}");
    let (status, _, errors) = by("of-acme", &["--topic", "a/#/b"]);
    assert!(status.code() == Some(2) && errors.contains("expected an MQTT topic filter"), "{errors}");
    assert!(!scene.path("c.jsonl").exists());
    // Nothing came within the time.
    let (status, _, errors) = by("of-acme", &[]);
    assert_eq!((status.code(), &*errors), (Some(1), "0 cases in c.jsonl\n"));
}
