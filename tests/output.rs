//! Databases that do not take their lines: what a stop, the operator and monitoring see of it, through the
//! built program.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use tidegate::core::line_protocol::{Dialect, LineChecker, LineContext};
use tidegate_simulator::{Device, packet};

use crate::end_to_end::{envelope, topic};
use crate::harness::client;
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::influxdb::Influxdb;
use crate::harness::victoria::Victoria;

/// Serves one answer to every request; gives the URL.
fn scripted_server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_all(stream, answer));
        }
    });
    url
}

fn answer_all(mut stream: TcpStream, answer: &'static str) {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let Ok(bytes @ 1..) = stream.read(&mut buffer) else { return };
        read.extend_from_slice(&buffer[..bytes]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            read.clear();
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn scene(output: &str) -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure(&format!("[output]\n{output}\nflush_interval_ms = 10\n[shutdown]\ndeadline_s = 300\n"));
    scene
}

fn publish(scene: &GatewayDir, seq: u64) {
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(&topic("acme", "dev-1", "telemetry"), envelope("dev-1", seq).as_bytes()).unwrap();
}

fn wait_for_state(gateway: &Gateway, state: &str) -> serde_json::Value {
    let database = |gateway: &Gateway| gateway.json("/api/v1/spool")["databases"][0].clone();
    gateway.wait(state, |gateway| database(gateway)["state"] == state);
    database(gateway)
}

#[test]
fn a_stop_waits_for_no_database_that_only_a_person_can_mend() {
    for (answer, words) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK", "200"),
        (
            "HTTP/1.1 301 Moved\r\nlocation: https://elsewhere/x\r\ncontent-length: 0\r\n\r\n",
            "301: a redirect to https://elsewhere/x",
        ),
        ("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "401"),
        ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "404"),
    ] {
        let url = scripted_server(answer);
        let scene = scene(&format!("url = \"{url}\""));
        let gateway = scene.start();
        publish(&scene, 1);
        let database = wait_for_state(&gateway, "paused");
        let last_answer = database["last_answer"].as_str().unwrap();
        assert!(last_answer.starts_with(words), "{last_answer}");
        assert_eq!(words.starts_with("301"), last_answer.contains(&url), "{last_answer}");
        let (status, ready) = gateway.get("/readyz");
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        assert_eq!((status, &ready["output"]["degraded"]), (200, &true.into()), "{ready:#}");
        assert!(ready["output"]["why"].as_str().unwrap().contains("telemetry_acme is paused"), "{ready:#}");
        assert_eq!(gateway.metric("tidegate_database_state{database=\"telemetry_acme\"}"), Some(2.0));
        // Its deadline is 300 s; the harness waits 40.
        assert_eq!(gateway.stop().code(), Some(0));
        assert!(scene.log().contains("stopped with a backlog"), "{}", scene.log());
    }
}

#[test]
fn a_stop_waits_for_no_message_that_waits_for_room_of_a_dead_database() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let more = "[spool]\ntenant_bytes_max = 16384\n[shutdown]\ndeadline_s = 300\n";
    scene.configure(&format!("[output]\nurl = \"http://{nobody}\"\n{more}"));
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let topic = topic("acme", "dev-1", "telemetry");
    let mut batch = Vec::new();
    for seq in 0..200 {
        packet::publish_into(&mut batch, &topic, envelope("dev-1", seq).as_bytes(), Some(seq as u16 + 1));
    }
    device.stream.write_all(&batch).unwrap();
    gateway.wait("some wait", |gateway| !gateway.json("/api/v1/spool")["waiting_messages"]["acme"].is_null());
    let settled = gateway.book("acme", "messages", "lines");
    // Its deadline is 300 s; the harness waits 40.
    assert_eq!(gateway.stop().code(), Some(0));
    // What was settled is acknowledged all the same, and nothing else.
    let mut answers = Vec::new();
    device.stream.read_to_end(&mut answers).unwrap();
    assert_eq!(answers.len() as u64 / 4, settled);
}

