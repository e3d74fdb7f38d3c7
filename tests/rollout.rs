//! New versions of decoders while messages flow: a bad one never serves for long, and no message is
//! lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_simulator::Device;

use crate::harness::compile_bombs;
use crate::harness::gateway::{Gateway, GatewayDir, built_guest, variant};

const TOPIC: &str = "tenant/acme/device/dev-1/steps";
const ROUTE: &str = "/api/v1/guests/acme/steps";
const OPERATOR: &str = "of-the-operator";

fn payload(seq: u64) -> String {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","seq":{seq}}}"#)
}

fn with_extra(seq: u64, extra: &str) -> String {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","seq":{seq},"extra":"{extra}"}}"#)
}

fn component(name: &str) -> Vec<u8> {
    fs::read(built_guest(name)).unwrap()
}

/// A gateway whose route acme/steps is decoded by `steady`, with the operator's token and one of
/// acme and globex.
fn scene() -> GatewayDir {
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
        "[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n",
        "token_file = \"operator\"\ntenant_tokens_dir = \"tokens\"\n",
    );
    scene
}

fn ask(gateway: &Gateway<'_>, path: &str) -> Value {
    let (status, body) = gateway.get_with_token(path, Some(OPERATOR));
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The entry of acme/steps in the list of guests.
fn route(gateway: &Gateway<'_>) -> Value {
    let guests = ask(gateway, "/api/v1/guests/acme")["guests"].clone();
    guests.as_array().unwrap().iter().find(|guest| guest["type"] == "steps").cloned().unwrap_or_default()
}

fn serves(gateway: &Gateway<'_>, name: &str) -> bool {
    route(gateway)["guest"].as_str().is_some_and(|guest| guest.starts_with(&format!("{name}@")))
}

/// (outcome, reason) of the newest version of acme/steps that is not serving.
fn last_fate(gateway: &Gateway<'_>) -> (String, String) {
    let versions = ask(gateway, &format!("{ROUTE}/history"))["versions"].clone();
    let version = versions.as_array().unwrap().iter().find(|version| version["outcome"] != "serves").unwrap();
    let text = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("reason"))
}

fn put(gateway: &Gateway<'_>, component: &[u8]) -> (u16, Value) {
    let (status, body) = gateway.request("PUT", ROUTE, Some(OPERATOR), component);
    (status, serde_json::from_str(&body).unwrap_or_default())
}

fn swaps(gateway: &Gateway<'_>, outcome: &str) -> f64 {
    let name = format!("tidegate_guest_swaps_total{{tenant=\"acme\",type=\"steps\",outcome=\"{outcome}\"}}");
    gateway.metric(&name).unwrap_or(0.0)
}

fn assert_balanced(gateway: &Gateway<'_>) {
    assert_eq!(ask(gateway, "/api/v1/books")["balanced"], true);
}

/// Renames a component into place, as an operator does.
fn rename_into_place(scene: &GatewayDir, component: &[u8]) {
    let place = scene.path("guests/acme/steps.wasm");
    let staged = place.with_file_name(".staged");
    fs::write(&staged, component).unwrap();
    fs::rename(staged, place).unwrap();
}

