//! Hostile tenants at the door for decoders: planted links, floods of names, bombs and stalled uploads cost
//! nobody else.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidegate_simulator::Device;

use crate::harness::compile_bombs;
use crate::harness::gateway::{Gateway, GatewayDir, built_guest, variant};

const OPERATOR: &str = "of-the-operator";
const ROUTE: &str = "/api/v1/guests/acme/steps";
const TOPIC: &str = "tenant/acme/device/dev-1/steps";

fn component(name: &str) -> Vec<u8> {
    fs::read(built_guest(name)).unwrap()
}

/// A gateway whose route acme/steps is decoded by `steady`, with tokens of the operator, acme and globex.
fn scene_with(more: &str) -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.guest("acme", "steps", "steady");
    fs::write(scene.path("operator"), OPERATOR).unwrap();
    fs::create_dir(scene.path("tokens")).unwrap();
    for tenant in ["acme", "globex"] {
        let path = scene.path("tokens").join(tenant);
        fs::write(&path, format!("of-{tenant}")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    scene.configure_admin(
        &format!("[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n{more}"),
        "token_file = \"operator\"\ntenant_tokens_dir = \"tokens\"\n",
    );
    scene
}

fn scene() -> GatewayDir {
    scene_with("")
}

fn put(gateway: &Gateway<'_>, path: &str, token: &str, body: &[u8]) -> (u16, Value) {
    let (status, body) = gateway.request("PUT", path, Some(token), body);
    (status, serde_json::from_str(&body).unwrap_or_default())
}

fn list(gateway: &Gateway<'_>, tenant: &str) -> Vec<Value> {
    let (status, body) = gateway.get_with_token(&format!("/api/v1/guests/{tenant}"), Some(OPERATOR));
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    answer["guests"].as_array().unwrap().clone()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn payload(seq: u64) -> String {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","seq":{seq}}}"#)
}

#[test]
fn a_planted_link_takes_no_put_elsewhere_and_shows_no_other_tenants_options() {
    let scene = scene();
    let (acme, globex) = (scene.path("guests/acme"), scene.path("guests/globex"));
    fs::create_dir(&globex).unwrap();
    fs::write(globex.join("secret.toml"), "[options]\nkey = \"hunter2\"\n").unwrap();
    let victim = scene.path("data-of-the-gateway");
    fs::write(&victim, "precious").unwrap();
    for planted in [".steps.wasm.new", ".steps.cases.jsonl.new", "new.wasm"] {
        symlink(&victim, acme.join(planted)).unwrap();
    }
    symlink("../globex/secret.toml", acme.join("other.toml")).unwrap();
    symlink("globex", scene.path("guests/hooli")).unwrap();
    let gateway = scene.start();
    assert_eq!(put(&gateway, ROUTE, "of-acme", &component("strict")).0, 200);
    // What lies at the place itself is replaced, and not followed.
    let (status, answer) = put(&gateway, "/api/v1/guests/acme/new", "of-acme", &component("strict"));
    assert_eq!(status, 200, "{answer}");
    assert!(!fs::symlink_metadata(acme.join("new.wasm")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");

    let (status, answer) = put(&gateway, "/api/v1/guests/acme/other", "of-acme", &component("strict"));
    let message = answer["message"].as_str().unwrap();
    assert!(status == 422 && message.contains("outside of its tenant's folder"), "{answer}");
    assert!(!answer.to_string().contains("hunter2"));
    assert_eq!(put(&gateway, "/api/v1/guests/hooli/x", OPERATOR, &component("strict")).0, 422);
    assert_eq!(names(&globex), ["secret.toml"]);
    // A file in the folder is no exception.
    symlink("../globex/secret.toml", acme.join("linked.wasm")).unwrap();
    gateway.wait("refused", |gateway| {
        list(gateway, "acme").iter().any(|guest| {
            guest["type"] == "linked"
                && guest["error"]
                    .as_str()
                    .is_some_and(|error| error.contains("outside of its tenant's folder"))
        })
    });
}

#[test]
fn refused_puts_leave_no_file_no_history_and_no_metric_of_their_names() {
    let scene = scene();
    let gateway = scene.start();
    let before = (names(&scene.path("guests/acme")), names(&scene.path("data/guests/routes/acme")));
    for n in 0..30 {
        let (status, answer) =
            put(&gateway, &format!("/api/v1/guests/acme/no-{n}"), "of-acme", b"no component");
        assert_eq!((status, &answer["error"]), (422, &"MAY_NOT_SERVE".into()), "{answer}");
    }
    assert_eq!(put(&gateway, "/api/v1/guests/globex/x", "of-globex", b"no component").0, 422);
    let after = (names(&scene.path("guests/acme")), names(&scene.path("data/guests/routes/acme")));
    assert_eq!(after, before);
    assert!(!scene.path("guests/globex").exists() && !scene.path("data/guests/routes/globex").exists());
    let (_, metrics) = gateway.get_with_token("/metrics", Some(OPERATOR));
    assert!(!metrics.contains("type=\"no-"), "{metrics}");
    let refused = "tidegate_guest_swaps_total{tenant=\"acme\",type=\"_other\",outcome=\"refused\"}";
    assert_eq!(gateway.metric(refused), Some(30.0));
    // A decoder that is gone has no series any more.
    assert_eq!(put(&gateway, "/api/v1/guests/acme/short", "of-acme", &component("strict")).0, 200);
    assert_eq!(gateway.request("DELETE", "/api/v1/guests/acme/short", Some("of-acme"), &[]).0, 200);
    let (_, metrics) = gateway.get_with_token("/metrics", Some(OPERATOR));
    assert!(!metrics.contains("type=\"short\""), "{metrics}");
}

#[test]
fn a_tenants_token_puts_so_many_decoders_and_bytes_and_the_operator_may_change_that() {
    let scene = scene_with("[guests]\ntenant_decoders_max = 2\ntenant_disk_bytes_max = 8000000\n");
    let gateway = scene.start();
    let path = |name: &str| format!("/api/v1/guests/acme/{name}");
    assert_eq!(put(&gateway, &path("second"), "of-acme", &component("strict")).0, 200);
    let (status, answer) = put(&gateway, &path("third"), "of-acme", &component("strict"));
    assert_eq!((status, &answer["error"]), (422, &"QUOTA".into()), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("guests.tenant_decoders_max"), "{answer}");
    // A new version of one that is there, other tenants, and the operator.
    assert_eq!(put(&gateway, &path("second"), "of-acme", &component("steady")).0, 200);
    assert_eq!(put(&gateway, "/api/v1/guests/globex/first", "of-globex", &component("strict")).0, 200);
    assert_eq!(put(&gateway, &path("third"), OPERATOR, &component("strict")).0, 200);
    // Put and taken out again and again, what is kept to go back to stays within its bytes.
    assert_eq!(gateway.request("DELETE", &path("third"), Some(OPERATOR), &[]).0, 200);
    assert_eq!(gateway.request("DELETE", &path("second"), Some(OPERATOR), &[]).0, 200);
    let padded = |n: usize| {
        let mut bytes = component("strict");
        // A custom section of two million bytes.
        bytes.extend([0, 0x84, 0x89, 0x7a, 3, b'p', b'a', b'd']);
        bytes.extend(std::iter::repeat_n(n as u8, 2_000_000));
        bytes
    };
    for n in 0..6 {
        let path = path(&format!("pad-{n}"));
        let (status, answer) = put(&gateway, &path, "of-acme", &padded(n));
        assert_eq!(status, 200, "{n}: {answer}");
        assert_eq!(gateway.request("DELETE", &path, Some("of-acme"), &[]).0, 200);
    }
    assert!(names(&scene.path("data/guests/routes/acme")).len() <= 4);

    // The limit is read again, as all limits of decoders are.
    let file = scene.path("tidegate.toml");
    let text =
        fs::read_to_string(&file).unwrap().replace("tenant_decoders_max = 2", "tenant_decoders_max = 1");
    fs::write(&file, text).unwrap();
    // SAFETY: kill(2) of a child that has not been waited for.
    unsafe { libc::kill(gateway.pid() as i32, libc::SIGHUP) };
    gateway.wait("read again", |_| scene.log().contains("settings of tenants were read again"));
    assert!(!scene.log().contains("need a restart"), "{}", scene.log());
    assert_eq!(put(&gateway, &path("second"), "of-acme", &component("strict")).1["error"], "QUOTA");
}

#[test]
fn limits_of_decoders_and_message_types_are_read_again() {
    let scene = scene_with("[guests]\ndeadline_ms = 10\n");
    scene.guest("acme", "steps", "strict");
    scene.guest("acme", "own", "strict");
    fs::write(scene.path("guests/acme/own.toml"), "deadline_ms = 7\n").unwrap();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let mut loops = |seq: u64| {
        let payload = payload(seq).replace('}', r#","extra":"loop"}"#);
        for message_type in ["steps", "own"] {
            let topic = format!("tenant/acme/device/dev-1/{message_type}");
            device.publish(&topic, payload.as_bytes()).unwrap();
        }
        gateway.get_with_token("/api/v1/quarantine", Some(OPERATOR)).1
    };
    let quarantine = loops(1);
    assert!(quarantine.contains("more than 10ms") && quarantine.contains("more than 7ms"), "{quarantine}");
    let file = scene.path("tidegate.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("deadline_ms = 10", "deadline_ms = 23");
    let text = text.replace("[guests]", "[admission.types.steps]\ncredentials = \"broker\"\n[guests]");
    fs::write(&file, text).unwrap();
    // SAFETY: kill(2) of a child that has not been waited for.
    unsafe { libc::kill(gateway.pid() as i32, libc::SIGHUP) };
    gateway.wait("read again", |_| scene.log().contains("settings of tenants were read again"));
    assert!(!scene.log().contains("need a restart"), "{}", scene.log());
    let quarantine = loops(2);
    assert!(
        quarantine.contains("more than 23ms") && quarantine.matches("more than 7ms").count() == 2,
        "{quarantine}"
    );
    // All else is named.
    let text = fs::read_to_string(&file).unwrap().replace("[guests]", "[guests]\nthreads = 1");
    fs::write(&file, text).unwrap();
    // SAFETY: as above.
    unsafe { libc::kill(gateway.pid() as i32, libc::SIGHUP) };
    gateway.wait("named", |_| scene.log().contains("guests.threads"));
}

/// Begins an upload of a component, and sends nothing of it.
fn stalled(scene: &GatewayDir, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&scene.admin).unwrap();
    let head = format!(
        "PUT /api/v1/guests/acme/slow HTTP/1.1\r\nHost: rig\r\nAuthorization: Bearer {token}\r\nContent-Length: 100000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn stalled_uploads_of_a_tenant_stop_no_other_and_are_given_up() {
    let scene = scene();
    let gateway = scene.start();
    let mut waiting: Vec<_> = (0..2).map(|_| stalled(&scene, "of-acme")).collect();
    gateway.wait("all places of acme taken", |gateway| {
        put(gateway, ROUTE, "of-acme", b"no component").1["error"] == "BUSY"
    });
    waiting.extend((0..3).map(|_| stalled(&scene, OPERATOR)));
    let strict = component("strict");
    assert_eq!(put(&gateway, "/api/v1/guests/globex/steps", "of-globex", &strict).0, 200);
    assert_eq!(put(&gateway, ROUTE, OPERATOR, &strict).0, 200);
    for mut stream in waiting {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
    }
    assert_eq!(put(&gateway, ROUTE, "of-acme", &component("steady")).0, 200);
}

#[test]
fn a_bomb_delays_no_other_tenant_and_its_own_waits_afterwards() {
    let scene = scene();
    let gateway = scene.start();
    // Compiled before: on a busy machine no compiler is sure to end in time.
    let small = variant(&component("strict"), "small");
    assert_eq!(put(&gateway, "/api/v1/guests/globex/before", OPERATOR, &small).0, 200);
    std::thread::scope(|threads| {
        let bomb = threads.spawn(|| {
            put(&gateway, "/api/v1/guests/acme/bomb", "of-acme", &compile_bombs::huge_function(60_000))
        });
        // From here on it takes ten seconds of CPU time.
        let cache = scene.path("data/guests/cache");
        gateway.wait("compiling", |_| names(&cache).iter().any(|name| name.ends_with(".tidegate-staged")));
        assert_eq!(put(&gateway, "/api/v1/guests/globex/steps", "of-globex", &small).0, 200);
        assert!(!bomb.is_finished(), "the small one came first");
        let (status, answer) = bomb.join().unwrap();
        // On a busy machine the clock may end before the CPU time.
        assert!(status == 422 || status == 500, "{answer}");
    });
    let (status, answer) = put(&gateway, ROUTE, "of-acme", &component("strict"));
    assert_eq!((status, &answer["error"]), (429, &"PAUSED".into()), "{answer}");
    assert_eq!(put(&gateway, ROUTE, OPERATOR, &component("strict")).0, 200);
    assert_eq!(put(&gateway, "/api/v1/guests/globex/more", "of-globex", &component("strict")).0, 200);
}

#[test]
fn a_put_says_how_many_messages_decode_differently_and_may_be_refused_for_it() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for seq in 0..10 {
        device.publish(TOPIC, payload(seq).as_bytes()).unwrap();
    }
    let same = format!("{ROUTE}?expect_same=true");
    let (status, answer) = put(&gateway, &same, "of-acme", &component("strict"));
    assert_eq!((status, &answer["error"]), (422, &"DIFFERENT".into()), "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("10 of the last 10 messages decode differently"), "{message}");
    assert!(message.contains("  serves steady,") && message.contains("  new    strict,"), "{message}");
    assert!(list(&gateway, "acme")[0]["guest"].as_str().unwrap().starts_with("steady@"));

    fs::write(scene.path("same.wasm"), variant(&component("steady"), "same")).unwrap();
    let verb = ["guest", "put", "acme", "steps", "same.wasm", "--expect-same"];
    let (status, out, errors) = scene.verb(&verb, "");
    assert_eq!(status.code(), Some(0), "{out}{errors}");
    assert!(out.contains("the last 10 messages decode to the same lines"), "{out}");
    let (status, answer) = put(&gateway, ROUTE, "of-acme", &component("strict"));
    assert_eq!((status, &answer["comparison"]["different"]), (200, &10.into()), "{answer}");
    fs::write(scene.path("steady.wasm"), component("steady")).unwrap();
    let (_, out, _) = scene.verb(&["guest", "put", "acme", "steps", "steady.wasm"], "");
    // The differences come before the word that it serves.
    assert!(out.starts_with("10 of the last 10 messages decode differently\n"), "{out}");
    assert_eq!(
        (out.matches("\n  - strict,").count(), out.matches("\n  + steady,").count()),
        (10, 10),
        "{out}"
    );
    assert!(out.lines().last().unwrap().starts_with("acme/steps: steady@"), "{out}");
}

#[test]
fn a_tenants_first_decoder_is_compared_with_the_one_for_all_tenants_on_its_own_messages() {
    let mut scene = scene();
    scene.device("globex", "dev-9", "lab-9");
    scene.guest("_default", "turns", "steady");
    let gateway = scene.start();
    for (tenant, id, site) in [("acme", "dev-1", "lab-1"), ("globex", "dev-9", "lab-9")] {
        let mut device = Device::connect(&scene.listener, id).unwrap();
        for seq in 0..3 {
            let payload = payload(seq).replace("dev-1", id).replace("lab-1", site);
            device.publish(&format!("tenant/{tenant}/device/{id}/turns"), payload.as_bytes()).unwrap();
        }
    }
    fs::write(scene.path("strict.wasm"), component("strict")).unwrap();
    let (status, out, errors) =
        scene.verb(&["guest", "put", "acme", "turns", "strict.wasm", "--dry-run"], "");
    assert!(
        status.success() && out.starts_with("3 of the last 3 messages decode differently\n"),
        "{out}{errors}"
    );
    assert!(out.contains("tenant/acme/") && !out.contains("globex"), "{out}");
    assert!(gateway.get_with_token("/api/v1/guests/acme/turns/history", Some(OPERATOR)).0 == 404);
}

#[test]
fn a_dry_run_shows_the_differences_and_puts_nothing() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for seq in 0..10 {
        device.publish(TOPIC, payload(seq).as_bytes()).unwrap();
    }
    fs::write(scene.path("strict.wasm"), component("strict")).unwrap();
    let dry_run = |more: &[&str]| {
        let verb = [&["guest", "put", "acme", "steps", "strict.wasm", "--dry-run"], more].concat();
        scene.verb(&verb, "")
    };
    let (status, out, errors) = dry_run(&[]);
    assert_eq!(status.code(), Some(0), "{out}{errors}");
    assert!(out.starts_with("10 of the last 10 messages decode differently\n"), "{out}");
    assert_eq!(
        (out.matches("\n  - steady,").count(), out.matches("\n  + strict,").count()),
        (10, 10),
        "{out}"
    );
    assert!(out.ends_with(" may serve; nothing was put\n"), "{out}");
    let (_, out, _) = dry_run(&["--json"]);
    let verdict: Value = serde_json::from_str(&out).unwrap();
    let differences = verdict["comparison"]["differences"].as_array().unwrap();
    assert_eq!((&verdict["state"], differences.len()), (&"tried".into(), 10), "{verdict:#}");
    assert_eq!(differences[9]["topic"], TOPIC);
    assert!(
        differences[9]["removed"][0].as_str().unwrap().ends_with(" seq=9i 1700000000000000009"),
        "{verdict:#}"
    );
    let (status, _, errors) = dry_run(&["--expect-same"]);
    assert!(status.code() == Some(1) && errors.starts_with("DIFFERENT: 10 of the last 10"), "{errors}");
    // Cases are run, and not kept.
    let case = format!(
        r#"{{"name":"none","topic":"{TOPIC}","payload":"{{}}","received_at":"2026-01-01T00:00:00Z","expect":{{"lines":[]}}}}"#
    );
    fs::write(scene.path("failing.jsonl"), case).unwrap();
    let (status, _, errors) = dry_run(&["--cases", "failing.jsonl"]);
    assert!(status.code() == Some(1) && errors.contains("it fails its cases"), "{errors}");
    assert!(!scene.path("guests/acme/steps.cases.jsonl").exists());
    // A tenant may look at its own route, and at no other.
    let route = format!("{ROUTE}?dry_run=true");
    assert_eq!(put(&gateway, &route, "of-acme", &component("strict")).0, 200);
    assert_eq!(put(&gateway, &route, "of-globex", &component("strict")).0, 403);
    assert!(list(&gateway, "acme")[0]["guest"].as_str().unwrap().starts_with("steady@"));
    assert_eq!(fs::read(scene.path("guests/acme/steps.wasm")).unwrap(), component("steady"));
    let (status, history) = gateway.get_with_token(&format!("{ROUTE}/history"), Some(OPERATOR));
    assert!(status == 200 && !history.contains("strict"), "{history}");
    let audit = fs::read_to_string(scene.path("data/audit.log")).unwrap();
    assert!(audit.contains("guest put --dry-run") && !audit.contains("\"guest put\""), "{audit}");
    drop(gateway);
    let (status, out, errors) = dry_run(&[]);
    assert_eq!(status.code(), Some(0), "{out}{errors}");
    assert!(out.starts_with("acme/steps: strict@") && out.ends_with("nothing was put\n"), "{out}");
    assert_eq!(fs::read(scene.path("guests/acme/steps.wasm")).unwrap(), component("steady"));
}

#[test]
fn cases_come_with_a_component_and_are_kept_only_with_it() {
    let scene = scene();
    let gateway = scene.start();
    let case = |expect: &str| {
        let payload = payload(1).replace('"', "\\\"");
        format!(
            "{{\"name\":\"one\",\"topic\":\"{TOPIC}\",\"payload\":\"{payload}\",\"received_at\":\"2026-01-01T00:00:00Z\",\"site\":\"lab-1\",\"expect\":{expect}}}\n"
        )
    };
    fs::write(scene.path("strict.wasm"), component("strict")).unwrap();
    fs::write(scene.path("wrong.jsonl"), case(r#"{"lines":["x"]}"#)).unwrap();
    let verb =
        |cases: &str| scene.verb(&["guest", "put", "acme", "steps", "strict.wasm", "--cases", cases], "");
    let (status, _, errors) = verb("wrong.jsonl");
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("it fails its cases") && errors.contains("\"one\" in line 1"), "{errors}");
    let kept = scene.path("guests/acme/steps.cases.jsonl");
    assert!(!kept.exists());
    let right = case(r#"{"lines":["strict,device_id=dev-1,site_id=lab-1 seq=1i 1700000000000000001"]}"#);
    fs::write(scene.path("right.jsonl"), &right).unwrap();
    let (status, out, errors) = verb("right.jsonl");
    assert_eq!(status.code(), Some(0), "{out}{errors}");
    assert_eq!(fs::read_to_string(&kept).unwrap(), right);
    fs::write(scene.path("empty.jsonl"), "\n").unwrap();
    assert_eq!(verb("empty.jsonl").0.code(), Some(2));
    assert_eq!(put(&gateway, &format!("{ROUTE}?cases_bytes=x"), OPERATOR, b"").0, 400);
}

#[test]
fn a_message_without_a_decoder_is_told_of_the_file_that_may_not_serve() {
    let scene = scene();
    fs::write(scene.path("guests/acme/boiler.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let verb = ["explain", "--topic", "tenant/acme/device/dev-1/boiler", "--payload", &payload(1), "--json"];
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish("tenant/acme/device/dev-1/boiler", payload(1).as_bytes()).unwrap();
    let expected = "acme/boiler.wasm is there and does not serve: it is a core module";
    let (_, quarantine) = gateway.get_with_token("/api/v1/quarantine", Some(OPERATOR));
    assert!(quarantine.contains("NO_GUEST") && quarantine.contains(expected), "{quarantine}");
    let (status, out, errors) = scene.verb(&verb, "");
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(out.contains("NO_GUEST") && out.contains(expected), "{out}");
    // A file that comes later too.
    fs::write(scene.path("guests/acme/alarm.wasm"), b"text").unwrap();
    gateway.wait("refused", |gateway| {
        list(gateway, "acme").iter().any(|guest| guest["type"] == "alarm" && guest["error"].is_string())
    });
    device.publish("tenant/acme/device/dev-1/alarm", payload(2).as_bytes()).unwrap();
    let (_, quarantine) = gateway.get_with_token("/api/v1/quarantine", Some(OPERATOR));
    assert!(
        quarantine.contains("acme/alarm.wasm is there and does not serve: it is no WebAssembly"),
        "{quarantine}"
    );
}

#[test]
fn after_a_rollback_the_list_says_what_serves_and_that_the_file_is_set_aside() {
    let scene = scene();
    let gateway = scene.start();
    assert_eq!(put(&gateway, ROUTE, OPERATOR, &component("strict")).0, 200);
    assert_eq!(gateway.request("POST", &format!("{ROUTE}/rollback"), Some(OPERATOR), &[]).0, 200);
    let out = |arguments: &[&str]| scene.verb(arguments, "").1;
    let listed = out(&["guest", "list", "--tenant", "acme"]);
    let row = listed.lines().find(|line| line.contains("steps")).unwrap();
    assert!(row.contains("serving") && row.contains("steady@"), "{listed}");
    assert!(listed.contains("the file in the folder is set aside: rolled back by hand"), "{listed}");
    assert_eq!(list(&gateway, "acme")[0]["file_state"], "set_aside");
    let (_, history) = gateway.get_with_token(&format!("{ROUTE}/history"), Some(OPERATOR));
    let history: Value = serde_json::from_str(&history).unwrap();
    let versions = history["versions"].as_array().unwrap();
    let mut times: Vec<_> = versions.iter().map(|version| version["when"].as_str().unwrap()).collect();
    times.sort_unstable();
    times.dedup();
    assert_eq!(times.len(), versions.len(), "{history}");
    drop(gateway);
    // Also after a restart, and without one.
    let listed = out(&["guest", "list", "--tenant", "acme"]);
    assert!(listed.contains("serving") && listed.contains("is set aside"), "{listed}");
}

#[test]
fn a_topic_makes_no_partition_of_state_beyond_a_kibibyte() {
    let mut scene = scene();
    let long = "x".repeat(250);
    scene.device("acme", &long, "lab-1");
    scene.guest("acme", "meter", "counter");
    // Four times the device: 1,000 bytes of the long name, and one more time too many.
    fs::write(scene.path("guests/acme/meter.toml"), "[state]\npartition = \"{device}{4}{4}{4}{4}\"\n")
        .unwrap();
    fs::write(
        scene.path("guests/acme/many.toml"),
        format!("[state]\npartition = \"{}\"\n", "{device}".repeat(17)),
    )
    .unwrap();
    fs::copy(built_guest("counter"), scene.path("guests/acme/many.wasm")).unwrap();
    let gateway = scene.start();
    for name in [&*long, "dev-1"] {
        let mut device = Device::connect(&scene.listener, name).unwrap();
        let payload = format!(r#"{{"site_id":"lab-1","provision_token":"tok-{name}","count":5}}"#);
        device.publish(&format!("tenant/acme/device/{name}/meter"), payload.as_bytes()).unwrap();
    }
    assert_eq!(scene.lines("telemetry_acme").len(), 1);
    let (_, quarantine) = gateway.get_with_token("/api/v1/quarantine", Some(OPERATOR));
    let expected = "state.partition makes a name of 1250 bytes from this topic; at most 1024 are allowed";
    assert!(quarantine.contains("BAD_TOPIC_FORMAT") && quarantine.contains(expected), "{quarantine}");
    let many = list(&gateway, "acme").into_iter().find(|guest| guest["type"] == "many").unwrap();
    assert!(many["error"].as_str().unwrap().contains("17 parts; at most 16 are allowed"), "{many}");
}

/// The component with so many empty core instances more.
fn with_core_instances(component: &[u8], instances: u8) -> Vec<u8> {
    let mut depth = 0;
    let mut modules = 0;
    for part in wasmparser::Parser::new(0).parse_all(component) {
        match part.unwrap() {
            wasmparser::Payload::ModuleSection { .. } if depth == 0 => (modules, depth) = (modules + 1, 1),
            wasmparser::Payload::ModuleSection { .. } | wasmparser::Payload::ComponentSection { .. } => {
                depth += 1;
            }
            wasmparser::Payload::End(_) if depth > 0 => depth -= 1,
            _ => {}
        }
    }
    let mut bytes = component.to_vec();
    // A core module section with an empty module, and a section with the instances of it.
    bytes.extend([1, 8]);
    bytes.extend(b"\0asm\x01\0\0\0");
    let each = [0, modules, 0].repeat(usize::from(instances));
    let length = each.len() + 1;
    bytes.extend([2, (length % 128) as u8 | 0x80, (length / 128) as u8, instances]);
    bytes.extend(each);
    bytes
}

#[test]
fn too_many_core_instances_are_named_with_the_limit() {
    let scene = scene_with("[guests.large]\nroutes = [\"acme/steps\"]\n");
    let gateway = scene.start();
    let steady = component("steady");
    let (status, answer) = put(&gateway, ROUTE, OPERATOR, &with_core_instances(&steady, 65));
    let message = answer["message"].as_str().unwrap();
    assert_eq!(status, 422, "{answer}");
    assert!(message.contains("GUEST_MEMORY") && message.contains("the class large allows 64"), "{message}");
    let (status, answer) = put(&gateway, ROUTE, OPERATOR, &with_core_instances(&steady, 50));
    assert_eq!(status, 200, "{answer}");
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(TOPIC, payload(1).as_bytes()).unwrap();
    assert_eq!(scene.lines("telemetry_acme").len(), 1);
}

#[test]
fn a_guests_folder_that_cannot_be_written_to_is_named_as_such() {
    let scene = scene();
    let gateway = scene.start();
    // A file where a folder should be: root may write to every folder.
    fs::write(scene.path("guests/globex"), "").unwrap();
    let (status, answer) = put(&gateway, "/api/v1/guests/globex/x", OPERATOR, &component("strict"));
    let message = answer["message"].as_str().unwrap();
    assert!(status == 500 && message.contains("the guests folder cannot be"), "{answer}");
}

#[test]
fn explain_names_the_values_that_a_decoder_leaves_out() {
    let scene = scene();
    let payload = r#"{"ts":1700000000,"site_id":"lab-1","provision_token":"tok-dev-1","seq":1,"metrics":{"temp":"hot","v":1,"l":[1],"n":null}}"#;
    let topic = "tenant/acme/device/dev-1/telemetry";
    let explain = |more: &[&str]| {
        let arguments = [&["explain", "--topic", topic, "--payload", payload], more].concat();
        scene.verb(&arguments, "")
    };
    let (status, out, errors) = explain(&[]);
    assert_eq!(status.code(), Some(0), "{out}{errors}");
    for ignored in ["ts (time)", "temp (text)", "l (list)", "n (null)"] {
        let line = out.lines().find(|line| line.starts_with("ignored") && line.ends_with(ignored));
        assert!(line.is_some(), "{ignored}: {out}");
    }
    let record: Value = serde_json::from_str(&explain(&["--json"]).1).unwrap();
    assert_eq!(record["ignored"].as_array().unwrap().len(), 4, "{record}");
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(topic, payload.as_bytes()).unwrap();
    device.publish(topic, payload.as_bytes()).unwrap();
    let count = |kind: &str| {
        let name =
            format!("tidegate_guest_ignored_total{{tenant=\"_default\",type=\"telemetry\",kind=\"{kind}\"}}");
        gateway.metric(&name)
    };
    assert_eq!(["time", "text", "list", "null"].map(count), [Some(2.0); 4]);
    let line = &scene.lines("telemetry_acme")[0];
    assert!(line.starts_with("telemetry,device_id=dev-1,site_id=lab-1 seq=1i,v=1i "), "{line}");
}
