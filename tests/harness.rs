//! Real servers for tests: each on free ports of the loopback, in a folder of its own, ended by
//! its process id.

pub mod gateway;
pub mod mosquitto;
pub mod mqtt_client;
pub mod mqtt5_client;
pub mod mqtt_proxy;
pub mod faults;
pub mod fake_pipeline;
pub mod listener;
pub mod config_server;
pub mod haproxy;
pub mod influxdb;
pub mod postgres;
pub mod terminal;
pub mod fake_influxdb3;
pub mod victoria;
pub mod prometheus;
pub mod compile_bombs;
pub mod malformed_guests;

use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Says that a test cannot run here. In CI it fails.
pub fn skip(why: &str) {
    assert!(std::env::var_os("NO_SKIPPED_TESTS").is_none(), "skipped: {why}");
    eprintln!("skipped: {why}");
}

/// Waits until `condition` is true; the panic of a timeout names it.
pub async fn eventually(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A free port from this process's own part of the ports. It is below the ports that
/// Linux gives to outgoing connections, so that none of them takes it before its listener does.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let at = NEXT.fetch_add(1, Ordering::Relaxed) % PART_PORTS;
        let port = PORT_PART.first + at as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

const PARTS: u16 = 8;
const PART_PORTS: u32 = 2_000;
static PORT_PART: LazyLock<PortPart> = LazyLock::new(PortPart::take);

/// A part of the ports that no other run of tests on this machine uses.
struct PortPart {
    first: u16,
    /// Its UDP port stands for the part until this process ends.
    _claim: UdpSocket,
}

impl PortPart {
    fn take() -> Self {
        for part in 0..PARTS {
            let first = 16_000 + part * PART_PORTS as u16;
            if let Ok(claim) = UdpSocket::bind(("127.0.0.1", first)) {
                return Self { first, _claim: claim };
            }
        }
        panic!("{PARTS} runs of tests have all ports of theirs");
    }
}

/// A server's process; killed and reaped when dropped.
pub struct Process(Child);

impl Process {
    /// # Panics
    /// The program is not installed.
    pub fn start(program: &str, package: &str, args: &[&str]) -> Self {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(
            child.unwrap_or_else(|error| {
                panic!("{program} (Debian package {package}) does not start: {error}")
            }),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a GET of `url` is answered.
pub async fn answers(url: &str) {
    let client = client();
    for _ in 0..600 {
        if client.get(url).send().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{url} does not answer");
}

/// An HTTP client for test servers.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Joins a query string, escaping the values.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let escape =
        |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    pairs.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect::<Vec<_>>().join("&")
}
