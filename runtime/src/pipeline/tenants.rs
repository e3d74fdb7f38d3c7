//! Tenants' own settings, from the configuration and the registry's table, and how a change of either
//! reaches the parts while they run.
//!
//! A change is applied as a whole or not at all. What the table said last is kept in the data folder:
//! a start while the registry's database is away must not write a tenant's lines where those of all
//! others go.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use toml::{Table, Value};

use super::settings;
use crate::config::rows::{self, Rows};
use crate::config::words::RegistryKind;
use crate::config::{Config, ConfigError, Current, Effective, tenants};
use crate::domain::ids::TenantId;
use crate::domain::tenant::table;
use crate::spool::Spool;
use crate::writer::{HttpSettings, WriterError, WriterHandle};

/// Where the rows of the table are kept.
const KEPT: &str = "tenants.json";

/// What holds, before there are parts to be told of it.
pub struct Plan {
    /// As loaded.
    file: Config,
    /// What the table said last, and what of it holds.
    table: Vec<(String, String)>,
    rows: Rows,
    kept: Option<PathBuf>,
    /// With the rows laid over.
    current: Current,
}

impl Plan {
    /// The settings of this configuration, with the rows that were kept, where its registry has a table.
    pub fn new(config: &Config) -> Self {
        let kept = Path::new(&config.data_dir).join(KEPT);
        let mut plan = Self {
            file: config.clone(),
            table: Vec::new(),
            rows: Rows::new(),
            kept: None,
            current: Current::new(config.clone()),
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
    pub fn current(&self) -> &Current {
        &self.current
    }

    /// Which rows of the table hold.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// What the table says now. True: that is new, and what of it is good holds. What is not is logged.
    pub fn take_up(&mut self, table: Vec<(String, String)>) -> bool {
        if table == self.table {
            return false;
        }
        match rows::take_up(&self.file, &self.rows, &table) {
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

fn with_rows(file: &Config, rows: &Rows) -> Config {
    Config { tenants: rows::merged(file, rows), ..file.clone() }
}

/// Secrets may be in it.
fn write(path: &Path, table: &[(String, String)]) -> std::io::Result<()> {
    let fresh = path.with_extension("json.new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&serde_json::to_vec(table)?)?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

/// A change that could not be applied.
#[derive(Debug, thiserror::Error)]
enum NotApplied {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Writer(#[from] WriterError),
}

/// Tenants' settings while the gateway runs.
pub struct Tenants {
    plan: Mutex<Plan>,
    table: Arc<table::Tenants>,
    spool: Spool,
    writer: WriterHandle,
}

impl Tenants {
    pub fn new(plan: Plan, table: Arc<table::Tenants>, spool: Spool, writer: WriterHandle) -> Arc<Self> {
        Arc::new(Self { plan: Mutex::new(plan), table, spool, writer })
    }

    /// The registry's table says this now.
    pub fn table_says(&self, table: Vec<(String, String)>) {
        let mut plan = self.plan.lock();
        let was_rows = plan.rows.clone();
        if !plan.take_up(table) {
            return;
        }
        match self.apply(&plan.current.get()) {
            Ok(()) => {
                tracing::info!(
                    rows = plan.rows.len(),
                    "settings of tenants were changed by the registry's table"
                );
                plan.keep();
            }
            Err(fault) => {
                tracing::error!(%fault, "the registry's settings of tenants could not be applied; what held goes on");
                plan.current.set(with_rows(&plan.file, &was_rows));
                // Tried again when the table has changed, or on SIGHUP.
                plan.rows = was_rows;
            }
        }
    }

    /// The configuration was read again: what has changed of `[tenants]` holds from now on.
    pub fn reload(&self, loaded: Result<Effective, ConfigError>) {
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(fault) => {
                tracing::error!(%fault, "the configuration is not good; what held goes on");
                return;
            }
        };
        let mut plan = self.plan.lock();
        let elsewhere = differences(&plan.file, &loaded.config);
        if !elsewhere.is_empty() {
            let keys = elsewhere.join(", ");
            tracing::warn!(keys, "changed in the configuration, and needs a restart");
        }
        let file = Config { tenants: loaded.config.tenants, ..plan.file.clone() };
        let taken = tenants::check(&file).and_then(|()| rows::take_up(&file, &plan.rows, &plan.table));
        let (rows, faults) = match taken {
            Ok(taken) => taken,
            Err(fault) => {
                tracing::error!(%fault, "the configuration of tenants is not good; what held goes on");
                return;
            }
        };
        let config = with_rows(&file, &rows);
        let before = plan.current.get();
        if let Err(fault) = self.apply(&config) {
            tracing::error!(%fault, "the configuration of tenants is not good; what held goes on");
            if let Err(fault) = self.apply(&before) {
                tracing::error!(%fault, "what held before could not be applied again");
            }
            return;
        }
        for fault in faults {
            tracing::error!(%fault, "a tenant's settings in the registry's table are not good; what held goes on");
        }
        tracing::info!(tenants = config.tenants.len(), "settings of tenants were read again");
        plan.current.set(config);
        (plan.file, plan.rows) = (file, rows);
    }

    /// Has the settings of this configuration hold. What can fail comes first.
    fn apply(&self, config: &Config) -> Result<(), NotApplied> {
        let outputs = settings::own_outputs(config)?;
        let changed = apply(config, &outputs, &self.table, &self.writer)?;
        self.spool.move_to_outputs(&changed);
        self.writer.follow_outputs(&changed);
        Ok(())
    }
}

/// Opens the outputs that tenants have of their own, and has the tenants' settings hold. Gives those whose
/// output has changed.
///
/// # Errors
/// An output cannot be opened; then nothing has changed.
pub fn apply(
    config: &Config,
    outputs: &HashMap<TenantId, HttpSettings>,
    table: &table::Tenants,
    writer: &WriterHandle,
) -> Result<Vec<TenantId>, WriterError> {
    let outputs = writer.open_outputs(outputs)?;
    Ok(table.apply(tenants::tenancy(config).with_outputs(&outputs)))
}

/// Keys outside of `[tenants]` that differ, by their paths.
fn differences(was: &Config, is: &Config) -> Vec<String> {
    fn walk(was: &Table, is: &Table, path: &str, found: &mut Vec<String>) {
        let keys: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match (was.get(key), is.get(key)) {
                (Some(Value::Table(was)), Some(Value::Table(is))) => walk(was, is, &path, found),
                (was, is) if was != is => found.push(path),
                _ => {}
            }
        }
    }
    let table = |config: &Config| {
        let mut table = Table::try_from(config).expect("a configuration is a table");
        table.remove("tenants");
        table
    };
    let mut found = Vec::new();
    walk(&table(was), &table(is), "", &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_outside_of_tenants_is_named_by_its_path() {
        let config = |text: &str| toml::from_str::<Config>(text).unwrap();
        let was = config("[output]\nbatch_lines = 5\n[tenants.a]\nburst = 1\n");
        let is = config("[output]\nbatch_lines = 6\n[admission.types.x]\ncredentials = \"broker\"\n");
        assert_eq!(differences(&was, &is), ["admission.types.x", "output.batch_lines"]);
        assert!(differences(&was, &was).is_empty());
    }
}
