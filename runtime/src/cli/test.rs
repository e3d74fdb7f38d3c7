//! `tidegate test`: the cases beside guests, in the same sandbox and limits as production.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use super::explain::{payload, received_ns};
use super::{BadUsage, ConfigArgument, Done};
use crate::config::Config;
use crate::domain::topic::TopicTemplate;
use crate::dry_run::{DryRun, Question, RegistryRow, Verdict};

/// Run the cases that lie beside guests (`*.cases.jsonl`)
///
/// Exit 0: all passed. Exit 1: a case failed; the difference is shown line by line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate test guests\n  tidegate test guests/acme/telemetry.wasm\n\n\
    A case is a line of JSON beside the guest, in telemetry.cases.jsonl:\n  \
    {\"name\": \"one metric\", \"topic\": \"tenant/acme/device/dev-1/telemetry\", \"payload\": \"…\",\n   \
    \"received_at\": \"2026-01-01T00:00:00Z\", \"site\": \"lab-1\", \"expect\": {\"lines\": [\"…\"]}}\n  \
    or \"expect\": {\"refusal\": \"CODE\"}")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Guests, case files, or folders of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print a JSON object a case
    #[arg(long)]
    json: bool,
}

/// One line of a case file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    topic: String,
    payload: Option<String>,
    payload_base64: Option<String>,
    received_at: String,
    site: Option<String>,
    expect: Expectation,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Expectation {
    Lines(Vec<String>),
    /// The guest's own code, or one of the gateway's.
    Refusal(String),
}

const CASES_SUFFIX: &str = ".cases.jsonl";

pub fn test(arguments: &Arguments) -> anyhow::Result<Done> {
    let config = arguments.config.load()?.config;
    let mut files = Vec::new();
    for path in &arguments.paths {
        collect(path, &mut files)?;
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(BadUsage("no case file (*.cases.jsonl) lies there".into()).into());
    }
    let (mut passed, mut failed) = (0, 0);
    for file in &files {
        for ran in run_file(&config, file)? {
            match &ran.difference {
                None => passed += 1,
                Some(_) => failed += 1,
            }
            report(arguments.json, &ran);
        }
    }
    if !arguments.json {
        println!("{passed} passed, {failed} failed");
    }
    Ok(if failed == 0 { Done::Good } else { Done::NotGood })
}

/// What `validate` says of the cases in the guests folder: those that fail.
///
/// # Errors
/// A case file cannot be read, or a line of it is no case.
pub fn failing_cases(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    collect(Path::new(&config.guests.dir), &mut files)?;
    files.sort();
    let mut failing = Vec::new();
    for file in &files {
        let failed = run_file(config, file)?.into_iter().filter_map(|ran| {
            ran.difference.map(|difference| format!("case {:?} at {}:\n{difference}", ran.name, ran.place))
        });
        failing.extend(failed);
    }
    Ok(failing)
}

/// A case that was run.
struct Ran {
    name: String,
    place: String,
    /// None: as expected.
    difference: Option<String>,
}

fn run_file(config: &Config, file: &Path) -> anyhow::Result<Vec<Ran>> {
    let template = TopicTemplate::parse(&config.mqtt.topic).expect("checked with the configuration");
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut dry_run = DryRun::of_guest(config, &guest_of(file))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let place = format!("{}:{}", file.display(), index + 1);
            let (name, difference) = run_case(&mut dry_run, &template, line)
                .map_err(|error| BadUsage(format!("{place}: {error:#}")))?;
            Ok(Ran { name, place, difference })
        })
        .collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            let path = entry?.path();
            if path.is_dir() || path.to_string_lossy().ends_with(CASES_SUFFIX) {
                collect(&path, files)?;
            }
        }
        return Ok(());
    }
    let name = path.to_string_lossy();
    let cases = match name.strip_suffix(".wasm") {
        Some(stem) => PathBuf::from(format!("{stem}{CASES_SUFFIX}")),
        None => path.to_owned(),
    };
    if !cases.is_file() {
        return Err(BadUsage(format!("{}: there is no such file", cases.display())).into());
    }
    files.push(cases);
    Ok(())
}

/// The component that a case file lies beside.
fn guest_of(cases: &Path) -> PathBuf {
    let name = cases.to_string_lossy();
    PathBuf::from(format!("{}.wasm", name.strip_suffix(CASES_SUFFIX).unwrap_or(&name)))
}

fn run_case(
    dry_run: &mut DryRun,
    template: &TopicTemplate,
    line: &str,
) -> anyhow::Result<(String, Option<String>)> {
    let case: Case = serde_json::from_str(line)?;
    let place = template
        .matches(&case.topic)
        .with_context(|| format!("topic = {:?} is not of the form {}", case.topic, template.as_str()))?;
    let row = RegistryRow {
        tenant_id: case.topic[place.tenant.clone()].to_owned(),
        device_id: case.topic[place.device.clone()].to_owned(),
        site_id: case.site.unwrap_or_default(),
        status: "ACTIVE".into(),
        provision_token_hash: None,
    };
    let question = Question {
        topic: case.topic,
        payload: payload(case.payload, case.payload_base64)?.into(),
        received_ns: received_ns(&case.received_at)?,
        registry_row: Some(Some(row)),
    };
    let verdict = dry_run.judge(question);
    Ok((case.name, difference(&case.expect, &verdict)))
}

fn difference(expected: &Expectation, verdict: &Verdict) -> Option<String> {
    let got = || match (&verdict.reason, &verdict.detail) {
        (Some(reason), detail) => format!("  got      {reason}: {}", detail.as_deref().unwrap_or_default()),
        (None, _) => {
            verdict.lines.iter().map(|line| format!("  got      {line}")).collect::<Vec<_>>().join("\n")
        }
    };
    match expected {
        Expectation::Refusal(code) => {
            let own = verdict.detail.as_deref().is_some_and(|detail| {
                detail
                    .strip_prefix(code.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ']))
            });
            let ours = verdict.reason.is_some_and(|reason| reason.code() == code);
            (!(own || ours)).then(|| format!("  expected a refusal with {code}\n{}", got()))
        }
        Expectation::Lines(lines) if verdict.reason.is_none() && *lines == verdict.lines => None,
        Expectation::Lines(lines) if verdict.reason.is_some() => {
            Some(format!("  expected {} lines\n{}", lines.len(), got()))
        }
        Expectation::Lines(lines) => {
            let mut text = Vec::new();
            for index in 0..lines.len().max(verdict.lines.len()) {
                let (expected, got) = (lines.get(index), verdict.lines.get(index));
                if expected == got {
                    continue;
                }
                text.push(format!("  line {}", index + 1));
                text.push(format!("  expected {}", expected.map_or("(no line)", String::as_str)));
                text.push(format!("  got      {}", got.map_or("(no line)", String::as_str)));
            }
            Some(text.join("\n"))
        }
    }
}

fn report(json: bool, ran: &Ran) {
    let Ran { name, place, difference } = ran;
    if json {
        println!(
            "{}",
            serde_json::json!({"case": name, "place": place, "passed": difference.is_none(), "difference": difference})
        );
    } else if let Some(difference) = difference {
        println!("FAILED {name} ({place})\n{difference}");
    } else {
        println!("ok     {name}");
    }
}
