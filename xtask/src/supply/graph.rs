//! The crates of the workspace and all below them, by `cargo metadata` and Cargo.lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;

/// One crate of one version.
#[derive(Clone, Debug, Default)]
pub struct Crate {
    pub id: String,
    pub name: String,
    pub version: String,
    /// An SPDX expression.
    pub licence: Option<String>,
    /// The registry that it comes from; `None` for a crate of the repository.
    pub source: Option<String>,
    /// SHA-256 of its archive.
    pub checksum: Option<String>,
    pub repository: Option<String>,
    pub description: Option<String>,
    /// It runs at build time: a build script or a procedural macro.
    pub runs_at_build: bool,
}

/// All crates, and for each the ids of those that it needs for a program.
#[derive(Clone, Debug, Default)]
pub struct CrateGraph {
    pub crates: BTreeMap<String, Crate>,
    pub needs: BTreeMap<String, BTreeSet<String>>,
}

/// The platform of the product; others would bring crates that are in no build.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

impl CrateGraph {
    /// # Errors
    /// `cargo metadata` fails, for example because Cargo.lock is not up to date.
    pub fn load() -> Result<Self> {
        let output = process::cargo()
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM])
            .output()?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let lock = fs::read_to_string(process::root().join("Cargo.lock"))?;
        Self::read(&serde_json::from_slice(&output.stdout)?, &lock)
    }

    fn read(metadata: &Value, lock: &str) -> Result<Self> {
        let checksums = checksums(lock)?;
        let mut graph = Self::default();
        for package in list(&metadata["packages"]) {
            let text = |key: &str| package[key].as_str().map(str::to_owned);
            let name = text("name").context("a package has a name")?;
            let version = text("version").context("a package has a version")?;
            let id = text("id").context("a package has an id")?;
            let kinds = list(&package["targets"]).flat_map(|target| list(&target["kind"]));
            let runs_at_build =
                kinds.filter_map(Value::as_str).any(|kind| matches!(kind, "custom-build" | "proc-macro"));
            let found = Crate {
                id: id.clone(),
                licence: text("license"),
                source: text("source"),
                repository: text("repository"),
                description: text("description"),
                checksum: checksums.get(&(name.clone(), version.clone())).cloned(),
                name,
                version,
                runs_at_build,
            };
            graph.crates.insert(id, found);
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let id = node["id"].as_str().context("a node has an id")?;
            let needs = list(&node["deps"])
                .filter(|dep| list(&dep["dep_kinds"]).any(|kind| kind["kind"].as_str() != Some("dev")))
                .filter_map(|dep| dep["pkg"].as_str())
                .map(str::to_owned);
            graph.needs.insert(id.to_owned(), needs.collect());
        }
        Ok(graph)
    }

    /// The crate of the repository with this name.
    pub fn own(&self, name: &str) -> Option<&Crate> {
        self.crates.values().find(|found| found.source.is_none() && found.name == name)
    }

    /// All crates that a crate needs, directly or not, without itself.
    pub fn below(&self, id: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![id.to_owned()];
        while let Some(next) = open.pop() {
            for needed in self.needs.get(&next).into_iter().flatten() {
                if found.insert(needed.clone()) {
                    open.push(needed.clone());
                }
            }
        }
        found
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The checksums of a Cargo.lock by name and version.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock is no TOML")?;
    let packages =
        lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock has no packages")?;
    let text = |package: &toml::Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    Ok(packages
        .iter()
        .filter_map(|package| {
            Some(((text(package, "name")?, text(package, "version")?), text(package, "checksum")?))
        })
        .collect())
}
