//! The configuration with the rows of the registry's table laid over it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::effective::CurrentConfig;
use crate::config::sections::Config;
use crate::config::tenant_rows;
use crate::config::tenant_rows::TenantRows;
use crate::config::words::RegistryKind;
use crate::core::atomic_file::{self, STAGING};

/// The file in the data folder that keeps the rows of the table.
pub(crate) const ROWS_FILE: &str = "tenants.json";

/// The configuration with the registry's rows of tenants; the last rows are kept for the next start.
pub struct TenantConfig {
    /// The configuration as it was loaded.
    pub(crate) file: Config,
    /// The table's last rows. Those of them that are in force are `rows`.
    pub(crate) table: Vec<(String, String)>,
    pub(crate) rows: TenantRows,
    rows_file: Option<PathBuf>,
    /// With the rows laid over.
    pub(crate) current: CurrentConfig,
}

impl TenantConfig {
    /// The settings of this configuration, with the rows that were kept, where its registry has a table.
    pub fn new(config: &Config) -> Self {
        let rows_file = Path::new(&config.data_dir).join(ROWS_FILE);
        let mut tenant_config = Self {
            file: config.clone(),
            table: Vec::new(),
            rows: TenantRows::new(),
            rows_file: None,
            current: CurrentConfig::new(config.clone()),
        };
        if config.registry.kind.is(RegistryKind::Postgres) {
            match fs::read(&rows_file) {
                Ok(text) => match serde_json::from_slice(&text) {
                    Ok(table) => _ = tenant_config.update(table),
                    Err(error) => {
                        tracing::error!(%error, file = %rows_file.display(), "kept settings of tenants cannot be read")
                    }
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(%error, file = %rows_file.display(), "kept settings of tenants cannot be read")
                }
            }
            tenant_config.rows_file = Some(rows_file);
        }
        tenant_config
    }

    /// The configuration with everything laid over it.
    pub fn current(&self) -> &CurrentConfig {
        &self.current
    }

    /// The rows of the table that are in force.
    pub fn rows(&self) -> &TenantRows {
        &self.rows
    }

    /// Applies the rows that the table has now. True if they are new and fit the file. Rows with a fault
    /// are logged and have no effect.
    pub fn update(&mut self, table: Vec<(String, String)>) -> bool {
        if table == self.table {
            return false;
        }
        match tenant_rows::merge_rows(&self.file, &self.rows, &table) {
            Ok((rows, faults)) => {
                for fault in faults {
                    tracing::error!(%fault, "a tenant's settings in the registry's table are invalid; the old ones stay");
                }
                self.rows = rows;
            }
            Err(fault) => {
                tracing::error!(%fault, "the registry's table of tenants does not go together with the file");
                return false;
            }
        }
        self.table = table;
        self.current.set(with_rows(&self.file, &self.rows));
        true
    }

    /// Keeps what the table says for the next start.
    pub fn persist(&self) {
        let Some(rows_file) = &self.rows_file else { return };
        if let Err(error) = write(rows_file, &self.table) {
            tracing::error!(%error, file = %rows_file.display(), "settings of tenants could not be kept for the next start");
        }
    }
}

pub(crate) fn with_rows(file: &Config, rows: &TenantRows) -> Config {
    Config { tenants: tenant_rows::merged(file, rows), ..file.clone() }
}

/// Replaces the file, readable for its owner alone: secrets may be in it.
pub(crate) fn write(path: &Path, table: &[(String, String)]) -> std::io::Result<()> {
    let staging = path.with_file_name(STAGING);
    atomic_file::replace(&staging, path, &serde_json::to_vec(table)?)
}
