//! Guests: opened for the gateway and for verbs, and what is said of their changes.

use std::path::Path;
use std::sync::Arc;

use super::settings;
use crate::cases::CaseRunner;
use crate::config::{Config, ConfigError};
use crate::decode::{Change, GuestError, GuestStore, Keeping};

/// The gateway's guests, with what it keeps of them, and the thread that judges new ones.
///
/// # Errors
/// The folder cannot be read, or the host gives no sandbox.
pub fn open(config: &Config) -> Result<Arc<GuestStore>, ConfigError> {
    let (guests, changes) = open_kept(config)?;
    log_changes(&changes);
    let guests = Arc::new(guests);
    guests.start_loader().map_err(|error| refused(config, error.into()))?;
    Ok(guests)
}

/// As `open`, without the thread: for a verb while no gateway runs.
///
/// # Errors
/// As `open`.
pub fn open_kept(config: &Config) -> Result<(GuestStore, Vec<Change>), ConfigError> {
    let data = settings::guests_data(config);
    let mut settings = settings::decode(config);
    settings.compiler.cache = Some(data.join("cache"));
    let cases = Arc::new(CaseRunner(config.clone()));
    let keeping = Keeping { data, read_only: false, cases: Some(cases) };
    GuestStore::open_with(Path::new(&config.guests.dir), settings, Some(keeping))
        .map_err(|error| refused(config, error))
}

/// The guests that a gateway would serve: what is refused or rolled back is not what lies in the
/// folder. Changes nothing.
///
/// # Errors
/// As `open`.
pub fn as_the_gateway_would(config: &Config) -> Result<GuestStore, ConfigError> {
    let keeping = Keeping { data: settings::guests_data(config), read_only: true, cases: None };
    GuestStore::open_with(Path::new(&config.guests.dir), settings::decode(config), Some(keeping))
        .map(|(guests, _)| guests)
        .map_err(|error| refused(config, error))
}

/// What lies in the folder, and whether it may serve. Changes nothing.
///
/// # Errors
/// As `open`.
pub fn check(config: &Config) -> Result<(GuestStore, Vec<Change>), ConfigError> {
    GuestStore::open(Path::new(&config.guests.dir), settings::decode(config))
        .map_err(|error| refused(config, error))
}

fn refused(config: &Config, error: GuestError) -> ConfigError {
    ConfigError::value("guests.dir", &config.guests.dir, format!("a folder of guests ({error})"))
}

/// Says what has changed to the operator.
pub fn log_changes(changes: &[Change]) {
    for change in changes {
        match change {
            Change::Serves { tenant, message_type, guest, replaced: None } => {
                tracing::info!(tenant, message_type, guest, "a guest serves");
            }
            Change::Serves { tenant, message_type, guest, replaced: Some(replaced) } => {
                tracing::info!(tenant, message_type, guest, replaced, "a guest was replaced");
            }
            Change::Refused { tenant, message_type, why } => {
                tracing::warn!(tenant, message_type, why, "a guest may not serve; what served goes on");
            }
            Change::RolledBack { tenant, message_type, guest, why } => {
                tracing::warn!(tenant, message_type, guest, why, "the version before serves again");
            }
            Change::Gone { tenant, message_type } => tracing::info!(tenant, message_type, "a guest is gone"),
        }
    }
}
