//! `cargo xtask bench`: the figures of docs/PERFORMANCE.md.

use anyhow::Result;

use crate::{guests, js, packages, process};

/// Builds what is measured in release, and runs the bench; `arguments` go to it.
pub fn bench(arguments: &[String]) -> Result<()> {
    packages::ensure(packages::BENCH_SERVERS)?;
    guests::build_all()?;
    guests::build_test_guests()?;
    js::build_all()?;
    let mut build = process::cargo();
    process::run(build.args(["build", "--release", "--quiet", "-p", "tidegate", "-p", "tidegate-bench"]))?;
    let target = process::root().join("target");
    let mut bench = std::process::Command::new(target.join("release/tidegate-bench"));
    process::run(bench.args(arguments).env("BENCH_TARGET", target))
}
