//! Guests: opened for the gateway and for verbs, and the log of their changes.

use std::sync::Arc;

use crate::config::{ConfigError, CurrentConfig, settings};
use crate::core::disk_reserve::DiskReserve;
use crate::core::tenant::table::Tenants;
use crate::decode::sandbox::memory::SandboxMemory;
use crate::decode::{SandboxError, StateStore};
use crate::explain::cases::DryRunCases;
use crate::explain::guest_store::{open_store, refused};
use crate::rollout::{GuestStore, RolloutEvent};

/// The gateway's guests with their history and state, and the threads that evaluate new ones. Their bytes
/// on disk are charged to `tenants`.
///
/// # Errors
/// The folder cannot be read, or the host gives no sandbox.
pub fn open(
    current: &CurrentConfig,
    state: Arc<StateStore>,
    memory: &Arc<SandboxMemory>,
    tenants: &Arc<Tenants>,
    disk_reserve: &Arc<DiskReserve>,
) -> Result<Arc<GuestStore>, ConfigError> {
    let config = &*current.get();
    let (guests, events) = open_with(current, state, memory, Some(tenants.clone()), disk_reserve.clone())?;
    log_changes(&events);
    let guests = Arc::new(guests);
    guests.start_workers().map_err(|error| refused(config, SandboxError::Thread(error).into()))?;
    Ok(guests)
}

/// The same as `open`, without threads: for a verb while no gateway runs.
///
/// # Errors
/// The errors of `open`.
pub fn open_kept(current: &CurrentConfig) -> Result<(GuestStore, Vec<RolloutEvent>), ConfigError> {
    open_with(current, Arc::default(), &SandboxMemory::unlimited(), None, Arc::default())
}

fn open_with(
    current: &CurrentConfig,
    state: Arc<StateStore>,
    memory: &Arc<SandboxMemory>,
    tenants: Option<Arc<Tenants>>,
    disk_reserve: Arc<DiskReserve>,
) -> Result<(GuestStore, Vec<RolloutEvent>), ConfigError> {
    let config = &*current.get();
    let data = settings::guests_data(config);
    let mut persistence = settings::without_persistence(config);
    persistence.compiler.cache = Some(data.join("cache"));
    persistence.data = Some(data);
    persistence.read_only = false;
    persistence.disk_reserve = disk_reserve;
    persistence.tenants = tenants;
    persistence.cases = Some(Arc::new(DryRunCases(current.clone())));
    open_store(config, state, memory, persistence)
}

/// Logs changes of guests.
pub fn log_changes(changes: &[RolloutEvent]) {
    for change in changes {
        match change {
            RolloutEvent::Serves { tenant, message_type, guest, replaced: None } => {
                tracing::info!(tenant, message_type, guest, "a decoder serves");
            }
            RolloutEvent::Serves { tenant, message_type, guest, replaced: Some(replaced) } => {
                tracing::info!(tenant, message_type, guest, replaced, "a decoder was replaced");
            }
            RolloutEvent::Refused { tenant, message_type, why } => {
                tracing::warn!(tenant, message_type, why, "a decoder was refused; the one that serves stays");
            }
            RolloutEvent::RolledBack { tenant, message_type, guest, why } => {
                tracing::warn!(
                    tenant,
                    message_type,
                    guest,
                    why,
                    "a decoder was rolled back; the version before it serves again"
                );
            }
            RolloutEvent::Gone { tenant, message_type } => {
                tracing::info!(tenant, message_type, "a decoder was removed")
            }
        }
    }
}
