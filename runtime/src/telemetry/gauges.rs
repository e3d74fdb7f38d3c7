//! The handles of all parts, and the counters and gauges that they give at a scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::admission::registry::Registry;
use crate::audit::AuditLog;
use crate::config::budget_plan::BudgetPlan;
use crate::core::ack::window::ReceiveWindow;
use crate::core::age_clock::AgeClock;
use crate::core::books::{Books, OTHER_TENANTS};
use crate::core::disk_reserve::DiskReserve;
use crate::core::histogram::HistogramSnapshot;
use crate::core::tenant::table::Tenants;
use crate::limits::METRIC_TENANTS_MAX;
use crate::pipeline::refusal_publisher::RefusalPublisher;
use crate::pipeline::replay::Replays;
use crate::quarantine::Quarantine;
use crate::rollout::GuestStore;
use crate::source::SourceStatus;
use crate::source::listener::{CertificateReloader, CloseReason, ListenerCounters};
use crate::spool::Spool;
use crate::telemetry::expiry::{Certificate, ExpiryWatch};
use crate::telemetry::logs;
use crate::telemetry::sample::Sample;
use crate::telemetry::stats::Statistics;
use crate::telemetry::write_metrics::WriteMetrics;
use crate::writer::{DatabaseHealth, DatabaseStatus, Writer};

/// The readiness of one source.
pub struct SourceHealth {
    name: &'static str,
    status: watch::Receiver<SourceStatus>,
}

impl SourceHealth {
    pub fn new(name: &'static str, status: watch::Receiver<SourceStatus>) -> Self {
        Self { name, status }
    }

    /// The readiness as a gauge, by the source's name.
    fn sample(&self) -> Sample {
        let ready = if self.status.borrow().is_ready() { 1.0 } else { 0.0 };
        Sample::new(vec![("source", self.name.to_owned())], ready)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let status = self.status.borrow();
        if status.is_ready() {
            return Ok(());
        }
        let what = if status.connected { "is not subscribed" } else { "is not connected" };
        let why = status.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        Err(format!("the {} {what}{why}", self.name))
    }
}

/// The ceilings of the spool on disk, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct SpoolCeilings {
    pub bytes_max: u64,
    /// The ceiling of a tenant without one of its own.
    pub tenant_bytes_max: u64,
}

/// The handles of the listener.
pub struct ListenerHandles {
    pub counters: Arc<ListenerCounters>,
    pub tls: Option<Arc<CertificateReloader>>,
}

impl ListenerHandles {
    /// Loads the certificate again if its files have changed.
    pub fn refresh_certificate(&self) {
        match self.tls.as_ref().map(|tls| tls.refresh()) {
            Some(Ok(true)) => tracing::info!("the listener's certificate was read again"),
            Some(Err(error)) => tracing::error!(%error, "the listener's certificate stays as it was"),
            Some(Ok(false)) | None => {}
        }
    }

    /// Closed connections by reason.
    fn ended(&self) -> Vec<Sample> {
        let sample = |&ending: &CloseReason| {
            let labels = vec![("reason", ending.name().to_owned())];
            Sample::new(labels, self.counters.ended(ending) as f64)
        };
        CloseReason::ALL.iter().map(sample).collect()
    }
}

/// The handles of all parts, for admin, metrics and the stop.
pub struct Handles {
    pub books: Arc<Books>,
    pub age_clock: Arc<AgeClock>,
    pub disk_reserve: Arc<DiskReserve>,
    pub tenants: Arc<Tenants>,
    pub budget_plan: BudgetPlan,
    pub window: Arc<ReceiveWindow>,
    pub admission: Arc<Admission>,
    pub guests: Arc<GuestStore>,
    pub spool: Spool,
    pub spool_ceilings: SpoolCeilings,
    pub writer: Writer,
    pub writes: Arc<WriteMetrics>,
    pub quarantine: Quarantine,
    pub audit: AuditLog,
    pub replays: Replays,
    pub sources: Vec<SourceHealth>,
    pub redelivered: Vec<Arc<AtomicU64>>,
    /// The listener; `None` without one.
    pub listener: Option<ListenerHandles>,
    /// The certificate of the admin side; `None` without TLS there.
    pub admin_tls: Option<Arc<CertificateReloader>>,
    pub expiry: ExpiryWatch,
    /// The publisher of refusals; `None` if no answers on the refused topic are wanted.
    pub refusal_publisher: Option<Arc<RefusalPublisher>>,
    /// The fault of the last reading of a file registry.
    pub registry_fault: Mutex<Option<String>>,
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").finish_non_exhaustive()
    }
}

