//! The direction of dependencies, read from the manifests of the crates and from `use` lines.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Crates of the data plane, with every crate of ours that each may depend on.
const CRATES: [(&str, &[&str]); 8] = [
    ("core", &[]),
    ("source", &["tidegate-core"]),
    ("admission", &["tidegate-core", "tidegate-guest", "tidegate-json"]),
    ("decode", &["tidegate-core"]),
    ("rollout", &["tidegate-core", "tidegate-decode"]),
    ("spool", &["tidegate-core"]),
    ("quarantine", &["tidegate-core"]),
    ("writer", &["tidegate-core"]),
];

/// Modules of the control plane, with those of its modules that each may use.
const MODULES: [(&str, &[&str]); 3] = [
    ("config", &["limits"]),
    ("telemetry", &["limits", "pipeline"]),
    ("admin", &["limits", "pipeline", "telemetry"]),
];

fn runtime() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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

/// Crates of ours in all tables of dependencies of a manifest.
fn own_dependencies(manifest: &Path) -> Vec<String> {
    let manifest: Table = toml::from_str(&fs::read_to_string(manifest).unwrap()).unwrap();
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .into_iter()
        .filter_map(|kind| manifest.get(kind)?.as_table())
        .flat_map(|table| table.keys().filter(|name| name.starts_with("tidegate")).cloned())
        .collect()
}

/// Top-level modules that a module's files name by `crate::`.
fn imports(module: &str) -> Vec<(PathBuf, String)> {
    let sources = runtime().join("src");
    let mut files = Vec::new();
    rust_files(&sources.join(format!("{module}.rs")), &mut files);
    let folder = sources.join(module);
    if folder.is_dir() {
        rust_files(&folder, &mut files);
    }
    assert!(!files.is_empty(), "there is no module {module}");
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (start, _) in text.match_indices("crate::") {
            let path = &text[start + "crate::".len()..];
            let name_at =
                |path: &str| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            match path.strip_prefix('{') {
                Some(list) => {
                    let list = list.split_once("};").unwrap().0;
                    assert!(!list.contains('{'), "{}: braces in braces after `crate::`", file.display());
                    found.extend(list.split(',').map(|path| (file.clone(), name_at(path.trim()))));
                }
                None => found.push((file.clone(), name_at(path))),
            }
        }
    }
    found
}

#[test]
fn parts_of_the_data_plane_know_the_core_and_never_one_another() {
    for (name, allowed) in CRATES {
        for dependency in own_dependencies(&runtime().join(name).join("Cargo.toml")) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} depends on {dependency}; it may depend on {allowed:?} only"
            );
        }
    }
}

#[test]
fn every_crate_of_the_runtime_has_its_rule() {
    let folders = fs::read_dir(runtime()).unwrap().map(|entry| entry.unwrap().path());
    for folder in folders.filter(|folder| folder.join("Cargo.toml").exists()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(CRATES.iter().any(|(ruled, _)| *ruled == name), "no rule for the crate {name}");
    }
}

/// A line is durable only with a proof that it was synced; the writer's tests need one too.
#[test]
fn only_the_spool_makes_durable_lines() {
    let mut files = Vec::new();
    rust_files(runtime(), &mut files);
    let mut makers = 0;
    for file in files {
        let place = file.strip_prefix(runtime()).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        if place.starts_with("core/") || !(text.contains("Durable::new(") || text.contains("Synced::")) {
            continue;
        }
        makers += 1;
        assert!(
            place.starts_with("spool/") || place == "writer/src/testing.rs",
            "{place} makes durable lines"
        );
    }
    assert!(makers > 1, "the makers are not found by these names any more");
}

#[test]
fn modules_that_configure_or_show_the_gateway_do_not_reach_into_its_assembly() {
    for (module, allowed) in MODULES {
        for (file, name) in imports(module) {
            let is_part = CRATES.iter().any(|(part, _)| *part == name);
            assert!(
                is_part || name == module || allowed.contains(&name.as_str()),
                "{} uses crate::{name}; {module} may use the data plane and {allowed:?} only",
                file.display()
            );
        }
    }
}
