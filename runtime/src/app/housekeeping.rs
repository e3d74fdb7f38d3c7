use std::sync::Arc;
use std::time::Duration;

use crate::admission::registry::Registry;
use crate::app::guests;
use crate::app::tenant_settings::TenantUpdater;
use crate::config::{ConfigError, EffectiveConfig};
use crate::telemetry::gauges::Handles;

/// Reads the configuration again.
pub type LoadConfig = dyn Fn() -> Result<EffectiveConfig, ConfigError> + Send + Sync;

pub(crate) fn watchdog() -> tokio::time::Interval {
    // Twice within what the service manager allows (sd_watchdog_enabled(3)).
    let every = sd_notify::watchdog_enabled().map_or(Duration::from_secs(3_600), |limit| limit / 2);
    tokio::time::interval(every.max(Duration::from_millis(100)))
}

/// How often the registry's file and the guests folder are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Follows what changes beside us, and logs the statistics line.
pub(crate) async fn follow(parts: Arc<Handles>, stats_interval_s: u64) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stats = tokio::time::interval(Duration::from_secs(stats_interval_s.max(1)));
    stats.tick().await;
    loop {
        tokio::select! {
            _ = look.tick() => check_files(&parts).await,
            _ = stats.tick(), if stats_interval_s > 0 => parts.statistics().log(),
        }
    }
}

pub(crate) async fn reload(tenants: &Arc<TenantUpdater>, load: &Arc<LoadConfig>) {
    let (tenants, load) = (tenants.clone(), load.clone());
    if let Err(error) = tokio::task::spawn_blocking(move || tenants.reload(load())).await {
        tracing::error!(%error, "reading the configuration again failed");
    }
}

pub(crate) async fn check_files(parts: &Arc<Handles>) {
    let parts = parts.clone();
    // Reading and compiling are no work for a task that others wait behind.
    let looked = tokio::task::spawn_blocking(move || {
        if let Some(door) = &parts.door {
            door.refresh_certificate();
        }
        if let Registry::File(file) = parts.admission.registry() {
            let fault = match file.reload_if_changed() {
                Ok(true) => {
                    tracing::info!(devices = file.count(), "the registry was read again");
                    None
                }
                Ok(false) => return parts.guests.refresh(),
                Err(error) => {
                    tracing::error!(%error, "the registry stays as it was");
                    Some(error.to_string())
                }
            };
            *parts.registry_fault.lock() = fault;
            parts.admission.follow_registry();
        }
        parts.guests.refresh()
    })
    .await;
    match looked {
        Ok(Ok(changes)) => guests::log_changes(&changes),
        Ok(Err(error)) => tracing::error!(%error, "the guests folder cannot be read; what served goes on"),
        Err(error) => tracing::error!(%error, "looking for changes failed"),
    }
}
