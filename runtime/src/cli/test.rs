//! `tidegate test`: the cases beside guests, in the same sandbox and limits as production.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::{BadUsage, ConfigArgument, Exit};
use crate::codecs::script_files;
use crate::config::{Config, settings};
use crate::core::detail::{printable, printable_lines};
use crate::core::reason::Reason;
use crate::explain::bless::blessed;
use crate::explain::cases::judge_case;
use crate::explain::dry_run::DryRun;
use crate::rollout::builtin;
use crate::telemetry::progress::Progress;

/// Run the cases beside decoders (`*.cases.jsonl`)
///
/// Exit 0: all passed. Exit 1: a case failed; the output shows the difference line by line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate test guests\n  tidegate test guests/acme/telemetry.wasm\n\n\
    A case is one line of JSON in telemetry.cases.jsonl, beside telemetry.wasm:\n  \
    {\"name\": \"one metric\", \"topic\": \"tenant/acme/device/dev-1/telemetry\", \"payload\": \"…\",\n   \
    \"received_at\": \"2026-01-01T00:00:00Z\", \"site\": \"lab-1\", \"expect\": {\"lines\": [\"…\"]}}\n  \
    or \"expect\": {\"refusal\": \"CODE\"}\n\n\
    Cases of a decoder that comes with the program lie beside its route file, meter.toml. With --decoder they need none:\n  \
    tidegate test --decoder json samples.cases.jsonl\n\n\
    --bless writes \"expect\" for cases that have none, and anew for those that fail.")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Decoders (.wasm, or .toml of a built-in decoder), case files, or folders with them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Run the cases with this decoder, which comes with the program, without options
    #[arg(long, value_name = "NAME")]
    decoder: Option<String>,
    /// Print one JSON object for each case
    #[arg(long)]
    json: bool,
    /// Write what came out into the case files as what is expected. Read it before you commit it
    #[arg(long)]
    bless: bool,
}

const CASES_SUFFIX: &str = ".cases.jsonl";

pub fn test(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let mut files = Vec::new();
    for path in &arguments.paths {
        collect(path, &mut files)?;
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(BadUsage("no case file (*.cases.jsonl) found".into()).into());
    }
    let (mut passed, mut failed, mut blessed) = (0, 0, 0);
    for file in &files {
        for ran in run_file(&config, file, arguments.decoder.as_deref(), arguments.bless)? {
            match (&ran.difference, ran.is_blessed) {
                (_, true) => blessed += 1,
                (None, false) => passed += 1,
                (Some(_), false) => failed += 1,
            }
            report(arguments.json, &ran);
        }
    }
    match arguments.bless {
        _ if arguments.json => {}
        true => println!("{passed} passed, {blessed} blessed: read the case files before you commit them"),
        false => println!("{passed} passed, {failed} failed"),
    }
    Ok(if failed == 0 { Exit::Success } else { Exit::Failure })
}

/// The failing cases of the guests folder, for `validate`.
///
/// # Errors
/// A case file cannot be read, or a line of it is no case.
pub fn failing_cases(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    collect(Path::new(&config.guests.dir), &mut files)?;
    files.sort();
    let mut failing = Vec::new();
    for file in &files {
        let failed = run_file(config, file, None, false)?.into_iter().filter_map(|ran| {
            ran.difference.map(|difference| format!("case {:?} at {}:\n{difference}", ran.name, ran.place))
        });
        failing.extend(failed);
    }
    Ok(failing)
}

/// A case that was run.
struct CaseResult {
    name: String,
    place: String,
    /// None: as expected.
    difference: Option<String>,
    /// The file now expects what came out.
    is_blessed: bool,
}

