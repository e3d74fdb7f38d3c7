//! `cargo xtask guests`: every guest becomes a component in target/guests.
//!
//! The wasm32 target is looked for in this order: the active toolchain has it; rustup adds it;
//! Debian's toolchain, which brings the standard library as source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{js, langs, packages, process};

const TARGET: &str = "wasm32-unknown-unknown";

/// The variable of cargo with flags of rustc, between which U+001F stands.
const FLAGS_VARIABLE: &str = "CARGO_ENCODED_RUSTFLAGS";

/// Builds the product's guests; with `--tests`, those that tests use too; with `--js`, those in
/// JavaScript; with `--langs`, a new decoder in each other language; with `--engine`, the engine for scripts of
/// JavaScript, which needs clang; with `--debian`, by Debian's toolchain even where another could, into a folder of its own.
pub fn main(arguments: &[String]) -> Result<()> {
    let (guests, tests) = (process::root().join("guests"), process::root().join("tests/guests"));
    let target = process::root().join("target");
    let built = match arguments {
        [] => build(toolchain()?, &guests, &target.join("guests"))?,
        [flag] if flag == "--tests" => {
            let mut built = build(toolchain()?, &guests, &target.join("guests"))?;
            built.extend(build(toolchain()?, &tests, &target.join("test-guests"))?);
            built
        }
        [flag] if flag == "--js" => js::build_all()?,
        [flag] if flag == "--langs" => langs::build_all()?,
        [flag] if flag == "--engine" => vec![build_engine()?],
        [flag] if flag == "--debian" => build(debian_toolchain()?, &guests, &target.join("guests-debian"))?,
        _ => bail!("usage: cargo xtask guests [--tests | --js | --langs | --engine | --debian]"),
    };
    for path in built {
        println!("{} {} bytes", path.display(), fs::metadata(&path)?.len());
    }
    Ok(())
}

/// Builds the product's guests; gives the folder of the components.
pub fn build_all() -> Result<PathBuf> {
    let folder = process::root().join("target/guests");
    build(toolchain()?, &process::root().join("guests"), &folder)?;
    Ok(folder)
}

/// Builds the engine for scripts of JavaScript; gives its component. Its C sources need clang for wasm32.
pub fn build_engine() -> Result<PathBuf> {
    packages::ensure(packages::C_TOOLS)?;
    let (workspace, folder) = (process::root().join("guests/quickjs"), process::root().join("target/guests"));
    let mut cargo = toolchain()?;
    cargo.env("CC_wasm32_unknown_unknown", "clang").env("AR_wasm32_unknown_unknown", "llvm-ar");
    // Texts of assertions name files of the machine.
    let flags = format!("-ffile-prefix-map={}=.", workspace.join("target/guests").display());
    cargo.env("CFLAGS_wasm32_unknown_unknown", flags);
    build(cargo, &workspace, &folder)?;
    Ok(folder.join("js.wasm"))
}

/// Builds the guests that only tests use, hostile ones among them.
pub fn build_test_guests() -> Result<PathBuf> {
    let folder = process::root().join("target/test-guests");
    build(toolchain()?, &process::root().join("tests/guests"), &folder)?;
    Ok(folder)
}

