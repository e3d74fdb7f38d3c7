//! Decoders that come with the program: a route file that names one serves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::gateway::{Gateway, GatewayDir, built_guest};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

const OUTPUT: &str = "[output]\nkind = \"file\"\n[admission]\ncredentials = \"broker\"\nrate_per_s = 0\n";

const TOPIC: &str = "tenant/acme/device/dev-1/sensor";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A gateway behind a broker that checks the devices.
fn scene(broker: &Mosquitto) -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure_broker(&broker.url(), OUTPUT);
    scene
}

/// Puts a file of a route in place, whole.
fn put(scene: &GatewayDir, name: &str, content: &[u8]) {
    let path = scene.path("guests").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let staged = path.with_file_name(".staged");
    fs::write(&staged, content).unwrap();
    fs::rename(staged, path).unwrap();
}

fn publish(broker: &Mosquitto, payload: &str) {
    MqttClient::to_broker(broker.port, "publisher")
        .publish_all([(TOPIC.to_owned(), payload.as_bytes().to_vec())]);
}

/// The listing of a route.
fn listed(scene: &GatewayDir, tenant: &str, message_type: &str) -> Value {
    let (_, listed, errors) = scene.verb(&["guest", "list", "--json"], "");
    let listed: Value = serde_json::from_str(&listed).unwrap_or_else(|_| panic!("{listed}{errors}"));
    let mut guests = listed["guests"].as_array().unwrap().iter();
    let found = guests.find(|guest| guest["tenant"] == tenant && guest["type"] == message_type);
    found.cloned().unwrap_or_default()
}

fn wait_lines(gateway: &Gateway<'_>, lines: u64) {
    gateway.wait("the lines", |gateway| {
        gateway.book("acme", "messages", "lines") == lines && gateway.book("acme", "lines", "pending") == 0
    });
}

