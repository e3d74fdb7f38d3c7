//! The edges of the process: its admin side, its log, its open files, its broker.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rumqttc::QoS;

use crate::harness::gateway::{GatewayDir, tidegate};
use crate::harness::mqtt_client::MqttClient;

/// A message that is admitted: a tenant has a label in the metrics only then.
const GOOD: &str = r#"{"site_id":"lab-1","provision_token":"tok-dev-1","seq":1,"metrics":{"t":1.5}}"#;

/// One request with a Host of its own: status and body.
fn call(scene: &GatewayDir, host: &str, path: &str) -> (u16, String) {
    call_at(&scene.admin, host, path)
}

/// The same at any address.
fn call_at(admin: &str, host: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// One request with a token.
fn call_with(admin: &str, path: &str, token: &str) -> (u16, String) {
    call_at(admin, &format!("x\r\nAuthorization: Bearer {token}"), path)
}

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_page_of_a_foreign_site_reads_nothing_from_the_admin_side() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let gateway = scene.start();
    let mut device = MqttClient::connect(scene.listener.parse().unwrap(), "dev-1");
    device.publish("tenant/acme/device/dev-1/telemetry", QoS::AtLeastOnce, false, GOOD);
    device.puback();
    for path in ["/api/v1/books", "/api/v1/quarantine", "/api/v1/guests/acme"] {
        assert_eq!(call(&scene, "evil.example:9464", path).0, 421, "{path}");
        for host in ["localhost", "127.0.0.1:9464", "[::1]"] {
            assert_eq!(call(&scene, host, path).0, 200, "{path} {host}");
        }
    }
    let (status, metrics) = call(&scene, "evil.example", "/metrics");
    assert!(status == 200 && !metrics.contains("acme") && metrics.contains("tidegate_build_info"));
    assert!(call(&scene, "localhost", "/metrics").1.contains("acme"));
    assert_eq!(call(&scene, "evil.example", "/healthz").0, 200);
    drop(gateway);
}

/// An address of this machine that is not loopback; `None` on a machine without a network.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only chooses the address that it would send from.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[test]
fn from_another_machine_names_need_a_token_and_guesses_are_few() {
    let Some(address) = outer_address() else { return };
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let (local, port) = (scene.admin.clone(), scene.admin.rsplit(':').next().unwrap().to_owned());
    scene.admin = format!("0.0.0.0:{port}");
    scene.configure("[output]\nkind = \"file\"\n");
    scene.set_token("operator");
    scene.admin = local;
    let _gateway = scene.start();
    let mut device = MqttClient::connect(scene.listener.parse().unwrap(), "dev-1");
    device.publish("tenant/acme/device/dev-1/telemetry", QoS::AtLeastOnce, false, GOOD);
    device.puback();
    let (outer, inner) = (format!("{address}:{port}"), format!("127.0.0.1:{port}"));
    let (status, ready) = call_at(&outer, "gateway.example", "/readyz");
    assert!(status == 200 && ready.contains("\"ready\":true") && !ready.contains("why"), "{ready}");
    let (status, metrics) = call_at(&outer, "gateway.example", "/metrics");
    assert!(status == 200 && !metrics.contains("acme") && metrics.contains("tidegate_build_info"));
    let (status, metrics) = call_with(&outer, "/metrics", "operator");
    assert!(status == 200 && metrics.contains("acme"), "{metrics}");
    let guesses: Vec<u16> =
        (0..40).map(|n| call_with(&outer, "/api/v1/books", &format!("guess-{n}")).0).collect();
    assert!(guesses[0] == 401 && guesses.contains(&429), "{guesses:?}");
    // This machine itself is never locked out.
    assert_eq!(call_with(&inner, "/api/v1/books", "guess").0, 401);
    assert_eq!(call_with(&inner, "/api/v1/books", "operator").0, 200);
}