/// Builds every guest of a workspace to a component in `folder`; gives their paths.
fn build(mut cargo: Command, workspace: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    // A folder of the compiler's own for each of ours: two toolchains do not share what they made.
    let target = workspace.join("target").join(folder.file_name().context("a folder has a name")?);
    process::run(
        cargo
            .current_dir(workspace)
            .env(FLAGS_VARIABLE, without_paths())
            // Incremental code differs: the same source gives the same component on every machine.
            .env("CARGO_INCREMENTAL", "0")
            .args(["build", "--quiet", "--release", "--lib", "--target", TARGET, "--target-dir"])
            .arg(&target),
    )?;
    fs::create_dir_all(folder)?;
    let mut built = Vec::new();
    for entry in fs::read_dir(target.join(TARGET).join("release"))? {
        let module = entry?.path();
        if module.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let name = module.file_stem().context("a module has a name")?.to_string_lossy().replace('_', "-");
        let component = folder.join(format!("{name}.wasm"));
        if is_newer(&component, &module) {
            built.push(component);
            continue;
        }
        let bytes =
            componentize(&fs::read(&module)?).with_context(|| format!("{name} cannot become a component"))?;
        let staged = folder.join(format!(".{name}.new"));
        fs::write(&staged, bytes)?;
        fs::rename(&staged, &component)?;
        built.push(component);
    }
    built.sort();
    Ok(built)
}

/// Flags by which a panic's text names a file of the source from its root, wherever that and the registry lie.
fn without_paths() -> String {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or(home.join(".cargo"), PathBuf::from);
    [remap(&process::root(), "."), remap(&cargo, "cargo")].join("\u{1f}")
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    matches!((modified(file), modified(than)), (Ok(file), Ok(than)) if file > than)
}

/// Wraps a module that wit-bindgen made into a component.
fn componentize(module: &[u8]) -> Result<Vec<u8>> {
    wit_component::ComponentEncoder::default().validate(true).module(module)?.encode()
}

/// Variables by which the cargo that runs us would bind its children to its own toolchain.
const INHERITED: [&str; 8] = [
    "CARGO",
    "RUSTC",
    "RUSTDOC",
    "RUSTUP_TOOLCHAIN",
    "RUSTFLAGS",
    FLAGS_VARIABLE,
    "CARGO_TARGET_DIR",
    "RUSTC_WRAPPER",
];

fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in INHERITED {
        command.env_remove(variable);
    }
    command
}

/// A cargo that can build for wasm32.
fn toolchain() -> Result<Command> {
    if has_target(&rustc_sysroot("rustc")) {
        return Ok(clean("cargo"));
    }
    if added_by_rustup(TARGET) && has_target(&rustc_sysroot("rustc")) {
        return Ok(clean("cargo"));
    }
    debian_toolchain()
}

fn rustc_sysroot(rustc: &str) -> Option<PathBuf> {
    let output = clean(rustc).args(["--print", "sysroot"]).output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn has_target(sysroot: &Option<PathBuf>) -> bool {
    sysroot.as_ref().is_some_and(|sysroot| sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir())
}

/// Lets rustup fetch a target, but not for long: without a network it would try for minutes.
pub fn added_by_rustup(target: &str) -> bool {
    if process::find("rustup").is_none() {
        return false;
    }
    let child = clean("rustup")
        .args(["target", "add", target])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm"];

/// Debian's rustc for the web: it builds the standard library for the target from source.
fn debian_toolchain() -> Result<Command> {
    let rustc = Path::new("/usr/bin/rustc");
    let has_source = || {
        rustc_sysroot("/usr/bin/rustc")
            .is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library").is_dir())
    };
    if !rustc.exists() || !Path::new("/usr/bin/cargo").exists() || !has_source() {
        packages::install(&DEBIAN_PACKAGES).context(
            "the target wasm32-unknown-unknown is missing: with rustup and a network, \
             `rustup target add wasm32-unknown-unknown` brings it",
        )?;
    }
    let mut cargo = clean("/usr/bin/cargo");
    cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    // Debian's own rust-lld is a link that leads nowhere.
    if let Some(linker) = rust_lld() {
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    // As a variable, because the argument must stand behind `build`.
    cargo.env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort");
    Ok(cargo)
}

fn rust_lld() -> Option<PathBuf> {
    let rustlib = rustc_sysroot("rustc")?.join("lib/rustlib");
    fs::read_dir(rustlib)
        .ok()?
        .flatten()
        .map(|host| host.path().join("bin/rust-lld"))
        .find(|lld| lld.is_file())
}
