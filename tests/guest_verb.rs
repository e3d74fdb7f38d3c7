//! `tidegate guest`, as a person uses it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::gateway::{GatewayDir, built_guest};

fn scene() -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    fs::write(scene.path("operator"), "of-the-operator").unwrap();
    scene.configure_admin("[output]\nkind = \"file\"\n", "token_file = \"operator\"\n");
    for name in ["steady", "strict"] {
        fs::copy(built_guest(name), scene.path(&format!("{name}.wasm"))).unwrap();
    }
    scene
}

/// Runs a verb that must succeed; gives its output.
fn good(scene: &GatewayDir, arguments: &[&str]) -> String {
    let (status, out, errors) = scene.verb(arguments, "");
    assert_eq!(status.code(), Some(0), "{arguments:?}: {out}{errors}");
    out
}

/// Puts and rolls back a guest, with and without a running gateway alike.
fn put_and_back(scene: &GatewayDir) {
    let out = good(scene, &["guest", "put", "acme", "steps", "steady.wasm"]);
    assert!(out.starts_with("acme/steps: steady@0.1.0#"), "{out}");
    good(scene, &["guest", "put", "acme", "steps", "strict.wasm"]);
    let out = good(scene, &["guest", "put", "acme", "steps", "strict.wasm"]);
    assert!(out.contains("serves already"), "{out}");
    assert_eq!(
        fs::read(scene.path("guests/acme/steps.wasm")).unwrap(),
        fs::read(scene.path("strict.wasm")).unwrap()
    );
    let out = good(scene, &["guest", "list", "--tenant", "acme"]);
    assert!(out.contains("strict@0.1.0#") && !out.contains("pulse"), "{out}");

    let (status, _, errors) = scene.verb(&["guest", "put", "acme", "steps", "operator"], "");
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("MAY_NOT_SERVE") && errors.contains("no WebAssembly component"), "{errors}");
    let (status, _, errors) = scene.verb(&["guest", "put", "acme", "a/b", "-"], "not wasm");
    assert_eq!(status.code(), Some(1), "{errors}");

    let out = good(scene, &["guest", "rollback", "acme", "steps"]);
    assert!(out.contains("steady@0.1.0#"), "{out}");
    let out = good(scene, &["guest", "list", "--json"]);
    let guests: serde_json::Value = serde_json::from_str(&out).unwrap();
    let steps = guests["guests"].as_array().unwrap().iter().find(|guest| guest["type"] == "steps").unwrap();
    assert!(steps["guest"].as_str().unwrap().starts_with("steady@"), "{steps}");
    assert!(steps["error"].as_str().unwrap().contains("rolled back"), "{steps}");
    let out = good(scene, &["guest", "history", "acme", "steps"]);
    assert!(out.contains("rolled_back") && out.contains("operator") && out.contains("refused"), "{out}");
    assert_eq!(scene.verb(&["guest", "rollback", "acme", "steps"], "").0.code(), Some(1));
    good(scene, &["guest", "rm", "acme", "steps"]);
    assert!(!scene.path("guests/acme/steps.wasm").exists());
    assert_eq!(scene.verb(&["guest", "rm", "acme", "steps"], "").0.code(), Some(1));
    assert_eq!(scene.verb(&["guest", "history", "acme", "no-such"], "").0.code(), Some(1));
}

#[test]
fn guests_of_a_running_gateway_are_put_and_brought_back() {
    let scene = scene();
    let gateway = scene.start();
    put_and_back(&scene);
    let out = good(&scene, &["guest", "log", "_default", "telemetry"]);
    assert_eq!(out, "");
    drop(gateway);
}

#[test]
fn guests_of_a_stopped_gateway_are_put_and_brought_back() {
    let scene = scene();
    put_and_back(&scene);
    // A version put during the stop serves from the start, and one rolled back does not.
    good(&scene, &["guest", "put", "acme", "steps", "steady.wasm"]);
    good(&scene, &["guest", "put", "acme", "steps", "strict.wasm"]);
    good(&scene, &["guest", "rollback", "acme", "steps"]);
    let _gateway = scene.start();
    let out = good(&scene, &["guest", "list"]);
    assert!(out.contains("steady@"), "{out}");
}

#[test]
fn a_new_decoders_crate_builds_passes_its_tests_and_serves() {
    let scene = scene();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sdk = repository.join("guest-sdk");
    good(&scene, &["guest", "new", "hot-boiler", "--sdk", sdk.to_str().unwrap()]);
    for bad in ["Boiler", "1", "a/b", "hot-boiler", ""] {
        assert_eq!(scene.verb(&["guest", "new", bad], "").0.code(), Some(2), "{bad}");
    }
    let manifest = fs::read_to_string(scene.path("hot-boiler/Cargo.toml")).unwrap();
    assert!(manifest.contains("name = \"hot-boiler\""), "{manifest}");
    // Built as the README there says, into a folder that the next run finds again. Where the
    // toolchain has no wasm32, its own tests must do.
    let target = repository.join("target/guest-new");
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(scene.path("hot-boiler")).env("CARGO_TARGET_DIR", &target);
        command.args(["--offline", "--quiet"]).env_remove("RUSTFLAGS").status().unwrap().success()
    };
    assert!(cargo(&["test"]));
    if !cargo(&["build", "--release", "--target", "wasm32-unknown-unknown"]) {
        return;
    }
    let module = target.join("wasm32-unknown-unknown/release/hot_boiler.wasm");
    let component = "hot-boiler/hot-boiler.wasm";
    good(&scene, &["guest", "wrap", module.to_str().unwrap(), "-o", component]);
    let out = good(&scene, &["test", component]);
    assert!(out.contains("2 passed, 0 failed"), "{out}");
    let out = good(&scene, &["guest", "put", "acme", "hot-boiler", component]);
    assert!(out.contains("hot-boiler@0.1.0#"), "{out}");
}