impl Handles {
    /// The gateway's own certificates.
    pub fn certificates(&self) -> Vec<Certificate> {
        let listener = self.listener.as_ref().and_then(|listener| listener.tls.as_ref());
        let ends = listener.into_iter().chain(&self.admin_tls).map(|tls| tls.not_after());
        ends.filter_map(|(key, not_after)| Some((key, not_after?))).collect()
    }

    /// Loads certificates again whose files have changed, and warns of those that expire.
    pub fn refresh_certificates(&self) {
        if let Some(listener) = &self.listener {
            listener.refresh_certificate();
        }
        match self.admin_tls.as_ref().map(|tls| tls.refresh()) {
            Some(Ok(true)) => tracing::info!("the admin side's certificate was read again"),
            Some(Err(error)) => tracing::error!(%error, "the admin side's certificate stays as it was"),
            Some(Ok(false)) | None => {}
        }
        self.expiry.check(&self.certificates(), SystemTime::now());
    }

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

fn certificate_sample((key, not_after): Certificate) -> Sample {
    let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Sample::new(vec![("key", key.to_owned())], seconds as f64)
}

/// Name, without `_total` for a counter, then help and samples.
pub(crate) type Family = (&'static str, &'static str, Vec<Sample>);

impl Handles {
    pub(crate) fn counters(&self) -> Vec<Family> {
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
        let (mut cpu, mut failures, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        for guest in self.guests.list() {
            let labels = vec![("tenant", guest.tenant.clone()), ("type", guest.message_type.clone())];
            cpu.push(Sample::new(labels.clone(), guest.cpu_seconds));
            for (kind, count) in guest.failures {
                let mut labels = labels.clone();
                labels.push(("kind", kind.to_owned()));
                failures.push(Sample::new(labels, count as f64));
            }
            for (kind, count) in guest.ignored {
                let mut labels = labels.clone();
                labels.push(("kind", kind.to_owned()));
                ignored.push(Sample::new(labels, count as f64));
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
            dropped = registry.refusals.dropped();
        }
        let answers = self.refusal_publisher.as_ref().map(|publisher| {
            [("sent", &publisher.sent), ("dropped", &publisher.dropped)].map(|(outcome, count)| {
                let count = count.load(Ordering::Relaxed) as f64;
                Sample::new(vec![("outcome", outcome.to_owned())], count)
            })
        });
        let answers = answers.map(Vec::from).unwrap_or_default();
        let refusals = self.writer.stats().refusals();
        let refusals = refusals
            .into_iter()
            .map(|(outcome, lines)| Sample::new(vec![("outcome", outcome.to_owned())], lines as f64));
        let refusals = refusals.collect();
        let foreign =
            |listener: &ListenerHandles| listener.counters.foreign_publishes.load(Ordering::Relaxed) as f64;
        vec![
            (
                "tidegate_listener_connections_ended",
                "Connections of devices that ended or were refused, by reason",
                self.listener.as_ref().map(ListenerHandles::ended).unwrap_or_default(),
            ),
            (
                "tidegate_listener_foreign_publishes",
                "PUBLISHes to a topic of another device",
                self.listener.as_ref().map(|listener| Sample::bare(foreign(listener))).unwrap_or_default(),
            ),
            (
                "tidegate_log_lines_dropped",
                "Lines of the log that were dropped, because stderr was not read",
                Sample::bare(logs::dropped_lines() as f64),
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
                "tidegate_line_refusals",
                "Lines that databases refused, by the outcome of the POST that showed it",
                refusals,
            ),
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
            ("tidegate_guest_ignored", "Values that decoders left out and reported, by kind", ignored),
            ("tidegate_auth_cache_lookups", "Look-ups in the cache of devices, by result", lookups.to_vec()),
        ]
    }

    pub(crate) fn gauges(&self) -> Vec<Family> {
        let connections =
            |listener: &ListenerHandles| listener.counters.connections.load(Ordering::Relaxed) as f64;
        vec![
            (
                "tidegate_listener_connections",
                "Open connections of devices",
                self.listener
                    .as_ref()
                    .map(|listener| Sample::bare(connections(listener)))
                    .unwrap_or_default(),
            ),
            (
                "tidegate_certificate_expires_timestamp_seconds",
                "End of the validity of the gateway's certificates, in seconds since 1970, by key",
                self.certificates().into_iter().map(certificate_sample).collect(),
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
                "tidegate_source_ready",
                "1 if the source can receive messages: the broker session is subscribed, or the listener is open",
                self.sources.iter().map(SourceHealth::sample).collect(),
            ),
            (
                "tidegate_spool_bytes_max",
                "The ceiling of the spool on disk in bytes (spool.bytes_max)",
                Sample::bare(self.spool_ceilings.bytes_max as f64),
            ),
            (
                "tidegate_spool_tenant_bytes_max",
                "The ceiling of one tenant's backlog in bytes, if it has none of its own (spool.tenant_bytes_max)",
                Sample::bare(self.spool_ceilings.tenant_bytes_max as f64),
            ),
            (
                "tidegate_databases",
                "Databases by state: well, retrying, or paused until a person acts",
                self.databases_by_state(),
            ),
            (
                "tidegate_database_state",
                "State of each database: 0 well, 1 retrying, 2 paused until a person acts",
                self.database_states(),
            ),
            (
                "tidegate_lines_oldest_age_seconds",
                "Age of the oldest line in the spool in seconds, by tenant",
                self.oldest_ages(),
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

    fn databases_by_state(&self) -> Vec<Sample> {
        let databases = self.writer.databases();
        let sample = |state: &DatabaseHealth| {
            let count = databases.iter().filter(|database| database.state == *state).count();
            Sample::new(vec![("state", state.name().to_owned())], count as f64)
        };
        DatabaseHealth::ALL.iter().map(sample).collect()
    }

    /// The states of a bounded number of databases, those that are not well first.
    fn database_states(&self) -> Vec<Sample> {
        let mut databases = self.writer.databases();
        databases.sort_by_key(|database| std::cmp::Reverse(database.state as u8));
        let sample = |database: DatabaseStatus| {
            let mut labels = vec![("database", database.database)];
            labels.extend(database.output_of.map(|tenant| ("output_of", tenant)));
            Sample::new(labels, f64::from(database.state as u8))
        };
        databases.into_iter().take(METRIC_TENANTS_MAX).map(sample).collect()
    }

    fn oldest_ages(&self) -> Vec<Sample> {
        let mut ages: BTreeMap<String, u64> = BTreeMap::new();
        for backlog in self.spool.status().backlogs {
            let known = ages.contains_key(&backlog.tenant) || ages.len() < METRIC_TENANTS_MAX;
            let label = if known { backlog.tenant } else { OTHER_TENANTS.to_owned() };
            let age = ages.entry(label).or_default();
            *age = backlog.oldest_age_s.max(*age);
        }
        ages.into_iter().map(|(tenant, age)| Sample::new(vec![("tenant", tenant)], age as f64)).collect()
    }

    pub(crate) fn histograms(&self) -> Vec<(&'static str, &'static str, HistogramSnapshot)> {
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
