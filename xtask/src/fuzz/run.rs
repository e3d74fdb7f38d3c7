//! One target under libFuzzer.

use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::folder;
use crate::process;

/// Bytes of memory that a target may take, in MiB: the fuzzer and its corpus are some 100.
const MEMORY_MIB_MAX: u32 = 1024;

/// Seconds that one input may take. Cost is held to a bound by the targets that promise one.
const INPUT_S_MAX: u32 = 20;

/// A target that is being run.
pub struct TargetRun {
    name: String,
    fuzzer: std::process::Child,
    log: PathBuf,
    crashes: PathBuf,
    corpus: PathBuf,
    inputs_before: usize,
}

/// The end of a run.
pub struct Outcome {
    pub name: String,
    /// Runs, coverage and new inputs.
    pub report: String,
    /// The input that broke a promise.
    pub crash: Option<PathBuf>,
}

impl TargetRun {
    pub fn start(fuzzer: &Path, name: &str, duration: Duration, seed: u32) -> Result<Self> {
        let kept = process::root().join("tests/fuzz");
        let (corpus, crashes) = (folder("corpus", name), folder("crashes", name));
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&crashes)?;
        let log = folder("logs", name).with_extension("log");
        fs::create_dir_all(log.parent().expect("a folder"))?;
        let mut command = Command::new(fuzzer);
        command.env("TIDEGATE_FUZZ_TARGET", name);
        command.arg(format!("-max_total_time={}", duration.as_secs()));
        command.arg(format!("-seed={seed}"));
        command.arg(format!("-artifact_prefix={}/", crashes.display()));
        command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
        command.arg(format!("-timeout={INPUT_S_MAX}"));
        command.args(["-print_final_stats=1", "-use_value_profile=1"]);
        let words = kept.join("dictionaries").join(name);
        if words.exists() {
            command.arg(format!("-dict={}", words.display()));
        }
        // New inputs go to the first folder.
        command.arg(&corpus).arg(kept.join("corpus").join(name));
        let regressions = kept.join("regressions").join(name);
        if regressions.exists() {
            command.arg(regressions);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let inputs_before = count(&corpus)?;
        let fuzzer = command.spawn().with_context(|| format!("cannot start {}", fuzzer.display()))?;
        Ok(Self { name: name.to_owned(), fuzzer, log, crashes, corpus, inputs_before })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The fuzzer ended with an error and without an input that crashes.
    pub fn finish(mut self) -> Result<Outcome> {
        let status = self.fuzzer.wait()?;
        let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        let crash = log
            .lines()
            .find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| PathBuf::from(path)));
        if !status.success() && crash.is_none() {
            bail!("{} ended with {status} and without an input; see {}", self.name, self.log.display());
        }
        let runs = field(&log, "stat::number_of_executed_units:").unwrap_or("?");
        let memory = field(&log, "stat::peak_rss_mb:").unwrap_or("?");
        let features = last_value(&log, "ft:").unwrap_or("?");
        let new = count(&self.corpus)?.saturating_sub(self.inputs_before);
        let report = format!("{runs} runs, {features} features, {new} new inputs, {memory} MiB");
        let crash = if status.success() { None } else { crash.or(Some(self.crashes)) };
        Ok(Outcome { name: self.name, report, crash })
    }
}

fn count(folder: &Path) -> Result<usize> {
    Ok(fs::read_dir(folder)?.count())
}

fn field<'a>(log: &'a str, name: &str) -> Option<&'a str> {
    log.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The last value behind `name` in the fuzzer's lines of progress.
fn last_value<'a>(log: &'a str, name: &str) -> Option<&'a str> {
    let line = log.lines().rev().find(|line| line.starts_with('#') && line.contains(name))?;
    line.split(name).nth(1)?.split_whitespace().next()
}
