//! `tidegate diff`: what a new decoder would change, message by message, before it serves.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use crate::cli::guest::comparison::lines_of_changes;
use crate::cli::{BadUsage, ConfigArgument, Exit};
use crate::config::{Config, settings};
use crate::core::detail::{printable, printable_lines};
use crate::explain::cases::judge_case;
use crate::explain::dry_run::DryRun;
use crate::explain::verdict::ExplainVerdict;
use crate::rollout::line_changes::LineChanges;
use crate::telemetry::progress::Progress;

/// Show what a new decoder would change, line by line
///
/// Decodes the messages of a cases file by both, and prints those that they decode differently. What the cases expect does not
/// matter. Exit 0: no difference. Exit 1: a difference.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate diff guests/acme/boiler.wasm boiler.wasm --cases boiler.cases.jsonl\n\n\
    The route's file beside a decoder (boiler.toml) holds for it. A decoder without one gets that of the other."
)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The decoder that serves (.wasm)
    old: PathBuf,
    /// The decoder that may take its place (.wasm)
    new: PathBuf,
    /// The messages, one case a line; `expect` may be left out
    #[arg(long, value_name = "FILE")]
    cases: PathBuf,
    /// Print one JSON object for each message that differs
    #[arg(long)]
    json: bool,
}

pub fn diff(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let (old, new, cases) = (&arguments.old, &arguments.new, &arguments.cases);
    let text = std::fs::read_to_string(cases)
        .map_err(|error| BadUsage(format!("cannot read {}: {error}", cases.display())))?;
    let (mut old, mut new) = (start(&config, old, new)?, start(&config, new, old)?);
    let topics = settings::topics(&config);
    let (mut messages, mut differing) = (0, 0);
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{}:{}", cases.display(), index + 1);
        let judge = |dry_run: &mut DryRun| {
            judge_case(dry_run, &topics, line).map_err(|error| BadUsage(format!("{place}: {error:#}")))
        };
        let (before, after) = (judge(&mut old)?, judge(&mut new)?);
        messages += 1;
        let (was, is) = (outcome(&before.verdict), outcome(&after.verdict));
        if was == is {
            continue;
        }
        differing += 1;
        if arguments.json {
            println!("{}", json!({"case": before.name, "place": place, "old": was, "new": is}));
        } else {
            println!("{} ({})", printable(&before.name), printable(&place));
            println!("{}", printable_lines(&changes(&was, &is)));
        }
    }
    if !arguments.json {
        println!("{differing} of {messages} messages decode differently");
    }
    Ok(if differing == 0 { Exit::Success } else { Exit::Failure })
}

/// A decoder for any message type. Without a route's file of its own it has that of `other`.
fn start(config: &Config, guest: &Path, other: &Path) -> anyhow::Result<DryRun> {
    let files = [guest, other].map(|guest| guest.with_extension("toml"));
    let route_file = files.into_iter().find(|file| file.exists());
    let _progress = Progress::start(format!("{} is compiled and started", guest.display()));
    DryRun::of_guest_for_any(config, guest, route_file.as_deref())
        .with_context(|| format!("{} cannot serve", guest.display()))
}

/// The lines, or the refusal in their place.
fn outcome(verdict: &ExplainVerdict) -> Vec<String> {
    match (verdict.reason, &verdict.detail) {
        (Some(reason), detail) => vec![format!("{reason}: {}", detail.as_deref().unwrap_or_default())],
        (None, _) => verdict.lines.clone(),
    }
}

/// The lines that are gone, after `-`, and those in their place, after `+`.
fn changes(was: &[String], is: &[String]) -> String {
    let LineChanges { removed, added } = LineChanges::between(was, is);
    lines_of_changes(&removed, &added)
}
