//! The console in Debian's Chromium: the steps are in console/tests/steps, and what they need of the gateway is here.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rumqttc::QoS;
use tidegate::admission::registry::token_hash;

use super::{ACME, OPERATOR, payload, publish, scene, send, send_some, set_tenant_token};
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::mqtt_client::MqttClient;
use crate::harness::skip;

/// The folder with the steps and what npm installed for them.
fn workshop() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/js/console");
    let browser = std::env::var_os("CHROMIUM").map_or(PathBuf::from("/usr/bin/chromium"), PathBuf::from);
    let is_there = folder.join("node_modules/playwright-core").exists() && browser.exists();
    is_there.then_some(folder)
}

/// True if a program with the console runs.
fn has_console(scene: &GatewayDir) -> bool {
    let (_, head, _) = send(&scene.admin, "GET", "/", &[], &[]);
    head.to_ascii_lowercase().contains("content-encoding: gzip")
}

/// Walks the steps of some files in a browser, and does for them what they ask for.
fn walk(workshop: &Path, scene: &GatewayDir, files: &str, mut act: impl FnMut(&str)) {
    let mut steps = Command::new("node")
        .args(["tests/run.mjs", files, &scene.admin, OPERATOR, ACME])
        .current_dir(workshop)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = steps.stdin.take().unwrap();
    let mut done = false;
    for line in BufReader::new(steps.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.strip_prefix("do ") {
            Some(name) => {
                act(name);
                writeln!(told, "done").unwrap();
            }
            None => done |= line == "all done",
        }
    }
    assert!(steps.wait().unwrap().success() && done, "see the steps above");
}

/// Waits until a decoder of acme serves.
fn serves(gateway: &Gateway<'_>, message_type: &str) {
    gateway.wait("a decoder", |gateway| {
        let guests = gateway.json_by("/api/v1/guests/acme", OPERATOR)["guests"].clone();
        let mut guests = guests.as_array().unwrap().iter();
        guests.any(|guest| guest["type"] == message_type && guest["state"] == "serving")
    });
}

/// Puts a script of acme into the folder.
fn lay_script(scene: &GatewayDir, message_type: &str, script: &str) {
    let folder = scene.path("guests").join("acme");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(".staged"), script).unwrap();
    fs::rename(folder.join(".staged"), folder.join(format!("{message_type}.js"))).unwrap();
}

/// A script whose line is long in an event of the tap: its characters are escaped in the line, and again in JSON.
const LONG: &str = r#"function decodeUplink(input) { return { data: { s: '"'.repeat(1900) } }; }"#;

/// The time for which messages of long lines come: they are more than all buffers between a gateway and a page that
/// stands still, at the 200 a second that a viewer is shown.
const FLOOD: Duration = Duration::from_secs(15);

/// The name of a device, and payloads, of strangers.
const STRANGER: &str = "<img src=x onerror=alert(1)>";