#[test]
fn a_route_file_alone_serves_and_a_component_beside_it_wins() {
    let broker = Mosquitto::start_in_memory();
    let scene = scene(&broker);
    put(&scene, "acme/sensor.toml", b"decoder = \"json\"\n[options]\nmeasurement = \"boiler\"\n");
    let gateway = scene.start();
    let json = listed(&scene, "acme", "sensor");
    assert_eq!(json["built_in"], "json", "{json}");
    assert!(json["file"].as_str().unwrap().ends_with("acme/sensor.toml"), "{json}");
    let (_, shown, _) = scene.verb(&["guest", "list"], "");
    assert!(shown.contains("(built in)"), "{shown}");
    publish(&broker, "{\"temp\": 21.5}");
    wait_lines(&gateway, 1);

    put(&scene, "acme/sensor.wasm", &fs::read(built_guest("passthrough")).unwrap());
    put(&scene, "acme/sensor.toml", b"decoder = \"json\"\n");
    gateway.wait("the component", |_| listed(&scene, "acme", "sensor")["built_in"].is_null());
    publish(&broker, "own v=1 7");
    wait_lines(&gateway, 2);

    // Without it the route file counts again, and the version before is one to go back to.
    fs::remove_file(scene.path("guests/acme/sensor.wasm")).unwrap();
    gateway.wait("the built-in decoder", |_| listed(&scene, "acme", "sensor")["built_in"] == "json");
    publish(&broker, "{\"temp\": 22.5}");
    wait_lines(&gateway, 3);
    let (status, said, errors) = scene.verb(&["guest", "rollback", "acme", "sensor"], "");
    assert!(status.success(), "{said}{errors}");
    assert!(listed(&scene, "acme", "sensor")["built_in"].is_null());
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
    let lines = scene.lines("telemetry_acme");
    let begins =
        ["boiler,device_id=dev-1,site_id=lab-1 temp=21.5 ", "own,device_id=dev-1", "sensor,device_id=dev-1"];
    assert_eq!(lines.len(), begins.len());
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}");
    }
    // What was rolled back is not tried again at the next start.
    let gateway = scene.start();
    assert!(listed(&scene, "acme", "sensor")["built_in"].is_null());
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn an_unknown_decoder_is_refused_with_those_that_there_are() {
    let broker = Mosquitto::start_in_memory();
    let scene = scene(&broker);
    put(&scene, "acme/sensor.toml", b"decoder = \"jsno\"\n");
    let gateway = scene.start();
    publish(&broker, "{\"temp\": 21.5}");
    gateway.wait("the refusal", |gateway| gateway.book("acme", "messages", "quarantined") == 1);
    let (_, entries) = gateway.get("/api/v1/quarantine/acme?limit=1");
    for word in ["NO_GUEST", "acme/sensor.toml", "jsno", "passthrough, lpp"] {
        assert!(entries.contains(word) || scene.log().contains(word), "{word}: {entries}");
    }
    let error = listed(&scene, "acme", "sensor")["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("decoder = \"jsno\"") && error.contains("sparkplug"), "{error}");
    put(&scene, "acme/sensor.toml", b"decoder = \"json\"\n");
    gateway.wait("the right name", |_| listed(&scene, "acme", "sensor")["built_in"] == "json");
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_built_in_decoder_of_all_tenants_is_put_and_taken_away_by_its_route_file() {
    let broker = Mosquitto::start_in_memory();
    let mut scene = scene(&broker);
    scene.set_token("operator");
    let gateway = scene.start();
    fs::write(scene.path("sensor.toml"), "decoder = \"json\"\n").unwrap();
    let file = scene.path("sensor.toml").display().to_string();
    let (status, said, errors) = scene.verb(&["guest", "put", "_default", "sensor", &file], "");
    assert!(status.success() && said.contains("json@"), "{said}{errors}");
    assert!(scene.path("guests/_default/sensor.toml").exists());
    publish(&broker, "{\"temp\": 21.5}");
    wait_lines(&gateway, 1);

    // A route file takes the place of a component, and one without a decoder is refused.
    put(&scene, "_default/other.wasm", &fs::read(built_guest("pulse")).unwrap());
    gateway.wait("the component", |_| listed(&scene, "_default", "other")["state"] == "serving");
    let (status, _, errors) = scene.verb(&["guest", "put", "_default", "other", &file], "");
    assert!(status.success(), "{errors}");
    assert!(!scene.path("guests/_default/other.wasm").exists());
    assert_eq!(listed(&scene, "_default", "other")["built_in"], "json");
    fs::write(scene.path("sensor.toml"), "deadline_ms = 5\n").unwrap();
    let (status, _, errors) = scene.verb(&["guest", "put", "_default", "other", &file], "");
    assert!(!status.success() && errors.contains("names no decoder"), "{errors}");

    let (status, _, errors) = scene.verb(&["guest", "rm", "_default", "sensor"], "");
    assert!(status.success(), "{errors}");
    assert!(!scene.path("guests/_default/sensor.toml").exists());
    assert!(listed(&scene, "_default", "sensor").is_null());
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn cases_run_beside_a_route_file_and_with_a_decoder_by_name() {
    let scene = GatewayDir::new();
    let case = "{\"name\": \"one\", \"topic\": \"tenant/acme/device/dev-1/sensor\", \"payload\": \"{\\\"temp\\\": 1}\", \
                \"received_at\": \"2026-01-01T00:00:00Z\", \"site\": \"lab-1\", \"expect\": {\"lines\": \
                [\"M,device_id=dev-1,site_id=lab-1 temp=1.0 1767225600000000000\"]}}\n";
    let test = |arguments: &[&str]| {
        let (status, said, errors) = scene.verb(&[&["test"], arguments].concat(), "");
        (status.code(), format!("{said}{errors}"))
    };
    put(&scene, "acme/sensor.toml", b"decoder = \"json\"\n[options]\nmeasurement = \"boiler\"\n");
    put(&scene, "acme/sensor.cases.jsonl", case.replace("\"M,", "\"boiler,").as_bytes());
    let file = scene.path("guests/acme/sensor.toml").display().to_string();
    let (code, said) = test(&[&file]);
    assert_eq!(code, Some(0), "{said}");
    put(&scene, "acme/sensor.cases.jsonl", case.as_bytes());
    assert_eq!(test(&[&file]).0, Some(1));
    fs::write(scene.path("loose.cases.jsonl"), case.replace("\"M,", "\"sensor,")).unwrap();
    let cases = scene.path("loose.cases.jsonl").display().to_string();
    let (code, said) = test(&["--decoder", "json", &cases]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = test(&["--decoder", "jsno", &cases]);
    assert!(code != Some(0) && said.contains("passthrough"), "{said}");
}

/// The digests beside the components, as `sha256sum` writes them.
#[test]
fn the_built_in_decoders_are_built_from_the_sources_as_they_are() {
    let components = root().join("runtime/rollout/src/builtin/components");
    let text = fs::read_to_string(components.join("sources.sha256")).unwrap();
    let mut listed = BTreeSet::new();
    for line in text.lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        let bytes = fs::read(root().join(name)).unwrap_or_default();
        let now: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(now, digest, "{name} has changed: run cargo xtask embed");
        listed.insert(name.to_owned());
    }
    let mut sources = vec!["guest-sdk/src".to_owned(), "guest-sdk/json/src".to_owned(), "wit".to_owned()];
    // The engine is a workspace of its own.
    let folder = |name: &str| if name == "js" { "quickjs".to_owned() } else { name.to_owned() };
    let built_in = tidegate::rollout::builtin::BUILT_IN.iter();
    sources.extend(built_in.map(|built_in| format!("guests/{}/src", folder(built_in.name))));
    for folder in sources {
        let mut files = Vec::new();
        collect(&root().join(&folder), &mut files);
        assert!(!files.is_empty(), "{folder}");
        for file in files {
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            assert!(listed.contains(&name), "{name} is new: run cargo xtask embed");
        }
    }
    // The texts of panics name files of the source as they lie here, and not as they lay where it was built.
    for built_in in &tidegate::rollout::builtin::BUILT_IN {
        let text = String::from_utf8_lossy(built_in.component);
        for folder in ["/guest-sdk/", "/guests/", "/registry/src/"] {
            for (at, _) in text.match_indices(folder) {
                let before = &text[..at];
                let is_from_the_root = before.ends_with('.') || before.ends_with("cargo");
                assert!(is_from_the_root, "{}: a path of a machine: run cargo xtask embed", built_in.name);
            }
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
