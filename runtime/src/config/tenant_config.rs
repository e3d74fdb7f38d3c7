use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::effective::CurrentConfig;
use crate::config::sections::Config;
use crate::config::tenant_rows;
use crate::config::tenant_rows::TenantRows;
use crate::config::words::RegistryKind;

/// Where the rows of the table are kept.
pub(crate) const KEPT: &str = "tenants.json";

/// What holds, before there are parts to be told of it.
pub struct TenantConfig {
    /// As loaded.
    pub(crate) file: Config,
    /// What the table said last, and what of it holds.
    pub(crate) table: Vec<(String, String)>,
    pub(crate) rows: TenantRows,
    kept: Option<PathBuf>,
    /// With the rows laid over.
    pub(crate) current: CurrentConfig,
}

impl TenantConfig {
    /// The settings of this configuration, with the rows that were kept, where its registry has a table.
    pub fn new(config: &Config) -> Self {
        let kept = Path::new(&config.data_dir).join(KEPT);
        let mut plan = Self {
            file: config.clone(),
            table: Vec::new(),
            rows: TenantRows::new(),
            kept: None,
            current: CurrentConfig::new(config.clone()),
        };
        if config.registry.kind.is(RegistryKind::Postgres) {
            match fs::read(&kept) {
                Ok(text) => match serde_json::from_slice(&text) {
                    Ok(table) => _ = plan.take_up(table),
                    Err(error) => {
                        tracing::error!(%error, file = %kept.display(), "kept settings of tenants cannot be read")
                    }
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(%error, file = %kept.display(), "kept settings of tenants cannot be read")
                }
            }
            plan.kept = Some(kept);
        }
        plan
    }

    /// The configuration with everything laid over it.
    pub fn current(&self) -> &CurrentConfig {
        &self.current
    }

    /// Which rows of the table hold.
    pub fn rows(&self) -> &TenantRows {
        &self.rows
    }

    /// What the table says now. True: that is new, and what of it is good holds. What is not is logged.
    pub fn take_up(&mut self, table: Vec<(String, String)>) -> bool {
        if table == self.table {
            return false;
        }
        match tenant_rows::merge_rows(&self.file, &self.rows, &table) {
            Ok((rows, faults)) => {
                for fault in faults {
                    tracing::error!(%fault, "a tenant's settings in the registry's table are not good; what held goes on");
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
    pub fn keep(&self) {
        let Some(kept) = &self.kept else { return };
        if let Err(error) = write(kept, &self.table) {
            tracing::error!(%error, file = %kept.display(), "settings of tenants could not be kept for the next start");
        }
    }
}

pub(crate) fn with_rows(file: &Config, rows: &TenantRows) -> Config {
    Config { tenants: tenant_rows::merged(file, rows), ..file.clone() }
}

/// Secrets may be in it.
pub(crate) fn write(path: &Path, table: &[(String, String)]) -> std::io::Result<()> {
    let fresh = path.with_extension("json.new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&serde_json::to_vec(table)?)?;
    file.sync_all()?;
    fs::rename(fresh, path)
}
