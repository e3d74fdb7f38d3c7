//! A message from a device's socket to a line in a file or a database, through the built program.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tidegate_simulator::Device;

use crate::harness::gateway::GatewayDir;

pub fn envelope(device: &str, seq: u64) -> String {
    format!(
        r#"{{"version":"1","ts":"2026-11-23T08:59:58.{:03}Z","site_id":"lab-1","seq":{seq},"provision_token":"tok-{device}","metrics":{{"v":{seq}}}}}"#,
        seq % 1000
    )
}

pub fn topic(tenant: &str, device: &str, kind: &str) -> String {
    format!("tenant/{tenant}/device/{device}/{kind}")
}

#[test]
fn a_puback_of_the_listener_means_that_the_line_is_durable() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure("[output]\nkind = \"file\"\nflush_interval_ms = 60000\n");
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(&topic("acme", "dev-1", "telemetry"), envelope("dev-1", 7).as_bytes()).unwrap();
    gateway.assert_balanced();
    assert_eq!(gateway.book("acme", "messages", "lines"), 1);
    assert_eq!(gateway.book("acme", "lines", "spooled"), 1);
    // Before the interval is over.
    gateway.kill();
    assert!(scene.lines("telemetry_acme").is_empty());
    scene.configure("[output]\nkind = \"file\"\n");
    let gateway = scene.start();
    gateway.wait_written("acme", 1);
    assert_eq!(
        scene.lines("telemetry_acme"),
        ["telemetry,device_id=dev-1,site_id=lab-1 seq=7i,v=7i 1795424398007000000"]
    );
    gateway.assert_balanced();
    assert_eq!(gateway.metric("tidegate_lines_written_total{tenant=\"acme\"}"), Some(1.0));
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_refused_message_is_in_quarantine_before_it_is_acknowledged() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let forged = envelope("dev-1", 1).replace("tok-dev-1", "tok-of-somebody-else");
    device.publish(&topic("acme", "dev-1", "telemetry"), forged.as_bytes()).unwrap();
    device.publish(&topic("acme", "dev-1", "alarm"), envelope("dev-1", 2).as_bytes()).unwrap();
    let quarantine = gateway.json("/api/v1/quarantine");
    assert_eq!(quarantine["reasons"]["TOKEN_INVALID"], 1, "{quarantine:#}");
    assert_eq!(quarantine["reasons"]["NO_GUEST"], 1, "{quarantine:#}");
    assert!(!quarantine.to_string().contains("somebody-else"), "a token leaves by the API");
    assert_eq!(gateway.book("acme", "messages", "quarantined"), 2);
    gateway.assert_balanced();
    gateway.kill();
    // A power cut: every acknowledged message is still there.
    let gateway = scene.start();
    assert_eq!(gateway.json("/api/v1/quarantine")["reasons"]["NO_GUEST"], 1);
}

#[test]
fn stalled_clients_of_the_admin_side_delay_neither_readiness_nor_pubacks() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure("[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n");
    let gateway = scene.start();
    let stall = |_| {
        let mut stream = TcpStream::connect(&scene.admin).unwrap();
        stream.write_all(b"GET /api/v1/quarantine HTTP/1.1\r\nHost: ri").unwrap();
        stream
    };
    let stalled: Vec<TcpStream> = (0..200).map(stall).collect();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for seq in 0..50 {
        let asked = Instant::now();
        assert_eq!(gateway.get("/readyz").0, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        let sent = Instant::now();
        device.publish(&topic("acme", "dev-1", "telemetry"), envelope("dev-1", seq).as_bytes()).unwrap();
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    }
    assert_eq!(gateway.get("/metrics").0, 200);
    gateway.wait_written("acme", 50);
    // Scrapes and listings have threads of their own.
    let threads: Vec<String> = std::fs::read_dir(format!("/proc/{}/task", gateway.pid()))
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
        .collect();
    assert!(threads.iter().any(|name| name.trim() == "admin"), "{threads:?}");
    // Nor do they delay a stop.
    let asked = Instant::now();
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(stalled);
}