fn seqs(lines: &[String]) -> Vec<u64> {
    let seq = |line: &String| line.split("seq=").nth(1)?.split('i').next()?.parse().ok();
    lines.iter().map(|line| seq(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

#[test]
fn a_file_is_served_only_once_it_is_whole() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let whole = component("strict");
    let place = scene.path("guests/acme/steps.wasm");
    // Written in place, with a pause after each part that is longer than a look: what lies there is
    // never whole until the end.
    for (index, part) in whole.chunks(whole.len() / 3).enumerate() {
        let mut options = fs::OpenOptions::new();
        options.write(true).truncate(index == 0).append(index > 0);
        if index == 0 {
            options = fs::OpenOptions::new();
            options.write(true).truncate(true);
        }
        let mut file = options.open(&place).unwrap();
        std::io::Write::write_all(&mut file, part).unwrap();
        drop(file);
        if index < 2 {
            std::thread::sleep(Duration::from_millis(600));
            device.publish(TOPIC, payload(index as u64).as_bytes()).unwrap();
            assert!(serves(&gateway, "steady"), "{}", route(&gateway));
        }
    }
    gateway.wait("served when whole", |gateway| serves(gateway, "strict"));
    assert_eq!(route(&gateway)["state"], "serving");
    device.publish(TOPIC, payload(9).as_bytes()).unwrap();
    assert_eq!(seqs(&scene.lines("telemetry_acme")), [0, 1, 9]);
    assert_balanced(&gateway);
}

#[test]
fn a_rename_is_one_swap_within_a_second_and_loses_and_doubles_nothing_under_load() {
    let scene = scene();
    let gateway = scene.start();
    const MESSAGES: u64 = 6_000;
    const NEXT: [&str; 4] = ["strict", "steady", "strict", "steady"];
    // Compiled before: a compiler that waits for a busy machine is no part of the swap.
    let variants: Vec<_> = (0..NEXT.len()).map(|n| variant(&component(NEXT[n]), &n.to_string())).collect();
    for variant in &variants {
        let (status, answer) = put(&gateway, variant);
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(swaps(&gateway, "replaced"), 4.0);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let payloads: Vec<String> = (0..MESSAGES).map(payload).collect();
            let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
            for part in payloads.chunks(100) {
                let messages = part.iter().map(|payload| (TOPIC, payload.as_bytes()));
                assert_eq!(device.publish_all(messages, 50).unwrap(), part.len() as u64);
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        let mut fastest = Duration::MAX;
        for (next, bytes) in NEXT.into_iter().zip(&variants) {
            let began = Instant::now();
            rename_into_place(&scene, bytes);
            gateway.wait("swapped", |gateway| serves(gateway, next));
            fastest = fastest.min(began.elapsed());
        }
        // A second, and the time of a debug build on a busy machine.
        assert!(fastest < Duration::from_secs(3), "{fastest:?}");
        sending.join().unwrap();
    });
    assert_eq!(swaps(&gateway, "replaced"), 8.0);
    let lines = scene.lines("telemetry_acme");
    assert_eq!(seqs(&lines), (0..MESSAGES).collect::<Vec<_>>(), "in order, each once");
    for version in ["steady,", "strict,"] {
        assert!(lines.iter().any(|line| line.starts_with(version)), "{version} served");
    }
    assert_balanced(&gateway);
}

#[test]
fn a_hundred_swaps_under_load_lose_nothing_and_decode_nothing_twice() {
    let mut scene = scene();
    const DEVICES: u64 = 4;
    const MESSAGES: u64 = 15_000;
    for n in 0..DEVICES {
        scene.device("acme", &format!("load-{n}"), "lab-1");
    }
    let gateway = scene.start();
    let versions: Vec<_> =
        (0..8).map(|n| variant(&component(["steady", "strict"][n % 2]), &n.to_string())).collect();
    // Compiled before, as in production, so that only the swap is measured.
    for version in &versions {
        assert_eq!(put(&gateway, version).0, 200);
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let swapped = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut swapped = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || swapped < 100 {
                let (status, answer) = put(&gateway, &versions[swapped % versions.len()]);
                assert_eq!((status, &answer["state"]), (200, &"serving".into()), "{answer}");
                swapped += 1;
                // A tenant may change its guests ten times a second, and a hundred times at once.
                std::thread::sleep(Duration::from_millis(60));
            }
            swapped
        });
        let devices: Vec<_> = (0..DEVICES)
            .map(|n| {
                let listener = &scene.listener;
                scope.spawn(move || {
                    let name = format!("load-{n}");
                    let topic = TOPIC.replace("dev-1", &name);
                    let payloads: Vec<String> =
                        (0..MESSAGES).map(|seq| payload(seq).replace("dev-1", &name)).collect();
                    let mut device = Device::connect(listener, &name).unwrap();
                    for part in payloads.chunks(150) {
                        let messages = part.iter().map(|payload| (topic.as_str(), payload.as_bytes()));
                        assert_eq!(device.publish_all(messages, 50).unwrap(), part.len() as u64);
                        std::thread::sleep(Duration::from_millis(60));
                    }
                })
            })
            .collect();
        for device in devices {
            device.join().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        swapping.join().unwrap()
    });
    assert!(swapped >= 100);
    assert_eq!(swaps(&gateway, "replaced") as usize, 8 + swapped);
    let lines = scene.lines("telemetry_acme");
    for n in 0..DEVICES {
        let own = format!("device_id=load-{n},");
        let own: Vec<String> = lines.iter().filter(|line| line.contains(&own)).cloned().collect();
        assert_eq!(seqs(&own), (0..MESSAGES).collect::<Vec<_>>(), "in order, each once");
    }
    assert_balanced(&gateway);
}

