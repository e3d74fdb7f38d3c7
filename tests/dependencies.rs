//! docs/DEPENDENCIES.md against `cargo metadata`: each dependency has its reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Value {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

/// The crates in the table of a section, each with a reason.
fn named(section: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/DEPENDENCIES.md")).unwrap();
    let (_, rest) = text.split_once(&format!("## {section}\n")).unwrap();
    let table = rest.split("\n## ").next().unwrap();
    let mut names = BTreeSet::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, reason) = row.split_once("` | ").unwrap();
        assert!(reason.trim_end_matches([' ', '|']).len() > 10, "{name} has no reason");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
    }
    names
}

fn compare(found: &BTreeSet<String>, named: &BTreeSet<String>) {
    let missing: Vec<_> = found.difference(named).collect();
    let gone: Vec<_> = named.difference(found).collect();
    assert!(missing.is_empty(), "docs/DEPENDENCIES.md has no reason for {missing:?}");
    assert!(gone.is_empty(), "docs/DEPENDENCIES.md names what is not there any more: {gone:?}");
}

#[test]
fn each_dependency_has_a_written_reason() {
    let metadata = metadata();
    let own = list(&metadata["packages"]).filter(|package| package["source"].is_null());
    let of_registry = |dependency: &&Value| dependency["path"].is_null();
    let dependencies = own.flat_map(|package| list(&package["dependencies"]).filter(of_registry));
    let found = dependencies.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
    compare(&found, &named("Named by our manifests"));
}

#[test]
fn each_crate_that_runs_at_build_time_has_a_written_reason() {
    let metadata = metadata();
    let runs = |package: &&Value| {
        let kinds = list(&package["targets"]).flat_map(|target| list(&target["kind"]));
        kinds.filter_map(Value::as_str).any(|kind| matches!(kind, "custom-build" | "proc-macro"))
    };
    let others = list(&metadata["packages"]).filter(|package| !package["source"].is_null());
    let found = others.filter(runs).map(|package| package["name"].as_str().unwrap().to_owned()).collect();
    compare(&found, &named("Run at build time"));
}
