//! `cargo xtask guests --js`: decoders in JavaScript become components, by npm and node, each with
//! the tools that its own package names. What npm installs lies in target/js and stays there.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail, ensure};

use crate::{packages, process};

/// The oldest node that the component tools run on.
const NODE_MAJOR_MIN: u32 = 18;

/// A script and the component to be made of it.
struct Guest {
    /// The package whose tools make it: a folder of guests/js.
    package: &'static str,
    /// Its scripts; `decoder.js` among them is the decoder.
    source: PathBuf,
    component: PathBuf,
}

/// Builds what is not built yet; gives the components.
///
/// # Errors
/// Node or npm are missing, the packages cannot be fetched, or a script is no decoder.
pub fn build_all() -> Result<Vec<PathBuf>> {
    let root = process::root();
    let guests = [
        Guest {
            package: "flat",
            source: root.join("guests/js/flat/src"),
            component: root.join("target/guests/flat.wasm"),
        },
        Guest {
            package: "flat",
            source: root.join("tests/guests/hostile-js"),
            component: root.join("target/test-guests/hostile-js.wasm"),
        },
    ];
    let mut building = Vec::new();
    for guest in &guests {
        let inputs = guest.inputs()?;
        if fs::read_to_string(guest.stamp()).is_ok_and(|made_of| made_of == inputs)
            && guest.component.exists()
        {
            continue;
        }
        let tools = installed(guest.package)?;
        building.push((guest, inputs, guest.start(&tools)?));
    }
    // The engine is snapshotted with each script in it, for 20 s of one core: side by side.
    for (guest, inputs, mut child) in building {
        let status = child.wait()?;
        ensure!(status.success(), "{} cannot become a component", guest.source.display());
        fs::write(guest.stamp(), inputs)?;
    }
    Ok(guests.into_iter().map(|guest| guest.component).collect())
}

/// Installs the tools of every package.
///
/// # Errors
/// Node or npm are missing, or the packages cannot be fetched.
pub fn install() -> Result<()> {
    installed("flat").map(|_| ())
}

/// Runs the scripts' own tests, natively.
///
/// # Errors
/// One fails.
pub fn test() -> Result<()> {
    packages::ensure(packages::JS_TOOLS)?;
    process::run(Command::new("node").arg("--test").current_dir(process::root().join("guests/js/flat")))
}

impl Guest {
    /// A digest of everything that the component depends on.
    fn inputs(&self) -> Result<String> {
        let root = process::root();
        let package = root.join("guests/js").join(self.package);
        let mut files = vec![package.join("package-lock.json"), package.join("build.mjs")];
        for folder in [self.source.clone(), root.join("wit")] {
            collect(&folder, &mut files)?;
        }
        files.sort();
        let mut hasher = DefaultHasher::new();
        for file in files {
            file.hash(&mut hasher);
            fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?.hash(&mut hasher);
        }
        Ok(format!("{:016x}", hasher.finish()))
    }

    fn stamp(&self) -> PathBuf {
        let name = self.component.file_stem().unwrap_or_default().to_string_lossy();
        process::root().join(format!("target/js/{name}.inputs"))
    }

    fn start(&self, tools: &Path) -> Result<Child> {
        fs::create_dir_all(self.component.parent().context("a component lies in a folder")?)?;
        let mut node = Command::new("node");
        node.current_dir(tools).arg("build.mjs").arg(self.source.join("decoder.js")).arg(&self.component);
        node.spawn().context("node does not start")
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// The folder with a package's tools, as its lock file names them.
fn installed(package: &str) -> Result<PathBuf> {
    let source = process::root().join("guests/js").join(package);
    // As deep as the package itself, so that its relative paths are found.
    let tools = process::root().join("target/js").join(package);
    install_packages(&source, &tools)?;
    fs::copy(source.join("build.mjs"), tools.join("build.mjs"))
        .with_context(|| format!("{package}/build.mjs"))?;
    Ok(tools)
}

/// Installs the packages that a lock file names into a folder, if they are not there yet.
///
/// # Errors
/// Node or npm are missing or too old, or the packages cannot be fetched.
pub fn install_packages(source: &Path, tools: &Path) -> Result<()> {
    packages::ensure(packages::JS_TOOLS)?;
    let version = Command::new("node").arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    if major.is_none_or(|major: u32| major < NODE_MAJOR_MIN) {
        bail!("node is {version}: {NODE_MAJOR_MIN} or later is needed");
    }
    fs::create_dir_all(tools)?;
    for file in ["package.json", "package-lock.json", ".npmrc"] {
        fs::copy(source.join(file), tools.join(file))
            .with_context(|| format!("{}", source.join(file).display()))?;
    }
    let stamp = tools.join(".installed");
    let lock = fs::read(source.join("package-lock.json"))?;
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.current_dir(tools).args(["ci", "--ignore-scripts", "--silent"]);
    process::run(&mut npm).with_context(|| {
        format!(
            "cannot install the packages of {}: npm needs access to its registry, or a proxy",
            source.display()
        )
    })?;
    fs::write(stamp, lock)?;
    Ok(())
}