/// Runs the cases of a file, with a built-in decoder or that which the file lies beside. With `bless` it writes the
/// file anew if a case has no expectation or another one.
fn run_file(
    config: &Config,
    file: &Path,
    built_in: Option<&str>,
    bless: bool,
) -> anyhow::Result<Vec<CaseResult>> {
    let topics = settings::topics(config);
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let guest = guest_of(file);
    let progress = Progress::start(format!("{} is compiled and started", guest.display()));
    let mut dry_run = match built_in {
        Some(name) => DryRun::of_built_in(config, name),
        None => DryRun::of_guest(config, &guest),
    }?;
    drop(progress);
    let (mut results, mut new_text) = (Vec::new(), String::with_capacity(text.len()));
    for (index, line) in text.lines().enumerate() {
        let mut line = Cow::Borrowed(line);
        if !line.trim().is_empty() {
            let place = format!("{}:{}", file.display(), index + 1);
            let bad = |error: anyhow::Error| BadUsage(format!("{place}: {error:#}"));
            let case = judge_case(&mut dry_run, &topics, &line).map_err(bad)?;
            let difference = case.difference();
            let is_blessed = bless && !matches!(difference, Ok(None));
            if is_blessed && case.verdict.reason == Some(Reason::NoGuest) {
                let detail = case.verdict.detail.as_deref().unwrap_or("no decoder took it");
                return Err(bad(anyhow::anyhow!(
                    "there is nothing to bless, because the decoder did not see the message: {detail}"
                ))
                .into());
            }
            if is_blessed {
                line = blessed(&line, &case.verdict).map_err(bad)?.into();
            }
            let difference = if is_blessed { None } else { difference.map_err(bad)? };
            results.push(CaseResult { name: case.name, place, difference, is_blessed });
        }
        new_text.push_str(&line);
        new_text.push('\n');
    }
    if results.iter().any(|result| result.is_blessed) {
        replace(file, &new_text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(results)
}

/// Replaces a file whole, with the permissions that it has.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(std::fs::metadata(file)?.permissions())?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let name = path.to_string_lossy();
    let name = name.trim_end_matches('/');
    let beside = PathBuf::from(format!("{name}{CASES_SUFFIX}"));
    if script_files::is_script(path) && beside.is_file() {
        files.push(beside);
        return Ok(());
    }
    if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?;
            let path = entry.path();
            // A link to a folder may lead back, and without end.
            if entry.file_type()?.is_dir() || path.to_string_lossy().ends_with(CASES_SUFFIX) {
                collect(&path, files)?;
            }
        }
        return Ok(());
    }
    let stem = extensions().find_map(|extension| name.strip_suffix(extension)?.strip_suffix('.'));
    let cases = match stem {
        Some(stem) => PathBuf::from(format!("{stem}{CASES_SUFFIX}")),
        None => path.to_owned(),
    };
    if !cases.is_file() {
        return Err(BadUsage(format!("{}: no such file", cases.display())).into());
    }
    files.push(cases);
    Ok(())
}

/// Extensions of the files that make a route, the first wins.
fn extensions() -> impl Iterator<Item = &'static str> {
    ["wasm", "toml"].into_iter().chain(builtin::sources().map(|source| source.extension))
}

/// The decoder that a case file lies beside.
fn guest_of(cases: &Path) -> PathBuf {
    let name = cases.to_string_lossy();
    let stem = name.strip_suffix(CASES_SUFFIX).unwrap_or(&name);
    let mut files = extensions().map(|extension| PathBuf::from(format!("{stem}.{extension}")));
    let folder = Some(PathBuf::from(stem)).filter(|folder| script_files::is_script(folder));
    files.find(|file| file.exists()).or(folder).unwrap_or_else(|| PathBuf::from(format!("{stem}.wasm")))
}

fn report(json: bool, ran: &CaseResult) {
    let CaseResult { name, place, difference, is_blessed } = ran;
    if json {
        println!(
            "{}",
            serde_json::json!({"case": name, "place": place, "passed": difference.is_none(), "difference": difference,
                "blessed": is_blessed})
        );
    } else if let Some(difference) = difference {
        println!("FAILED {} ({})\n{}", printable(name), printable(place), printable_lines(difference));
    } else if *is_blessed {
        println!("BLESSED {} ({})", printable(name), printable(place));
    } else {
        println!("ok     {}", printable(name));
    }
}