fn send_strange_messages(scene: &GatewayDir) {
    let mut client = MqttClient::connect(scene.listener.parse().unwrap(), "stranger");
    let mut send = |device: &str, message_type: &str, payload: Vec<u8>| {
        let topic = format!("tenant/acme/device/{device}/{message_type}");
        client.publish(&topic, QoS::AtLeastOnce, false, payload);
        client.puback();
    };
    let envelope = |device: &str, more: &str| {
        let site = if device == STRANGER { "<b>lab</b>" } else { "lab-1" };
        format!(r#"{{"site_id":"{site}","provision_token":"tok-{device}"{more}}}"#).into_bytes()
    };
    let markup = r#","metrics":{"<b>bold</b>":1,"a\u001b[31m\u202eb":2}"#;
    send(STRANGER, "telemetry", envelope(STRANGER, markup));
    send(STRANGER, "nonsense", envelope(STRANGER, markup));
    send("dev-1", "raw", b"\xff\xfe\x00\x1b[31m".to_vec());
    send("dev-1", "line", envelope("dev-1", &format!(r#","note":"{}""#, "x".repeat((1 << 20) - 200))));
}

#[test]
fn the_console_shows_and_changes_what_it_should_in_a_browser() {
    let Some(workshop) = workshop() else { return skip("no browser, or no console: run cargo xtask test") };
    let mut scene = scene();
    scene.device("acme", STRANGER, "<b>lab</b>");
    configure_more(&scene, "[admission]\npayload_bytes_max = 1048576\n");
    lay_script(&scene, "long", LONG);
    let mut gateway = Some(scene.start());
    if !has_console(&scene) {
        return skip("the program has no console: run cargo xtask test");
    }
    send_some(&scene);
    let mut seq = 100;
    walk(&workshop, &scene, "pages,messages,decoders,strangers,sessions", |name| {
        seq += 1;
        match name {
            "refuse" => publish(
                &scene,
                "acme",
                "steps",
                &payload("acme", seq).replacen('{', "{\"note\":\"<script>alert(1)</script>\",", 1),
            ),
            "mend" => {
                scene.guest("acme", "steps", "steady");
                serves(gateway.as_ref().unwrap(), "steps");
            }
            "break" => {
                lay_script(&scene, "up", "function decodeUplink(input) { return input.no.such; }");
                serves(gateway.as_ref().unwrap(), "up");
                publish(&scene, "acme", "up", &payload("acme", seq));
            }
            "up" => publish(&scene, "acme", "up", &payload("acme", seq)),
            "flood" => {
                let mut client = MqttClient::connect(scene.listener.parse().unwrap(), "dev-1");
                let message = ("tenant/acme/device/dev-1/long".to_owned(), payload("acme", 1).into_bytes());
                let ends = Instant::now() + FLOOD;
                while Instant::now() < ends {
                    client.publish_all(vec![message.clone(); 25]);
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            "strangers" => send_strange_messages(&scene),
            "publish" => publish(&scene, "acme", "telemetry", &payload("acme", seq)),
            "rename" => set_tenant_token(&scene, "acme", "another"),
            "stop" => drop(gateway.take()),
            "start" => gateway = Some(scene.start()),
            other => panic!("the browser's test asks for {other:?}"),
        }
    });
}

/// Puts more into the configuration, at the head of the section of admission.
fn configure_more(scene: &GatewayDir, text: &str) {
    let path = scene.path("tidegate.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(path, config.replacen("[admission]\n", text, 1)).unwrap();
}

/// Devices and routes of a large gateway.
const DEVICES: usize = 10_000;
const ROUTES: usize = 1_000;

#[test]
fn ten_thousand_devices_and_a_thousand_routes_are_shown_without_a_stall() {
    let Some(workshop) = workshop() else { return skip("no browser, or no console: run cargo xtask test") };
    let scene = scene();
    // One token for all: each device has its hash.
    let hash = token_hash("tok");
    let mut devices = "tenant_id,device_id,site_id,status,provision_token_hash\n".to_owned();
    for n in 0..DEVICES {
        devices += &format!("many,device-{n},lab-{},ACTIVE,{hash}\n", n % 50);
    }
    fs::write(scene.path("devices.csv"), devices).unwrap();
    // The page shows those in the cache: all have room there, and stay.
    configure_more(&scene, "[registry]\ncache_entries_max = 100000\ncache_ttl_s = 3600\n[admission]\n");
    for n in 0..ROUTES {
        let folder = scene.path("guests").join(format!("route-{n:04}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("steps.toml"), "decoder = \"json\"\n").unwrap();
    }
    let gateway = scene.start();
    if !has_console(&scene) {
        return skip("the program has no console: run cargo xtask test");
    }
    let mut client = MqttClient::connect(scene.listener.parse().unwrap(), "many");
    client.publish_all((0..DEVICES).map(|n| {
        let payload = format!(
            r#"{{"site_id":"lab-{}","provision_token":"tok","seq":1,"metrics":{{"t":{n}}}}}"#,
            n % 50
        );
        (format!("tenant/many/device/device-{n}/telemetry"), payload.into_bytes())
    }));
    assert_eq!(gateway.json_by("/api/v1/devices?limit=10000", OPERATOR)["more"], 0);
    walk(&workshop, &scene, "many", |other| panic!("the browser's test asks for {other:?}"));
}
