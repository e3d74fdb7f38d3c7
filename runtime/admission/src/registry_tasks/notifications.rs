//! The task that listens for changes of devices.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, sleep};

use crate::admission::Admission;
use crate::backoff::Backoff;
use crate::limits::PROBE;
use crate::registry::postgres::connection::PgError;
use crate::registry::postgres::{PostgresRegistry, RegistryTask, schema};
use tidegate_core::identity::{Identity, RegistryChange};
use tidegate_core::ids::{DeviceId, TenantId};

/// Listens for changed devices, for ever. After each pause in listening the whole cache is stale, for
/// changes may have been missed.
pub(crate) async fn listen(admission: Arc<Admission>, registry: Arc<PostgresRegistry>) {
    let mut backoff = Backoff::new();
    loop {
        let mut has_listened = false;
        let Err(error) = listen_once(&admission, &registry, &mut has_listened).await;
        registry.record_fault(RegistryTask::Listen, &error);
        registry.set_notifies(false);
        admission.cache.expire_all();
        if has_listened {
            backoff.reset();
        }
        sleep(backoff.next()).await;
    }
}

/// Listens on one connection until it ends; `has_listened` is set once it does.
pub(crate) async fn listen_once(
    admission: &Admission,
    registry: &PostgresRegistry,
    has_listened: &mut bool,
) -> Result<std::convert::Infallible, PgError> {
    let server = &registry.server;
    let (sender, mut notifications) = mpsc::unbounded_channel();
    let client = server.connect_listening(Some(sender)).await?;
    let listen = format!("LISTEN {}", schema::CHANNEL);
    server.within("LISTEN", client.batch_execute(&listen)).await?;
    let tells = schema::notifies(server, &client).await?;
    admission.cache.expire_all();
    registry.set_notifies(tells);
    registry.record_success(RegistryTask::Listen);
    // Changes may have been missed.
    admission.publish_change(RegistryChange::All);
    let mut all_checked = Instant::now();
    if !tells {
        registry.record_advice(
            RegistryTask::Listen,
            "device_registry has no trigger that tells of changes, so they are seen after \
             registry.cache_ttl_s: run `tidegate registry init`",
        );
    }
    *has_listened = true;
    let mut ping = tokio::time::interval(PROBE);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            payload = notifications.recv() => match payload {
                Some(payload) => forget(admission, &payload),
                None => {
                    let why = "the connection that hears of changes has ended".into();
                    return Err(PgError::Connect { at: server.at(), why });
                }
            },
            // A server that is gone without a FIN is found by this query.
            _ = ping.tick() => {
                let tells = schema::notifies(server, &client).await?;
                if tells != registry.notifies() {
                    return Err(PgError::Connect { at: server.at(), why: "its trigger has changed".into() });
                }
                // Nothing is told: connections are checked as often as entries of the cache.
                if !tells && all_checked.elapsed().as_secs_f64() >= admission.settings.cache_ttl_s {
                    all_checked = Instant::now();
                    admission.publish_change(RegistryChange::All);
                }
            }
        }
    }
}

/// Forgets the device that a notification names, or all devices.
fn forget(admission: &Admission, payload: &str) {
    match payload.split_once('/') {
        Some((tenant, device)) => {
            let key = admission.device_key(tenant, device);
            admission.pending.mark_changed(key);
            admission.connects.mark_changed(key);
            admission.forget_device(key);
            let identity = Identity { tenant: TenantId::new(tenant), device: DeviceId::new(device) };
            admission.publish_change(RegistryChange::Device(identity));
        }
        None => {
            admission.pending.mark_all_changed();
            admission.connects.mark_all_changed();
            admission.cache.clear();
            admission.publish_change(RegistryChange::All);
        }
    }
}
