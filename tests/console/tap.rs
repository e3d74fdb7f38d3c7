//! The tap over HTTP and in the terminal.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ACME, GLOBEX, OPERATOR, READER, payload, publish, scene, set_tenant_token};
use crate::harness::gateway::{GatewayDir, tidegate};

/// A viewer of the tap.
pub(super) struct Viewer(BufReader<TcpStream>);

impl Viewer {
    /// Opens the stream and waits until it is there.
    pub(super) fn open(scene: &GatewayDir, token: &str, query: &str) -> Result<Self, u16> {
        let mut stream = TcpStream::connect(&scene.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(
            stream,
            "GET /api/v1/tap?{query} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n",
            scene.admin
        )
        .unwrap();
        let mut viewer = Self(BufReader::new(stream));
        let status = viewer.line().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        if status != 200 {
            return Err(status);
        }
        assert_eq!(viewer.next().unwrap().0, "counts");
        Ok(viewer)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(1..) => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    /// The next event; `None` once the stream has ended.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        loop {
            let line = self.line()?;
            if let Some(of) = line.strip_prefix("event: ") {
                name = of.to_owned();
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).unwrap()));
            }
        }
    }

    /// The next message.
    pub(super) fn message(&mut self) -> Value {
        loop {
            let (name, data) = self.next().expect("the stream goes on");
            if name == "message" {
                return data;
            }
        }
    }
}

#[test]
fn a_viewer_sees_messages_with_their_outcome_and_no_more_than_it_may() {
    let scene = scene();
    let gateway = scene.start();
    let mut operator = Viewer::open(&scene, OPERATOR, "").unwrap();
    let mut reader = Viewer::open(&scene, READER, "device=dev-1").unwrap();
    let mut acme = Viewer::open(&scene, ACME, "").unwrap();
    let mut refusals = Viewer::open(&scene, OPERATOR, "outcome=quarantined").unwrap();
    assert_eq!(Viewer::open(&scene, GLOBEX, "tenant=acme").err(), Some(403));
    publish(&scene, "globex", "telemetry", &payload("globex", 1));
    publish(&scene, "acme", "telemetry", &payload("acme", 2));
    publish(&scene, "acme", "nonsense", &payload("acme", 3));
    let first = operator.message();
    assert_eq!((&first["tenant"], &first["outcome"]), (&json!("globex"), &json!("lines")), "{first:#}");
    assert!(first["lines"][0].as_str().unwrap().contains("secret_globex"), "{first:#}");
    let own = acme.message();
    assert_eq!(
        (&own["tenant"], &own["device"], &own["type"]),
        (&json!("acme"), &json!("dev-1"), &json!("telemetry"))
    );
    let shown = reader.message();
    assert_eq!(
        (&shown["outcome"], &shown["lines"], &shown["line_count"]),
        (&json!("lines"), &Value::Null, &json!(1))
    );
    let refused = refusals.message();
    assert_eq!((&refused["reason"], &refused["type"]), (&json!("NO_GUEST"), &json!("nonsense")));
    // The payload, on demand and by right, its credential masked.
    let of = |id: &Value, token| gateway.get_with_token(&format!("/api/v1/tap/{id}"), Some(token));
    let (status, body) = of(&own["id"], ACME);
    assert!(status == 200 && body.contains("secret_acme") && !body.contains("tok-dev-1"), "{body}");
    assert_eq!((of(&own["id"], GLOBEX).0, of(&own["id"], READER).0), (404, 403));
    assert_eq!((of(&first["id"], ACME).0, of(&first["id"], OPERATOR).0), (404, 200));
    assert_eq!(gateway.json_by("/api/v1/overview", OPERATOR)["viewers"], 4);
}

#[test]
fn a_stream_ends_with_the_token_of_its_viewer() {
    let scene = scene();
    let _gateway = scene.start();
    let mut acme = Viewer::open(&scene, ACME, "").unwrap();
    set_tenant_token(&scene, "acme", "another");
    while let Some((name, _)) = acme.next() {
        assert_eq!(name, "counts");
    }
    assert_eq!(Viewer::open(&scene, ACME, "").err(), Some(401));
    Viewer::open(&scene, "another", "").unwrap();
}

#[test]
fn tail_prints_messages_as_they_come() {
    let scene = scene();
    let gateway = scene.start();
    let mut child = tidegate()
        .args(["tail", "--tenant", "acme", "--count", "2"])
        .current_dir(scene.path("."))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    gateway.wait("a viewer", |gateway| gateway.json_by("/api/v1/overview", OPERATOR)["viewers"] == 1);
    publish(&scene, "globex", "telemetry", &payload("globex", 1));
    publish(&scene, "acme", "telemetry", &payload("acme", 2));
    publish(&scene, "acme", "nonsense", &payload("acme", 3));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("lines") && lines[0].contains("tenant/acme/device/dev-1/telemetry"), "{text}");
    assert!(lines[1].starts_with("    ") && lines[1].contains("secret_acme"), "{text}");
    assert!(lines[2].contains("NO_GUEST") && !text.contains("globex"), "{text}");
    let (status, _, errors) = scene.verb(&["tail", "--outcome", "good"], "");
    assert!(status.code() == Some(2) && errors.contains("expected lines, empty"), "{errors}");
}
