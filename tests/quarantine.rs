//! Quarantine from outside: listed, shown, removed and replayed, by the verbs and over HTTP.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate_simulator::Device;

use crate::end_to_end::{envelope, topic};
use crate::harness::gateway::{Gateway, GatewayDir};

const TO_FILES: &str = "[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n";

/// A gateway's folder with a token set and one device of acme.
fn scene(more: &str) -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure(more);
    scene.set_token("the-operators-token");
    scene
}

fn publish(scene: &GatewayDir, device: &str, topic: &str, payload: &str) {
    Device::connect(&scene.listener, device).unwrap().publish(topic, payload.as_bytes()).unwrap();
}

/// The entries that a listing in JSON gives.
fn listed(scene: &GatewayDir, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["quarantine", "list", "--json"], arguments].concat();
    let (status, output, errors) = scene.verb(&arguments, "");
    assert_eq!(status.code(), Some(0), "{errors}");
    serde_json::from_str(&output).unwrap()
}

/// Exit code and report of a replay.
fn replay(scene: &GatewayDir, arguments: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&["quarantine", "replay", "--json"], arguments].concat();
    let (status, output, errors) = scene.verb(&arguments, "");
    let report = serde_json::from_str(&output).unwrap_or_else(|_| panic!("no report: {output}{errors}"));
    (status.code(), report)
}

/// Waits until the gateway has loaded a guest that was put into its folder.
fn wait_for_guest(gateway: &Gateway<'_>, message_type: &str) {
    gateway.wait("serving the guest", |gateway| {
        let guests = gateway.json("/api/v1/guests")["guests"].clone();
        let serves = |guest: &Value| guest["type"] == message_type && guest["state"] == "serving";
        guests.as_array().is_some_and(|guests| guests.iter().any(serves))
    });
}

/// Waits until every acknowledged line is in its file.
fn wait_until_written(gateway: &Gateway<'_>) {
    gateway.wait("written", |gateway| gateway.book("acme", "lines", "pending") == 0);
}

fn quarantine_books(gateway: &Gateway<'_>, tenant: &str) -> (u64, u64, u64) {
    let book = |key| gateway.book(tenant, "quarantine", key);
    (book("entries"), book("replayed"), book("removed"))
}

