//! The state of decoders between messages: deltas of a counter that add up whatever happens meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};
use serde_json::Value;
use tidegate_simulator::{Device, packet};

use crate::harness::faults::Faults;
use crate::harness::gateway::{Gateway, GatewayDir, built_guest, variant};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

const FILES: &str = "[output]\nkind = \"file\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n";

fn payload(device: &str, count: u64, wish: &str) -> String {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-{device}","count":{count},"do":"{wish}"}}"#)
}

fn topic(device: &str) -> String {
    format!("tenant/acme/device/{device}/meter")
}

/// A gateway whose route acme/meter makes deltas of counters.
fn scene() -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.device("acme", "dev-2", "lab-1");
    scene.device("globex", "dev-3", "lab-1");
    scene.guest("acme", "meter", "counter");
    scene.guest("globex", "meter", "counter");
    scene.configure(FILES);
    scene.set_token("of-the-operator");
    scene
}

fn connect(scene: &GatewayDir) -> Device {
    Device::connect(&scene.listener, "dev-1").unwrap()
}

fn publish(device: &mut Device, count: u64, wish: &str) {
    device.publish(&topic("dev-1"), payload("dev-1", count, wish).as_bytes()).unwrap();
}

/// The deltas of one device, in the order of their counts.
fn deltas(scene: &GatewayDir, device: &str) -> Vec<i64> {
    deltas_of(&scene.lines("telemetry_acme"), device)
}

/// The points that a database keeps: the last one of the same device and time.
fn deltas_of(lines: &[String], device: &str) -> Vec<i64> {
    let mut points = BTreeMap::new();
    for line in lines.iter().filter(|line| line.contains(&format!(",device_id={device},"))) {
        let mut parts = line.split(' ');
        let (fields, time) = (parts.nth(1).unwrap(), parts.next().unwrap());
        let delta = fields.strip_prefix("delta=").unwrap().trim_end_matches('i').parse::<i64>().unwrap();
        points.insert(time.parse::<i64>().unwrap(), delta);
    }
    points.into_values().collect()
}

/// The stored count of a device.
fn kept(answer: &Value, device: &str) -> Option<u64> {
    let partitions = answer["partitions"].as_array().unwrap();
    let partition = partitions.iter().find(|partition| partition["partition"] == device)?;
    let value = partition["values"].as_array().unwrap().iter().find(|value| value["key"] == "count")?;
    value["u64"].as_u64()
}

