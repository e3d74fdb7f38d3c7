//! The settings tables, read at the start and then again and again.

use std::sync::Arc;

use tokio::time::sleep;
use tokio_postgres::Client;

use crate::admission::Admission;
use crate::limits::PROBE;
use crate::registry::Registry;
use crate::registry::postgres::connection::PgError;
use crate::registry::postgres::tenant_rows::TenantRow;
use crate::registry::postgres::{PostgresRegistry, RegistryTask, app_settings, tenant_rows};

/// Reads the settings tables before the first message is checked. If they cannot be read now, they are
/// read later: nothing waits for a registry that is down.
pub async fn first_settings(admission: &Admission) {
    let Registry::Postgres(registry) = &admission.registry else { return };
    match read_settings(registry, &mut None).await {
        Ok((settings, rows)) => apply_settings(admission, registry, &settings, rows),
        Err(error) => registry.record_fault(RegistryTask::Settings, &error),
    }
}

/// Applies the settings tables. The app settings apply even if the tenants' cannot be read.
pub(crate) fn apply_settings(
    admission: &Admission,
    registry: &PostgresRegistry,
    settings: &app_settings::AppSettings,
    rows: Result<Vec<TenantRow>, PgError>,
) {
    registry.refusals.store_events(settings.stores_events());
    admission.apply_app_settings(settings);
    match rows {
        Ok(rows) => {
            registry.record_success(RegistryTask::Settings);
            registry.tenant_rows.notify(rows);
        }
        Err(error) => registry.record_fault(RegistryTask::Settings, &error),
    }
}

/// Reads the settings of tenants at the start, before anything needs them. `None`: the registry has
/// none, or cannot be asked now.
pub async fn first_tenants(registry: &Registry) -> Option<Vec<TenantRow>> {
    let Registry::Postgres(registry) = registry else { return None };
    match read_settings(registry, &mut None).await {
        Ok((_, Ok(rows))) => {
            registry.tenant_rows.mark_asked();
            Some(rows)
        }
        Ok((_, Err(error))) | Err(error) => {
            registry.record_fault(RegistryTask::Settings, &error);
            None
        }
    }
}

/// Reads the settings tables again and again. While they cannot be read, the settings stay.
pub(crate) async fn follow_settings(admission: Arc<Admission>, registry: Arc<PostgresRegistry>) {
    let mut client: Option<Client> = None;
    loop {
        match read_settings(&registry, &mut client).await {
            Ok((settings, rows)) => {
                apply_settings(&admission, &registry, &settings, rows);
                sleep(registry.settings.settings_poll).await;
            }
            Err(error) => {
                client = None;
                registry.record_fault(RegistryTask::Settings, &error);
                sleep(registry.settings.settings_poll.min(PROBE)).await;
            }
        }
    }
}

/// Reads both tables by `client`, or by a new connection that it leaves there.
pub(crate) async fn read_settings(
    registry: &PostgresRegistry,
    client: &mut Option<Client>,
) -> Result<(app_settings::AppSettings, Result<Vec<TenantRow>, PgError>), PgError> {
    let connection = match client.take().filter(|client| !client.is_closed()) {
        Some(connection) => connection,
        None => registry.server.connect().await?,
    };
    let connection = client.insert(connection);
    let settings = app_settings::read(&registry.server, connection).await?;
    Ok((settings, tenant_rows::read(&registry.server, connection).await))
}
