//! The files that are shipped beside the program: the compose file, the unit, the registry's example.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::harness::gateway::{GatewayDir, tidegate};
use crate::harness::skip;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The variables that the compose file gives to a service, defaults of `${NAME:-default}` taken.
fn compose_environment(service: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(repository().join("compose.yaml")).unwrap();
    let mut variables = Vec::new();
    let (mut in_service, mut in_environment) = (false, false);
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        match (indent, line.trim()) {
            (0, _) => in_service = false,
            (2, name) => in_service = name == format!("{service}:"),
            (4, name) => in_environment = name == "environment:",
            (6, pair) if in_service && in_environment => {
                let (name, value) = pair.split_once(": ").unwrap();
                let value = value.trim_matches('"');
                let value = match value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
                    Some(reference) => reference.split_once(":-").map_or("", |(_, default)| default),
                    None => value,
                };
                variables.push((name.to_owned(), value.to_owned()));
            }
            _ => {}
        }
    }
    variables
}

#[test]
fn every_variable_of_the_compose_file_is_understood() {
    let scene = GatewayDir::new();
    std::fs::remove_file(scene.path("tidegate.toml")).unwrap();
    let variables = compose_environment("tidegate");
    assert!(variables.len() >= 12, "{variables:?}");
    let output = tidegate()
        .args(["validate", "--json"])
        .current_dir(scene.path(""))
        .envs(variables.clone())
        .env("TIDEGATE_REGISTRY__FILE", repository().join("deploy/devices.csv"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["notes"], serde_json::json!([]), "none is without effect");
    let configuration = json["configuration"].to_string();
    for (name, _) in variables.iter().filter(|(name, _)| name != "MQTT_PORT") {
        assert!(configuration.contains(&format!("variable {name}")), "{name} sets nothing: {configuration}");
    }
    assert_eq!(json["configuration"]["mqtt"]["url"]["value"], "mqtt://mosquitto:1883");
    assert_eq!(json["configuration"]["output"]["batch_lines"]["value"], 500);
}

#[test]
fn the_service_manager_is_told_when_the_gateway_is_ready_and_when_it_stops() {
    let unit = std::fs::read_to_string(repository().join("deploy/systemd/tidegate.service")).unwrap();
    assert!(unit.contains("Type=notify"));
    let scene = GatewayDir::new();
    let address = scene.path("notify.sock");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut child = tidegate()
        .arg("run")
        .current_dir(scene.path(""))
        .env("NOTIFY_SOCKET", &address)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut told = [0; 256];
    let mut next = || {
        let length = socket.recv(&mut told).expect("the service manager is told");
        String::from_utf8_lossy(&told[..length]).into_owned()
    };
    assert!(next().contains("READY=1"));
    // SAFETY: kill(2) of a child that has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert!(std::iter::repeat_with(next).take(5).any(|said| said.contains("STOPPING=1")));
    assert!(child.wait().unwrap().success());
}

/// The figure of `systemd-analyze security`: 0 is the safest, and a unit without settings has 9.6.
#[test]
fn the_unit_gives_up_all_rights_that_the_gateway_does_not_need() {
    let unit = repository().join("deploy/systemd/tidegate.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    for setting in
        ["LimitCORE=0", "UMask=0077", "MemoryMax=", "LimitNOFILE=", "SystemCallFilter=@system-service"]
    {
        assert!(text.lines().any(|line| line.starts_with(setting)), "{setting}");
    }
    let analysed = std::process::Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&unit)
        .output();
    let output = match analysed {
        Ok(output) => output,
        Err(error) => {
            return skip(&format!("systemd-analyze (Debian package systemd) does not start: {error}"));
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some((_, figure)) = text.split_once("Overall exposure level for tidegate.service: ") else {
        return skip(&format!(
            "this systemd-analyze cannot read a unit offline: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    };
    let figure: f64 = figure.split_whitespace().next().unwrap().parse().unwrap();
    assert!(figure <= 2.0, "{text}");
}

#[test]
fn a_running_gateway_leaves_no_core_dump() {
    let scene = GatewayDir::new();
    let gateway = scene.start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

#[test]
fn the_example_registry_is_one_that_loads() {
    let devices =
        tidegate::admission::registry::FileRegistry::open(&repository().join("deploy/devices.csv")).unwrap();
    assert_eq!(devices.count(), 1);
}
