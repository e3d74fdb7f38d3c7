//! Refusals for the database: counters and rows as the Python service wrote them, in batches, off the
//! data path. Rows without room are dropped and counted; quarantine has the messages all the same.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::limits::{COUNTERS_WAITING_MAX, EVENT_BYTES_WAITING_MAX, EVENTS_WAITING_MAX};
use crate::registry::postgres::connection::{PgError, PgServer};
use crate::registry::postgres::event::{QuarantineEvent, plain};
use tidegate_core::message::RefusedMessage;
use tidegate_core::reason::Reason;

/// The key of a counter: the minute since the epoch, tenant and reason.
type RefusalCounter = (i64, String, &'static str);

#[derive(Debug, Default)]
struct QueuedRefusals {
    counters: HashMap<RefusalCounter, i64>,
    events: Vec<QuarantineEvent>,
    event_bytes: usize,
}

/// The refusals that wait to be written.
#[derive(Debug)]
pub struct RefusalLog {
    counters: bool,
    events: AtomicBool,
    queued: Mutex<QueuedRefusals>,
    /// One write at a time, so that a stop waits for the one that is on its way.
    writing: tokio::sync::Mutex<()>,
    dropped: AtomicU64,
    /// The database's error for the last row that it could not hold.
    refused: Mutex<Option<String>>,
}

/// True for the reasons that the Python service had.
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

impl RefusalLog {
    pub fn new(counters: bool) -> Self {
        Self {
            counters,
            events: AtomicBool::new(false),
            queued: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            dropped: AtomicU64::new(0),
            refused: Mutex::default(),
        }
    }

    /// Sets if refused messages are stored as rows from now on.
    pub fn store_events(&self, store: bool) {
        self.events.store(store, Ordering::Relaxed);
    }

    /// Rows that were dropped: no room, or the database could not hold them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Queues a refusal. Does no I/O and never waits.
    pub fn record(&self, refused: &RefusedMessage, msg_type: Option<&str>) {
        if !is_counted(refused.reason) {
            return;
        }
        let tenant = match (&refused.tenant, refused.reason) {
            (Some(tenant), _) => tenant.as_str(),
            // The size of a payload is checked before its topic is read.
            (None, Reason::PayloadTooLarge) => "unknown",
            (None, _) => "",
        };
        if self.counters && !tenant.is_empty() {
            self.count((this_minute(), plain(tenant), refused.reason.code()), 1);
        }
        if self.events.load(Ordering::Relaxed) {
            self.store(QuarantineEvent::new(refused, msg_type));
        }
    }

    fn count(&self, counter: RefusalCounter, times: i64) {
        let counters = &mut self.queued.lock().counters;
        if counters.len() < COUNTERS_WAITING_MAX || counters.contains_key(&counter) {
            *counters.entry(counter).or_default() += times;
        } else {
            self.dropped.fetch_add(times as u64, Ordering::Relaxed);
        }
    }

    fn store(&self, event: QuarantineEvent) {
        let mut queued = self.queued.lock();
        let bytes = event.bytes();
        if queued.events.len() >= EVENTS_WAITING_MAX || queued.event_bytes + bytes > EVENT_BYTES_WAITING_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queued.event_bytes += bytes;
        queued.events.push(event);
    }

    pub fn is_empty(&self) -> bool {
        let queued = self.queued.lock();
        queued.counters.is_empty() && queued.events.is_empty()
    }

    /// True during a write.
    pub fn is_writing(&self) -> bool {
        self.writing.try_lock().is_err()
    }

    /// Writes the queue. Rows that could not be written are queued again, as far as there is room.
    ///
    /// # Errors
    /// The database's error.
    pub async fn write(&self, server: &PgServer, client: &Client) -> Result<(), PgError> {
        let _one = self.writing.lock().await;
        let QueuedRefusals { counters, mut events, .. } = std::mem::take(&mut *self.queued.lock());
        let mut counters: Vec<(RefusalCounter, i64)> = counters.into_iter().collect();
        // Sorted, so that two gateways that write the same rows never deadlock.
        counters.sort();
        if let Err((left, error)) = self.write_rows(server, client, Rows::Counters(&counters)).await {
            for (counter, times) in counters.drain(left..) {
                self.count(counter, times);
            }
            events.into_iter().for_each(|event| self.store(event));
            return Err(error);
        }
        if let Err((left, error)) = self.write_rows(server, client, Rows::Events(&events)).await {
            events.drain(left..).for_each(|event| self.store(event));
            return Err(error);
        }
        Ok(())
    }

    /// Writes rows. One that the database cannot hold is found by bisection, left out and counted; all
    /// others are written.
    ///
    /// # Errors
    /// Another error of the database, with the number of the first row that is not written.
    async fn write_rows(
        &self,
        server: &PgServer,
        client: &Client,
        rows: Rows<'_>,
    ) -> Result<(), (usize, PgError)> {
        let mut bisection = Bisection::new(rows.len());
        while let Some(part) = bisection.next() {
            match rows.write(part.clone(), server, client).await {
                Ok(()) => {}
                Err(error) if error.is_about_a_value() => {
                    if bisection.refuse(part) {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                        *self.refused.lock() = Some(error.to_string());
                    }
                }
                Err(error) => return Err((part.start, error)),
            }
        }
        Ok(())
    }

    /// Takes the database's error for the last row that it could not hold.
    pub fn take_refused(&self) -> Option<String> {
        self.refused.lock().take()
    }
}

/// Rows of one table.
#[derive(Clone, Copy)]
enum Rows<'a> {
    Counters(&'a [(RefusalCounter, i64)]),
    Events(&'a [QuarantineEvent]),
}

impl Rows<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Counters(rows) => rows.len(),
            Self::Events(rows) => rows.len(),
        }
    }

    async fn write(&self, part: Range<usize>, server: &PgServer, client: &Client) -> Result<(), PgError> {
        match self {
            Self::Counters(rows) => write_counters(server, client, &rows[part]).await,
            Self::Events(rows) => write_events(server, client, &rows[part]).await,
        }
    }
}

