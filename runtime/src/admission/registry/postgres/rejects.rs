//! Refusals for the database: counters and rows as the Python service wrote them, in batches, off
//! the data path. What there is no room for is dropped and counted; quarantine has it all the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::event::{Event, plain};
use super::link::{PgError, Server};
use crate::domain::limits::{COUNTERS_WAITING_MAX, EVENT_BYTES_WAITING_MAX, EVENTS_WAITING_MAX};
use crate::domain::message::Refused;
use crate::domain::reason::Reason;

/// The minute since the epoch, tenant and reason.
type Counter = (i64, String, &'static str);

#[derive(Debug, Default)]
struct Waiting {
    counters: HashMap<Counter, i64>,
    events: Vec<Event>,
    event_bytes: usize,
}

/// What waits to be written.
#[derive(Debug)]
pub struct Rejects {
    counters: bool,
    events: AtomicBool,
    waiting: Mutex<Waiting>,
    /// One writes at a time, so that a stop waits for what is on its way.
    writing: tokio::sync::Mutex<()>,
    dropped: AtomicU64,
}

/// The reasons that the Python service knew.
fn is_counted(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PayloadTooLarge
            | Reason::BadTopicFormat
            | Reason::RateLimited
            | Reason::TenantMismatch
            | Reason::MissingSiteId
            | Reason::UnregisteredDevice
            | Reason::DeviceRevoked
            | Reason::SiteMismatch
            | Reason::TokenNotSet
            | Reason::TokenMissing
            | Reason::TokenInvalid
    )
}

fn this_minute() -> i64 {
    Timestamp::now().as_second().div_euclid(60)
}