#[test]
fn many_devices_keep_their_order_and_every_line_is_written_once() {
    let mut scene = GatewayDir::new();
    for n in 0..20 {
        scene.device(["acme", "globex"][n % 2], &format!("dev-{n}"), "lab-1");
    }
    scene.configure("[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n");
    let gateway = scene.start();
    std::thread::scope(|scope| {
        for n in 0..20 {
            let listener = &scene.listener;
            scope.spawn(move || {
                let name = format!("dev-{n}");
                let topic = topic(["acme", "globex"][n % 2], &name, "telemetry");
                let payloads: Vec<String> = (0..500).map(|seq| envelope(&name, seq)).collect();
                let mut device = Device::connect(listener, &name).unwrap();
                let messages = payloads.iter().map(|payload| (topic.as_str(), payload.as_bytes()));
                assert_eq!(device.publish_all(messages, 100).unwrap(), 500);
            });
        }
    });
    gateway.assert_balanced();
    for (index, tenant) in ["acme", "globex"].into_iter().enumerate() {
        gateway.wait_written(tenant, 5000);
        let lines = scene.lines(&format!("telemetry_{tenant}"));
        assert_eq!(lines.len(), 5000);
        assert_eq!(gateway.book(tenant, "lines", "written"), 5000);
        for n in (index..20).step_by(2) {
            let of_device: Vec<&String> =
                lines.iter().filter(|line| line.contains(&format!("device_id=dev-{n},"))).collect();
            let expected: Vec<String> = (0..500).map(|seq| format!("seq={seq}i,v={seq}i ")).collect();
            assert_eq!(of_device.len(), 500);
            assert!(
                of_device.iter().zip(&expected).all(|(line, seq)| line.contains(seq)),
                "dev-{n} out of order"
            );
        }
    }
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_guest_that_is_replaced_serves_within_a_second_and_loses_nothing() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure("[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n");
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let other = topic("acme", "dev-1", "notes");
    device.publish(&other, envelope("dev-1", 1).as_bytes()).unwrap();
    assert_eq!(gateway.book("acme", "messages", "quarantined"), 1, "no guest yet");
    scene.guest("acme", "notes", "json");
    let started = Instant::now();
    gateway.wait_for(Duration::from_secs(60), "serving the new guest", |gateway| {
        device_publish(&scene, &other);
        gateway.book("acme", "messages", "lines") > 0
    });
    assert!(started.elapsed() < Duration::from_secs(60), "took {:?}", started.elapsed());
    gateway.assert_balanced();
}

fn device_publish(scene: &GatewayDir, topic: &str) {
    let mut device = Device::connect(&scene.listener, "dev-1-again").unwrap();
    device.publish(topic, envelope("dev-1", 2).as_bytes()).unwrap();
}

#[test]
fn sigterm_settles_what_came_before_it_ends() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure(
        "[output]\nkind = \"file\"\nflush_interval_ms = 60000\nbatch_lines = 10000\n[admission]\nrate_per_s = 0\n",
    );
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let topic = topic("acme", "dev-1", "telemetry");
    for seq in 0..200 {
        device.send(&topic, envelope("dev-1", seq).as_bytes()).unwrap();
    }
    gateway.wait("received", |gateway| gateway.book("acme", "messages", "received") == 200);
    assert_eq!(gateway.stop().code(), Some(0));
    for _ in 0..200 {
        device.puback().expect("everything that came was settled and acknowledged before the end");
    }
    assert_eq!(scene.lines("telemetry_acme").len(), 200);
}

#[test]
fn a_shell_that_allows_few_open_files_does_not_bound_the_connections() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let gateway = scene.start_with_open_files(128);
    let idle: Vec<Device> =
        (0..300).map(|n| Device::connect(&scene.listener, &format!("idle-{n}")).unwrap()).collect();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(&topic("acme", "dev-1", "telemetry"), envelope("dev-1", 7).as_bytes()).unwrap();
    assert_eq!(idle.len(), 300);
    gateway.assert_balanced();
}

#[test]
fn two_gateways_in_one_data_dir_are_refused() {
    let scene = GatewayDir::new();
    let _gateway = scene.start();
    let (status, _, errors) = scene.verb(&["run"], "");
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("data_dir"), "{errors}");
}
