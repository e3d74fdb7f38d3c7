//! `cargo xtask console`: the page becomes files in target/console, which the program takes in when it is built.
//! The packages of npm lie in target/js and stay there.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{js, process};

/// The folder with a copy of the sources, and what npm installs beside them: its tools find both there.
pub fn workshop() -> PathBuf {
    process::root().join("target/js/console")
}

/// Builds the page, if it is not built yet.
///
/// # Errors
/// Node or npm are missing, the packages cannot be fetched, or the page does not compile.
pub fn build() -> Result<()> {
    let (source, workshop) = (process::root().join("console"), workshop());
    js::install_packages(&source, &workshop)?;
    let mut inputs = Vec::new();
    copy(&source, &workshop, &mut inputs)?;
    let built = process::root().join("target/console");
    let stamp = process::root().join("target/js/console.inputs");
    let digest = digest(inputs)?;
    if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == digest)
        && built.join("index.html.gz").exists()
    {
        return Ok(());
    }
    let node = |script: &str| {
        let mut node = Command::new("node");
        node.current_dir(&workshop).arg(script);
        node
    };
    process::run(node("node_modules/typescript/bin/tsc").arg("--noEmit"))?;
    process::run(node("build.mjs").arg(&built))?;
    fs::write(stamp, digest).context("target/js cannot be written")
}

/// Copies all sources, and gives their paths. Files that are gone from the sources go from the copy.
fn copy(from: &Path, to: &Path, copied: &mut Vec<PathBuf>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let is_ours = name != "node_modules" && name != ".installed";
        if is_ours && !from.join(name).exists() {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
    }
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        if name == "node_modules" {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name), copied)?;
        } else {
            fs::copy(&path, to.join(name))?;
            copied.push(path);
        }
    }
    Ok(())
}

fn digest(mut files: Vec<PathBuf>) -> Result<String> {
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file)?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}
