//! Budgets: a tenant that fills any kind of memory or disk is refused alone, its neighbour goes on, and the
//! process stays below `budget.memory_bytes_max`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate_simulator::{Device, packet};

use crate::durability::message;
use crate::end_to_end::topic;
use crate::harness::fake_influxdb3::{FakeInfluxdb3, Fault};
use crate::harness::gateway::{Gateway, GatewayDir, built_guest, variant};
use crate::harness::influxdb::Influxdb;

const MEMORY_BYTES_MAX: u64 = 512 << 20;

const TENANT_MEMORY_BYTES_MAX: u64 = 24 << 20;

const TENANT_DISK_BYTES_MAX: u64 = 8 << 20;

/// Limits that fit the budgets, and the budgets.
fn limits() -> String {
    format!(
        "[admission]\nrate_per_s = 0\nunsettled_messages_max = 10000\nunsettled_bytes_max = 8388608\n\
         [guests]\nthreads = 2\ndeadline_ms = 500\n\
         [spool]\nbytes_max = 67108864\ntenant_bytes_max = 4194304\nmemory_bytes_max = 8388608\n\
         [quarantine]\nbytes_max = 33554432\n\
         [budget]\nmemory_bytes_max = {MEMORY_BYTES_MAX}\ntenant_memory_bytes_max = {TENANT_MEMORY_BYTES_MAX}\n\
         disk_bytes_max = 536870912\ntenant_disk_bytes_max = {TENANT_DISK_BYTES_MAX}\n\
         [tenants.tiny]\nmemory_bytes_max = 1048576\ndisk_bytes_max = 1048576\n"
    )
}

