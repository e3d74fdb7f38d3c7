use std::sync::Arc;

use tokio::time::sleep;
use tokio_postgres::Client;

use crate::admission::Admission;
use crate::limits::PROBE;
use crate::registry::Registry;
use crate::registry::postgres::connection::PgError;
use crate::registry::postgres::tenant_rows::TenantRow;
use crate::registry::postgres::{PostgresRegistry, RegistryTask, app_settings, tenant_rows};

/// Reads the settings table before the first message is judged. What cannot be read now is read
/// later: nothing waits for a registry that is down.
pub async fn first_settings(admission: &Admission) {
    let Registry::Postgres(registry) = &admission.registry else { return };
    match read_settings(registry, &mut None).await {
        Ok((knobs, rows)) => take_up_settings(admission, registry, &knobs, rows),
        Err(error) => registry.note_fault(RegistryTask::Settings, &error),
    }
}

/// Knobs hold though the settings of tenants cannot be read.
pub(crate) fn take_up_settings(
    admission: &Admission,
    registry: &PostgresRegistry,
    knobs: &app_settings::AppSettings,
    rows: Result<Vec<TenantRow>, PgError>,
) {
    registry.rejects.store_events(knobs.stores_events());
    admission.apply_app_settings(knobs);
    match rows {
        Ok(rows) => {
            registry.note_good(RegistryTask::Settings);
            registry.tenants.tell(rows);
        }
        Err(error) => registry.note_fault(RegistryTask::Settings, &error),
    }
}

/// Reads the settings of tenants before there is anything that they could hold for. `None`: the
/// registry has none, or cannot be asked now.
pub async fn first_tenants(registry: &Registry) -> Option<Vec<TenantRow>> {
    let Registry::Postgres(registry) = registry else { return None };
    match read_settings(registry, &mut None).await {
        Ok((_, Ok(rows))) => {
            registry.tenants.note_asked();
            Some(rows)
        }
        Ok((_, Err(error))) | Err(error) => {
            registry.note_fault(RegistryTask::Settings, &error);
            None
        }
    }
}

/// Reads the settings table again and again. While it cannot be read, they stay as they were.
pub(crate) async fn follow_settings(admission: Arc<Admission>, registry: Arc<PostgresRegistry>) {
    let mut client: Option<Client> = None;
    loop {
        match read_settings(&registry, &mut client).await {
            Ok((knobs, rows)) => {
                take_up_settings(&admission, &registry, &knobs, rows);
                sleep(registry.settings.settings_poll).await;
            }
            Err(error) => {
                client = None;
                registry.note_fault(RegistryTask::Settings, &error);
                sleep(registry.settings.settings_poll.min(PROBE)).await;
            }
        }
    }
}

pub(crate) async fn read_settings(
    registry: &PostgresRegistry,
    client: &mut Option<Client>,
) -> Result<(app_settings::AppSettings, Result<Vec<TenantRow>, PgError>), PgError> {
    let open = match client.take().filter(|client| !client.is_closed()) {
        Some(open) => open,
        None => registry.server.connect().await?,
    };
    let open = client.insert(open);
    let knobs = app_settings::read(&registry.server, open).await?;
    Ok((knobs, tenant_rows::read(&registry.server, open).await))
}