fn state(scene: &GatewayDir, more: &[&str]) -> Value {
    let mut arguments = vec!["guest", "state", "acme", "meter", "--json"];
    arguments.extend(more);
    let (status, out, err) = scene.verb(&arguments, "");
    assert!(status.success(), "{out}{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn deltas_add_up_to_the_counter_over_kills_under_load() {
    const DEVICES: u64 = 10;
    const MESSAGES: u64 = 12_000;
    let broker = Mosquitto::start_in_memory();
    let mut scene = GatewayDir::new();
    for device in 0..DEVICES {
        scene.device("acme", &format!("dev-{device}"), "lab-1");
    }
    scene.guest("acme", "meter", "counter");
    // Small segments, so that the state is written down now and then.
    scene.configure_broker(
        &broker.url(),
        &format!("{FILES}[spool]\nbytes_max = 4194304\ntenant_bytes_max = 2097152\n"),
    );
    // Slow enough that messages are unsettled at each kill.
    let faults = Faults::on(&scene);
    faults.set("fdatasync SLOW");
    let mut gateway = scene.start_with(&faults);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (port, count) = (broker.port, acknowledged.clone());
    // Counters grow by 1 to 7.
    let counter = |device: u64, n: u64| (1..=n).map(|n| (n * 31 + device) % 7 + 1).sum::<u64>();
    let publishing = std::thread::spawn(move || {
        let mut publisher = MqttClient::to_broker(port, "publisher");
        let mut counters = vec![0; DEVICES as usize];
        for part in 0..MESSAGES / 200 {
            let messages: Vec<_> = (part * 200..(part + 1) * 200)
                .map(|seq| {
                    let (device, n) = (seq % DEVICES, seq / DEVICES + 1);
                    let counter = &mut counters[device as usize];
                    *counter += (n * 31 + device) % 7 + 1;
                    let device = format!("dev-{device}");
                    (topic(&device), payload(&device, *counter, "").into_bytes())
                })
                .collect();
            publisher.publish_all(messages);
            count.store((part + 1) * 200, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(40));
        }
    });
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for _ in 0..6 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_millis(100 + random % 300));
        gateway.wait("unsettled", |gateway| {
            gateway.book("acme", "messages", "in_flight") > 0
                || acknowledged.load(Ordering::Relaxed) == MESSAGES
        });
        gateway.kill();
        gateway = scene.start_with(&faults);
    }
    publishing.join().unwrap();
    gateway.wait_for(Duration::from_secs(60), "all counted", |gateway| {
        let (_, body) = gateway.get("/api/v1/books");
        let books: Value = serde_json::from_str(&body).unwrap();
        let of = |section: &str, key: &str| books["tenants"]["acme"][section][key].as_u64();
        let quiet = of("messages", "in_flight") == Some(0) && of("lines", "pending") == Some(0);
        quiet
            && (0..DEVICES).all(|device| {
                let sum: i64 = deltas(&scene, &format!("dev-{device}")).iter().sum();
                sum as u64 == counter(device, MESSAGES / DEVICES)
            })
    });
    for device in 0..DEVICES {
        let deltas = deltas(&scene, &format!("dev-{device}"));
        assert_eq!(deltas.len() as u64, MESSAGES / DEVICES, "a delta for each reading");
        assert!(deltas.iter().all(|delta| (1..=7).contains(delta)), "{deltas:?}");
    }
    gateway.assert_balanced();
    assert!(scene.path("data/spool/state").exists(), "nothing was written down");
    gateway.kill();
    let all = state(&scene, &[]);
    for device in 0..DEVICES {
        assert_eq!(kept(&all, &format!("dev-{device}")), Some(counter(device, MESSAGES / DEVICES)));
    }
}

#[test]
fn state_is_kept_by_messages_without_lines_over_kills_and_by_the_next_version() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = connect(&scene);
    publish(&mut device, 10, "first");
    gateway.kill();
    let gateway = scene.start();
    let mut device = connect(&scene);
    publish(&mut device, 17, "");
    let component = variant(&fs::read(built_guest("counter")).unwrap(), "next");
    let path = scene.path("guests/acme");
    fs::write(path.join(".new"), component).unwrap();
    let before = gateway.json("/api/v1/guests/acme")["guests"][0]["digest"].clone();
    fs::rename(path.join(".new"), path.join("meter.wasm")).unwrap();
    gateway.wait("replaced", |gateway| gateway.json("/api/v1/guests/acme")["guests"][0]["digest"] != before);
    publish(&mut device, 20, "");
    gateway.stop();
    let gateway = scene.start();
    let mut device = connect(&scene);
    publish(&mut device, 21, "");
    assert_eq!(deltas(&scene, "dev-1"), [7, 3, 1]);
    let books = gateway.json("/api/v1/books");
    assert_eq!(books["balanced"], true);
    publish(&mut device, 0, "forget");
    assert_eq!(state(&scene, &[])["partitions"], serde_json::json!([]));
    publish(&mut device, 30, "");
    assert_eq!(deltas(&scene, "dev-1"), [7, 3, 1, 30]);
}

/// Sends all in one write, so that they are decoded in one batch, and waits for every PUBACK.
fn publish_at_once(device: &mut Device, messages: &[(&str, u64, &str)]) {
    let mut batch = Vec::new();
    for (index, (of, count, wish)) in messages.iter().enumerate() {
        let payload = payload(of, *count, wish);
        packet::publish_into(&mut batch, &topic(of), payload.as_bytes(), Some(index as u16 + 1));
    }
    device.stream.write_all(&batch).unwrap();
    for index in 0..messages.len() {
        assert_eq!(device.puback().unwrap(), index as u16 + 1);
    }
}

