use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, sleep};

use crate::admission::Admission;
use crate::limits::{PROBE, RETRY_MIN};
use crate::registry::postgres::connection::PgError;
use crate::registry::postgres::{PostgresRegistry, RegistryTask, schema};
use crate::retry::longer;

/// Hears of changed devices. Whatever was missed while nobody listened is made good by believing
/// nothing that was cached before.
pub(crate) async fn listen(admission: Arc<Admission>, registry: Arc<PostgresRegistry>) {
    let mut pause = RETRY_MIN;
    loop {
        let mut heard_once = false;
        let Err(error) = listen_once(&admission, &registry, &mut heard_once).await;
        registry.note_fault(RegistryTask::Listen, &error);
        registry.note_telling(false);
        admission.cache.expire_all();
        pause = if heard_once { RETRY_MIN } else { longer(pause) };
        sleep(pause).await;
    }
}

pub(crate) async fn listen_once(
    admission: &Admission,
    registry: &PostgresRegistry,
    heard_once: &mut bool,
) -> Result<std::convert::Infallible, PgError> {
    let server = &registry.server;
    let (tell, mut told) = mpsc::unbounded_channel();
    let client = server.connect_hearing(Some(tell)).await?;
    let listen = format!("LISTEN {}", schema::CHANNEL);
    server.within("LISTEN", client.batch_execute(&listen)).await?;
    let tells = schema::tells_changes(server, &client).await?;
    admission.cache.expire_all();
    registry.note_telling(tells);
    registry.note_good(RegistryTask::Listen);
    if !tells {
        registry.note_wish(
            RegistryTask::Listen,
            "device_registry has no trigger that tells of changes, so they are seen after \
             registry.cache_ttl_s: run `tidegate registry init`",
        );
    }
    *heard_once = true;
    let mut ping = tokio::time::interval(PROBE);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            note = told.recv() => match note {
                Some(note) => forget(admission, &note),
                None => {
                    let why = "the connection that hears of changes has ended".into();
                    return Err(PgError::Connect { at: server.at(), why });
                }
            },
            // A peer that is gone without a word is noticed by its silence.
            _ = ping.tick() => {
                let tells = schema::tells_changes(server, &client).await?;
                if tells != registry.tells_changes() {
                    return Err(PgError::Connect { at: server.at(), why: "its trigger has changed".into() });
                }
            }
        }
    }
}

pub(crate) fn forget(admission: &Admission, note: &str) {
    match note.split_once('/') {
        Some((tenant, device)) => {
            let key = admission.device_key(tenant, device);
            admission.waiting.mark_changed(key);
            admission.callers.mark_changed(key);
            admission.cache.forget(key);
        }
        None => {
            admission.waiting.note_all_changed();
            admission.callers.note_all_changed();
            admission.cache.clear();
        }
    }
}
