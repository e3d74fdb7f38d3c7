//! Opens the guests folder as the configuration says: for the gateway, and for verbs without one.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ConfigError, settings};
use crate::decode::sandbox::memory::SandboxMemory;
use crate::decode::{DecodeHost, StateStore};
use crate::rollout::{GuestStore, Persistence, RolloutError, RolloutEvent};

/// The guests of the folder, decoding with `state` within `memory`.
///
/// # Errors
/// The folder cannot be read, or the host gives no sandbox.
pub(crate) fn open_store(
    config: &Config,
    state: Arc<StateStore>,
    memory: &Arc<SandboxMemory>,
    persistence: Persistence,
) -> Result<(GuestStore, Vec<RolloutEvent>), ConfigError> {
    let host = DecodeHost::with_memory(settings::decode(config), state, memory)
        .map_err(|error| refused(config, error.into()))?;
    GuestStore::open(Path::new(&config.guests.dir), persistence, Arc::new(host))
        .map_err(|error| refused(config, error))
}

pub(crate) fn refused(config: &Config, error: RolloutError) -> ConfigError {
    ConfigError::value("guests.dir", &config.guests.dir, format!("a guests folder: {error}"))
}
