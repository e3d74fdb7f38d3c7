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
    Needed { program: "systemd-analyze", package: "systemd" },
];

/// The programs that make components of JavaScript.
pub const JS_TOOLS: &[Needed] =
    &[Needed { program: "node", package: "nodejs" }, Needed { program: "npm", package: "npm" }];

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
