//! The handles of all parts, for admin, metrics and the stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::audit::AuditLog;
use crate::config::budget_plan::BudgetPlan;
use crate::core::ack::window::ReceiveWindow;
use crate::core::age_clock::AgeClock;
use crate::core::books::Books;
use crate::core::disk_reserve::DiskReserve;
use crate::core::tenant::table::Tenants;
use crate::fleet::drain::Drain;
use crate::pipeline::birth_requester::BirthRequester;
use crate::pipeline::refusal_publisher::RefusalPublisher;
use crate::pipeline::replay::Replays;
use crate::pipeline::tap::Tap;
use crate::quarantine::Quarantine;
use crate::rollout::GuestStore;
use crate::source::SourceStatus;
use crate::source::listener::{CertificateReloader, ListenerCounters, ListenerDrain};
use crate::spool::Spool;
use crate::telemetry::expiry::{Certificate, ExpiryWatch};
use crate::telemetry::history::{History, Totals};
use crate::telemetry::stats::Statistics;
use crate::telemetry::write_metrics::WriteMetrics;
use crate::writer::Writer;

/// The readiness of one source.
pub struct SourceHealth {
    name: &'static str,
    status: watch::Receiver<SourceStatus>,
}

impl SourceHealth {
    pub fn new(name: &'static str, status: watch::Receiver<SourceStatus>) -> Self {
        Self { name, status }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn is_ready(&self) -> bool {
        self.status.borrow().is_ready()
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
    /// The ceiling of open connections.
    pub connections_max: usize,
    pub drain: Arc<ListenerDrain>,
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
}

/// The handles of all parts, for admin, metrics and the stop.
pub struct Handles {
    /// Its name among others; empty: none.
    pub gateway: String,
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
    pub tap: Arc<Tap>,
    pub sources: Vec<SourceHealth>,
    pub redelivered: Vec<Arc<AtomicU64>>,
    pub drain: Arc<Drain>,
    /// The listener; `None` without one.
    pub listener: Option<ListenerHandles>,
    /// The certificate of the admin side; `None` without TLS there.
    pub admin_tls: Option<Arc<CertificateReloader>>,
    pub expiry: ExpiryWatch,
    /// The publisher of refusals; `None` if no answers on the refused topic are wanted.
    pub refusal_publisher: Option<Arc<RefusalPublisher>>,
    /// The requester of births; `None` if no topic template allows it.
    pub birth_requester: Option<Arc<BirthRequester>>,
    /// The fault of the last reading of a file registry.
    pub registry_fault: Mutex<Option<String>>,
    pub history: History,
    pub started: Instant,
    /// The same moment by the wall clock.
    pub started_at: SystemTime,
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

    /// Adds a sample of this moment to the history.
    pub fn sample(&self) {
        let accounts = self.books.accounts();
        let ages = self.spool.status().backlogs.into_iter().map(|backlog| backlog.oldest_age_s);
        self.history.record(Totals {
            at: Instant::now(),
            at_s: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            tenants: accounts
                .iter()
                .map(|account| (account.tenant().to_string(), account.snapshot()))
                .collect(),
            ack_latency: self.window.ack_latency.snapshot(),
            backlog_age_s: ages.max().unwrap_or_default(),
        });
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
