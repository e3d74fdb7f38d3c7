//! What the gateway shows of itself: the admin side's view and the metrics' source.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answers::Answers;
use super::desk::show;
use super::registry_health;
use super::replay::Replays;
use super::writes::Writes;
use crate::admin::View;
use crate::admission::Admission;
use crate::admission::registry::Registry;
use crate::domain::books::{Account, Books, TenantBooks};
use crate::domain::histogram::HistogramSnapshot;
use crate::domain::limits::{LATEST_REFUSALS_SHOWN, SHOWN_WAITING_TENANTS};
use crate::domain::slot::Window;
use crate::quarantine::{Filter, Quarantine};
use crate::rollout::GuestStore;
use crate::source::SourceStatus;
use crate::source::listener::{Ending, ListenerCounters, TlsKeeper};
use crate::spool::Spool;
use crate::telemetry::health::{PartHealth, Readiness};
use crate::telemetry::metrics::{Gauges, Metrics, Sample};
use crate::telemetry::stats::Statistics;
use crate::writer::{DatabaseStatus, WriterHandle};

/// One source and whether messages can come in by it.
pub struct SourceHealth {
    name: &'static str,
    status: watch::Receiver<SourceStatus>,
}

impl SourceHealth {
    pub fn new(name: &'static str, status: watch::Receiver<SourceStatus>) -> Self {
        Self { name, status }
    }

    fn check(&self) -> Result<(), String> {
        let status = self.status.borrow();
        if status.is_ready() {
            return Ok(());
        }
        let what = if status.connected { "is not subscribed" } else { "is not connected" };
        let why = status.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        Err(format!("the {} {what}{why}", self.name))
    }
}

/// The listener, as far as it is looked at.
pub struct Door {
    pub counters: Arc<ListenerCounters>,
    pub tls: Option<Arc<TlsKeeper>>,
}

impl Door {
    /// Takes a new certificate into service, if there is one.
    pub fn refresh_certificate(&self) {
        match self.tls.as_ref().map(|tls| tls.refresh()) {
            Some(Ok(true)) => tracing::info!("the listener's certificate was read again"),
            Some(Err(error)) => tracing::error!(%error, "the listener's certificate stays as it was"),
            Some(Ok(false)) | None => {}
        }
    }

    /// Connections that ended, by why.
    fn ended(&self) -> Vec<Sample> {
        let sample = |&ending: &Ending| {
            let labels = vec![("reason", ending.name().to_owned())];
            Sample::new(labels, self.counters.ended(ending) as f64)
        };
        Ending::ALL.iter().map(sample).collect()
    }
}

/// The parts that are looked at.
pub struct Parts {
    pub books: Arc<Books>,
    pub window: Arc<Window>,
    pub admission: Arc<Admission>,
    pub guests: Arc<GuestStore>,
    pub spool: Spool,
    pub writer: WriterHandle,
    pub writes: Arc<Writes>,
    pub quarantine: Quarantine,
    pub replays: Replays,
    pub sources: Vec<SourceHealth>,
    pub redelivered: Vec<Arc<AtomicU64>>,
    /// The listener, where there is one.
    pub door: Option<Door>,
    /// Answers on the refused topic, where they are wanted.
    pub answers: Option<Arc<Answers>>,
    /// Why the registry was not read well the last time.
    pub registry_fault: Mutex<Option<String>>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Parts {
    pub fn statistics(&self) -> Statistics {
        let received: u64 =
            self.books.accounts().iter().map(|account| account.snapshot().messages.received).sum();
        let (writer, cache) = (self.writer.stats(), self.admission.cache());
        Statistics {
            received,
            influx_batch_ok: writer.lines_written(),
            influx_batch_err: writer.lines_refused(),
            influx_flushes: writer.flushes(),
            influx_buffer: self.spool.lines_pending(),
            auth_cache_hits: cache.hits(),
            auth_cache_misses: cache.misses(),
            auth_cache_size: cache.entries() as u64,
        }
    }
}

impl Gauges for Parts {
    fn accounts(&self) -> Vec<Arc<Account>> {
        self.books.accounts()
    }

