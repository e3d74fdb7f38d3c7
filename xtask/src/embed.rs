//! `cargo xtask embed`: the decoder that `tidegate init` writes. It lies in the source as a component, so that
//! building the program needs no wasm32 target. Beside it stand the digests of the files it was built from, as
//! `sha256sum -c` reads them; a test holds them against the files.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{guests, process};

/// The folders and files that the decoder is built from.
const SOURCES: [&str; 9] = [
    "guests/Cargo.toml",
    "guests/Cargo.lock",
    "guests/json/Cargo.toml",
    "guests/json/src",
    "guest-sdk/Cargo.toml",
    "guest-sdk/src",
    "guest-sdk/json/Cargo.toml",
    "guest-sdk/json/src",
    "wit",
];

const TEMPLATE: &str = "runtime/src/cli/init/template";

pub fn embed() -> Result<()> {
    let component = guests::build_all()?.join("json.wasm");
    let template = process::root().join(TEMPLATE);
    fs::copy(&component, template.join("telemetry.wasm"))
        .with_context(|| format!("cannot copy {}", component.display()))?;
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&process::root().join(source), &mut files)?;
    }
    files.sort();
    let mut digests = String::new();
    for file in files {
        let digest = Sha256::digest(fs::read(&file)?);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = file.strip_prefix(process::root())?.display().to_string();
        writeln!(digests, "{digest}  {shown}")?;
    }
    fs::write(template.join("telemetry.sha256"), digests)?;
    println!("{TEMPLATE}/telemetry.wasm is guests/json as it is now");
    Ok(())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}
