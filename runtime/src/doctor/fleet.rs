//! The table of all gateways, and this one's row in it.

use crate::config::{Config, settings};
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
            Some(row) if gateway.runs && !row.alive => Finding::new(
                CHECK,
                Level::Warning,
                format!("The row {name:?} was last written {} s ago, although the gateway runs.", row.seen_s),
                "See its log for the fault.",
            ),
            Some(row) if row.clock_ahead_ms.abs() > FLEET_CLOCK_AHEAD_MAX_MS => Finding::new(
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
