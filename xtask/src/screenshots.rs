//! `cargo xtask screenshots`: the pictures of the documentation, made of a gateway with the demo's fleet in headless
//! Chromium.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::{console, demo, packages, process};

/// The time for which the fleet sends before the pictures are made: their charts show something then.
const FLEET_RUNS: Duration = Duration::from_secs(180);

/// Makes the pictures in docs/pictures.
///
/// # Errors
/// The demo does not run, or the browser does not show its console.
pub fn make() -> Result<()> {
    packages::ensure(packages::BROWSER)?;
    console::build()?;
    let folder = process::root().join("docs/pictures");
    std::fs::create_dir_all(&folder)?;
    demo::with_fleet(FLEET_RUNS, |admin, token| {
        let mut node = Command::new("node");
        node.current_dir(console::workshop());
        node.args(["tests/screenshots.mjs", admin, token]).arg(&folder);
        process::run(&mut node)
    })
}
