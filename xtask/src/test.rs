//! `cargo xtask test`: all tests, with real servers.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::{guests, js, packages, process, supply};

/// Installs what is missing, builds the guests, runs every test. `filter` narrows it to the tests
/// whose names contain it.
pub fn test(filter: &[String]) -> Result<()> {
    process::step(1, 4, "installing the servers that are missing");
    packages::ensure(packages::TEST_SERVERS)?;
    process::step(2, 4, "building the decoders, those in JavaScript too");
    guests::build_all()?;
    guests::build_test_guests()?;
    js::build_all()?;
    process::step(
        3,
        4,
        "building and running the tests of the host (the first time: some 12 minutes on two cores)",
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
    js::test()
}

/// `cargo xtask torture --for 10m`: kills, failing disks and failing databases, for that long.
///
/// # Errors
/// Something that was acknowledged is lost, or the books do not balance.
pub fn torture(arguments: &[String]) -> Result<()> {
    let length = match arguments {
        [] => Duration::from_secs(60),
        [flag, value] if flag == "--for" => process::parse_duration(value)?,
        _ => bail!("usage: cargo xtask torture [--for 10m]"),
    };
    packages::ensure(packages::TEST_SERVERS)?;
    guests::build_all()?;
    let mut test = process::cargo();
    test.args(["test", "--package", "tidegate", "--test", "integration", "torture::", "--", "--nocapture"]);
    process::run(test.env("RIG_TORTURE_S", length.as_secs().to_string()))
}

/// `cargo xtask ci`: formatting, lints, dependencies, and the tests; a skipped test fails.
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
    test(&[])
}
