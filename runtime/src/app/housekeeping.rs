//! Work beside the stream: changed files, the statistics line, the watchdog, reading settings again.

use std::sync::Arc;
use std::time::Duration;

use crate::admission::registry::Registry;
use crate::app::guests;
use crate::app::tenant_settings::TenantUpdater;
use crate::app::wall_clock::WallClockWatch;
use crate::config::{ConfigError, EffectiveConfig};
use crate::limits::HISTORY_STEP_S;
use crate::telemetry::handles::Handles;

/// Reads the configuration again.
pub type LoadConfig = dyn Fn() -> Result<EffectiveConfig, ConfigError> + Send + Sync;

pub(crate) fn watchdog() -> tokio::time::Interval {
    // Twice within what the service manager allows (sd_watchdog_enabled(3)).
    let every = sd_notify::watchdog_enabled().map_or(Duration::from_secs(3_600), |limit| limit / 2);
    tokio::time::interval(every.max(Duration::from_millis(100)))
}

/// The interval of checks of the registry's file, the certificate and the guests folder.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Checks files for changes and logs the statistics line, until it is aborted.
pub(crate) async fn housekeeping(handles: Arc<Handles>, stats_interval_s: u64) {
    let mut files = tokio::time::interval(CHECK_INTERVAL);
    files.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stats = tokio::time::interval(Duration::from_secs(stats_interval_s.max(1)));
    stats.tick().await;
    let mut is_disk_low = false;
    let mut clocks = tokio::time::interval(Duration::from_secs(1));
    let mut samples = tokio::time::interval(Duration::from_secs(HISTORY_STEP_S));
    samples.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut wall_clock = WallClockWatch::new(&handles.age_clock);
    loop {
        tokio::select! {
            _ = files.tick() => {
                check_files(&handles).await;
                is_disk_low = log_disk(&handles, is_disk_low);
            }
            _ = samples.tick() => sample(&handles).await,
            _ = clocks.tick() => wall_clock.check(&handles.age_clock).await,
            _ = stats.tick(), if stats_interval_s > 0 => handles.statistics().log(),
        }
    }
}

/// Adds a sample to the history. Off the threads of the stream: the parts are asked under their locks.
async fn sample(handles: &Arc<Handles>) {
    let handles = handles.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || handles.sample()).await {
        tracing::error!(%error, "a sample of the history failed");
    }
}

/// Logs if the disk has come below its reserve, or is above it again; gives if it is below.
fn log_disk(handles: &Handles, was_low: bool) -> bool {
    match handles.disk_reserve.check() {
        Err(low) if !was_low => tracing::error!("{low}"),
        Ok(()) if was_low => tracing::info!("the disk has more room than spool.reserve_bytes again"),
        _ => {}
    }
    handles.disk_reserve.is_low()
}

pub(crate) async fn reload(tenants: &Arc<TenantUpdater>, load: &Arc<LoadConfig>) {
    let (tenants, load) = (tenants.clone(), load.clone());
    if let Err(error) = tokio::task::spawn_blocking(move || tenants.reload(load())).await {
        tracing::error!(%error, "reading the configuration again failed");
    }
}

pub(crate) async fn check_files(handles: &Arc<Handles>) {
    let handles = handles.clone();
    // Reading blocks, and the threads of the stream must not.
    let checked = tokio::task::spawn_blocking(move || {
        handles.disk_reserve.refresh();
        handles.refresh_certificates();
        if let Registry::File(file) = handles.admission.registry() {
            let fault = match file.reload_if_changed() {
                Ok(true) => {
                    tracing::info!(devices = file.count(), "the registry was read again");
                    None
                }
                Ok(false) => return handles.guests.refresh(),
                Err(error) => {
                    tracing::error!(%error, "the registry stays as it was");
                    Some(error.to_string())
                }
            };
            *handles.registry_fault.lock() = fault;
            handles.admission.follow_registry();
        }
        handles.guests.refresh()
    })
    .await;
    match checked {
        Ok(Ok(changes)) => guests::log_changes(&changes),
        Ok(Err(error)) => {
            tracing::error!(%error, "the guests folder cannot be read; the decoders that serve stay")
        }
        Err(error) => tracing::error!(%error, "looking for changes failed"),
    }
}