const SOME_REFUSED: [(&str, u64, &str); 10] = [
    ("dev-1", 10, ""),
    ("dev-2", 100, ""),
    ("dev-1", 15, "refuse"),
    ("dev-2", 200, ""),
    ("dev-1", 20, ""),
    ("dev-1", 25, "bad-line"),
    ("dev-1", 24, ""),
    ("dev-2", 300, "refuse"),
    ("dev-2", 250, "first"),
    ("dev-1", 30, ""),
];

#[test]
fn what_a_refused_message_had_set_is_taken_back_and_its_neighbours_are_decoded_without_it() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = connect(&scene);
    publish_at_once(&mut device, &SOME_REFUSED);
    assert_eq!(deltas(&scene, "dev-1"), [10, 10, 4, 6]);
    assert_eq!(deltas(&scene, "dev-2"), [100, 100]);
    let reasons = gateway.json("/api/v1/quarantine")["reasons"].clone();
    assert_eq!((&reasons["GUEST_REFUSED"], &reasons["BAD_LINE"]), (&2.into(), &1.into()), "{reasons}");
    let all = state(&scene, &[]);
    assert_eq!((kept(&all, "dev-1"), kept(&all, "dev-2")), (Some(30), Some(250)));
    gateway.assert_balanced();
    let guest = gateway.json("/api/v1/guests/acme")["guests"][0].clone();
    assert_eq!(guest["messages"], SOME_REFUSED.len());
}

#[test]
fn on_probation_the_version_before_decodes_from_the_state_before_the_failed_try() {
    let scene = scene();
    let gateway = scene.start();
    let path = scene.path("guests/acme");
    let before = gateway.json("/api/v1/guests/acme")["guests"][0]["digest"].clone();
    // One that lets nothing stand at all, and sets something first.
    let component = variant(&fs::read(built_guest("counter")).unwrap(), "next");
    fs::write(path.join(".new"), component).unwrap();
    fs::rename(path.join(".new"), path.join("meter.wasm")).unwrap();
    gateway.wait("on probation", |gateway| {
        let guest = gateway.json("/api/v1/guests/acme")["guests"][0].clone();
        guest["digest"] != before && guest["probation"].is_object()
    });
    let mut device = connect(&scene);
    publish_at_once(&mut device, &SOME_REFUSED);
    assert_eq!(deltas(&scene, "dev-1"), [10, 10, 4, 6]);
    assert_eq!(deltas(&scene, "dev-2"), [100, 100]);
    let all = state(&scene, &[]);
    assert_eq!((kept(&all, "dev-1"), kept(&all, "dev-2")), (Some(30), Some(250)));
    gateway.assert_balanced();
}

/// A device with a session that outlives its connections.
fn session(scene: &GatewayDir) -> MqttClient {
    let mut client = MqttClient::open(scene.listener.parse().unwrap());
    client.greet("meter-1", false, 60, None).unwrap();
    client
}

fn send(client: &mut MqttClient, packet_id: u16, dup: bool, count: u64) {
    let mut publish = Publish::new(topic("dev-1"), QoS::AtLeastOnce, payload("dev-1", count, "naive"));
    (publish.pkid, publish.dup) = (packet_id, dup);
    client.send(&Packet::Publish(publish)).unwrap();
}

/// A message is decoded, its connection is lost before it is durable, and it comes again; gives its lines
/// by a guest that takes every reading for a new one.
fn sent_again(dup: bool) -> Vec<String> {
    let scene = scene();
    let faults = Faults::on(&scene);
    let gateway = scene.start_with(&faults);
    let mut client = session(&scene);
    send(&mut client, 1, false, 10);
    assert_eq!(client.puback(), 1);
    faults.set("fdatasync EIO");
    send(&mut client, 2, false, 15);
    let decoded = |messages: u64| {
        move |gateway: &Gateway<'_>| gateway.json("/api/v1/guests/acme")["guests"][0]["messages"] == messages
    };
    gateway.wait("decoded", decoded(2));
    drop(client);
    let mut client = session(&scene);
    send(&mut client, 2, dup, 15);
    gateway.wait("received again", |gateway| gateway.book("acme", "messages", "received") == 3);
    faults.set("");
    assert_eq!(client.puback(), 2);
    gateway.wait("all settled", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    gateway.assert_balanced();
    let passed_over = gateway.metric("tidegate_messages_passed_over_total{}").unwrap();
    assert_eq!(passed_over, if dup { 1.0 } else { 0.0 });
    // The count continues from there.
    send(&mut client, 3, false, 22);
    assert_eq!(client.puback(), 3);
    assert_eq!(kept(&state(&scene, &[]), "dev-1"), Some(22));
    scene.lines("telemetry_acme")
}

fn fields(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split(' ').nth(1).unwrap()).collect()
}