    fn counters(&self) -> Vec<(&'static str, &'static str, Vec<Sample>)> {
        let cache = self.admission.cache();
        let lookups = [
            ("hit", cache.hits()),
            ("miss", cache.misses()),
            ("absent", cache.absent_hits()),
            ("stale", cache.stale_hits()),
        ]
        .map(|(result, count)| Sample::new(vec![("result", result.to_owned())], count as f64));
        let redelivered: u64 = self.redelivered.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let (syncs, spooled_messages) = self.spool.syncs();
        let (mut cpu, mut failures) = (Vec::new(), Vec::new());
        for guest in self.guests.list() {
            let labels = vec![("tenant", guest.tenant.clone()), ("type", guest.message_type.clone())];
            cpu.push(Sample::new(labels.clone(), guest.cpu_seconds));
            for (kind, count) in guest.failures {
                let mut labels = labels.clone();
                labels.push(("kind", kind.to_owned()));
                failures.push(Sample::new(labels, count as f64));
            }
        }
        let swaps = self.guests.swaps().into_iter().map(|(tenant, message_type, outcome, count)| {
            let labels = vec![("tenant", tenant), ("type", message_type), ("outcome", outcome.to_owned())];
            Sample::new(labels, count as f64)
        });
        let (mut queries, mut provisioned, mut dropped) = (0, 0, 0);
        if let Registry::Postgres(registry) = self.admission.registry() {
            queries = registry.queries();
            provisioned = registry.provisioned();
            dropped = registry.rejects.dropped();
        }
        let answers = self.answers.as_ref().map(|answers| {
            [("sent", &answers.sent), ("dropped", &answers.dropped)].map(|(outcome, count)| {
                let count = count.load(Ordering::Relaxed) as f64;
                Sample::new(vec![("outcome", outcome.to_owned())], count)
            })
        });
        let answers = answers.map(Vec::from).unwrap_or_default();
        let foreign = |door: &Door| door.counters.foreign_publishes.load(Ordering::Relaxed) as f64;
        vec![
            (
                "tidegate_listener_connections_ended",
                "Connections of devices that ended or were refused, by reason",
                self.door.as_ref().map(Door::ended).unwrap_or_default(),
            ),
            (
                "tidegate_listener_foreign_publishes",
                "PUBLISHes to a topic of another device",
                self.door.as_ref().map(|door| Sample::bare(foreign(door))).unwrap_or_default(),
            ),
            ("tidegate_refusal_answers", "Answers on mqtt.refused_topic, sent or dropped", answers),
            (
                "tidegate_registry_queries",
                "Queries to a PostgreSQL registry, each for many devices",
                Sample::bare(queries as f64),
            ),
            (
                "tidegate_registry_provisioned",
                "Devices that the gateway added to a PostgreSQL registry",
                Sample::bare(provisioned as f64),
            ),
            (
                "tidegate_registry_rejects_dropped",
                "Counters and rows of refused messages that were not written to PostgreSQL",
                Sample::bare(dropped as f64),
            ),
            (
                "tidegate_guest_swaps",
                "New decoder files by place in the guests folder and outcome",
                swaps.collect(),
            ),
            ("tidegate_writes", "POSTs to databases, by outcome", self.writes.samples()),
            (
                "tidegate_messages_redelivered",
                "QoS 1 messages received with DUP set",
                Sample::bare(redelivered as f64),
            ),
            (
                "tidegate_messages_passed_over",
                "Repeated messages that were not decoded again, of routes with state",
                Sample::bare(self.guests.host().state().skipped() as f64),
            ),
            ("tidegate_spool_syncs", "fsync calls of the spool", Sample::bare(syncs as f64)),
            (
                "tidegate_spool_messages",
                "Messages that the spool made durable",
                Sample::bare(spooled_messages as f64),
            ),
            (
                "tidegate_guest_cpu_seconds",
                "CPU time of decoders in seconds, by place in the guests folder",
                cpu,
            ),
            (
                "tidegate_guest_failures",
                "Messages that decoders did not decode, by kind of failure",
                failures,
            ),
            ("tidegate_auth_cache_lookups", "Look-ups in the cache of devices, by result", lookups.to_vec()),
        ]
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, Vec<Sample>)> {
        let connections = |door: &Door| door.counters.connections.load(Ordering::Relaxed) as f64;
        vec![
            (
                "tidegate_listener_connections",
                "Open connections of devices",
                self.door.as_ref().map(|door| Sample::bare(connections(door))).unwrap_or_default(),
            ),
            (
                "tidegate_auth_cache_entries",
                "Devices in the cache",
                Sample::bare(self.admission.cache().entries() as f64),
            ),
            (
                "tidegate_spool_bytes",
                "Bytes of the spool on disk",
                Sample::bare(self.spool.disk_bytes() as f64),
            ),
            (
                "tidegate_spool_parked_bytes",
                "Bytes of parked messages in the spool",
                Sample::bare(self.spool.parked_bytes() as f64),
            ),
            (
                "tidegate_state_bytes",
                "Bytes of state that decoders keep between messages",
                Sample::bare(self.guests.host().state().bytes() as f64),
            ),
            (
                "tidegate_quarantine_bytes",
                "Bytes of quarantine on disk",
                Sample::bare(self.quarantine.bytes() as f64),
            ),
        ]
    }

