//! The Debian packages that tests and guests need: installed if this process may, otherwise named.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process;

/// A program and the Debian package that brings it.
pub struct Needed {
    pub program: &'static str,
    pub package: &'static str,
}

/// The servers that the integration tests start on loopback ports of their own.
pub const TEST_SERVERS: &[Needed] = &[
    Needed { program: "mosquitto", package: "mosquitto" },
    Needed { program: "mosquitto_pub", package: "mosquitto-clients" },
    Needed { program: "influxd", package: "influxdb" },
    Needed { program: "victoria-metrics", package: "victoria-metrics" },
    Needed { program: "postgres", package: "postgresql" },
    Needed { program: "prometheus", package: "prometheus" },
    Needed { program: "haproxy", package: "haproxy" },
    Needed { program: "git", package: "git" },
    Needed { program: "systemd-analyze", package: "systemd" },
];

/// The browser that tests the console.
pub const BROWSER: &[Needed] = &[Needed { program: "chromium", package: "chromium" }];

/// The programs that make components of JavaScript, and the console.
pub const JS_TOOLS: &[Needed] =
    &[Needed { program: "node", package: "nodejs" }, Needed { program: "npm", package: "npm" }];

/// The programs of toolchains of decoders in other languages; what else they need is fetched from registries.
pub const LANGUAGE_TOOLS: &[Needed] = &[
    Needed { program: "clang", package: "clang" },
    Needed { program: "wasm-ld", package: "lld" },
    Needed { program: "make", package: "make" },
];

/// Files without a program: a place where `*` stands for one folder, and the Debian package that brings it.
pub const LANGUAGE_FILES: &[(&str, &str)] = &[
    ("/usr/bin/python3", "python3"),
    ("/usr/lib/python3/dist-packages/pip", "python3-pip"),
    ("/usr/lib/python3*/ensurepip", "python3-venv"),
    ("/usr/lib/wasm32-wasi/libc.a", "wasi-libc"),
    ("/usr/lib/llvm-*/lib/clang/*/lib/wasi/libclang_rt.builtins-wasm32.a", "libclang-rt-dev-wasm32"),
];

/// The compiler for C to wasm32, of the JavaScript engine.
pub const C_TOOLS: &[Needed] =
    &[Needed { program: "clang", package: "clang" }, Needed { program: "llvm-ar", package: "llvm" }];

/// The servers that the bench runs beside the gateway.
pub const BENCH_SERVERS: &[Needed] = &[
    Needed { program: "mosquitto", package: "mosquitto" },
    Needed { program: "postgres", package: "postgresql" },
];

/// Makes sure that every program is there.
///
/// # Errors
/// Says the one command that installs what is missing, when this process may not do it.
pub fn ensure(needed: &[Needed]) -> Result<()> {
    let missing = |list: &[Needed]| -> Vec<&'static str> {
        list.iter().filter(|need| process::find(need.program).is_none()).map(|need| need.package).collect()
    };
    let packages = missing(needed);
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages)?;
    let still = missing(needed);
    if !still.is_empty() {
        bail!("installed, but still missing: {}", still.join(" "));
    }
    Ok(())
}

/// Makes sure that every file is there.
///
/// # Errors
/// Says the one command that installs what is missing, when this process may not do it.
pub fn ensure_files(needed: &[(&str, &'static str)]) -> Result<()> {
    let missing: Vec<&str> =
        needed.iter().filter(|(pattern, _)| !is_there(pattern)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// True if a file fits a pattern, in which `*` ends or is the name of a folder.
fn is_there(pattern: &str) -> bool {
    let mut found = vec![std::path::PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let Some(begin) = part.strip_suffix('*') else {
            found.iter_mut().for_each(|folder| folder.push(part));
            continue;
        };
        let entries = found.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let fits = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(begin);
        found = entries.filter(fits).map(|entry| entry.path()).collect();
    }
    found.iter().any(|path| path.exists())
}

/// Installs Debian packages without asking.
///
/// # Errors
/// Says the one command to run by hand when that is not possible here.
pub fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let by_hand = format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {list}");
    if process::find("apt-get").is_none() {
        bail!("missing: {list}. Install them with your system's package manager; on Debian: {by_hand}");
    }
    eprintln!("installing {list}");
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // A server that the package starts by itself would hold the usual port.
            .env("RUNLEVEL", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"];
    arguments.extend_from_slice(packages);
    if apt(&arguments) || (apt(&["update"]) && apt(&arguments)) {
        return Ok(());
    }
    bail!("missing: {list}. Install them with: {by_hand}")
}
