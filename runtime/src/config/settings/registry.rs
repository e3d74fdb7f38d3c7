//! The registry of the configuration.

use std::path::Path;
use std::sync::Arc;

use crate::admission::registry::{FileRegistry, Registry};
use crate::config::error::ConfigError;
use crate::config::sections::Config;
use crate::config::settings;
use crate::config::words::RegistryKind;

/// The registry that the configuration names. Opens no socket.
///
/// # Errors
/// A file of it is invalid.
pub fn registry(config: &Config) -> Result<Registry, ConfigError> {
    match config.registry.kind.get() {
        RegistryKind::Open => return Ok(Registry::Open(config.registry.open_tenants.clone())),
        RegistryKind::Postgres => return Ok(Registry::Postgres(Arc::new(settings::postgres(config)?))),
        RegistryKind::File => {}
    }
    let file = &config.registry.file;
    FileRegistry::open(Path::new(file)).map(Registry::File).map_err(|error| {
        ConfigError::value("registry.file", file, format!("a registry file that can be read: {error}"))
    })
}