    fn histograms(&self) -> Vec<(&'static str, &'static str, HistogramSnapshot)> {
        vec![
            (
                "tidegate_write_duration_seconds",
                "Duration of POSTs to databases in seconds",
                self.writes.duration.snapshot(),
            ),
            (
                "tidegate_ack_latency_seconds",
                "Time from receipt of a message to its result in seconds",
                self.window.ack_latency.snapshot(),
            ),
        ]
    }
}

/// The admin side's view.
#[derive(Debug)]
pub struct Shown {
    parts: Arc<Parts>,
    metrics: Metrics,
}

impl Shown {
    pub fn new(parts: Arc<Parts>) -> Self {
        Self { metrics: Metrics::new(parts.clone()), parts }
    }

    pub(super) fn store(&self) -> &Quarantine {
        &self.parts.quarantine
    }

    pub(super) fn replays(&self) -> &Replays {
        &self.parts.replays
    }
}

/// Tenants in words whose messages wait for room: the others are served, so the spool is ready.
fn spool_room(waiting: &BTreeMap<String, u64>) -> PartHealth {
    if waiting.is_empty() {
        return PartHealth::ready();
    }
    let named = waiting.iter().take(SHOWN_WAITING_TENANTS);
    let named: Vec<String> =
        named.map(|(tenant, messages)| format!("{tenant} ({messages} messages)")).collect();
    let more = match waiting.len().saturating_sub(SHOWN_WAITING_TENANTS) {
        0 => String::new(),
        more => format!(" and {more} more tenants"),
    };
    PartHealth {
        ready: true,
        why: Some(format!("wait for room in their share of the spool: {}{more}", named.join(", "))),
    }
}

impl View for Shown {
    fn readiness(&self) -> Readiness {
        let source = self.parts.sources.iter().try_for_each(SourceHealth::check);
        let spool = match self.parts.spool.fault() {
            Some(fault) => PartHealth::not_ready(&fault),
            None if !self.parts.quarantine.is_usable() => {
                PartHealth::not_ready("quarantine cannot be written; see the log for the file")
            }
            None => spool_room(&self.parts.spool.waiting_messages()),
        };
        let registry = self.parts.admission.registry();
        let registry = registry_health(registry, self.parts.registry_fault.lock().as_ref());
        Readiness::of(source.into(), registry, spool)
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }

