//! The table of all gateways, and this one's row in it.

use std::path::Path;

use crate::config::{Config, settings};
use crate::core::detail::printable;
use crate::data_dir;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::running_gateway::RunningGateway;
use crate::fleet::store;
use crate::limits::FLEET_CLOCK_AHEAD_MAX_MS;

const CHECK: &str = "fleet";

/// Reads the table. Nothing where no fleet is configured.
///
/// # Errors
/// The password's file cannot be read.
pub async fn check(config: &Config, gateway: &RunningGateway) -> anyhow::Result<Vec<Finding>> {
    let Some(server) = settings::fleet(config)? else { return Ok(Vec::new()) };
    let name = &config.fleet.name;
    let folder = data_dir::folder_id_if_run(Path::new(&config.data_dir))?;
    let finding = match store::list(&server).await {
        Err(error) => Finding::new(
            CHECK,
            Level::Warning,
            format!("The table of gateways cannot be read: {error}."),
            "The gateway does its work without it; `tidegate fleet init` creates it.",
        ),
        Ok(rows) => match rows.iter().find(|row| row.name == *name) {
            None if gateway.runs => Finding::new(
                CHECK,
                Level::Warning,
                format!("The table of gateways has no row {name:?}, although the gateway runs."),
                "See its log; the user of fleet.postgres needs SELECT, INSERT and UPDATE.",
            ),
            // A row that is fresh is not taken by a gateway with another data folder.
            Some(row) if row.alive && folder.as_ref() != Some(&row.folder) => Finding::new(
                CHECK,
                Level::Warning,
                format!(
                    "fleet.name = {name:?} is in use by the gateway at {}, which was seen {} s ago; this one does not report.",
                    printable(row.report["admin"].as_str().unwrap_or("an unknown address")),
                    row.seen_s
                ),
                "Each gateway needs a fleet.name of its own.",
            ),
            Some(row) if row.unreadable.is_some() => Finding::new(
                CHECK,
                Level::Warning,
                format!("The row {name:?}: {}.", printable(row.unreadable.as_deref().unwrap_or_default())),
                "Something else has written it: a restart of the gateway writes it anew.",
            ),
            Some(row) if gateway.runs && !row.alive => Finding::new(
                CHECK,
                Level::Warning,
                format!("The row {name:?} was last written {} s ago, although the gateway runs.", row.seen_s),
                "See its log for the fault.",
            ),
            Some(row) if row.clock_ahead_ms.unsigned_abs() > FLEET_CLOCK_AHEAD_MAX_MS => Finding::new(
                CHECK,
                Level::Warning,
                format!("The clock is {} ms ahead of the clock of the fleet's database.", row.clock_ahead_ms),
                "Readings without a time get this one's: keep the clocks of all gateways together (NTP).",
            ),
            _ => Finding::ok(CHECK, format!("The table has {} gateways, and can be read.", rows.len())),
        },
    };
    Ok(vec![finding])
}