#[test]
fn a_version_that_fails_its_cases_does_not_serve() {
    let scene = scene();
    let gateway = scene.start();
    let case = |expect: &str| {
        let payload = with_extra(1, "refuse").replace('"', "\\\"");
        format!(
            r#"{{"name":"extra","topic":"{TOPIC}","payload":"{payload}","received_at":"2026-01-01T00:00:00Z","site":"lab-1","expect":{expect}}}"#
        )
    };
    let cases = scene.path("guests/acme/steps.cases.jsonl");
    fs::write(&cases, case(r#"{"lines":["x"]}"#)).unwrap();
    let (status, answer) = put(&gateway, &component("strict"));
    assert_eq!((status, &answer["error"]), (422, &"MAY_NOT_SERVE".into()), "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("cases") && message.contains("\"extra\" in line 1"), "{message}");
    assert!(serves(&gateway, "steady"));
    assert_eq!(last_fate(&gateway).0, "refused");
    assert_eq!(swaps(&gateway, "refused_cases"), 1.0);
    // The file is not the refused one.
    assert_eq!(fs::read(scene.path("guests/acme/steps.wasm")).unwrap(), component("steady"));
    // With other cases it is tried again.
    fs::write(&cases, case(r#"{"refusal":"EXTRA"}"#)).unwrap();
    let (status, answer) = put(&gateway, &component("strict"));
    assert_eq!((status, &answer["state"]), (200, &"serving".into()), "{answer}");
    assert!(serves(&gateway, "strict"));
}

#[test]
fn a_version_that_fails_on_the_last_messages_does_not_serve() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for seq in 0..60 {
        let payload = if seq % 10 == 0 { with_extra(seq, "trap") } else { payload(seq) };
        device.publish(TOPIC, payload.as_bytes()).unwrap();
    }
    rename_into_place(&scene, &component("strict"));
    gateway.wait("refused", |gateway| route(gateway)["state"] == "refused");
    assert!(serves(&gateway, "steady"));
    let (outcome, reason) = last_fate(&gateway);
    assert_eq!(outcome, "refused");
    assert!(reason.contains("6 of the last 60 messages") && reason.contains("GUEST_TRAP"), "{reason}");
    assert_eq!(swaps(&gateway, "refused_shadow"), 1.0);
    gateway.wait("logged", |_| scene.log().contains("the run on recent messages"));
    assert_eq!(scene.lines("telemetry_acme").len(), 60, "a shadow run writes nothing");
    assert_balanced(&gateway);
    // More may fail where the route says so.
    fs::write(scene.path("guests/acme/steps.toml"), "failures_percent_max = 20\n").unwrap();
    gateway.wait("served", |gateway| serves(gateway, "strict"));
}

#[test]
fn a_version_that_fails_on_probation_is_rolled_back_and_stays_out() {
    for attack in ["refuse", "trap", "bad-line", "loop"] {
        let scene = scene();
        let gateway = scene.start();
        let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
        device.publish(TOPIC, payload(0).as_bytes()).unwrap();
        rename_into_place(&scene, &component("strict"));
        gateway.wait("swapped", |gateway| serves(gateway, "strict"));
        let payloads: Vec<String> =
            (1..200).map(|seq| if seq % 7 == 0 { with_extra(seq, attack) } else { payload(seq) }).collect();
        let messages = payloads.iter().map(|payload| (TOPIC, payload.as_bytes()));
        assert_eq!(device.publish_all(messages, 30).unwrap(), 199);
        gateway.wait("rolled back", |gateway| serves(gateway, "steady"));
        let lines = scene.lines("telemetry_acme");
        assert_eq!(seqs(&lines), (0..200).collect::<Vec<_>>(), "{attack}: each once, in order");
        assert!(
            lines[7].starts_with("steady,"),
            "what failed was decoded by the version before: {}",
            lines[7]
        );
        assert!(lines[6].starts_with("strict,"), "{}", lines[6]);
        assert_eq!(swaps(&gateway, "rolled_back"), 1.0);
        let (outcome, reason) = last_fate(&gateway);
        assert_eq!(outcome, "rolled_back");
        assert!(reason.contains("on probation"), "{reason}");
        gateway.wait("logged", |_| scene.log().contains("a decoder was rolled back"));
        assert_balanced(&gateway);

        // Over a restart, with the file still there.
        assert_eq!(gateway.stop().code(), Some(0));
        assert_eq!(fs::read(scene.path("guests/acme/steps.wasm")).unwrap(), component("strict"));
        let gateway = scene.start();
        assert!(serves(&gateway, "steady"), "{}", route(&gateway));
        assert_eq!(route(&gateway)["state"], "refused");
        // Until the file changes.
        rename_into_place(&scene, &variant(&component("strict"), "2"));
        gateway.wait("tried again", |gateway| serves(gateway, "strict"));
    }
}

#[test]
fn messages_that_no_version_decodes_bring_nothing_back() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(TOPIC, payload(0).as_bytes()).unwrap();
    rename_into_place(&scene, &component("strict"));
    gateway.wait("swapped", |gateway| serves(gateway, "strict"));
    for seq in 1..=20 {
        let garbage = payload(seq).replace("\"seq\":", "\"seq\":\"text\",\"x\":");
        device.publish(TOPIC, garbage.as_bytes()).unwrap();
    }
    std::thread::sleep(Duration::from_millis(600));
    assert!(serves(&gateway, "strict"), "{}", route(&gateway));
    assert_eq!(route(&gateway)["probation"]["failures"], 0);
    let quarantine = ask(&gateway, "/api/v1/quarantine");
    assert_eq!(quarantine["reasons"]["GUEST_REFUSED"], 20, "{quarantine}");
    assert!(quarantine["latest"][0]["guest"].as_str().unwrap().starts_with("strict@"), "{quarantine}");
    assert_balanced(&gateway);
}

#[test]
fn probation_ends_after_its_messages_and_its_time() {
    let scene = scene();
    fs::write(scene.path("guests/acme/steps.toml"), "probation_messages = 10\n").unwrap();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    rename_into_place(&scene, &component("strict"));
    gateway.wait("swapped", |gateway| serves(gateway, "strict"));
    assert!(route(&gateway)["probation"].is_object());
    // In one write, so that they are decoded in batches.
    let payloads: Vec<String> = (0..10).map(payload).collect();
    let messages = payloads.iter().map(|payload| (TOPIC, payload.as_bytes()));
    assert_eq!(device.publish_all(messages, 10).unwrap(), 10);
    assert!(route(&gateway)["probation"].is_null());
    // From here on its failures are its own.
    device.publish(TOPIC, with_extra(10, "refuse").as_bytes()).unwrap();
    assert_eq!(scene.lines("telemetry_acme").len(), 10);
    assert!(serves(&gateway, "strict"));

    fs::write(scene.path("guests/acme/steps.toml"), "probation_s = 1\n").unwrap();
    gateway.wait("on probation by its new rules", |gateway| route(gateway)["probation"].is_object());
    gateway.wait("over", |gateway| route(gateway)["probation"].is_null());
}

#[test]
fn probation_goes_on_after_a_restart() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(TOPIC, payload(0).as_bytes()).unwrap();
    assert_eq!(put(&gateway, &component("strict")).0, 200);
    gateway.kill();
    let gateway = scene.start();
    assert!(serves(&gateway, "strict") && route(&gateway)["probation"].is_object(), "{}", route(&gateway));
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for seq in 1..10 {
        device.publish(TOPIC, with_extra(seq, "refuse").as_bytes()).unwrap();
    }
    gateway.wait("rolled back", |gateway| serves(gateway, "steady"));
    let seqs = seqs(&scene.lines("telemetry_acme"));
    // What was written just before a kill may not be marked as written yet, and is written again; later
    // points may overtake it. What comes after the start is written once, in order.
    let (before, after): (Vec<_>, Vec<_>) = seqs.into_iter().partition(|&seq| seq == 0);
    assert!((1..=2).contains(&before.len()), "{before:?} {after:?}");
    assert_eq!(after, (1..10).collect::<Vec<_>>());
}

