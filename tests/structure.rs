//! The direction of dependencies, read from the `use` lines.

use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            rust_files(&entry.unwrap().path(), files);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        files.push(path.to_owned());
    }
}

/// The top-level modules that a module's files name by `crate::`.
fn imports(module: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    rust_files(&sources().join(format!("{module}.rs")), &mut files);
    let folder = sources().join(module);
    if folder.is_dir() {
        rust_files(&folder, &mut files);
    }
    assert!(!files.is_empty(), "there is no module {module}");
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (start, _) in text.match_indices("crate::") {
            let name: String =
                text[start + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push((file.clone(), name));
        }
    }
    found
}

fn assert_imports_only(module: &str, allowed: &[&str]) {
    let own = module.split('/').next().unwrap();
    for (file, name) in imports(module) {
        assert!(
            name == own || allowed.contains(&name.as_str()),
            "{} uses crate::{name}; {module} may use only {allowed:?}",
            file.display()
        );
    }
}

#[test]
fn adapters_know_the_domain_and_never_one_another() {
    for adapter in ["source", "admission", "decode", "spool", "writer", "quarantine"] {
        assert_imports_only(adapter, &["domain"]);
    }
}

#[test]
fn rollout_knows_decode_and_decode_knows_nothing_of_rollout() {
    assert_imports_only("rollout", &["decode", "domain"]);
}

#[test]
fn only_the_spool_makes_durable_lines() {
    let mut files = Vec::new();
    rust_files(&sources(), &mut files);
    let makers = files.iter().filter(|file| {
        let text = fs::read_to_string(file).unwrap();
        // The struct itself and what is implemented on it are no makers.
        text.lines().any(|line| {
            line.contains("Durable {")
                && !line.contains("struct")
                && !line.contains("impl")
                && !line.contains("->")
        })
    });
    for file in makers {
        let place = file.strip_prefix(sources()).unwrap().display().to_string();
        assert!(place.starts_with("spool") || place == "writer/testing.rs", "{place} makes a Durable");
    }
}

#[test]
fn the_domain_knows_nothing_but_itself() {
    assert_imports_only("domain", &[]);
}

#[test]
fn what_shows_the_gateway_does_not_reach_into_it() {
    assert_imports_only("telemetry", &["domain"]);
    assert_imports_only("admin", &["telemetry"]);
    assert_imports_only("config", &["domain"]);
}
