//! `cargo xtask fuzz`: libFuzzer over the targets of tests/fuzz.

mod build;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::packages::Needed;
use crate::{packages, process};
use run::{Outcome, TargetRun};

pub use build::rustc;

/// The time for which each target is run by default.
const SECONDS: u64 = 60;

/// Targets that run at the same time.
const AT_ONCE: usize = 2;

/// The seed of a run by default: the same inputs are tried on each machine, as far as the time goes.
const SEED: u32 = 1;

/// The program that builds libFuzzer.
const COMPILER: &[Needed] = &[Needed { program: "c++", package: "g++" }];

/// A folder of one target: inputs that earlier runs found, those that crash, or logs.
fn folder(kind: &str, target: &str) -> PathBuf {
    process::root().join("target/fuzz").join(kind).join(target)
}

const USAGE: &str = "usage: cargo xtask fuzz [TARGET…] [--seconds N] [--seed N]";

/// `cargo xtask fuzz [TARGET…] [--seconds N] [--seed N]`.
///
/// # Errors
/// A target is not known, an input broke a promise, or libFuzzer cannot be built.
pub fn fuzz(arguments: &[String]) -> Result<()> {
    let (mut names, mut seconds, mut seed) = (Vec::new(), SECONDS, SEED);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => {
                let value = rest.next().context("--seconds needs a number")?;
                seconds = value.parse().with_context(|| format!("--seconds {value:?}: expected a number"))?;
                if seconds == 0 {
                    bail!("--seconds 0: expected a number from 1");
                }
            }
            "--seed" => {
                let value = rest.next().context("--seed needs a number")?;
                seed = value.parse().with_context(|| format!("--seed {value:?}: expected a number"))?;
            }
            flag if flag.starts_with('-') => bail!(USAGE),
            name => names.push(name.to_owned()),
        }
    }
    packages::ensure(COMPILER)?;
    search(&names, Duration::from_secs(seconds), seed)
}

/// Runs targets for so long each; none: all of them.
fn search(names: &[String], duration: Duration, seed: u32) -> Result<()> {
    let known = targets()?;
    for name in names {
        if !known.contains(name) {
            bail!("unknown target {name:?}; there are: {}", known.join(" "));
        }
    }
    let wanted = if names.is_empty() { known } else { names.to_vec() };
    let fuzzer = build::fuzzer()?;
    println!("{} targets, {} s each, {AT_ONCE} at once, seed {seed}", wanted.len(), duration.as_secs());
    let mut crashed = Vec::new();
    for pair in wanted.chunks(AT_ONCE) {
        let runs: Vec<TargetRun> =
            pair.iter().map(|name| TargetRun::start(&fuzzer, name, duration, seed)).collect::<Result<_>>()?;
        for run in runs {
            let Outcome { name, report, crash } = run.finish()?;
            println!("{name:<14} {report}");
            if let Some(input) = crash {
                let (input, fuzzer) = (input.display(), fuzzer.display());
                println!("    crash:  {input}");
                println!("    replay: TIDEGATE_FUZZ_TARGET={name} {fuzzer} {input}");
                println!("    keep:   install -D -m 644 -t tests/fuzz/regressions/{name} {input}");
                crashed.push(name);
            }
        }
    }
    if !crashed.is_empty() {
        bail!("inputs broke a promise of: {}", crashed.join(", "));
    }
    Ok(())
}

/// The names of the targets: each has a corpus.
fn targets() -> Result<Vec<String>> {
    let corpus = process::root().join("tests/fuzz/corpus");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&corpus).with_context(|| format!("cannot read {}", corpus.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