#[test]
fn what_served_last_serves_at_start_whatever_lies_in_the_folder() {
    let scene = scene();
    let gateway = scene.start();
    assert_eq!(gateway.stop().code(), Some(0));
    let steady = component("steady");
    fs::write(scene.path("guests/acme/steps.wasm"), &steady[..steady.len() / 2]).unwrap();
    fs::write(scene.path("guests/acme/steps.toml"), "no such thing").unwrap();
    let gateway = scene.start();
    assert!(serves(&gateway, "steady"), "{}", route(&gateway));
    assert_eq!(route(&gateway)["state"], "refused");
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(TOPIC, payload(1).as_bytes()).unwrap();
    assert_eq!(scene.lines("telemetry_acme").len(), 1);
    // What is taken out of the folder does not serve, whatever served before. The route file alone would be a route.
    fs::remove_file(scene.path("guests/acme/steps.toml")).unwrap();
    fs::remove_file(scene.path("guests/acme/steps.wasm")).unwrap();
    gateway.wait("gone", |gateway| route(gateway).is_null());
}

#[test]
fn an_operator_and_the_tenant_itself_may_put_and_nobody_else() {
    let scene = scene();
    let gateway = scene.start();
    let strict = component("strict");
    let put = |path: &str, token: Option<&str>, body: &[u8]| {
        let (status, body) = gateway.request("PUT", path, token, body);
        (status, serde_json::from_str::<Value>(&body).unwrap_or_default())
    };
    assert_eq!(put(ROUTE, None, &strict).0, 401);
    assert_eq!(put(ROUTE, Some("nobody's"), &strict).0, 401);
    let (status, answer) = put(ROUTE, Some("of-globex"), &strict);
    assert_eq!((status, &answer["error"]), (403, &"FORBIDDEN".into()));
    assert_eq!(put("/api/v1/guests/_default/telemetry", Some("of-acme"), &strict).0, 403);
    assert!(serves(&gateway, "steady"));
    for path in ["/api/v1/guests/acme/..%2f..%2fx", "/api/v1/guests/acme/_x", "/api/v1/guests/.../x"] {
        assert_eq!(put(path, Some(OPERATOR), &strict).0, 400, "{path}");
    }
    assert_eq!(put(ROUTE, Some("of-acme"), &vec![0; 11 << 20]).0, 413);
    let (status, answer) = put(ROUTE, Some("of-acme"), b"no component");
    assert_eq!((status, answer["message"].as_str().unwrap()), (422, "it is no WebAssembly component"));

    let (status, answer) = put(ROUTE, Some("of-acme"), &strict);
    assert_eq!((status, &answer["state"]), (200, &"serving".into()), "{answer}");
    assert!(answer["guest"].as_str().unwrap().starts_with("strict@0.1.0#"));
    assert!(serves(&gateway, "strict"));
    assert_eq!(fs::read(scene.path("guests/acme/steps.wasm")).unwrap(), strict, "it lies in the folder");
    assert_eq!(put(ROUTE, Some(OPERATOR), &strict).1["state"], "unchanged");
    let (status, _) = put("/api/v1/guests/acme/new-type", Some(OPERATOR), &strict);
    assert_eq!(status, 200);

    let history = ask(&gateway, &format!("{ROUTE}/history"));
    assert_eq!(history["versions"][0]["who"], "tenant acme", "{history}");
    // And back, and out.
    let call = |method: &str, path: &str, token: &str| gateway.request(method, path, Some(token), &[]);
    let back = format!("{ROUTE}/rollback");
    assert_eq!(call("POST", &back, "of-globex").0, 403);
    let (status, answer) = call("POST", &back, "of-acme");
    assert_eq!(status, 200, "{answer}");
    assert!(serves(&gateway, "steady"));
    assert_eq!(call("POST", &back, "of-acme").0, 409);
    assert_eq!(last_fate(&gateway), ("rolled_back".into(), "rolled back by hand".into()));
    // Whoever puts it again wants it.
    assert_eq!(put(ROUTE, Some("of-acme"), &strict).0, 200);
    assert!(serves(&gateway, "strict"));
    assert_eq!(call("DELETE", ROUTE, "of-globex").0, 403);
    assert_eq!(call("DELETE", ROUTE, "of-acme").0, 200);
    assert!(route(&gateway).is_null() && !scene.path("guests/acme/steps.wasm").exists());
    assert_eq!(call("DELETE", ROUTE, "of-acme").0, 404);
}

