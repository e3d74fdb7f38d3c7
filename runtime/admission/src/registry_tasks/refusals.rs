use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use crate::admission::Admission;
use crate::limits;
use crate::limits::RETRY_MIN;
use crate::registry::Registry;
use crate::registry::postgres::connection::PgError;
use crate::registry::postgres::{PostgresRegistry, RegistryTask, refusals};
use crate::retry::longer;

/// Writes the last refusals before a stop.
pub async fn finish(admission: &Admission) {
    if let Registry::Postgres(registry) = &admission.registry
        && (!registry.rejects.is_empty() || registry.rejects.is_writing())
    {
        let last = async {
            let client = registry.server.connect().await?;
            registry.rejects.write(&registry.server, &client).await
        };
        match timeout(refusals::LAST_WRITE, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last refusals are not in the database"),
            Err(_) => tracing::warn!("the last refusals are not in the database: it gave no answer"),
        }
    }
}

pub(crate) async fn write_rejects(registry: Arc<PostgresRegistry>) {
    let mut client: Option<Client> = None;
    let mut pause = RETRY_MIN;
    let mut dropped = 0;
    let mut said: Option<Instant> = None;
    let quiet = Duration::from_secs(limits::REFUSALS_DROPPED_SAID_EVERY_S);
    loop {
        sleep(Duration::from_millis(limits::REFUSALS_WRITTEN_EVERY_MS)).await;
        if registry.rejects.dropped() > dropped && said.is_none_or(|said| said.elapsed() >= quiet) {
            let rows = registry.rejects.dropped() - dropped;
            dropped += rows;
            said = Some(Instant::now());
            let error = registry.rejects.take_refused().unwrap_or_else(|| "there is no room".into());
            tracing::warn!(
                rows,
                error,
                "counts or rows of refusals were dropped; quarantine has the messages"
            );
        }
        if registry.rejects.is_empty() {
            continue;
        }
        match write_once(&registry, &mut client).await {
            Ok(()) => {
                registry.note_good(RegistryTask::Rejects);
                pause = RETRY_MIN;
            }
            Err(error) => {
                client = None;
                registry.note_fault(RegistryTask::Rejects, &error);
                sleep(pause).await;
                pause = longer(pause);
            }
        }
    }
}

pub(crate) async fn write_once(
    registry: &PostgresRegistry,
    client: &mut Option<Client>,
) -> Result<(), PgError> {
    let open = match client.take().filter(|client| !client.is_closed()) {
        Some(open) => open,
        None => registry.server.connect().await?,
    };
    registry.rejects.write(&registry.server, client.insert(open)).await
}