impl Rejects {
    pub fn new(counters: bool) -> Self {
        Self {
            counters,
            events: AtomicBool::new(false),
            waiting: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether refused messages are stored whole from now on.
    pub fn store_events(&self, store: bool) {
        self.events.store(store, Ordering::Relaxed);
    }

    /// Rows that were dropped: no room, or the database would not take them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Notes a refusal. Does no I/O and never waits.
    pub fn note(&self, refused: &Refused, msg_type: Option<&str>) {
        if !is_counted(refused.reason) {
            return;
        }
        let tenant = match (&refused.tenant, refused.reason) {
            (Some(tenant), _) => tenant.as_str(),
            // A payload is weighed before its topic is read.
            (None, Reason::PayloadTooLarge) => "unknown",
            (None, _) => "",
        };
        if self.counters && !tenant.is_empty() {
            self.count((this_minute(), plain(tenant), refused.reason.code()), 1);
        }
        if self.events.load(Ordering::Relaxed) {
            self.keep(Event::of(refused, msg_type));
        }
    }

    fn count(&self, counter: Counter, times: i64) {
        let counters = &mut self.waiting.lock().counters;
        if counters.len() < COUNTERS_WAITING_MAX || counters.contains_key(&counter) {
            *counters.entry(counter).or_default() += times;
        } else {
            self.dropped.fetch_add(times as u64, Ordering::Relaxed);
        }
    }

    fn keep(&self, event: Event) {
        let mut waiting = self.waiting.lock();
        let bytes = event.bytes();
        if waiting.events.len() >= EVENTS_WAITING_MAX || waiting.event_bytes + bytes > EVENT_BYTES_WAITING_MAX
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.event_bytes += bytes;
        waiting.events.push(event);
    }

    pub fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.counters.is_empty() && waiting.events.is_empty()
    }

    /// Whether something is being written now.
    pub fn is_writing(&self) -> bool {
        self.writing.try_lock().is_err()
    }

    /// Writes what waits. What could not be written waits on, as far as there is room.
    ///
    /// # Errors
    /// What the database said.
    pub async fn write(&self, server: &Server, client: &Client) -> Result<(), PgError> {
        let _one = self.writing.lock().await;
        let Waiting { counters, events, .. } = std::mem::take(&mut *self.waiting.lock());
        let mut counters: Vec<(Counter, i64)> = counters.into_iter().collect();
        // Two gateways that write the same rows take their locks in the same order.
        counters.sort();
        let counted = self.written(write_counters(server, client, &counters).await, &counters, |counter| {
            let client = &client;
            async move { write_counters(server, client, std::slice::from_ref(counter)).await }
        });
        if let Err(error) = counted.await {
            for (counter, times) in counters {
                self.count(counter, times);
            }
            events.into_iter().for_each(|event| self.keep(event));
            return Err(error);
        }
        let stored = self.written(write_events(server, client, &events).await, &events, |event| {
            let client = &client;
            async move { write_events(server, client, std::slice::from_ref(event)).await }
        });
        if let Err(error) = stored.await {
            events.into_iter().for_each(|event| self.keep(event));
            return Err(error);
        }
        Ok(())
    }

    /// A value that the database cannot hold costs its own row only: the others are written singly.
    async fn written<'a, T, F: Future<Output = Result<(), PgError>>>(
        &self,
        all: Result<(), PgError>,
        rows: &'a [T],
        one: impl Fn(&'a T) -> F,
    ) -> Result<(), PgError> {
        match all {
            Err(error) if error.is_about_a_value() => {
                for row in rows {
                    match one(row).await {
                        Err(error) if error.is_about_a_value() => {
                            self.dropped.fetch_add(1, Ordering::Relaxed);
                            tracing::warn!(%error, "a row of a refusal was dropped");
                        }
                        // What is written already would be written twice: the rest is given up.
                        Err(error) => {
                            self.dropped.fetch_add(1, Ordering::Relaxed);
                            tracing::warn!(%error, "rows of refusals were dropped");
                        }
                        Ok(()) => {}
                    }
                }
                Ok(())
            }
            written => written,
        }
    }
}

async fn write_counters(
    server: &Server,
    client: &Client,
    counters: &[(Counter, i64)],
) -> Result<(), PgError> {
    if counters.is_empty() {
        return Ok(());
    }
    // The minute is the database's where it is still the same; a past one is as it was noted.
    let now = this_minute();
    let minutes: Vec<Option<f64>> =
        counters.iter().map(|((minute, ..), _)| (*minute != now).then_some(*minute as f64 * 60.0)).collect();
    let tenants: Vec<&str> = counters.iter().map(|((_, tenant, _), _)| tenant.as_str()).collect();
    let reasons: Vec<&str> = counters.iter().map(|((.., reason), _)| *reason).collect();
    let counts: Vec<i64> = counters.iter().map(|(_, count)| *count).collect();
    let upsert = "INSERT INTO quarantine_counters_minute AS c (bucket_minute, tenant_id, reason, cnt) \
        SELECT coalesce(to_timestamp(k.minute), date_trunc('minute', now())), k.tenant, k.reason, sum(k.times)::bigint \
        FROM unnest($1::float8[], $2::text[], $3::text[], $4::bigint[]) AS k (minute, tenant, reason, times) \
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 \
        ON CONFLICT (bucket_minute, tenant_id, reason) DO UPDATE SET cnt = c.cnt + EXCLUDED.cnt";
    let values: [&(dyn ToSql + Sync); 4] = [&minutes, &tenants, &reasons, &counts];
    server.within("writing quarantine_counters_minute", client.execute(upsert, &values)).await?;
    Ok(())
}

async fn write_events(server: &Server, client: &Client, events: &[Event]) -> Result<(), PgError> {
    if events.is_empty() {
        return Ok(());
    }
    fn column<'a>(events: &'a [Event], of: impl Fn(&'a Event) -> Option<&'a str>) -> Vec<Option<&'a str>> {
        events.iter().map(of).collect()
    }
    let times = column(events, |event| event.event_ts.as_deref());
    let topics = column(events, |event| Some(&event.topic));
    let tenants = column(events, |event| event.tenant_id.as_deref());
    let sites = column(events, |event| event.site_id.as_deref());
    let devices = column(events, |event| event.device_id.as_deref());
    let types = column(events, |event| event.msg_type.as_deref());
    let reasons = column(events, |event| Some(event.reason));
    let payloads = column(events, |event| Some(&event.payload));
    let insert = "INSERT INTO quarantine_events \
        (event_ts, topic, tenant_id, site_id, device_id, msg_type, reason, payload) \
        SELECT k.ts::timestamptz, k.topic, k.tenant, k.site, k.device, k.type, k.reason, k.payload::jsonb \
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]) \
        WITH ORDINALITY AS k (ts, topic, tenant, site, device, type, reason, payload, place) ORDER BY k.place";
    let values: [&(dyn ToSql + Sync); 8] =
        [&times, &topics, &tenants, &sites, &devices, &types, &reasons, &payloads];
    server.within("writing quarantine_events", client.execute(insert, &values)).await?;
    Ok(())
}

/// How long a stop waits for the last of them.
pub const LAST_WRITE: Duration = Duration::from_secs(2);
