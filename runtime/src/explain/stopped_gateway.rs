//! Guests and their state, read from the files of a gateway that may be stopped. Changes nothing.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ConfigError, settings};
use crate::core::decoder_state::StateSnapshot;
use crate::decode::sandbox::memory::SandboxMemory;
use crate::explain::guest_store::open_store;
use crate::rollout::{GuestStore, RolloutEvent};
use crate::spool::{Spool, SpoolError};

/// The guests that a gateway would serve: not always those of the folder, as a version may have been
/// refused or rolled back. Changes nothing.
///
/// # Errors
/// The errors of `open`.
pub fn open_read_only(config: &Config) -> Result<GuestStore, ConfigError> {
    let mut persistence = settings::without_persistence(config);
    persistence.data = Some(settings::guests_data(config));
    open_store(config, Arc::default(), &SandboxMemory::unlimited(), persistence).map(|(guests, _)| guests)
}

/// The guests of the folder, each checked as if it were new. Changes nothing.
///
/// # Errors
/// The errors of `open`.
pub fn check(config: &Config) -> Result<(GuestStore, Vec<RolloutEvent>), ConfigError> {
    open_store(config, Arc::default(), &SandboxMemory::unlimited(), settings::without_persistence(config))
}

/// Attempts to read a spool: its gateway may be running, and delete segments meanwhile.
const TRIES: u32 = 5;

/// The state of decoders, from the files of the spool; its gateway may be running.
///
/// # Errors
/// They cannot be read.
pub fn state_on_disk(config: &Config) -> Result<StateSnapshot, SpoolError> {
    let dir = Path::new(&config.data_dir).join("spool");
    if !dir.exists() {
        return Ok(StateSnapshot::default());
    }
    let mut read = Spool::read_state(&dir);
    for _ in 1..TRIES {
        if read.is_ok() {
            break;
        }
        read = Spool::read_state(&dir);
    }
    read
}
