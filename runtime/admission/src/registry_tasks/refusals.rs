//! The task that writes refusals to the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use crate::admission::Admission;
use crate::backoff::Backoff;
use crate::limits;
use crate::registry::Registry;
use crate::registry::postgres::connection::PgError;
use crate::registry::postgres::{PostgresRegistry, RegistryTask, refusals};

/// Writes the last refusals before a stop, for at most `LAST_WRITE`.
pub async fn finish(admission: &Admission) {
    if let Registry::Postgres(registry) = &admission.registry
        && (!registry.refusals.is_empty() || registry.refusals.is_writing())
    {
        let last = async {
            let client = registry.server.connect().await?;
            registry.refusals.write(&registry.server, &client).await
        };
        match timeout(refusals::LAST_WRITE, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last refusals are not in the database"),
            Err(_) => tracing::warn!("the last refusals are not in the database: it gave no answer"),
        }
    }
}

/// Writes refusals again and again, and logs rows that were dropped.
pub(crate) async fn write_refusals(registry: Arc<PostgresRegistry>) {
    let mut client: Option<Client> = None;
    let mut backoff = Backoff::new();
    let mut dropped = 0;
    let mut said: Option<Instant> = None;
    let quiet = Duration::from_secs(limits::REFUSALS_DROPPED_SAID_EVERY_S);
    loop {
        sleep(Duration::from_millis(limits::REFUSALS_WRITTEN_EVERY_MS)).await;
        if registry.refusals.dropped() > dropped && said.is_none_or(|said| said.elapsed() >= quiet) {
            let rows = registry.refusals.dropped() - dropped;
            dropped += rows;
            said = Some(Instant::now());
            let error = registry.refusals.take_refused().unwrap_or_else(|| "there is no room".into());
            tracing::warn!(
                rows,
                error,
                "counts or rows of refusals were dropped; quarantine has the messages"
            );
        }
        if registry.refusals.is_empty() {
            continue;
        }
        match write_once(&registry, &mut client).await {
            Ok(()) => {
                registry.record_success(RegistryTask::Rejects);
                backoff.reset();
            }
            Err(error) => {
                client = None;
                registry.record_fault(RegistryTask::Rejects, &error);
                sleep(backoff.next()).await;
            }
        }
    }
}

pub(crate) async fn write_once(
    registry: &PostgresRegistry,
    client: &mut Option<Client>,
) -> Result<(), PgError> {
    let connection = match client.take().filter(|client| !client.is_closed()) {
        Some(connection) => connection,
        None => registry.server.connect().await?,
    };
    registry.refusals.write(&registry.server, client.insert(connection)).await
}
