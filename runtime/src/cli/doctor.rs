//! `tidegate doctor`: is what the gateway depends on in order?

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::{ConfigArgument, Exit};
use crate::config::DEFAULT_FILE;
use crate::core::detail::printable;
use crate::doctor;
use crate::doctor::finding::{Finding, Level};

/// Check what the gateway depends on: clock, disk, broker, databases, certificates, limits, permissions
///
/// Changes nothing. The gateway may run. If it does not, the check connects to the broker with the gateway's
/// client_id for a moment; another client with the same id then loses its session and takes it back.
/// Exit 1: there is a warning or an error.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate doctor\n  tidegate doctor --mosquitto /etc/mosquitto/conf.d/tidegate.conf --json"
)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// A configuration file of Mosquitto to check too: the broker does not tell its settings
    #[arg(long, value_name = "FILE")]
    mosquitto: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn doctor(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let default = Path::new(DEFAULT_FILE);
    let file = arguments.config.file().or_else(|| default.exists().then_some(default));
    let findings = doctor::examine(&config, file, arguments.mosquitto.as_deref())?;
    if arguments.json {
        println!("{:#}", json!({"good": is_good(&findings), "findings": findings}));
    } else {
        findings.iter().for_each(show);
    }
    Ok(if is_good(&findings) { Exit::Success } else { Exit::Failure })
}

fn is_good(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level < Level::Warning)
}

fn show(finding: &Finding) {
    println!("{:<9}{:<16}{}", finding.level.name(), finding.check, printable(&finding.state));
    if !finding.advice.is_empty() {
        println!("{:<25}{}", "", printable(&finding.advice));
    }
}