#[test]
fn what_was_decoded_and_comes_again_is_not_counted_twice_and_what_is_in_doubt_is_decoded_again() {
    assert_eq!(fields(&sent_again(true)), ["delta=10i", "delta=5i", "delta=7i"]);
    // Without DUP it may be another message with the same words: rather twice than not at all.
    assert_eq!(fields(&sent_again(false)), ["delta=10i", "delta=5i", "delta=0i", "delta=7i"]);
}

#[test]
fn after_a_crash_what_comes_again_is_decoded_again() {
    let scene = scene();
    let gateway = scene.start();
    let mut client = session(&scene);
    send(&mut client, 1, false, 10);
    assert_eq!(client.puback(), 1);
    gateway.kill();
    let gateway = scene.start();
    // The PUBACK was written: nobody knows whether it arrived.
    let mut client = session(&scene);
    send(&mut client, 1, true, 10);
    assert_eq!(client.puback(), 1);
    let lines = scene.lines("telemetry_acme");
    assert_eq!(fields(&lines), ["delta=10i", "delta=0i"]);
    gateway.assert_balanced();
}

#[test]
fn a_guest_that_floods_its_state_hurts_only_its_own_route() {
    let mut scene = scene();
    scene.device("globex", "dev-4", "lab-1");
    fs::write(scene.path("guests/acme/meter.toml"), "[state]\npartition = \"{device}/{6}\"\n").unwrap();
    scene.set_topic("tenant/{tenant}/device/{device}/{type}/#");
    let gateway = scene.start();
    let mut device = connect(&scene);
    let flood = payload("dev-1", 1, "flood").into_bytes();
    let topics: Vec<String> = (0..1_100).map(|n| format!("{}/{n}", topic("dev-1"))).collect();
    device.publish_all(topics.iter().map(|topic| (topic.as_str(), flood.as_slice())), 100).unwrap();
    let reasons = gateway.json("/api/v1/quarantine")["reasons"].clone();
    assert!(reasons["GUEST_REFUSED"].as_u64().unwrap_or(0) > 50, "{reasons}");
    let entry = gateway.json("/api/v1/quarantine/entries?limit=1")["entries"][0].clone();
    assert!(entry["detail"].as_str().unwrap().starts_with("STATE_NO_ROOM"), "{entry}");
    // What is there can still be changed, and globex has its own.
    device.publish(&topics[0], &flood).unwrap();
    for (count, delta) in [(10, 10), (12, 2)] {
        let payload = payload("dev-3", count, "");
        let mut device = Device::connect(&scene.listener, "dev-3").unwrap();
        device.publish("tenant/globex/device/dev-3/meter", payload.as_bytes()).unwrap();
        assert_eq!(deltas_of(&scene.lines("telemetry_globex"), "dev-3").last(), Some(&delta));
    }
    let listed = state(&scene, &[]);
    let bytes = listed["bytes"].as_u64().unwrap();
    assert!(bytes > 30 << 20 && bytes <= 32 << 20, "{bytes}");
    assert_eq!(state(&scene, &["dev-1/17"])["partitions"][0]["values"].as_array().unwrap().len(), 32);
    gateway.assert_balanced();
    // It is there again after a kill.
    gateway.kill();
    let _gateway = scene.start();
    assert_eq!(state(&scene, &[])["bytes"], bytes);
}

