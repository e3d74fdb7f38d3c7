//! Checks of `validate` that need more than the configuration: registry, files, outputs, guests.

use crate::config::checks::files;
use crate::config::settings::registry::registry;
use crate::config::{Config, settings};
use crate::explain::stopped_gateway;
use crate::rollout::RolloutEvent;

/// Checks for `validate` beyond the configuration: registry, guests. Opens no socket, changes nothing.
///
/// # Errors
/// The sandbox cannot be set up.
pub fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    if let Err(error) = registry(config) {
        findings.push(format!("{error:#}"));
    }
    findings.extend(files::faults(config).iter().map(ToString::to_string));
    if let Err(error) = settings::own_outputs(config) {
        findings.push(error.to_string());
    }
    match stopped_gateway::check(config) {
        Err(error) => findings.push(error.to_string()),
        Ok((_, changes)) => findings.extend(changes.iter().filter_map(|change| match change {
            RolloutEvent::Refused { tenant, message_type, why } => {
                Some(format!("guest {tenant}/{message_type}: {why}"))
            }
            RolloutEvent::Serves { .. } | RolloutEvent::Gone { .. } | RolloutEvent::RolledBack { .. } => None,
        })),
    }
    Ok(findings)
}