/// The parts of a batch that are still to be written, in order: first the whole, then the halves of a
/// refused part.
#[derive(Debug)]
struct Bisection {
    /// The last one is the next part.
    parts: Vec<Range<usize>>,
}

impl Bisection {
    fn new(rows: usize) -> Self {
        Self { parts: (rows > 0).then_some(0..rows).into_iter().collect() }
    }

    fn next(&mut self) -> Option<Range<usize>> {
        self.parts.pop()
    }

    /// Puts the halves of a refused part next. True if it is a single row, which is at fault.
    fn refuse(&mut self, part: Range<usize>) -> bool {
        let middle = part.start + part.len() / 2;
        if part.len() > 1 {
            self.parts.push(middle..part.end);
            self.parts.push(part.start..middle);
        }
        part.len() == 1
    }
}

async fn write_counters(
    server: &PgServer,
    client: &Client,
    counters: &[(RefusalCounter, i64)],
) -> Result<(), PgError> {
    if counters.is_empty() {
        return Ok(());
    }
    // The current minute is taken from the database's clock; a past one is as recorded.
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

async fn write_events(server: &PgServer, client: &Client, events: &[QuarantineEvent]) -> Result<(), PgError> {
    if events.is_empty() {
        return Ok(());
    }
    fn column<'a>(
        events: &'a [QuarantineEvent],
        of: impl Fn(&'a QuarantineEvent) -> Option<&'a str>,
    ) -> Vec<Option<&'a str>> {
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

/// The longest wait of a stop for the last write.
pub const LAST_WRITE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever rows are bad, each good one is written once, in order, and each bad one is found.
        #[test]
        fn bisection_leaves_out_the_bad_rows_alone(bad in proptest::collection::vec(any::<bool>(), 0..70)) {
            let mut bisection = Bisection::new(bad.len());
            let (mut written, mut found, mut writes) = (Vec::new(), Vec::new(), 0);
            while let Some(part) = bisection.next() {
                writes += 1;
                if !bad[part.clone()].contains(&true) {
                    written.extend(part);
                } else if bisection.refuse(part.clone()) {
                    found.push(part.start);
                }
            }
            let rows = |wanted: bool| (0..bad.len()).filter(|&row| bad[row] == wanted).collect::<Vec<_>>();
            prop_assert_eq!(written, rows(false));
            prop_assert_eq!(&found, &rows(true));
            prop_assert!(writes <= 1 + 2 * 7 * found.len(), "{} writes for {} bad rows", writes, found.len());
        }
    }
}