#[test]
fn explain_and_cases_work_on_a_copy() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = connect(&scene);
    publish(&mut device, 10, "");
    let explain = || {
        let payload = payload("dev-1", 15, "");
        let arguments = ["explain", "--topic", &topic("dev-1"), "--payload", &payload];
        let (status, out, err) = scene.verb(&arguments, "");
        assert!(status.success(), "{out}{err}");
        out
    };
    for _ in 0..2 {
        let out = explain();
        assert!(out.contains("delta=5i"), "{out}");
    }
    // The copy continues from message to message.
    let question = |count: u64| {
        serde_json::json!({"id": count, "topic": topic("dev-1"), "payload": payload("dev-1", count, "")})
            .to_string()
    };
    let (_, out, err) = scene.verb(&["explain", "--jsonl"], &format!("{}\n{}\n", question(15), question(16)));
    let verdicts: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(verdicts[0]["lines"][0].as_str().unwrap().contains("delta=5i"), "{out}{err}");
    assert!(verdicts[1]["lines"][0].as_str().unwrap().contains("delta=1i"), "{out}");
    publish(&mut device, 17, "");
    assert_eq!(deltas(&scene, "dev-1"), [10, 7]);

    // Cases begin with nothing, and build on one another.
    let case = |count: u64, line: &str| {
        serde_json::json!({
            "name": line, "topic": topic("dev-1"), "payload": payload("dev-1", count, ""),
            "received_at": "2026-01-01T00:00:00Z", "site": "lab-1",
            "expect": {"lines": [line]},
        })
        .to_string()
    };
    let line = |delta: u64, count: u64| {
        format!("counter,device_id=dev-1,site_id=lab-1 delta={delta}i 17000000000000000{count}")
    };
    let cases = format!("{}\n{}\n", case(40, &line(40, 40)), case(42, &line(2, 42)));
    fs::write(scene.path("guests/acme/meter.cases.jsonl"), cases).unwrap();
    let (status, out, err) = scene.verb(&["test", "guests/acme/meter.wasm"], "");
    assert!(status.success(), "{out}{err}");
    assert_eq!(kept(&state(&scene, &[]), "dev-1"), Some(17));
    // A shadow run of the next version neither.
    let component = variant(&fs::read(built_guest("counter")).unwrap(), "next");
    fs::write(scene.path("next.wasm"), component).unwrap();
    let before = gateway.json("/api/v1/guests/acme")["guests"][0]["digest"].clone();
    fs::rename(scene.path("next.wasm"), scene.path("guests/acme/meter.wasm")).unwrap();
    gateway.wait("replaced", |gateway| gateway.json("/api/v1/guests/acme")["guests"][0]["digest"] != before);
    publish(&mut device, 18, "");
    assert_eq!(deltas(&scene, "dev-1"), [10, 7, 1]);
}

