//! `tidegate validate`: is this configuration good, and where does each value come from?

use super::{ConfigArgument, Done};
use crate::config::report;
use crate::pipeline;

/// Check configuration, registry, guests and their cases without opening a socket
///
/// Prints the effective configuration with where each value came from.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate validate --config tidegate.toml\n  tidegate validate --explain > reference.toml"
)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print every key with its default and its meaning instead
    #[arg(long)]
    explain: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn validate(arguments: &Arguments) -> anyhow::Result<Done> {
    if arguments.explain {
        print!("{}", report::reference_page());
        return Ok(Done::Good);
    }
    let effective = arguments.config.load()?;
    let mut findings = pipeline::check_parts(&effective.config)?;
    if findings.is_empty() {
        findings.extend(super::test::failing_cases(&effective.config)?);
    }
    if arguments.json {
        let value = serde_json::json!({
            "configuration": report::effective_json(&effective),
            "notes": effective.notes,
            "findings": findings,
        });
        println!("{value:#}");
    } else {
        print!("{}", report::effective(&effective));
        for note in &effective.notes {
            eprintln!("note: {note}");
        }
        for finding in &findings {
            eprintln!("not good: {finding}");
        }
    }
    Ok(if findings.is_empty() { Done::Good } else { Done::NotGood })
}
