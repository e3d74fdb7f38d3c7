//! `cargo xtask test`: all tests, with real servers.

use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use crate::{console, fuzz, guests, js, langs, packages, process, supply};

/// Installs what is missing, builds the guests, runs every test. `filter` narrows it to the tests
/// whose names contain it.
pub fn test(filter: &[String]) -> Result<()> {
    process::step(1, 4, "installing the servers that are missing");
    packages::ensure(packages::TEST_SERVERS)?;
    packages::ensure(packages::BROWSER)?;
    process::step(
        2,
        4,
        "building the console and the decoders, those in JavaScript too, and fetching the toolchains of others",
    );
    guests::build_all()?;
    guests::build_test_guests()?;
    js::build_all()?;
    console::build()?;
    langs::install()?;
    process::step(
        3,
        4,
        "building and running the tests of the host (the first time: some 10 minutes on two cores)",
    );

    let mut host = process::cargo();
    host.args(["test", "--workspace", "--exclude", "xtask"]);
    // Each test starts servers of its own: more at once than cores makes none of them faster.
    host.args(["--"]).args(filter);
    process::run(&mut host)?;

    process::step(4, 4, "running the tests of the decoders");
    let mut guest_tests: Command = process::cargo();
    guest_tests.current_dir(process::root().join("guests")).args(["test", "--workspace"]);
    guest_tests.args(["--"]).args(filter);
    process::run(&mut guest_tests)?;
    let mut engine_tests: Command = process::cargo();
    engine_tests.current_dir(process::root().join("guests/quickjs")).arg("test").args(["--"]).args(filter);
    process::run(&mut engine_tests)?;
    js::test()
}

const TORTURE_USAGE: &str = "usage: cargo xtask torture [--for 10m] [--seed N] [--nice]";

/// `cargo xtask torture --for 10m`: everything that can happen to a gateway, for that long. `--seed` repeats
/// the plan of a run, and `--nice` keeps every core busy beside it.
///
/// # Errors
/// Something that was acknowledged is lost, or the books do not balance.
pub fn torture(arguments: &[String]) -> Result<()> {
    let (mut length, mut seed, mut is_nice) = (Duration::from_secs(60), None, false);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        match (flag.as_str(), rest.as_slice().first()) {
            ("--nice", _) => is_nice = true,
            ("--for", Some(value)) => length = process::parse_duration(value)?,
            ("--seed", Some(value)) => seed = Some(value.parse().context("--seed: expected a number")?),
            _ => bail!(TORTURE_USAGE),
        }
        if flag != "--nice" {
            rest.next();
        }
    }
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed: u64 = seed.unwrap_or_else(now);
    packages::ensure(packages::TEST_SERVERS)?;
    guests::build_all()?;
    guests::build_test_guests()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut burners = Vec::new();
    for _ in 0..if is_nice { cores } else { 0 } {
        burners.push(Command::new("nice").args(["-n", "19", "sh", "-c", "while :; do :; done"]).spawn()?);
    }
    let mut test = process::cargo();
    test.args(["test", "--package", "tidegate", "--test", "integration", "torture::", "--", "--nocapture"]);
    test.env("RIG_TORTURE_S", length.as_secs().to_string()).env("RIG_TORTURE_SEED", seed.to_string());
    let result = process::run(&mut test);
    for mut burner in burners {
        let _ = burner.kill();
        let _ = burner.wait();
    }
    result
}

/// `cargo xtask ci`: formatting, lints, dependencies, the tests, and a minute of each fuzz target; a
/// skipped test fails.
pub fn ci() -> Result<()> {
    let mut format = process::cargo();
    process::run(format.args(["fmt", "--all", "--check"]))?;
    let mut lint = process::cargo();
    process::run(lint.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    supply::check()?;
    let mut own = process::cargo();
    process::run(own.args(["test", "--package", "xtask"]))?;
    // Tests that cannot run here fail instead of printing that they were skipped.
    // SAFETY: this program has one thread at this point.
    unsafe { std::env::set_var("NO_SKIPPED_TESTS", "1") };
    if std::env::args().any(|argument| argument == "--skip") {
        bail!("ci skips no test");
    }
    test(&[])?;
    fuzz::fuzz(&[])
}