#[test]
fn state_is_read_of_a_running_gateway_with_a_token_and_of_a_stopped_one_from_its_files() {
    let mut scene = scene();
    fs::create_dir(scene.path("tokens")).unwrap();
    for tenant in ["acme", "globex"] {
        let path = scene.path("tokens").join(tenant);
        fs::write(&path, format!("of-{tenant}")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    scene.configure_admin(FILES, "tenant_tokens_dir = \"tokens\"\n");
    scene.set_token("of-the-operator");
    let gateway = scene.start();
    let mut device = connect(&scene);
    publish_at_once(&mut device, &[("dev-1", 10, ""), ("dev-2", 20, "")]);
    let path = "/api/v1/guests/acme/meter/state";
    for (token, status) in [
        (Some("of-the-operator"), 200),
        (Some("of-acme"), 200),
        (Some("of-globex"), 403),
        (Some("x"), 401),
        (None, 401),
    ] {
        assert_eq!(gateway.get_with_token(path, token).0, status, "{token:?}");
    }
    let (_, one) = gateway.get(&format!("{path}?partition=dev%2D2"));
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((one["partitions"].as_array().unwrap().len(), kept(&one, "dev-2")), (1, Some(20)));
    for (path, status, code) in [
        (format!("{path}?partition=dev-9"), 404, "NO_SUCH_PARTITION"),
        (format!("{path}?device=dev-1"), 400, "BAD_QUERY"),
        ("/api/v1/guests/_default/meter/state".into(), 400, "BAD_NAME"),
    ] {
        let (got, body) = gateway.get(&path);
        assert_eq!((got, body.contains(code)), (status, true), "{path}: {body}");
    }
    let running = state(&scene, &[]);
    assert_eq!((kept(&running, "dev-1"), kept(&running, "dev-2")), (Some(10), Some(20)));
    let (_, table, _) = scene.verb(&["guest", "state", "acme", "meter", "dev-1"], "");
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["dev-1", "count", "8", "10"], "{table}");
    gateway.stop();
    assert_eq!(state(&scene, &[]), running);
    let (status, _, err) = scene.verb(&["guest", "state", "acme", "meter", "dev-9"], "");
    assert_eq!(status.code(), Some(1), "{err}");
}

#[test]
fn a_guest_without_state_imports_nothing_of_it() {
    let names_it = |name: &str| {
        let component = fs::read(built_guest(name)).unwrap();
        component.windows(21).any(|window| window == b"tidegate:ingest/state")
    };
    for name in ["pulse", "json", "passthrough", "pump", "steady", "strict"] {
        assert!(!names_it(name), "{name}");
    }
    assert!(names_it("counter"));
}

#[test]
fn where_a_share_is_full_what_was_decoded_goes_on_when_its_connection_ends() {
    let mut scene = scene();
    // Nobody listens there.
    scene.configure(
        "[output]\nkind = \"influxdb1\"\nurl = \"http://127.0.0.1:9\"\n[admission]\nrate_per_s = 0\n\
         [spool]\ntenant_bytes_max = 16384\n",
    );
    scene.set_token("of-the-operator");
    let gateway = scene.start();
    let mut device = connect(&scene);
    let mut sent = 0;
    let held = |gateway: &Gateway<'_>| {
        gateway.json("/api/v1/spool")["waiting_messages"]["acme"].as_u64().unwrap_or(0)
    };
    while held(&gateway) == 0 {
        for _ in 0..20 {
            sent += 1;
            device.send(&topic("dev-1"), payload("dev-1", sent, "").as_bytes()).unwrap();
        }
        gateway.wait("received", |gateway| gateway.book("acme", "messages", "received") == sent);
        gateway.wait("spooled or held", |gateway| {
            let settled = gateway.book("acme", "messages", "lines");
            settled + held(gateway) == sent
        });
    }
    assert!(gateway.book("acme", "messages", "in_flight") > 0);
    drop(device);
    gateway.wait("nothing held", |gateway| {
        gateway.book("acme", "messages", "in_flight") == 0 && held(gateway) == 0
    });
    assert_eq!(gateway.book("acme", "lines", "spooled"), sent);
    assert_eq!(kept(&state(&scene, &[]), "dev-1"), Some(sent));
    gateway.assert_balanced();
}

/// Frames of state and frames of lines share one stream of the disk, whoever else writes there.
#[test]
fn a_route_with_state_and_one_without_live_side_by_side() {
    let scene = scene();
    scene.guest("acme", "steps", "steady");
    let gateway = scene.start();
    let mut device = connect(&scene);
    for count in 1..=50 {
        publish(&mut device, count * 3, if count % 5 == 0 { "first" } else { "" });
        let payload = format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","seq":{count}}}"#);
        device.publish("tenant/acme/device/dev-1/steps", payload.as_bytes()).unwrap();
    }
    let lines: Vec<String> = scene.lines("telemetry_acme");
    assert_eq!(lines.iter().filter(|line| line.starts_with("steady")).count(), 50);
    let counted: Vec<String> = lines.into_iter().filter(|line| line.starts_with("counter")).collect();
    assert_eq!(deltas_of(&counted, "dev-1"), [3; 40]);
    let messages = &gateway.json("/api/v1/books")["tenants"]["acme"]["messages"];
    assert_eq!((&messages["lines"], &messages["empty"]), (&90.into(), &10.into()));
    gateway.assert_balanced();
}
