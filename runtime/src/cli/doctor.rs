//! `tidegate doctor`: is what the gateway depends on in order?

use std::path::PathBuf;

use serde_json::json;

use crate::cli::{ConfigArgument, Exit, validate};
use crate::config::remote::origin::ConfigOrigin;
use crate::core::detail::printable;
use crate::doctor;
use crate::doctor::configuration;
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
    let file = arguments.config.file()?;
    let mut findings = doctor::examine(&config, file.as_deref(), arguments.mosquitto.as_deref())?;
    if let ConfigOrigin::Remote(origin) = arguments.config.origin()? {
        let newest = arguments.config.load_newest().map_err(anyhow::Error::from);
        let faults = newest.and_then(|newest| validate::findings(&newest.config));
        findings.insert(0, configuration::judge(&origin, faults));
    }
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
