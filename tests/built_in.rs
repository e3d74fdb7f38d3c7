//! Decoders that come with the program: a route file that names one serves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::gateway::{Gateway, GatewayDir, built_guest};
use crate::harness::influxdb::Influxdb;
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

fn publish(broker: &Mosquitto, payload: &[u8]) {
    MqttClient::to_broker(broker.port, "publisher").publish_all([(TOPIC.to_owned(), payload.to_vec())]);
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

/// One value of Cayenne LPP.
const LPP: [u8; 4] = [3, 103, 1, 16];

#[test]
fn a_route_file_alone_serves_and_a_component_beside_it_wins() {
    let broker = Mosquitto::start_in_memory();
    let mut scene = scene(&broker);
    scene.set_token("operator");
    // The payloads of one decoder are none of the other's.
    put(&scene, "acme/sensor.toml", b"decoder = \"passthrough\"\nfailures_percent_max = 100\n");
    let gateway = scene.start();
    let built_in = listed(&scene, "acme", "sensor");
    assert_eq!(built_in["built_in"], "passthrough", "{built_in}");
    assert!(built_in["file"].as_str().unwrap().ends_with("acme/sensor.toml"), "{built_in}");
    let (_, shown, _) = scene.verb(&["guest", "list"], "");
    assert!(shown.contains("(built in)"), "{shown}");
    publish(&broker, b"boiler temp=21.5 7");
    wait_lines(&gateway, 1);

    put(&scene, "acme/sensor.wasm", &fs::read(built_guest("lpp")).unwrap());
    gateway.wait("the component", |_| listed(&scene, "acme", "sensor")["built_in"].is_null());
    publish(&broker, &LPP);
    wait_lines(&gateway, 2);

    // Without it the route file counts again, and the version before is one to go back to.
    fs::remove_file(scene.path("guests/acme/sensor.wasm")).unwrap();
    gateway.wait("the built-in decoder", |_| listed(&scene, "acme", "sensor")["built_in"] == "passthrough");
    publish(&broker, b"boiler temp=22.5 8");
    wait_lines(&gateway, 3);
    let (status, said, errors) = scene.verb(&["guest", "rollback", "acme", "sensor"], "");
    assert!(status.success(), "{said}{errors}");
    assert!(listed(&scene, "acme", "sensor")["built_in"].is_null());
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
    let lines = scene.lines("telemetry_acme");
    let begins =
        ["boiler,device_id=dev-1,site_id=lab-1 temp=21.5 7", "lpp,device_id=dev-1", "boiler,device_id=dev-1"];
    assert_eq!(lines.len(), begins.len(), "{lines:?}");
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
    put(&scene, "acme/sensor.toml", b"decoder = \"passthru\"\n");
    let gateway = scene.start();
    publish(&broker, b"boiler temp=21.5 7");
    gateway.wait("the refusal", |gateway| gateway.book("acme", "messages", "quarantined") == 1);
    let quarantine = gateway.json("/api/v1/quarantine");
    assert_eq!(quarantine["reasons"]["NO_GUEST"], 1, "{quarantine:#}");
    let quarantine = quarantine.to_string();
    for word in ["acme/sensor.toml", "passthru", "passthrough, lpp"] {
        assert!(quarantine.contains(word), "{word}: {quarantine}");
    }
    let error = listed(&scene, "acme", "sensor")["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("decoder = \"passthru\"") && error.contains("sparkplug"), "{error}");
    put(&scene, "acme/sensor.toml", b"decoder = \"passthrough\"\n");
    gateway.wait("the right name", |_| listed(&scene, "acme", "sensor")["built_in"] == "passthrough");
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_built_in_decoder_of_all_tenants_is_put_and_taken_away_by_its_route_file() {
    let broker = Mosquitto::start_in_memory();
    let mut scene = scene(&broker);
    scene.set_token("operator");
    let gateway = scene.start();
    fs::write(scene.path("sensor.toml"), "decoder = \"passthrough\"\n").unwrap();
    let file = scene.path("sensor.toml").display().to_string();
    let (status, said, errors) = scene.verb(&["guest", "put", "_default", "sensor", &file], "");
    assert!(status.success() && said.contains("passthrough@"), "{said}{errors}");
    assert!(scene.path("guests/_default/sensor.toml").exists());
    publish(&broker, b"boiler temp=21.5 7");
    wait_lines(&gateway, 1);

    // A route file takes the place of a component, and one without a decoder is refused.
    put(&scene, "_default/other.wasm", &fs::read(built_guest("lpp")).unwrap());
    gateway.wait("the component", |_| listed(&scene, "_default", "other")["state"] == "serving");
    let (status, _, errors) = scene.verb(&["guest", "put", "_default", "other", &file], "");
    assert!(status.success(), "{errors}");
    assert!(!scene.path("guests/_default/other.wasm").exists());
    assert_eq!(listed(&scene, "_default", "other")["built_in"], "passthrough");
    fs::write(scene.path("sensor.toml"), "deadline_ms = 5\n").unwrap();
    let (status, _, errors) = scene.verb(&["guest", "put", "_default", "other", &file], "");
    assert!(!status.success() && errors.contains("names no decoder"), "{errors}");

    let (status, _, errors) = scene.verb(&["guest", "rm", "_default", "sensor"], "");
    assert!(status.success(), "{errors}");
    assert!(!scene.path("guests/_default/sensor.toml").exists());
    assert!(listed(&scene, "_default", "sensor").is_null());
    assert_eq!(gateway.stop().code(), Some(0));
}

/// The energy meter of docs/DECODERS.md.
const METER: &str = r#"decoder = "mapping"
[options]
measurement = "energy_meter"
payload_bytes = 10
fields.energy_kwh = "u32be@2 * 0.001"
fields.power_w = "i24be@6"
fields.battery = { value = "u8@1", unit = "percent" }
fields.signal = { value = "u8@9", none = 0xff }
"#;

const METER_PAYLOAD: [u8; 10] = [1, 0x64, 0, 0x0f, 0x42, 0x40, 0, 3, 0xe8, 0x7f];

#[tokio::test(flavor = "multi_thread")]
async fn a_route_file_of_eight_lines_decodes_an_energy_meter_into_a_database() {
    let lines = METER.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 8);
    let docs = fs::read_to_string(root().join("docs/DECODERS.md")).unwrap();
    assert!(lines.iter().all(|line| docs.contains(line)), "docs/DECODERS.md has another mapping");
    let (broker, influxdb) = (Mosquitto::start_in_memory(), Influxdb::start().await);
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let output =
        format!("[output]\nkind = \"influxdb1\"\nurl = \"{}\"\ncreate_database = true\n", influxdb.url());
    let admission = "[admission]\ncredentials = \"broker\"\nrate_per_s = 0\n";
    scene.configure_broker(&broker.url(), &format!("{output}{admission}"));
    put(&scene, "_default/sensor.toml", METER.as_bytes());
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all([
        (TOPIC.to_owned(), METER_PAYLOAD.to_vec()),
        (TOPIC.to_owned(), METER_PAYLOAD[..8].to_vec()),
    ]);
    gateway.wait("the one that is cut off", |gateway| gateway.book("acme", "messages", "quarantined") == 1);
    assert_eq!(gateway.json("/api/v1/quarantine")["reasons"]["GUEST_REFUSED"], 1);
    gateway.wait_written("acme", 1);
    let answer = influxdb.ask("telemetry_acme", "SELECT * FROM energy_meter").await;
    let series = &answer["results"][0]["series"][0];
    let columns = series["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    let values = series["values"][0].as_array().unwrap();
    let stored: Vec<(&str, &Value)> = columns.zip(values).filter(|(name, _)| *name != "time").collect();
    let expected = [
        ("battery_percent", serde_json::json!(100)),
        ("device_id", "dev-1".into()),
        ("energy_kwh", serde_json::json!(1000)),
        ("power_w", serde_json::json!(1000)),
        ("signal", serde_json::json!(127)),
        ("site_id", "lab-1".into()),
    ];
    assert_eq!(stored.iter().map(|(name, value)| (*name, (*value).clone())).collect::<Vec<_>>(), expected);
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_mapping_that_cannot_be_meant_is_refused_at_load_and_tried_on_a_payload_before() {
    let scene = GatewayDir::new();
    let mapping_try = |text: &str, payload: &str| {
        fs::write(scene.path("meter.toml"), text).unwrap();
        let file = scene.path("meter.toml").display().to_string();
        let (status, said, errors) = scene.verb(&["mapping", "try", &file, "--payload-hex", payload], "");
        (status.code(), format!("{said}{errors}"))
    };
    let (code, said) = mapping_try(METER, "01 64 00 0f 42 40 00 03 e8 7f");
    assert_eq!(code, Some(0), "{said}");
    for words in [
        "energy_kwh",
        "bytes 2 to 5",
        "00 0f 42 40",
        "1000000 -> 1000",
        "byte 9",
        "energy_meter energy_kwh=1000.0",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (_, said) = mapping_try(METER, "01 64 00 0f 42 40 00 03 e8 ff");
    assert!(said.contains("255 -> left out") && !said.contains("signal="), "{said}");
    let (code, said) = mapping_try(&METER.replace("payload_bytes = 10\n", ""), "01 64 00 0f 42");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("TOO_SHORT: fields.energy_kwh: bytes 2 to 5"), "{said}");
    let (code, said) = mapping_try(
        "decoder = \"mapping\"\n[options]\nformat = \"json\"\nfields.t = \"/a/0\"\n",
        "7b2261223a5b315d7d",
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("/a/0") && said.contains("meter t=1.0"), "{said}");

    // The same fault keeps a route from serving, and names the key.
    let beyond = METER.replace("i24be@6", "i24be@8");
    let (code, said) = mapping_try(&beyond, "01");
    assert!(code == Some(1) && said.contains("options.fields.power_w") && said.contains("byte 11"), "{said}");
    put(&scene, "acme/sensor.toml", beyond.as_bytes());
    let error = listed(&scene, "acme", "sensor")["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("options.fields.power_w: it ends at byte 11 of a payload of 10 bytes"), "{error}");
    let (code, said) = mapping_try("decoder = \"json\"\n", "01");
    assert!(code == Some(1) && said.contains("decoder = \"mapping\""), "{said}");
}

#[test]
fn cases_run_beside_a_route_file_and_with_a_decoder_by_name() {
    let scene = GatewayDir::new();
    let case = "{\"name\": \"one\", \"topic\": \"tenant/acme/device/dev-1/sensor\", \"payload\": \"boiler temp=1.0 7\", \
                \"received_at\": \"2026-01-01T00:00:00Z\", \"site\": \"lab-1\", \"expect\": {\"lines\": \
                [\"M,device_id=dev-1,site_id=lab-1 temp=1.0 7\"]}}\n";
    let test = |arguments: &[&str]| {
        let (status, said, errors) = scene.verb(&[&["test"], arguments].concat(), "");
        (status.code(), format!("{said}{errors}"))
    };
    put(&scene, "acme/sensor.toml", b"decoder = \"passthrough\"\n");
    put(&scene, "acme/sensor.cases.jsonl", case.replace("\"M,", "\"boiler,").as_bytes());
    let file = scene.path("guests/acme/sensor.toml").display().to_string();
    let (code, said) = test(&[&file]);
    assert_eq!(code, Some(0), "{said}");
    put(&scene, "acme/sensor.cases.jsonl", case.as_bytes());
    assert_eq!(test(&[&file]).0, Some(1));
    fs::write(scene.path("loose.cases.jsonl"), case.replace("\"M,", "\"boiler,")).unwrap();
    let cases = scene.path("loose.cases.jsonl").display().to_string();
    let (code, said) = test(&["--decoder", "passthrough", &cases]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = test(&["--decoder", "passthru", &cases]);
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