#[test]
fn a_second_signal_ends_a_stop_at_once_and_no_line_is_lost() {
    // It reads requests and never answers.
    let url = scripted_server("");
    let scene = scene(&format!("url = \"{url}\"\nrequest_timeout_ms = 300000"));
    let gateway = scene.start();
    publish(&scene, 1);
    gateway.wait("a request under way", |gateway| {
        gateway.json("/api/v1/spool")["databases"][0]["requests"].as_u64() == Some(1)
    });
    // SAFETY: kill(2) of a child that has not been waited for.
    unsafe { libc::kill(gateway.pid() as i32, libc::SIGTERM) };
    gateway.wait("stopping", |_| scene.log().contains("stopping"));
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(scene.log().contains("stopped at once by a second signal"), "{}", scene.log());
    scene.configure("[output]\nkind = \"file\"\n");
    let gateway = scene.start();
    gateway.wait_written("acme", 1);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_missing_is_tried_when_the_operator_asks() {
    let influxdb = Influxdb::start().await;
    let mut scene = scene(&format!("kind = \"influxdb1\"\nurl = \"{}\"", influxdb.url()));
    let gateway = scene.start();
    publish(&scene, 1);
    let database = wait_for_state(&gateway, "paused");
    assert!(database["last_answer"].as_str().unwrap().contains("database not found"), "{database:#}");
    let (status, _, stderr) = scene.verb(&["spool", "retry"], "");
    assert_eq!(status.code(), Some(1), "a change needs the operator's token: {stderr}");
    assert_eq!(gateway.stop().code(), Some(0));

    scene.set_token("operator");
    let gateway = scene.start();
    wait_for_state(&gateway, "paused");
    let (status, findings, stderr) = scene.verb(&["doctor"], "");
    assert_eq!(status.code(), Some(1), "{findings}{stderr}");
    assert!(findings.contains("1 lines wait for the database telemetry_acme"), "{findings}");
    assert!(findings.contains("output.create_database = true"), "{findings}");
    influxdb.create("telemetry_acme").await;
    let (status, _, stderr) = scene.verb(&["spool", "retry", "telemetry_other"], "");
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("telemetry_other"), "{stderr}");
    let (status, stdout, stderr) = scene.verb(&["spool", "retry", "telemetry_acme"], "");
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stdout.starts_with("1 databases are tried now"), "{stdout}");
    // The next try of its own is due after 30 s at least.
    gateway.wait_for(Duration::from_secs(25), "written", |gateway| {
        gateway.book("acme", "lines", "written") == 1
    });
    assert!(scene.log().contains("the database takes lines again"), "{}", scene.log());
    assert!(scene.log().contains("outage_s="), "{}", scene.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_database_is_created_where_the_configuration_says_so() {
    let influxdb = Influxdb::start().await;
    let output = format!("kind = \"influxdb1\"\nurl = \"{}\"\ncreate_database = true", influxdb.url());
    let scene = scene(&output);
    let gateway = scene.start();
    publish(&scene, 1);
    gateway.wait_written("acme", 1);
    assert_eq!(influxdb.count("telemetry_acme", "telemetry", "v").await, 1);
    let servers = gateway.json("/api/v1/spool")["servers"].clone();
    assert!(servers[0]["version"].as_str().unwrap().starts_with("1."), "{servers:#}");
    scene.configure("[output]\ncreate_database = true\n");
    let (status, _, stderr) = scene.verb(&["validate"], "");
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("output.create_database"), "{stderr}");
}

#[test]
fn a_url_with_the_path_of_the_write_api_is_refused_with_what_is_right() {
    let scene = scene("kind = \"file\"");
    for path in ["/api/v2", "/api/v2/write", "/write", "/api/v3/write_lp/", "/influx/api/v2/write"] {
        scene.configure(&format!("[output]\nurl = \"http://127.0.0.1:8181{path}\"\n"));
        let (status, _, stderr) = scene.verb(&["validate"], "");
        assert_eq!(status.code(), Some(2), "{path}: {stderr}");
        assert!(stderr.contains("output.url") && stderr.contains("adds"), "{stderr}");
    }
    for path in ["", "/", "/influx"] {
        scene.configure(&format!("[output]\nurl = \"http://127.0.0.1:8181{path}\"\n"));
        let (status, _, stderr) = scene.verb(&["validate"], "");
        assert_eq!(status.code(), Some(0), "{path}: {stderr}");
    }
}

/// Each line that the check takes, alone, as real databases read it.
#[tokio::test(flavor = "multi_thread")]
async fn lines_at_the_edges_of_the_check_are_rows_in_real_databases() {
    let (influxdb, victoria) = (Influxdb::start().await, Victoria::start().await);
    influxdb.create("edges").await;
    let lines = [
        (r"m00,k=C:\x f=1 1", 1),
        (r"m01,k=a\\b f=1 1", 1),
        (r"m02 f\\x=1,g=2 1", 1),
        (r"m03 \f=1 1", 1),
        (r#"m04 f=1,s="x\\" 1"#, 1),
        (r#"m05 f=1,s="a\"b" 1"#, 1),
        (r"m06 f=1 -9223372036854775806", 1),
        (r"m07 f=1 -9223372036854775000", 1),
        (r"m08 f=1 9223372036854775806", 1),
        (r"m09 f=1 9223372036854775807", 0),
        (r"m10 f=1 -9223372036854775808", 0),
        (r"m11 f\\=1,b=2 1", 0),
        (r"m12,k=v\\ f=1 1", 0),
    ];
    for (line, taken) in lines {
        let context = LineContext {
            identity_tags: b",device_id=d",
            received_ns: 42,
            dialect: Dialect::V1V2,
            rules: None,
        };
        let mut out = Vec::new();
        let count = LineChecker::default().check(line.as_bytes(), context, &mut out).unwrap_or(0);
        assert_eq!(count, taken, "{line}");
        if count == 0 {
            continue;
        }
        for server in [influxdb.url(), victoria.url()] {
            let url = format!("{server}/write?db=edges&precision=n");
            let answer = client().post(url).body(out.clone()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 204, "{line} at {server}");
        }
        let measurement = &line[..3];
        let answer = influxdb.ask("edges", &format!("SELECT * FROM \"{measurement}\"")).await;
        let rows = answer["results"][0]["series"][0]["values"].as_array().map_or(0, Vec::len);
        assert_eq!(rows, 1, "{line}: {answer}");
    }
    // A single backslash is one everywhere; InfluxDB 1 keeps both of two.
    let keys = |answer: serde_json::Value| answer["results"][0]["series"][0]["values"][0][1].clone();
    let shown = |measurement: &str| format!("SHOW TAG VALUES FROM \"{measurement}\" WITH KEY = \"k\"");
    assert_eq!(keys(influxdb.ask("edges", &shown("m00")).await), r"C:\x");
    assert_eq!(keys(influxdb.ask("edges", &shown("m01")).await), r"a\\b");
    assert_eq!(victoria.count("m04_f").await, 1);
}