/// The most memory that a process ever had resident, in bytes (`VmHWM` of proc_pid_status(5)).
fn peak_bytes(gateway: &Gateway<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// One number of a kind of use of a tenant's budget: `used` or `max`.
fn bytes(gateway: &Gateway<'_>, tenant: &str, resource: &str, kind: &str, of: &str) -> u64 {
    let (status, body) = gateway.get(&format!("/api/v1/tenants/{tenant}"));
    let shown: Value = if status == 200 { serde_json::from_str(&body).unwrap() } else { Value::Null };
    shown[resource]["kinds"][kind][of].as_u64().unwrap_or(0)
}

fn assert_within_bounds(gateway: &Gateway<'_>, tenant: &str) {
    let shown = gateway.json(&format!("/api/v1/tenants/{tenant}"));
    for resource in ["memory", "disk"] {
        let (used, max) = (&shown[resource]["used"], &shown[resource]["max"]);
        assert!(used.as_u64().unwrap() <= max.as_u64().unwrap(), "{shown:#}");
    }
    let peak = peak_bytes(gateway);
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes were resident");
}

fn payload(device: &str, wish: &str) -> Vec<u8> {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-{device}","do":"{wish}","count":1}}"#).into_bytes()
}

/// A gateway whose acme can be kept from its database.
struct Plant {
    _influxdb: Influxdb,
    front: FakeInfluxdb3,
    scene: GatewayDir,
}

impl Plant {
    async fn new(devices: usize) -> Self {
        let influxdb = Influxdb::start().await;
        let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
        let mut scene = GatewayDir::new();
        scene.device("globex", "of-globex", "lab-1");
        scene.device("tiny", "of-tiny", "lab-1");
        scene.device("acme", "of-acme", "lab-1");
        for number in 0..devices {
            scene.device("acme", &format!("d-{number}"), "lab-1");
        }
        scene.configure(&format!(
            "[output]\nkind = \"influxdb3\"\nurl = \"{}\"\nflush_interval_ms = 50\n{}",
            front.url(),
            limits()
        ));
        Self { _influxdb: influxdb, front, scene }
    }

    /// Runs `hog` while another tenant's messages go on being acknowledged, and afterwards are written.
    fn beside_a_neighbour(&self, gateway: &Gateway<'_>, hog: impl FnOnce()) {
        let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let neighbour = scope.spawn(|| {
                let mut device = Device::connect(&self.scene.listener, "neighbour").unwrap();
                let topic = topic("globex", "of-globex", "telemetry");
                while !done.load(Ordering::Acquire) || sent.load(Ordering::Relaxed) < 20 {
                    let seq = sent.fetch_add(1, Ordering::Relaxed);
                    device.publish(&topic, &message("of-globex", seq)).expect("a PUBACK for the neighbour");
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let _end = Ended(&done);
            hog();
            drop(_end);
            neighbour.join().unwrap();
        });
        gateway.wait_written("globex", sent.load(Ordering::Relaxed));
        assert_eq!(gateway.book("globex", "messages", "quarantined"), 0);
    }
}

/// Ends the neighbour, also when the test has failed.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn the_allocator_takes_no_large_pages_for_its_threads() {
    let scene = GatewayDir::new();
    scene.configure("[output]\nkind = \"file\"\n");
    let gateway = scene.start();
    let of_process = |file: &str, name: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", gateway.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    assert_eq!(of_process("status", "THP_enabled:"), 0);
    // One was there before the program could say so.
    let large = of_process("smaps_rollup", "AnonHugePages:");
    assert!(large <= 4 << 10, "{large} kB in pages of 2 MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_device_with_ninety_nine_types_gets_no_more_memory_than_its_tenant_has() {
    let plant = Plant::new(0).await;
    plant.scene.guest("acme", "_any", "hostile");
    plant.scene.guest("tiny", "_any", "steady");
    let gateway = plant.scene.start();
    plant.beside_a_neighbour(&gateway, || {
        let mut device = Device::connect(&plant.scene.listener, "of-acme").unwrap();
        for number in 0..99 {
            let topic = topic("acme", "of-acme", &format!("type-{number}"));
            // Its lines take some mebibytes, and are refused.
            for wish in ["million-measurements", "ok"] {
                device.publish(&topic, &payload("of-acme", wish)).unwrap();
            }
            let used = bytes(&gateway, "acme", "memory", "instances", "used");
            assert!(used <= TENANT_MEMORY_BYTES_MAX, "{used}");
        }
    });
    assert!(bytes(&gateway, "acme", "memory", "instances", "used") > 1 << 20);
    gateway.wait_written("acme", 99);
    assert_eq!(gateway.json("/api/v1/quarantine")["reasons"]["BAD_LINE"], 99);
    // What never fits is refused with the name of the budget.
    let mut device = Device::connect(&plant.scene.listener, "of-tiny").unwrap();
    device.publish(&topic("tiny", "of-tiny", "x"), &payload("of-tiny", "ok")).unwrap();
    let latest = gateway.json("/api/v1/quarantine")["latest"].to_string();
    for word in ["GUEST_MEMORY", "the tenant's memory budget has 1048576 bytes"] {
        assert!(latest.contains(word), "{latest}");
    }
    assert_within_bounds(&gateway, "acme");
    let name = "tidegate_budget_bytes{tenant=\"acme\",kind=\"memory\",of=\"max\"}";
    assert_eq!(gateway.metric(name), Some(TENANT_MEMORY_BYTES_MAX as f64));
    let (status, top, _) = plant.scene.verb(&["top"], "");
    assert!(status.success() && top.contains("memory MiB") && top.contains("all tenants: memory"), "{top}");
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn state_ends_at_its_tenants_budget_and_a_types_name_counts_in_it() {
    const DEVICES: usize = 500;
    let plant = Plant::new(DEVICES).await;
    plant.scene.guest("acme", "_any", "counter");
    let gateway = plant.scene.start();
    let refused = || gateway.book("acme", "messages", "quarantined");
    plant.beside_a_neighbour(&gateway, || {
        let mut client = Device::connect(&plant.scene.listener, "of-acme").unwrap();
        // A value of a few bytes under a name of 200.
        let before = bytes(&gateway, "acme", "memory", "state", "used");
        let long = "t".repeat(200);
        client.publish(&topic("acme", "of-acme", &long), &payload("of-acme", "count")).unwrap();
        let counted = bytes(&gateway, "acme", "memory", "state", "used") - before;
        assert!(counted > 1_000 && counted < 5_000, "{counted}");
        for number in 0..DEVICES {
            let device = format!("d-{number}");
            client.publish(&topic("acme", &device, "meter"), &payload(&device, "flood")).unwrap();
            if refused() > 5 {
                break;
            }
        }
    });
    assert!(refused() > 5, "nothing was refused");
    let used = bytes(&gateway, "acme", "memory", "state", "used");
    assert!(used > TENANT_MEMORY_BYTES_MAX / 2, "{used}");
    assert_within_bounds(&gateway, "acme");
    // After a restart the same is charged.
    assert!(gateway.stop().success());
    let gateway = plant.scene.start();
    let again = bytes(&gateway, "acme", "memory", "state", "used");
    assert!(again.abs_diff(used) < used / 100, "{again} {used}");
}

/// Sends messages of acme's device until the peer takes no more, and gives the number of whole ones.
fn send_until_full(stream: &mut TcpStream, most: u64) -> u64 {
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let topic = topic("acme", "of-acme", "telemetry");
    for seq in 0..most {
        let packet = packet::publish(&topic, &message("of-acme", seq), Some((seq % 60_000) as u16 + 1));
        if stream.write_all(&packet).is_err() {
            return seq;
        }
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_backlog_ends_at_its_tenants_budget_and_goes_on_when_there_is_room() {
    let plant = Plant::new(0).await;
    let away = || Fault::Status { status: 503, retry_after: None, body: "away" };
    plant.front.fail_database("telemetry_acme", Some(away()));
    let gateway = plant.scene.start();
    let mut streams = Vec::new();
    plant.beside_a_neighbour(&gateway, || {
        for number in 0..8 {
            let device = Device::connect(&plant.scene.listener, &format!("client-{number}")).unwrap();
            let mut reading = device.stream.try_clone().unwrap();
            // PUBACKs are read, so that only the gateway's own bounds hold them back.
            std::thread::spawn(move || while reading.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {});
            let mut stream = device.stream.try_clone().unwrap();
            send_until_full(&mut stream, 20_000);
            streams.push(device);
        }
        gateway.wait("messages wait for room", |gateway| {
            gateway.json("/api/v1/spool")["waiting_messages"]["acme"].as_u64() > Some(0)
        });
    });
    let used = bytes(&gateway, "acme", "disk", "spool", "used");
    assert!(used > 3 << 20 && used <= TENANT_DISK_BYTES_MAX, "{used}");
    assert!(bytes(&gateway, "acme", "memory", "deferred", "used") > 0);
    gateway.wait("its places are charged", |gateway| bytes(gateway, "acme", "memory", "backlog", "used") > 0);
    assert_within_bounds(&gateway, "acme");
    assert_eq!(gateway.get("/readyz").0, 200);
    drop(streams);
    plant.front.fail_database("telemetry_acme", None);
    gateway.wait("all is written and nothing is charged", |gateway| {
        ["spool", "parked"].iter().all(|kind| bytes(gateway, "acme", "disk", kind, "used") == 0)
            && bytes(gateway, "acme", "memory", "deferred", "used") == 0
    });
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn quarantine_and_decoders_end_at_their_tenants_budget() {
    let mut plant = Plant::new(0).await;
    plant.scene.guest("acme", "hostile", "hostile");
    plant.scene.set_token("secret");
    let gateway = plant.scene.start();
    plant.beside_a_neighbour(&gateway, || {
        let mut device = Device::connect(&plant.scene.listener, "of-acme").unwrap();
        let topic = topic("acme", "of-acme", "hostile");
        let mut text = payload("of-acme", "refuse");
        text.extend_from_slice(&[b' '; 8_000]);
        while gateway.book("acme", "quarantine", "expired") == 0 {
            let messages = (0..100).map(|_| (topic.as_str(), text.as_slice()));
            assert_eq!(device.publish_all(messages, 50).unwrap(), 100);
        }
        let part = bytes(&gateway, "acme", "disk", "quarantine", "max");
        let used = bytes(&gateway, "acme", "disk", "quarantine", "used");
        assert!(used <= part && used > part / 2, "{used} of {part}");
        // A decoder, its copy and its history count.
        let component = std::fs::read(built_guest("steady")).unwrap();
        let put = |number: usize| {
            let path = format!("/api/v1/guests/tiny/type-{number}");
            gateway.request("PUT", &path, Some("secret"), &variant(&component, &number.to_string()))
        };
        let mut answers = (0..20).map(put);
        let (status, refusal) = answers.find(|(status, _)| *status != 200).expect("a refusal");
        assert_eq!(status, 507, "{refusal}");
        for word in ["OVER_BUDGET", "bytes of guests", "the tenant's disk budget has 1048576 bytes"] {
            assert!(refusal.contains(word), "{refusal}");
        }
        assert!(bytes(&gateway, "tiny", "disk", "guests", "used") > 500_000);
        let (status, answer) = gateway.ask("DELETE", "/api/v1/guests/tiny/type-0", Some("secret"), "");
        assert_eq!(status, 200, "{answer}");
    });
    assert_within_bounds(&gateway, "acme");
    let (status, missing) = gateway.get("/api/v1/tenants/nobody");
    assert!(status == 404 && missing.contains("NO_SUCH_TENANT"), "{missing}");
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn messages_that_wait_for_the_registry_end_at_their_tenants_budget() {
    let plant = Plant::new(0).await;
    let text = format!(
        "{}[output]\nkind = \"file\"\n[registry]\nkind = \"postgres\"\nurl = \"postgres://nobody@127.0.0.1:1/none\"\n",
        limits()
    );
    plant.scene.configure(&text);
    let gateway = plant.scene.start_unready();
    let mut neighbour = Device::connect(&plant.scene.listener, "neighbour").unwrap();
    neighbour.send(&topic("globex", "of-globex", "telemetry"), &message("of-globex", 1)).unwrap();
    let mut ended = false;
    let padding = "x".repeat(8_000);
    let large =
        format!(r#"{{"site_id":"lab-1","provision_token":"t","metrics":{{"v":1}},"padding":"{padding}"}}"#);
    for number in 0..200 {
        let device = Device::connect(&plant.scene.listener, &format!("client-{number}")).unwrap();
        let mut stream = device.stream;
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        for seq in 0..20_u16 {
            // Unknown devices, each its own.
            let topic = topic("acme", &format!("x-{number}-{seq}"), "telemetry");
            ended |= stream.write_all(&packet::publish(&topic, large.as_bytes(), Some(seq + 1))).is_err();
        }
        // A connection that was ended says so; the others are silent.
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        ended |= matches!(stream.read(&mut [0; 64]), Ok(0));
        let used = bytes(&gateway, "acme", "memory", "pending", "used");
        assert!(used <= bytes(&gateway, "acme", "memory", "pending", "max").max(1), "{used}");
        if ended {
            break;
        }
        std::mem::forget(stream);
    }
    assert!(ended, "nothing was refused\n{}", plant.scene.log());
    gateway.wait("said in the log", |_| {
        plant.scene.log().contains("the part of the tenant's memory budget for pending")
    });
    gateway.wait("what waits is parked, within the tenant's part of the disk", |gateway| {
        bytes(gateway, "acme", "disk", "parked", "used") > 0
            && bytes(gateway, "globex", "disk", "parked", "used") > 0
    });
    assert_within_bounds(&gateway, "acme");
    assert_eq!(neighbour.puback().unwrap(), 1, "parked is acknowledged");
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_thousand_tenants_with_small_budgets_are_all_served() {
    const TENANTS: usize = 1_000;
    let mut scene = GatewayDir::new();
    for number in 0..TENANTS {
        scene.device(&format!("t-{number}"), &format!("d-{number}"), "lab-1");
    }
    let limits = limits().replace(&TENANT_MEMORY_BYTES_MAX.to_string(), "2097152");
    scene.configure(&format!("[output]\nkind = \"file\"\n{limits}"));
    let gateway = scene.start();
    let topics: Vec<String> = (0..TENANTS)
        .map(|number| topic(&format!("t-{number}"), &format!("d-{number}"), "telemetry"))
        .collect();
    let mut device = Device::connect(&scene.listener, "all").unwrap();
    for round in 0..3 {
        let payloads: Vec<Vec<u8>> =
            (0..TENANTS).map(|number| message(&format!("d-{number}"), round)).collect();
        let messages =
            topics.iter().zip(&payloads).map(|(topic, payload)| (topic.as_str(), payload.as_slice()));
        assert_eq!(device.publish_all(messages, 100).unwrap(), TENANTS as u64);
    }
    gateway.wait("all are written", |gateway| {
        let books = gateway.json("/api/v1/books");
        let tenants = books["tenants"].as_object().unwrap();
        tenants.values().filter(|books| books["lines"]["written"] == 3).count() == TENANTS
    });
    let peak = peak_bytes(&gateway);
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes were resident");
    let all = gateway.json("/api/v1/tenants");
    let gateway_memory = &all["gateway"]["memory"];
    assert!(gateway_memory["used"].as_u64() <= gateway_memory["max"].as_u64(), "{gateway_memory:#}");
    assert_eq!(gateway_memory["process_max"], MEMORY_BYTES_MAX);
    gateway.assert_balanced();
}
