//! `tidegate validate`: is this configuration good, and where does each value come from?

use crate::admission::registry::postgres::tenant_rows;
use crate::app;
use crate::cli::{ConfigArgument, Exit};
use crate::config::Config;
use crate::config::budget_plan::BudgetPlan;
use crate::config::checks::files;
use crate::config::report;
use crate::core::detail::printable_lines;
use crate::telemetry::progress::Progress;

/// Check configuration, registry, decoders and their cases, without opening a socket
///
/// Prints all values in use, and the source of each. For each tenant with own settings it prints all its
/// values.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate validate --config tidegate.toml\n  tidegate validate --explain > reference.toml"
)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print every key with its meaning and default, and nothing else
    #[arg(long)]
    explain: bool,
    /// Also read the table of tenants in the PostgreSQL registry; this opens a connection
    #[arg(long)]
    registry: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The faults that are found beyond the configuration itself: registry, files, decoders, and then their cases.
///
/// # Errors
/// The sandbox cannot be set up, or a case file cannot be read.
pub(super) fn findings(config: &Config) -> anyhow::Result<Vec<String>> {
    let findings = app::check(config)?;
    if findings.is_empty() { crate::cli::test::failing_cases(config) } else { Ok(findings) }
}

pub fn validate(arguments: &Arguments) -> anyhow::Result<Exit> {
    if arguments.explain {
        print!("{}", report::reference_page());
        return Ok(Exit::Success);
    }
    let mut effective = arguments.config.load_newest()?;
    effective.notes.extend(files::readable_secrets(&effective.config));
    let mut findings = Vec::new();
    if arguments.registry {
        let server = crate::cli::registry::server(&effective.config)?;
        let table = crate::cli::registry::wait_for(async {
            tenant_rows::read(&server, &server.connect().await?).await
        })?;
        let (rows, faults) = crate::config::tenant_rows::merge_rows(
            &effective.config,
            &crate::config::tenant_rows::TenantRows::new(),
            &table,
        )?;
        findings.extend(faults.iter().map(ToString::to_string));
        crate::config::tenant_rows::lay_over(&mut effective, &rows);
    }
    effective.notes.extend(BudgetPlan::measure(&effective.config).notes);
    let progress = Progress::start("the decoders are compiled and checked");
    findings.extend(self::findings(&effective.config)?);
    drop(progress);
    if arguments.json {
        let value = serde_json::json!({
            "configuration": report::effective_json(&effective),
            "notes": effective.notes,
            "findings": findings,
        });
        println!("{value:#}");
    } else {
        print!("{}", printable_lines(&report::effective(&effective)));
        for note in &effective.notes {
            eprintln!("note: {}", printable_lines(note));
        }
        for finding in &findings {
            eprintln!("fault: {}", printable_lines(finding));
        }
    }
    Ok(if findings.is_empty() { Exit::Success } else { Exit::Failure })
}
