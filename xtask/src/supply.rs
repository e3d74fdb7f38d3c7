//! `cargo xtask supply` and `cargo xtask sbom`: the dependencies, held against deny.toml, and listed.

mod graph;
mod licence;
mod policy;
mod sbom;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use graph::CrateGraph;
use policy::Policy;

/// Checks licences, sources and duplicates by deny.toml. Where cargo-deny is installed, it checks all that it
/// can, advisories too.
///
/// # Errors
/// A dependency breaks the policy; all that do are named.
pub fn check() -> Result<()> {
    let graph = CrateGraph::load()?;
    let text = fs::read_to_string(process::root().join("deny.toml")).context("deny.toml cannot be read")?;
    let faults = Policy::parse(&text)?.faults(&graph);
    if !faults.is_empty() {
        bail!("dependencies that deny.toml does not allow:\n  {}", faults.join("\n  "));
    }
    println!("{} crates: licences, sources and duplicates are as deny.toml allows", graph.crates.len());
    if process::find("cargo-deny").is_none() && !is_in_cargo_home() {
        println!(
            "skipped: advisories. They need cargo-deny (cargo install cargo-deny --locked) and a network"
        );
        return Ok(());
    }
    let mut deny = process::cargo();
    if process::run(deny.args(["deny", "check", "bans", "licenses", "sources"])).is_err() {
        bail!("cargo deny check has findings");
    }
    // Its database is in a git repository: without a network there is none to check by.
    let database = Command::new("cargo").args(["deny", "fetch", "db"]).current_dir(process::root()).output();
    if !database.is_ok_and(|output| output.status.success()) {
        println!("skipped: advisories. cargo-deny cannot fetch the database of advisories here");
        return Ok(());
    }
    process::run(process::cargo().args(["deny", "check", "advisories"]))
}

fn is_in_cargo_home() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.is_some_and(|home| home.join("bin/cargo-deny").is_file())
}

/// Writes the bill of materials of the program to target/sbom.
pub fn sbom() -> Result<()> {
    let graph = CrateGraph::load()?;
    let bill = sbom::bill(&graph)?;
    let folder = process::root().join("target/sbom");
    fs::create_dir_all(&folder)?;
    let path = folder.join("tidegate.cdx.json");
    fs::write(&path, format!("{bill:#}\n"))?;
    let components = bill["components"].as_array().map_or(0, Vec::len);
    println!("{} {components} components", path.display());
    Ok(())
}
