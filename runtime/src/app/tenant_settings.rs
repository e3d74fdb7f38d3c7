//! Tenants' own settings, from the configuration and the registry's table, and how a change of either
//! reaches the parts while they run.
//!
//! A change is applied as a whole or not at all. The last rows of the table are kept in the data folder:
//! a start while the registry's database is away must not write a tenant's lines where those of all
//! others go.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::admission::Admission;
use crate::admission::registry::Registry;
use crate::config::differences::differences;
use crate::config::live_keys::with_live_keys;
use crate::config::tenant_config::{TenantConfig, with_rows};
use crate::config::{Config, ConfigError, EffectiveConfig, settings, tenant_rows, tenants};
use crate::core::ids::TenantId;
use crate::core::tenant::table;
use crate::rollout::GuestStore;
use crate::spool::Spool;
use crate::writer::{HttpSettings, Writer, WriterError};

/// A change that could not be applied.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Writer(#[from] WriterError),
}

/// Tenants' settings while the gateway runs.
pub struct TenantUpdater {
    tenant_config: Mutex<TenantConfig>,
    table: Arc<table::Tenants>,
    spool: Spool,
    writer: Writer,
    admission: Arc<Admission>,
    guests: Arc<GuestStore>,
}

impl TenantUpdater {
    pub fn new(
        tenant_config: TenantConfig,
        table: Arc<table::Tenants>,
        spool: Spool,
        writer: Writer,
        admission: Arc<Admission>,
        guests: Arc<GuestStore>,
    ) -> Arc<Self> {
        let tenant_config = Mutex::new(tenant_config);
        Arc::new(Self { tenant_config, table, spool, writer, admission, guests })
    }

    /// Applies the registry's table of tenants each time that it is read.
    pub fn observe(self: &Arc<Self>, registry: &Registry) {
        if let Registry::Postgres(registry) = registry {
            let tenants = self.clone();
            registry.tenant_rows.set(move |table| tenants.apply_registry_rows(table));
        }
    }

    /// Applies the rows of the registry's table.
    pub fn apply_registry_rows(&self, table: Vec<(String, String)>) {
        let mut tenant_config = self.tenant_config.lock();
        let was_rows = tenant_config.rows.clone();
        if !tenant_config.update(table) {
            return;
        }
        match self.apply(&tenant_config.current.get()) {
            Ok(()) => {
                tracing::info!(
                    rows = tenant_config.rows.len(),
                    "settings of tenants were changed by the registry's table"
                );
                tenant_config.persist();
            }
            Err(fault) => {
                tracing::error!(%fault, "the settings of tenants in the registry's table could not be applied; the old ones stay");
                tenant_config.current.set(with_rows(&tenant_config.file, &was_rows));
                // Tried again when the table has changed, or on SIGHUP.
                tenant_config.rows = was_rows;
            }
        }
    }

    /// Applies the live keys of a configuration that was read again; other changes need a restart.
    pub fn reload(&self, loaded: Result<EffectiveConfig, ConfigError>) {
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(fault) => {
                tracing::error!(%fault, "the configuration is invalid; the old one stays");
                return;
            }
        };
        let mut tenant_config = self.tenant_config.lock();
        let file = with_live_keys(&tenant_config.file, &loaded.config);
        let elsewhere = differences(&file, &loaded.config);
        if !elsewhere.is_empty() {
            let keys = elsewhere.join(", ");
            tracing::warn!(keys, "these keys have changed in the configuration; they need a restart");
        }
        let taken = tenants::check(&file)
            .and_then(|()| tenant_rows::merge_rows(&file, &tenant_config.rows, &tenant_config.table));
        let (rows, faults) = match taken {
            Ok(taken) => taken,
            Err(fault) => {
                tracing::error!(%fault, "the configuration of tenants is invalid; the old one stays");
                return;
            }
        };
        let config = with_rows(&file, &rows);
        let before = tenant_config.current.get();
        if let Err(fault) = self.apply(&config) {
            tracing::error!(%fault, "the configuration of tenants is invalid; the old one stays");
            if let Err(fault) = self.apply(&before) {
                tracing::error!(%fault, "the old configuration of tenants could not be applied again");
            }
            return;
        }
        for fault in faults {
            tracing::error!(%fault, "a tenant's settings in the registry's table are invalid; the old ones stay");
        }
        self.admission.set_credentials_of_types(settings::admission(&config).credentials_of_type);
        self.guests.apply_settings(settings::decode(&config), settings::tenant_limits(&config));
        let types = config.admission.types.len();
        tracing::info!(types, "message types and limits of decoders were read again");
        tracing::info!(tenants = config.tenants.len(), "settings of tenants were read again");
        tenant_config.current.set(config);
        (tenant_config.file, tenant_config.rows) = (file, rows);
    }

    /// Applies the settings of this configuration. Steps that can fail come first.
    fn apply(&self, config: &Config) -> Result<(), ApplyError> {
        let outputs = settings::own_outputs(config)?;
        let changed = apply(config, &outputs, &self.table, &self.writer)?;
        self.spool.move_to_outputs(&changed);
        self.writer.move_to_outputs(&changed);
        Ok(())
    }
}

/// Opens tenants' own outputs and applies tenants' settings. Gives the tenants whose output has changed.
///
/// # Errors
/// An output cannot be opened; then nothing has changed.
pub fn apply(
    config: &Config,
    outputs: &HashMap<TenantId, HttpSettings>,
    table: &table::Tenants,
    writer: &Writer,
) -> Result<Vec<TenantId>, WriterError> {
    let outputs = writer.open_outputs(outputs)?;
    Ok(table.apply(tenants::tenancy(config).with_outputs(&outputs)))
}

#[cfg(test)]
mod tests {

    use crate::config::Config;
    use crate::config::differences::differences;

    #[test]
    fn what_differs_outside_of_tenants_is_named_by_its_path() {
        let config = |text: &str| toml::from_str::<Config>(text).unwrap();
        let was = config("[output]\nbatch_lines = 5\n[tenants.a]\nburst = 1\n");
        let is = config("[output]\nbatch_lines = 6\n[admission.types.x]\ncredentials = \"broker\"\n");
        assert_eq!(differences(&was, &is), ["admission.types.x", "output.batch_lines"]);
        assert!(differences(&was, &was).is_empty());
    }
}
