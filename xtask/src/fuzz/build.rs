//! The build of the fuzzer: the project's own crates with counters for libFuzzer, everything else as in any
//! debug build.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// Set where this program is run by cargo, in place of rustc for the project's own crates.
const AS_RUSTC: &str = "XTASK_AS_RUSTC";

/// Arguments of rustc for code that libFuzzer looks into. Coverage comes from LLVM's own pass, which the
/// stable compiler has; the rest is how the code is optimised, with all checks left in.
const INSTRUMENTED: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Copt-level=2",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "--cfg=fuzzing",
];

/// Builds the fuzzer, and gives its path.
pub fn fuzzer() -> Result<PathBuf> {
    let mut build = process::cargo();
    build.args(["test", "--no-run", "--package", "tidegate-fuzz", "--features", "libfuzzer"]);
    build.args(["--test", "libfuzzer", "--message-format=json-render-diagnostics"]);
    build.env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe()?).env(AS_RUSTC, "1");
    // Counters and incremental compilation do not go together.
    build.env("CARGO_INCREMENTAL", "0");
    let built = build.stderr(std::process::Stdio::inherit()).output().context("cannot start cargo")?;
    if !built.status.success() {
        bail!("the fuzzer cannot be built");
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let is_fuzzer = |message: &serde_json::Value| message["target"]["name"] == "libfuzzer";
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(is_fuzzer)
        .and_then(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no fuzzer")
}

/// Runs rustc with counters, if this program was started for that: its arguments are then rustc and its
/// arguments.
pub fn rustc(arguments: &[String]) -> Option<Result<()>> {
    std::env::var_os(AS_RUSTC)?;
    let (rustc, rest) = arguments.split_first()?;
    let mut command = Command::new(rustc);
    command.args(rest);
    // Cargo asks for the version, and for what the compiler knows, without a crate.
    let is_crate = rest.iter().any(|argument| argument.ends_with(".rs"));
    let runs_in_compiler = rest.windows(2).any(|pair| {
        pair[0] == "--crate-type" && pair[1] == "proc-macro"
            || pair[0] == "--crate-name" && pair[1].starts_with("build_script_")
    });
    if is_crate && !runs_in_compiler {
        command.args(INSTRUMENTED);
    }
    Some(match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => Err(error).with_context(|| format!("cannot start {rustc}")),
    })
}