    fn books(&self) -> Value {
        let books: BTreeMap<String, TenantBooks> = self
            .parts
            .books
            .accounts()
            .iter()
            .map(|account| (account.tenant().to_string(), account.snapshot()))
            .collect();
        json!({"balanced": books.values().all(TenantBooks::balanced), "tenants": books})
    }

    fn guests(&self) -> Value {
        json!({"guests": self.parts.guests.list()})
    }

    fn spool(&self) -> Value {
        let status = self.parts.spool.status();
        // Two of one name at two outputs are two.
        let written: BTreeMap<(String, Option<String>), DatabaseStatus> = self
            .parts
            .writer
            .databases()
            .into_iter()
            .map(|status| ((status.database.clone(), status.output_of.clone()), status))
            .collect();
        let mut databases: Vec<Value> = Vec::new();
        let mut idle: BTreeMap<&(String, Option<String>), &DatabaseStatus> = written.iter().collect();
        for backlog in &status.backlogs {
            let of = (backlog.database.clone(), backlog.output_of.clone());
            idle.remove(&of);
            databases.push(database_json(
                &backlog.database,
                json!({
                    "tenant": backlog.tenant,
                    "lines": backlog.lines,
                    "bytes": backlog.bytes,
                    "oldest_age_ms": backlog.oldest_age_s * 1000,
                }),
                written.get(&of),
            ));
        }
        for ((name, _), status) in idle {
            let nothing = json!({"lines": 0, "bytes": 0, "oldest_age_ms": 0});
            databases.push(database_json(name, nothing, Some(status)));
        }
        databases.sort_by(|a, b| a["database"].as_str().cmp(&b["database"].as_str()));
        let mut all = serde_json::to_value(&status).expect("a status is JSON");
        all["messages_unsettled"] = self.parts.window.messages().into();
        all["bytes_unsettled"] = self.parts.window.bytes().into();
        all["databases"] = databases.into();
        all
    }

    fn quarantine(&self, payloads: bool) -> Value {
        let quarantine = &self.parts.quarantine;
        let (mut reasons, mut tenants) = (BTreeMap::new(), BTreeMap::new());
        for count in quarantine.counts() {
            *reasons.entry(count.reason).or_insert(0) += count.entries;
            *tenants.entry(count.tenant).or_insert(0) += count.entries;
        }
        let since_start: BTreeMap<&str, u64> = quarantine
            .refused_since_start()
            .into_iter()
            .map(|(reason, count)| (reason.code(), count))
            .collect();
        json!({
            "bytes": quarantine.bytes(),
            "reasons": reasons,
            "tenants": tenants,
            "refused_since_start": since_start,
            "latest": self.latest(payloads),
        })
    }
}

/// One database's backlog, and how it is being written.
fn database_json(name: &str, backlog: Value, status: Option<&DatabaseStatus>) -> Value {
    let mut all = json!({"database": name});
    for part in [backlog, status.map_or(Value::Null, |status| json!(status))] {
        if let (Value::Object(all), Value::Object(part)) = (&mut all, part) {
            all.extend(part);
        }
    }
    all
}

impl Shown {
    /// The last refusals, newest first; payloads only where they may be shown, secrets masked.
    fn latest(&self, payloads: bool) -> Vec<Value> {
        let dir = self.parts.quarantine.dir();
        let latest = Quarantine::latest(dir, Filter::default(), LATEST_REFUSALS_SHOWN);
        let found = latest.and_then(|(places, _)| Quarantine::find(dir, &places)).unwrap_or_else(|error| {
            tracing::error!(%error, "quarantine cannot be read");
            Vec::new()
        });
        let mut entries: Vec<_> = found.into_iter().map(|(_, entry)| entry).collect();
        entries.sort_by(|a, b| b.time.cmp(&a.time));
        entries.into_iter().map(|entry| show(entry, payloads)).collect()
    }
}