#[test]
fn what_had_no_guest_becomes_lines_at_its_own_time_once_the_guest_is_there() {
    let scene = scene(TO_FILES);
    let gateway = scene.start();
    for seq in 1..=300 {
        // A guest that gives no time of its own shows the time of receipt.
        let payload = format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","seq":{seq}}}"#);
        publish(&scene, "dev-1", &topic("acme", "dev-1", "notes"), &payload);
    }
    let entries = listed(&scene, &["--reason", "NO_GUEST", "--type", "notes", "--limit", "1000"]);
    assert_eq!(entries.len(), 300);
    assert_eq!((&entries[0]["site"], &entries[0]["type"]), (&"lab-1".into(), &"notes".into()));
    assert_eq!(quarantine_books(&gateway, "acme"), (300, 0, 0));
    std::thread::sleep(Duration::from_millis(50));
    scene.guest("acme", "notes", "json");
    wait_for_guest(&gateway, "notes");
    let (code, report) = replay(&scene, &["--reason", "NO_GUEST"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!((&report["replayed"], &report["lines"]), (&300.into(), &300.into()), "{report:#}");
    wait_until_written(&gateway);
    let lines = scene.lines("telemetry_acme");
    assert_eq!(lines.len(), 300);
    for (line, entry) in lines.iter().zip(&entries) {
        let received: jiff::Timestamp = entry["received_at"].as_str().unwrap().parse().unwrap();
        assert!(line.ends_with(&format!(" {}", received.as_nanosecond())), "{line} {entry}");
        assert!(line.contains("device_id=dev-1,site_id=lab-1"), "{line}");
    }
    assert_eq!(quarantine_books(&gateway, "acme"), (0, 300, 0));
    assert_eq!(gateway.book("acme", "messages", "received"), 600, "a replay is received again too");
    gateway.wait("settled", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    gateway.assert_balanced();
    assert!(listed(&scene, &[]).is_empty());
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn what_is_refused_again_waits_for_the_next_replay() {
    let scene = scene(TO_FILES);
    let gateway = scene.start();
    publish(&scene, "dev-1", &topic("acme", "dev-1", "notes"), &envelope("dev-1", 1));
    let first = listed(&scene, &[])[0]["id"].as_str().unwrap().to_owned();
    for round in 1..=3 {
        let before = listed(&scene, &[]);
        let (code, report) = replay(&scene, &["--tenant", "acme"]);
        assert_eq!(code, Some(1), "{report:#}");
        assert_eq!((&report["replayed"], &report["quarantined_again"]), (&1.into(), &1.into()), "{report:#}");
        let entries = listed(&scene, &[]);
        assert_eq!(entries.len(), 1);
        assert_eq!((&entries[0]["replays"], &entries[0]["replay_of"]), (&round.into(), &before[0]["id"]));
        assert_eq!(entries[0]["received_at"], before[0]["received_at"]);
        assert_eq!(quarantine_books(&gateway, "acme"), (1, round, 0));
    }
    gateway.assert_balanced();
    let (status, _, errors) = scene.verb(&["quarantine", "show", &first], "");
    assert_eq!(status.code(), Some(1), "{errors}");
    // A power cut: removed entries stay removed.
    gateway.kill();
    let gateway = scene.start();
    assert_eq!(quarantine_books(&gateway, "acme").0, 1);
}

#[test]
fn what_admission_refused_is_admitted_anew_and_takes_no_rate_token() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure("[output]\nkind = \"file\"\n[admission]\nrate_per_s = 1\nburst = 3\n");
    scene.set_token("the-operators-token");
    let gateway = scene.start();
    for seq in 1..=3 {
        publish(&scene, "dev-2", &topic("acme", "dev-2", "telemetry"), &envelope("dev-2", seq));
    }
    let forged = envelope("dev-1", 9).replace("tok-dev-1", "tok-of-somebody-else");
    publish(&scene, "dev-1", &topic("acme", "dev-1", "telemetry"), &forged);
    assert_eq!(listed(&scene, &["--reason", "UNREGISTERED_DEVICE"]).len(), 3);
    let (code, report) = replay(&scene, &["--tenant", "acme"]);
    assert_eq!(code, Some(1));
    assert_eq!(report["quarantined_again"], 4, "{report:#}");
    let put = ["device", "put", "acme", "dev-2", "--site", "lab-1"];
    assert_eq!(scene.verb(&put, "tok-dev-2\n").0.code(), Some(0));
    gateway.wait("registered", |_| scene.log().contains("the registry was read again"));
    let (code, report) = replay(&scene, &["--device", "dev-2"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["lines"], 3, "{report:#}");
    wait_until_written(&gateway);
    assert_eq!(scene.lines("telemetry_acme").len(), 3);
    let left = listed(&scene, &[]);
    assert_eq!(left.len(), 1);
    assert_eq!((&left[0]["reason"], &left[0]["replays"]), (&"TOKEN_INVALID".into(), &1.into()));
    gateway.assert_balanced();
    // The bucket is as it was: three at once still pass.
    for seq in 4..=6 {
        publish(&scene, "dev-2", &topic("acme", "dev-2", "telemetry"), &envelope("dev-2", seq));
    }
    wait_until_written(&gateway);
    assert_eq!(scene.lines("telemetry_acme").len(), 6);
}

#[test]
fn a_message_that_was_cut_is_skipped_and_named() {
    let scene = scene("[output]\nkind = \"file\"\n[admission]\npayload_bytes_max = 2000\nrate_per_s = 0\n");
    let gateway = scene.start();
    publish(&scene, "dev-1", &topic("acme", "dev-1", "telemetry"), &"x".repeat(3000));
    let (code, report) = replay(&scene, &["--all"]);
    assert_eq!(code, Some(1));
    assert_eq!((&report["skipped_count"], &report["replayed"]), (&1.into(), &0.into()), "{report:#}");
    assert_eq!(report["skipped"][0]["id"], listed(&scene, &[])[0]["id"]);
    assert_eq!(quarantine_books(&gateway, "acme"), (1, 0, 0));
    gateway.assert_balanced();
}

/// A database that refuses every line until the test changes that.
fn refusing_database() -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = mended.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
            let line = loop {
                let text = String::from_utf8_lossy(&request).to_lowercase();
                let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                if let (Some(at), Some(length)) = (text.find("\r\n\r\n"), length)
                    && request.len() >= at + 4 + length.parse::<usize>().unwrap()
                {
                    break String::from_utf8_lossy(&request[at + 4..]).trim().to_owned();
                }
                match stream.read(&mut chunk) {
                    Ok(0) | Err(_) => break String::new(),
                    Ok(read) => request.extend_from_slice(&chunk[..read]),
                }
            };
            let refusal = serde_json::json!({
                "error": "partial write of line protocol occurred",
                "data": [{"original_line": line, "line_number": 1, "error_message": "invalid column type"}],
            })
            .to_string();
            let answer = match is_mended.load(Ordering::Acquire) {
                true => "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned(),
                false => format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{refusal}",
                    refusal.len()
                ),
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, mended)
}

#[test]
fn a_line_that_the_database_refused_is_sent_again_as_it_was() {
    let (url, mended) = refusing_database();
    let scene =
        scene(&format!("[output]\nurl = \"{url}\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n"));
    let gateway = scene.start();
    publish(&scene, "dev-1", &topic("acme", "dev-1", "telemetry"), &envelope("dev-1", 7));
    gateway.wait("refused", |gateway| quarantine_books(gateway, "acme").0 == 1);
    let entry =
        &listed(&scene, &["--reason", "DATABASE_REFUSED", "--device", "dev-1", "--type", "telemetry"])[0];
    assert_eq!(entry["line"], "telemetry,device_id=dev-1,site_id=lab-1 seq=7i,v=7i 1795424398007000000");
    assert!(entry["answer"].as_str().unwrap().contains("invalid column type"), "{entry:#}");
    mended.store(true, Ordering::Release);
    let (code, report) = replay(&scene, &["--reason", "DATABASE_REFUSED"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["lines"], 1, "{report:#}");
    gateway.wait("written", |gateway| gateway.book("acme", "lines", "written") == 1);
    assert_eq!(gateway.book("acme", "lines", "refused"), 1);
    assert_eq!(quarantine_books(&gateway, "acme"), (0, 1, 0));
    gateway.assert_balanced();
}

/// Asserts that each of the messages 0 to 399 is in quarantine, or a line, or both.
fn assert_none_is_lost(gateway: &Gateway<'_>, scene: &GatewayDir) {
    wait_until_written(gateway);
    let mut found = BTreeSet::new();
    for entry in listed(scene, &["--limit", "10000"]) {
        let payload: Value = serde_json::from_str(entry["payload"].as_str().unwrap()).unwrap();
        found.insert(payload["seq"].as_u64().unwrap());
    }
    for line in scene.lines("telemetry_acme") {
        let rest = line.split("seq=").nth(1).unwrap();
        found.insert(rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap());
    }
    assert!(found.iter().copied().eq(0..400), "{} of 400 are there", found.len());
}

#[test]
fn a_gateway_that_ends_in_the_middle_of_a_replay_loses_nothing() {
    let scene = scene(&format!("{TO_FILES}[shutdown]\ndeadline_s = 1\n"));
    let topic = topic("acme", "dev-1", "notes");
    let payloads: Vec<String> = (0..400)
        .map(|seq| {
            // Every second one loops until its deadline: a replay of all takes seconds.
            let what = if seq % 2 == 0 { "loop" } else { "ok" };
            format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","do":"{what}","seq":{seq}}}"#)
        })
        .collect();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let messages = payloads.iter().map(|payload| (topic.as_str(), payload.as_bytes()));
    assert_eq!(device.publish_all(messages, 100).unwrap(), 400);
    assert_eq!(gateway.stop().code(), Some(0));
    scene.guest("acme", "notes", "hostile");
    let under_way = |gateway: &Gateway<'_>| gateway.book("acme", "quarantine", "replayed") > 0;
    let gateway = scene.start();
    std::thread::scope(|scope| {
        let verb = scope.spawn(|| scene.verb(&["quarantine", "replay", "--all"], ""));
        gateway.wait("under way", under_way);
        assert_eq!(gateway.stop().code(), Some(0));
        assert_eq!(verb.join().unwrap().0.code(), Some(1));
    });
    let gateway = scene.start();
    assert_none_is_lost(&gateway, &scene);
    std::thread::scope(|scope| {
        scope.spawn(|| scene.verb(&["quarantine", "replay", "--all"], ""));
        gateway.wait("under way", under_way);
        let token = Some("the-operators-token");
        let (status, body) = gateway.ask("POST", "/api/v1/quarantine/replay", token, r#"{"tenant":"acme"}"#);
        assert!(status == 409 && body.contains("REPLAY_RUNNING"), "{status} {body}");
        gateway.kill();
    });
    scene.guest("acme", "notes", "json");
    let gateway = scene.start();
    assert_none_is_lost(&gateway, &scene);
    let (code, report) = replay(&scene, &["--all"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(gateway.book("acme", "quarantine", "entries"), 0);
    gateway.assert_balanced();
    assert_none_is_lost(&gateway, &scene);
}

#[test]
fn entries_are_listed_shown_and_removed_and_secrets_are_masked() {
    let scene = scene(TO_FILES);
    let gateway = scene.start();
    let secret = envelope("dev-1", 1);
    publish(&scene, "dev-1", &topic("acme", "dev-1", "notes"), &secret);
    publish(&scene, "dev-1", &topic("acme", "dev-1", "alarm"), &secret);
    publish(
        &scene,
        "dev-1",
        &topic("acme", "dev-1", "telemetry"),
        &secret.replace("tok-dev-1", "tok-forged"),
    );
    let run = |arguments: &[&str]| {
        let (status, output, errors) = scene.verb(&[&["quarantine"], arguments].concat(), "");
        (status.code(), output, errors)
    };
    let (code, table, _) = run(&["list"]);
    assert_eq!((code, table.lines().count()), (Some(0), 4), "{table}");
    assert!(table.lines().nth(1).unwrap().contains("notes") && table.contains("TOKEN_INVALID"), "{table}");
    let (_, reasons, _) = run(&["list", "--tenant", "acme"]);
    assert!(reasons.lines().any(|line| line.starts_with("NO_GUEST") && line.contains(" 2 ")), "{reasons}");
    let entries = listed(&scene, &["--type", "alarm"]);
    assert_eq!(entries.len(), 1);
    let id = entries[0]["id"].as_str().unwrap();
    let (code, shown, _) = run(&["show", id]);
    assert_eq!(code, Some(0));
    for output in [&shown, &table, &reasons, &run(&["show", id, "--json"]).1, &entries[0].to_string()] {
        assert!(!output.contains("tok-"), "{output}");
    }
    assert!(shown.contains("***") && shown.contains("NO_GUEST"), "{shown}");
    assert_eq!(run(&["show", id, "--raw"]).1, secret);
    let api = format!("/api/v1/quarantine/entries/{id}");
    let answer = gateway.json(&api);
    assert!(answer["payload"].as_str().unwrap().contains("***"), "{answer:#}");
    assert_eq!(gateway.get("/api/v1/quarantine/entries/0000000000000099-0").0, 404);
    let page = gateway.json("/api/v1/quarantine/entries?reason=NO_GUEST&limit=1");
    assert_eq!((page["entries"].as_array().unwrap().len(), &page["more"]), (1, &1.into()), "{page:#}");

    // Removed by the running gateway, then by the verb alone.
    assert_eq!(run(&["rm", id]).0, Some(0));
    assert_eq!(quarantine_books(&gateway, "acme"), (2, 0, 1));
    assert_eq!(run(&["show", id]).0, Some(1));
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
    let (code, removed, errors) = run(&["rm", "--reason", "NO_GUEST"]);
    assert_eq!((code, removed.trim()), (Some(0), "1 removed"), "{errors}");
    assert_eq!(listed(&scene, &[]).len(), 1);
    let (code, _, errors) = run(&["replay", "--all"]);
    assert!(code == Some(1) && errors.contains("check that it runs"), "{errors}");
    let gateway = scene.start();
    assert_eq!(quarantine_books(&gateway, "acme"), (1, 0, 0));
}

#[test]
fn nothing_is_changed_without_the_operators_token_or_by_a_request_that_names_nothing() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure(TO_FILES);
    let gateway = scene.start();
    publish(&scene, "dev-1", &topic("acme", "dev-1", "notes"), &envelope("dev-1", 1));
    let (post, delete) = ("/api/v1/quarantine/replay", "/api/v1/quarantine/entries?all=true");
    for (method, path) in [("POST", post), ("DELETE", delete)] {
        let (status, body) = gateway.ask(method, path, None, r#"{"all":true}"#);
        assert!(
            status == 403 && body.contains("TOKEN_NEEDED") && body.contains("admin.token_file"),
            "{status} {body}"
        );
    }
    let listing = gateway.json("/api/v1/quarantine/entries");
    assert_eq!(listing["entries"][0]["reason"], "NO_GUEST");
    assert_eq!(listing["entries"][0].get("payload"), None, "payloads only with the token");
    let (status, _, errors) = scene.verb(&["quarantine", "replay", "--all"], "");
    assert!(status.code() == Some(2) && errors.contains("admin.token_file"), "{errors}");
    assert_eq!(gateway.stop().code(), Some(0));

    scene.set_token("the-operators-token");
    let gateway = scene.start();
    let token = Some("the-operators-token");
    assert_eq!(gateway.ask("POST", post, None, r#"{"all":true}"#).0, 401);
    assert_eq!(gateway.ask("POST", post, Some("wrong"), r#"{"all":true}"#).0, 401);
    for (method, path, body, status, code) in [
        ("POST", post, "{}", 400, "FILTER_NEEDED"),
        ("POST", post, "", 400, "BAD_FILTER"),
        ("POST", post, r#"{"tennant":"acme"}"#, 400, "BAD_FILTER"),
        ("POST", post, r#"{"reason":"NO_GEST"}"#, 400, "BAD_FILTER"),
        ("POST", post, &format!(r#"{{"tenant":"{}"}}"#, "x".repeat(70_000)), 413, "BODY_TOO_LARGE"),
        ("GET", post, "", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/api/v1/quarantine/entries", "", 400, "FILTER_NEEDED"),
        ("GET", "/api/v1/quarantine/entries?limit=100000", "", 400, "BAD_FILTER"),
        ("GET", "/api/v1/quarantine/entries?since=yesterday", "", 400, "BAD_FILTER"),
    ] {
        let answer = gateway.ask(method, path, token, body);
        let error: Value = serde_json::from_str(&answer.1).unwrap();
        assert_eq!((answer.0, &error["error"]), (status, &code.into()), "{method} {path} {body}");
    }
    for arguments in
        [&["replay"][..], &["rm"], &["list", "--reason", "NO_GEST"], &["rm", "--since", "yesterday"]]
    {
        let (status, _, errors) = scene.verb(&[&["quarantine"], arguments].concat(), "");
        assert_eq!(status.code(), Some(2), "{arguments:?}: {errors}");
    }
    assert_eq!(quarantine_books(&gateway, "acme"), (1, 0, 0));
    gateway.assert_balanced();
}
