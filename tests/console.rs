//! The console and the API behind it: who sees what, sessions, the tap, the document of the API, and the page itself in a
//! browser.

mod browser;
mod capture;
mod hostile_tenant;
mod playground;
mod roles;
mod tap;
mod top;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rumqttc::QoS;
use serde_json::{Value, json};

use crate::harness::gateway::{Gateway, GatewayDir, built_guest};
use crate::harness::mqtt_client::MqttClient;

const OPERATOR: &str = "of-the-operator";
const READER: &str = "of-the-reader";
const ACME: &str = "of-acme";
const GLOBEX: &str = "of-globex";

/// A gateway with two tenants, a device of each, a token of each, one for reading, and the operator's.
fn scene() -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.device("globex", "dev-9", "lab-9");
    for (name, token) in [("operator", OPERATOR), ("reader", READER)] {
        fs::write(scene.path(name), token).unwrap();
        fs::set_permissions(scene.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::create_dir(scene.path("tokens")).unwrap();
    set_tenant_token(&scene, "acme", ACME);
    set_tenant_token(&scene, "globex", GLOBEX);
    scene.configure_admin(
        "[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n",
        "token_file = \"operator\"\nread_token_file = \"reader\"\ntenant_tokens_dir = \"tokens\"\n",
    );
    scene
}

fn set_tenant_token(scene: &GatewayDir, tenant: &str, token: &str) {
    let path = scene.path("tokens").join(tenant);
    fs::write(&path, token).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn payload(tenant: &str, seq: u64) -> String {
    let (site, device) = if tenant == "acme" { ("lab-1", "dev-1") } else { ("lab-9", "dev-9") };
    format!(
        r#"{{"site_id":"{site}","provision_token":"tok-{device}","seq":{seq},"metrics":{{"secret_{tenant}":1.5}}}}"#
    )
}

/// Publishes a message of a tenant's device with the type, and waits for its PUBACK.
fn publish(scene: &GatewayDir, tenant: &str, message_type: &str, payload: &str) {
    let device = if tenant == "acme" { "dev-1" } else { "dev-9" };
    let mut client = MqttClient::connect(scene.listener.parse().unwrap(), device);
    let topic = format!("tenant/{tenant}/device/{device}/{message_type}");
    client.publish(&topic, QoS::AtLeastOnce, false, payload);
    client.puback();
}

/// A message with lines and a refused one of each tenant.
fn send_some(scene: &GatewayDir) {
    for tenant in ["acme", "globex"] {
        publish(scene, tenant, "telemetry", &payload(tenant, 1));
        publish(scene, tenant, "nonsense", &payload(tenant, 2));
    }
}

/// One request with headers of its own: status, head and body.
fn send(
    admin: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    // Longer than a decoder may take to be compiled on a busy machine.
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "Connection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

/// Logs in; gives the cookie.
fn log_in(admin: &str, token: &str) -> Option<String> {
    let body = json!({"token": token}).to_string();
    let headers = [("Origin", &*format!("http://{admin}"))];
    let (status, head, _) = send(admin, "POST", "/api/v1/session", &headers, body.as_bytes());
    let set = head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:"))?;
    assert_eq!(status, 200);
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    Some(set.split_once(':').unwrap().1.split(';').next().unwrap().trim().to_owned())
}

#[test]
fn a_session_stands_for_its_token_and_ends_with_it() {
    let scene = scene();
    let _gateway = scene.start();
    let admin = &*scene.admin;
    assert_eq!(log_in(admin, "wrong"), None);
    let cookie = log_in(admin, ACME).unwrap();
    let get = |path: &str| send(admin, "GET", path, &[("Cookie", &*cookie)], &[]);
    assert_eq!(get("/api/v1/books").0, 200);
    let session: Value = serde_json::from_str(&get("/api/v1/session").2).unwrap();
    assert_eq!((&session["who"], &session["tenant"]), (&json!("tenant"), &json!("acme")));
    assert!(session["session_s"].as_u64().is_some_and(|s| s > 3_600), "{session}");
    // Another name of a session is none.
    let forged = format!("{cookie}x");
    assert_eq!(send(admin, "GET", "/api/v1/books", &[("Cookie", &*forged)], &[]).0, 401);
    // A token that is changed ends its sessions, and a logout ends one.
    let operator = log_in(admin, OPERATOR).unwrap();
    set_tenant_token(&scene, "acme", "another");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while get("/api/v1/books").0 != 401 {
        assert!(std::time::Instant::now() < deadline, "the old token is still believed");
        std::thread::sleep(Duration::from_millis(100));
    }
    let of_operator = |method: &str, path: &str| {
        send(admin, method, path, &[("Cookie", &*operator), ("Sec-Fetch-Site", "same-origin")], &[]).0
    };
    assert_eq!(of_operator("GET", "/api/v1/books"), 200);
    assert_eq!(of_operator("DELETE", "/api/v1/session"), 204);
    assert_eq!(of_operator("GET", "/api/v1/books"), 401);
}

#[test]
fn a_page_of_another_address_changes_nothing_with_a_session() {
    let scene = scene();
    let gateway = scene.start();
    send_some(&scene);
    let admin = &*scene.admin;
    let cookie = log_in(admin, OPERATOR).unwrap();
    let own = format!("http://{admin}");
    let replay = |headers: &[(&str, &str)]| {
        let headers = [&[("Cookie", &*cookie)], headers].concat();
        send(admin, "POST", "/api/v1/quarantine/replay", &headers, br#"{"reason":"NO_GUEST"}"#).0
    };
    for headers in [
        &[][..],
        &[("Origin", "https://evil.example")],
        &[("Origin", "http://localhost:1")],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", &own)],
        &[("Sec-Fetch-Site", "same-site")],
    ] {
        assert_eq!(replay(headers), 403, "{headers:?}");
    }
    assert_eq!(replay(&[("Origin", &own)]), 200);
    assert_eq!(replay(&[("Sec-Fetch-Site", "same-origin")]), 200);
    // Nor does it log somebody in.
    let body = json!({"token": OPERATOR}).to_string();
    let (status, head, _) =
        send(admin, "POST", "/api/v1/session", &[("Origin", "https://evil.example")], body.as_bytes());
    assert!(status == 403 && !head.to_ascii_lowercase().contains("set-cookie"), "{head}");
    gateway.assert_balanced_by(OPERATOR);
}

#[test]
fn logins_that_fail_are_few_of_this_machine_too() {
    let scene = scene();
    let _gateway = scene.start();
    let attempt = |token: &str| {
        let body = json!({"token": token}).to_string();
        send(&scene.admin, "POST", "/api/v1/session", &[], body.as_bytes()).0
    };
    let guesses: Vec<u16> = (0..40).map(|n| attempt(&format!("guess-{n}"))).collect();
    assert!(guesses[0] == 401 && guesses.contains(&429), "{guesses:?}");
    // Those who bring their token with each request go on.
    assert_eq!(
        send(&scene.admin, "GET", "/api/v1/books", &[("Authorization", &format!("Bearer {OPERATOR}"))], &[])
            .0,
        200
    );
}

#[test]
fn the_overview_says_what_is_wrong_and_what_to_do() {
    let scene = scene();
    let gateway = scene.start();
    let overview = || gateway.json_by("/api/v1/overview", OPERATOR);
    let calm = overview();
    assert_eq!((&calm["problems"], &calm["ready"]), (&json!([]), &json!(true)), "{calm:#}");
    // A decoder that may not serve.
    let folder = scene.path("guests").join("acme");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("broken.wasm"), b"no component").unwrap();
    gateway.wait("a problem", |_| !overview()["problems"].as_array().unwrap().is_empty());
    let problem = overview()["problems"][0].clone();
    assert_eq!((&problem["severity"], &problem["part"]), (&json!("error"), &json!("decoder")), "{problem}");
    assert!(problem["what"].as_str().unwrap().contains("acme/broken"), "{problem}");
    assert!(!problem["todo"].as_str().unwrap().is_empty());
    // It is acme's to see, and not globex's.
    let of = |token| gateway.json_by("/api/v1/overview", token)["problems"].as_array().unwrap().len();
    assert_eq!((of(ACME), of(GLOBEX)), (1, 0));
}

#[test]
fn devices_are_seen_with_their_rates_and_refusals_and_the_hour_has_samples() {
    let scene = scene();
    let gateway = scene.start();
    send_some(&scene);
    for seq in 10..15 {
        publish(&scene, "acme", "telemetry", &payload("acme", seq));
    }
    let list = gateway.json_by("/api/v1/devices?search=dev", OPERATOR);
    assert_eq!(list["devices"].as_array().unwrap().len(), 2, "{list:#}");
    // The device that was seen last comes first.
    let first = &list["devices"][0];
    assert_eq!(
        (&first["device"], &first["site"], &first["messages"]),
        (&json!("dev-1"), &json!("lab-1"), &json!(7))
    );
    let detail = gateway.json_by("/api/v1/devices/acme/dev-1", ACME);
    assert_eq!(detail["refusals"][0]["reason"], "NO_GUEST", "{detail:#}");
    assert_eq!(gateway.json_by("/api/v1/devices?search=nobody", OPERATOR)["devices"], json!([]));
    assert_eq!(gateway.json_by("/api/v1/devices?limit=1", OPERATOR)["more"], 1);
    gateway.wait("a sample", |gateway| {
        let history = gateway.json_by("/api/v1/history", OPERATOR);
        let rates = history["messages_per_s"].as_array().unwrap().clone();
        rates.len() == history["at_s"].as_array().unwrap().len() && rates.len() > 1
    });
}

#[test]
fn the_playground_tries_a_payload_and_a_component_and_counts_and_puts_nothing() {
    let scene = scene();
    let gateway = scene.start();
    let topic = "tenant%2Facme%2Fdevice%2Fdev-1%2Fsteps";
    let bearer = format!("Bearer {ACME}");
    let run = |query: &str, body: &[u8]| {
        let path = format!("/api/v1/playground?{query}");
        let (status, _, body) = send(&scene.admin, "POST", &path, &[("Authorization", &bearer)], body);
        (status, serde_json::from_str::<Value>(&body).unwrap_or_default())
    };
    let message = payload("acme", 1);
    let (status, answer) = run(&format!("topic={topic}"), message.as_bytes());
    assert_eq!((status, &answer["error"]), (404, &json!("NO_GUEST")));
    let component = fs::read(built_guest("steady")).unwrap();
    let both = [message.as_bytes(), &component].concat();
    let (status, answer) = run(&format!("topic={topic}&payload_bytes={}", message.len()), &both);
    assert_eq!((status, &answer["outcome"]), (200, &json!("lines")), "{answer:#}");
    assert!(answer["lines"][0].as_str().unwrap().contains("device_id=dev-1"), "{answer:#}");
    assert_eq!(answer["put"]["state"], "tried");
    assert!(answer["cpu_us"].as_u64().is_some_and(|us| us > 0), "{answer:#}");
    let steps: Vec<&str> =
        answer["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["topic", "device", "decoder", "decode", "lines"]);
    // Nothing serves, and nothing was received.
    assert_eq!(gateway.json_by("/api/v1/guests/acme", ACME)["guests"], json!([]));
    assert_eq!(gateway.json_by("/api/v1/books", OPERATOR)["tenants"], json!({}));
    let (status, answer) = run("topic=tenant%2Facme%2Fdevice%2Fdev-1%2Ftelemetry", b"\xff\x00");
    assert_eq!((status, &answer["outcome"]), (200, &json!("quarantined")), "{answer:#}");
    let (status, answer) = run(&format!("topic={topic}&payload_bytes=2"), b"{}no component");
    assert_eq!((status, &answer["error"]), (422, &json!("MAY_NOT_SERVE")));
    assert_eq!(run("topic=no%2Fsuch%2Ftopic", b"{}").0, 400);
}

#[test]
fn the_page_is_served_or_says_how_it_is_built() {
    let scene = scene();
    let _gateway = scene.start();
    let (status, head, body) = send(&scene.admin, "GET", "/", &[("Accept-Encoding", "gzip")], &[]);
    let head = head.to_ascii_lowercase();
    assert_eq!(status, 200);
    assert!(
        head.contains("content-security-policy: default-src 'none'") && !head.contains("unsafe"),
        "{head}"
    );
    assert!(head.contains("frame-ancestors 'none'") && head.contains("nosniff"), "{head}");
    match head.contains("content-encoding: gzip") {
        true => assert_eq!(send(&scene.admin, "GET", "/", &[("Accept-Encoding", "identity")], &[]).0, 406),
        false => assert!(body.contains("cargo xtask console"), "{body}"),
    }
    assert_eq!(send(&scene.admin, "GET", "/assets/none.js", &[], &[]).0, 404);
}

impl Gateway<'_> {
    /// The answer to a GET with a token.
    fn json_by(&self, path: &str, token: &str) -> Value {
        let (status, body) = self.get_with_token(path, Some(token));
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn assert_balanced_by(&self, token: &str) {
        let books = self.json_by("/api/v1/books", token);
        assert_eq!(books["balanced"], true, "{books:#}");
    }
}
