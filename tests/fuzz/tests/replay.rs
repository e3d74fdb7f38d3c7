//! Every kept input through its target, without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_fuzz::target::{TARGETS, Target};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The kept inputs of a target: its corpus, and those that broke a promise once.
fn inputs(target: &Target) -> Vec<PathBuf> {
    let folders = ["corpus", "regressions"].map(|name| folder(name).join(target.name));
    let mut inputs: Vec<PathBuf> = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    inputs
}

/// Runs each of them; a panic names the input before it.
fn replay(name: &str) {
    let target = tidegate_fuzz::target::named(name).unwrap();
    let inputs = inputs(target);
    assert!(!inputs.is_empty(), "{name} has no corpus");
    (target.run)(&[]);
    for input in inputs {
        println!("{}", input.display());
        (target.run)(&fs::read(&input).unwrap());
    }
}

#[test]
fn mqtt_streams() {
    replay("mqtt");
}

#[test]
fn json_texts() {
    replay("json");
}

#[test]
fn line_protocol() {
    replay("lines");
}

#[test]
fn credentials_in_texts() {
    replay("redact");
}

#[test]
fn envelopes_and_topics() {
    replay("envelope");
}

#[test]
fn route_files() {
    replay("route_file");
}

#[test]
fn configuration_files() {
    replay("config");
}

#[test]
fn registry_files() {
    replay("registry_csv");
}

#[test]
fn quarantine_files() {
    replay("quarantine");
}

#[test]
fn spool_folders() {
    replay("spool");
}

#[test]
fn every_folder_of_inputs_belongs_to_a_target_and_is_small() {
    for kind in ["corpus", "regressions"] {
        for entry in fs::read_dir(folder(kind)).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let target = TARGETS.iter().find(|target| target.name == name);
            let target = target.unwrap_or_else(|| panic!("{} belongs to no target", path.display()));
            for input in inputs(target) {
                let bytes = fs::metadata(&input).unwrap().len();
                assert!(bytes <= target.bytes_max as u64, "{}: {bytes} bytes", input.display());
            }
        }
    }
}