#[test]
fn a_token_that_only_reads_sees_no_payload_and_changes_nothing() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    fs::write(scene.path("read.token"), "reader\n").unwrap();
    scene.configure_admin("[output]\nkind = \"file\"\n", "read_token_file = \"read.token\"\n");
    scene.set_token("operator");
    let gateway = scene.start();
    let mut device = MqttClient::connect(scene.listener.parse().unwrap(), "dev-1");
    device.publish("tenant/acme/device/dev-1/telemetry", QoS::AtLeastOnce, false, "hush-hush");
    device.puback();
    let reader = Some("reader");
    for path in ["/api/v1/books", "/api/v1/spool", "/api/v1/guests", "/api/v1/guests/acme"] {
        assert_eq!(gateway.get_with_token(path, reader).0, 200, "{path}");
        assert_eq!(gateway.get_with_token(path, None).0, 401, "{path}");
    }
    let entries = |token| gateway.get_with_token("/api/v1/quarantine/entries", Some(token)).1;
    assert!(entries("operator").contains("hush-hush") && entries("reader").contains("BAD_PAYLOAD"));
    assert!(!entries("reader").contains("hush-hush"));
    for (method, path) in [
        ("POST", "/api/v1/quarantine/replay"),
        ("DELETE", "/api/v1/quarantine/entries?all=true"),
        ("PUT", "/api/v1/guests/acme/x"),
        ("POST", "/api/v1/guests/acme/x/rollback"),
        ("GET", "/api/v1/guests/_default/telemetry/log"),
    ] {
        assert_eq!(gateway.ask(method, path, reader, r#"{"all":true}"#).0, 403, "{method} {path}");
    }
}

#[test]
fn the_admin_side_speaks_tls_and_the_verbs_trust_its_certificate_alone() {
    let scene = GatewayDir::new();
    let pair = || {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["gateway.example".into()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let write = |(certificate, key): (String, String)| {
        fs::write(scene.path("cert.pem"), certificate).unwrap();
        fs::write(scene.path("key.pem"), key).unwrap();
    };
    scene.configure_admin("", "cert_file = \"cert.pem\"\n");
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert!(status.code() == Some(2) && errors.contains("admin.key_file"), "{errors}");
    scene.configure_admin("", "cert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n");
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert!(!status.success() && errors.contains("admin.cert_file"), "{errors}");
    write(pair());
    let log = fs::File::create(scene.path("tidegate.log")).unwrap();
    let folder = scene.path("").to_owned();
    let _running = Running(tidegate().arg("run").current_dir(folder).stderr(log).spawn().unwrap());
    let answers = |words: &str| {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let (status, out, errors) = scene.verb(&["books", "--json"], "");
            // Of a stopped gateway there are books, too.
            if status.success() && out.contains("balanced") && !errors.contains("does not run") {
                return;
            }
            assert!(Instant::now() < deadline, "{words}: {errors}\n{}", scene.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    answers("the verb reads the books over TLS");
    // Plain HTTP is no way in.
    let mut plain = TcpStream::connect(&scene.admin).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"), "{answer:?}");
    // A new pair is taken without a restart.
    write(pair());
    answers("the new certificate serves");
}

/// A log that nobody reads: the gateway acknowledges, answers and stops all the same.
#[test]
fn a_stderr_that_nobody_reads_stops_nothing() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure("[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n[log]\nlevel = \"trace\"\n");
    let mut command = tidegate();
    command.arg("run").current_dir(scene.path("")).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(90);
    while TcpStream::connect(&scene.admin).is_err() || call(&scene, "localhost", "/readyz").0 != 200 {
        assert!(Instant::now() < deadline, "it does not get ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    let dropped = || {
        let (_, text) = call(&scene, "localhost", "/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix("tidegate_log_lines_dropped_total"));
        value.and_then(|value| value.trim_start_matches("{}").trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    // Each is some lines of the log, and the queue is a megabyte.
    while dropped() == 0.0 {
        assert!(Instant::now() < deadline + Duration::from_secs(120), "nothing is dropped");
        (0..200).for_each(|n| drop(MqttClient::connect(scene.listener.parse().unwrap(), &format!("c{n}"))));
    }
    let mut device = MqttClient::connect(scene.listener.parse().unwrap(), "dev-1");
    device.publish("tenant/acme/device/dev-1/telemetry", QoS::AtLeastOnce, false, "x");
    device.puback();
    // SAFETY: kill(2) of a child that has not been waited for.
    unsafe { libc::kill(running.0.id() as i32, libc::SIGTERM) };
    let deadline = Instant::now() + Duration::from_secs(60);
    while running.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "a signal has no effect");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// From a count a stranger would learn why its guess of a device or a token was refused.
#[test]
fn without_a_token_metrics_show_no_reason_of_a_refusal() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.set_token("operator");
    let gateway = scene.start();
    let refusals = "tidegate_messages_refused_total{reason=\"TOKEN_INVALID\"}";
    let (status, text) = gateway.get_with_token("/metrics", Some("operator"));
    assert!(status == 200 && text.contains(refusals), "{text}");
    let (status, text) = call(&scene, "evil.example", "/metrics");
    assert!(status == 200 && !text.contains("tidegate_messages_refused_total{"), "{text}");
    for public in ["tidegate_ready{part=\"spool\"} 1", "tidegate_books_difference{kind=\"lines\"} 0"] {
        assert!(text.contains(public), "{public}: {text}");
    }
}

/// More sockets than the process may have files: the spool's are not among them.
#[test]
fn strangers_cannot_take_the_files_of_the_spool() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure("[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 128 && exec \"$0\" run"]).arg(tidegate().get_program());
    let gateway = scene.start_unready_by(shell);
    gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
    assert!(scene.log().contains("listen.connections_max is lowered"), "{}", scene.log());
    let mut device = MqttClient::connect(scene.listener.parse().unwrap(), "dev-1");
    let strangers: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(&scene.listener).ok()).collect();
    let payload = |seq: u32| {
        format!(
            r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","seq":{seq},"metrics":{{"t":{seq}}},"pad":"{}"}}"#,
            "x".repeat(10_000)
        )
    };
    // Some segments of the spool, and as many files of the output.
    let topic = "tenant/acme/device/dev-1/telemetry".to_owned();
    device.publish_all((0..1_000).map(|seq| (topic.clone(), payload(seq).into_bytes())));
    gateway.wait_written("acme", 1_000);
    assert!(!scene.log().contains("Too many open files"), "{}", scene.log());
    drop(strangers);
    drop(gateway);

    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 64 && exec \"$0\" run"]).arg(tidegate().get_program());
    let output = shell.current_dir(scene.path("")).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("open files"), "{errors}");
}

#[test]
fn a_gateway_that_listens_has_no_broker_unless_one_is_named() {
    let scene = GatewayDir::new();
    let with = |mqtt: &str| {
        let text = format!("data_dir = \"data\"\n{mqtt}[listen]\naddress = \"{}\"\n", scene.listener);
        fs::write(scene.path("tidegate.toml"), text).unwrap();
        let (status, out, errors) = scene.verb(&["validate"], "");
        assert!(status.success(), "{errors}");
        out.lines().find(|line| line.starts_with("url = ")).unwrap().to_owned()
    };
    assert!(with("").starts_with("url = \"\""), "{}", with(""));
    let named = "[mqtt]\nurl = \"mqtt://127.0.0.1:1883\"\n";
    assert!(with(named).starts_with("url = \"mqtt://127.0.0.1:1883\""));
}
