//! Look-ups in a PostgreSQL registry for a verb; changes nothing there.

use std::sync::Arc;

use crate::admission::registry::RegistryRow;
use crate::admission::registry::postgres::connection::PgError;
use crate::admission::registry::postgres::devices::DeviceQueries;
use crate::admission::registry::postgres::tenant_rows::TenantRow;
use crate::admission::registry::postgres::{PostgresRegistry, app_settings, tenant_rows};

/// Asks the registry from a thread without a runtime.
pub(crate) struct RegistryLookup {
    registry: Arc<PostgresRegistry>,
    runtime: tokio::runtime::Runtime,
    queries: Option<DeviceQueries>,
}

impl RegistryLookup {
    pub(crate) fn new(registry: Arc<PostgresRegistry>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { registry, runtime, queries: None })
    }

    pub(crate) fn settings(&self) -> Result<(app_settings::AppSettings, Vec<TenantRow>), PgError> {
        self.runtime.block_on(async {
            let client = self.registry.server.connect().await?;
            let settings = app_settings::read(&self.registry.server, &client).await?;
            Ok((settings, tenant_rows::read(&self.registry.server, &client).await?))
        })
    }

    pub(crate) fn look_up(&mut self, tenant: &str, device: &str) -> Result<Option<RegistryRow>, PgError> {
        let server = &self.registry.server;
        self.runtime.block_on(async {
            let queries = match self.queries.take().filter(|queries| !queries.is_closed()) {
                Some(queries) => queries,
                None => DeviceQueries::open(server).await?,
            };
            let mut rows = queries.look_up(server, &[(tenant.into(), device.into())]).await?;
            self.queries = Some(queries);
            Ok(rows.pop().flatten())
        })
    }
}