#[test]
fn without_a_token_nothing_can_be_changed() {
    let scene = scene();
    scene.configure("[output]\nkind = \"file\"\n");
    let gateway = scene.start();
    for (method, path) in [
        ("PUT", ROUTE),
        ("DELETE", ROUTE),
        ("POST", &format!("{ROUTE}/rollback")),
        ("GET", &format!("{ROUTE}/log")),
    ] {
        let (status, body) = gateway.request(method, path, None, b"x");
        assert_eq!(status, 403, "{method} {path}");
        assert!(body.contains("TOKEN_NEEDED"), "{body}");
    }
    assert_eq!(gateway.get(&format!("{ROUTE}/history")).0, 200);
}

#[test]
fn a_compile_bomb_is_refused_while_messages_flow() {
    let scene = scene();
    let gateway = scene.start();
    std::thread::scope(|scope| {
        let bombed = scope.spawn(|| {
            let bomb = compile_bombs::huge_function(60_000);
            // Where the machine is so busy that the clock is over before the CPU time, it is nobody's fault.
            let answer = (0..5).map(|_| put(&gateway, &bomb)).find(|(status, _)| *status != 500);
            answer.expect("an answer that is about the guest")
        });
        let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
        let (mut sent, mut slowest) = (0, Duration::ZERO);
        while !bombed.is_finished() {
            let began = Instant::now();
            device.publish(TOPIC, payload(sent).as_bytes()).unwrap();
            slowest = slowest.max(began.elapsed());
            sent += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        let (status, answer) = bombed.join().unwrap();
        assert_eq!(status, 422, "{answer}");
        assert!(answer["message"].as_str().unwrap().starts_with("compiling it takes more than"), "{answer}");
        assert!(sent > 100 && slowest < Duration::from_secs(5), "{sent} messages, the slowest {slowest:?}");
        assert_eq!(scene.lines("telemetry_acme").len() as u64, sent);
    });
    assert_balanced(&gateway);
    // It is known now, over a restart too, and costs no compiler any more.
    fs::write(scene.path("guests/acme/steps.wasm"), compile_bombs::huge_function(60_000)).unwrap();
    let began = Instant::now();
    gateway.wait("refused", |gateway| route(gateway)["state"] == "refused");
    // Compiling it again would take ten seconds of CPU.
    assert!(began.elapsed() < Duration::from_secs(9));
    assert_eq!(gateway.stop().code(), Some(0));
    let began = Instant::now();
    let gateway = scene.start();
    assert!(began.elapsed() < Duration::from_secs(10) && serves(&gateway, "steady"));
    let staged = |folder: &Path| fs::read_dir(folder).unwrap().count();
    assert!(staged(&scene.path("data/guests/cache")) >= 2);
}
