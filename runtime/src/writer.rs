//! Lines to the database: a batch a request, a backlog and a retry clock a database.
//!
//! - Lines of one database are written in the order in which they came, one request at a time;
//!   databases are written beside each other and never wait for one another's troubles.
//! - Nothing is given up because a database is slow, down or misconfigured. Only lines that the
//!   database refuses one by one leave for quarantine.
//! - Lines wait in memory. The queue needs no ceiling of its own: every message in it holds a slot
//!   of the global `Window`, and a full window stops the sources.
//! - What becomes of a message is told through `Receipt`, so that a store can stand between.
//!
//! The decisions are pure (`batcher`, `verdict`, `work`, `backoff`, joined by `lane`); `database`
//! does what they say.

mod stats;
mod load;
mod batcher;
mod verdict;
mod backoff;
mod work;
mod lane;
mod endpoint;
mod file;
mod database;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tracing::debug;

use crate::domain::activity::Activity;
use crate::domain::ids::{DatabaseName, TenantId};
use crate::domain::limits;
use crate::domain::message::CheckedBatch;
use crate::domain::slot::Window;

pub use backoff::Waits;
pub use load::{Load, LoadMessage, Receipt, RefusedLinesSink};
pub use stats::{DatabaseStatus, Left, WriteObserver, WriterStats};

use batcher::BatchLimits;
use database::Database;
use endpoint::{Endpoint, Gate};
use file::FileOutput;

/// The write protocol that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    InfluxDb3,
    InfluxDb2,
    InfluxDb1,
}

/// When bodies are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gzip {
    /// Unless the server is on this machine.
    Auto,
    Always,
    Never,
}

/// A server that lines are posted to.
#[derive(Clone)]
pub struct HttpSettings {
    pub kind: Kind,
    /// `http://` or `https://`, without query.
    pub url: String,
    /// Of InfluxDB 3 and 2; empty: none is sent.
    pub token: String,
    /// Of InfluxDB 2.
    pub org: String,
    /// Of InfluxDB 1; empty: no credentials are sent.
    pub username: String,
    pub password: String,
    pub gzip: Gzip,
    pub request_timeout: Duration,
}

/// Where lines go.
#[derive(Clone)]
pub enum OutputSettings {
    Http(HttpSettings),
    /// `{path}/{database}/{YYYY-MM-DDTHH}.lp`
    File {
        path: PathBuf,
    },
}

/// How the writer works.
#[derive(Clone)]
pub struct WriterSettings {
    pub output: OutputSettings,
    /// Lines in a request; at least 1.
    pub batch_lines: u32,
    /// The longest time that a line waits for others.
    pub flush_interval: Duration,
    /// Lines in a request while catching up; at least `batch_lines`.
    pub batch_lines_max: u32,
    pub waits: Waits,
}

/// What the writer works with.
pub struct WriterParts {
    /// Where its tasks run.
    pub runtime: tokio::runtime::Handle,
    pub window: Arc<Window>,
    pub activity: Arc<Activity>,
    pub refused_lines: RefusedLinesSink,
    pub observer: Arc<dyn WriteObserver>,
}

/// The writer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    #[error("output.url {url:?} cannot be used: {why}")]
    Url { url: String, why: String },
    #[error("output.token, output.username or output.password has a character that no HTTP header takes")]
    Credential,
    #[error("the HTTP client cannot start: {0}")]
    Client(String),
}

enum Output {
    Http(Endpoint),
    File(Arc<FileOutput>),
}

struct Shared {
    output: Output,
    gate: Gate,
    requests: Semaphore,
    limits: BatchLimits,
    waits: Waits,
    runtime: tokio::runtime::Handle,
    window: Arc<Window>,
    activity: Arc<Activity>,
    refused_lines: RefusedLinesSink,
    observer: Arc<dyn WriteObserver>,
    stats: WriterStats,
    databases: DashMap<DatabaseName, Arc<Database>, foldhash::fast::RandomState>,
    /// Databases with lines that nobody has pressed for yet.
    waiting: Mutex<Vec<Arc<Database>>>,
    lines_wait: Notify,
    draining: AtomicBool,
    stopped: AtomicBool,
    /// A database has nothing left, or all are to stop.
    changed: Notify,
}

/// Starts writers.
pub struct Writer;

impl Writer {
    /// # Errors
    /// When the settings can lead nowhere. No connection is opened yet.
    pub fn start(settings: WriterSettings, parts: WriterParts) -> Result<WriterHandle, WriterError> {
        let output = match &settings.output {
            OutputSettings::Http(http) => Output::Http(Endpoint::new(http)?),
            OutputSettings::File { path } => Output::File(Arc::new(FileOutput::new(path))),
        };
        let shared = Arc::new(Shared {
            output,
            gate: Gate::default(),
            requests: Semaphore::new(limits::ENDPOINT_REQUESTS_MAX),
            limits: BatchLimits {
                lines: settings.batch_lines.max(1),
                interval: settings.flush_interval,
                lines_max: settings.batch_lines_max,
                bytes_max: limits::BATCH_BYTES_MAX,
            },
            waits: settings.waits,
            runtime: parts.runtime,
            window: parts.window,
            activity: parts.activity,
            refused_lines: parts.refused_lines,
            observer: parts.observer,
            stats: WriterStats::default(),
            databases: DashMap::default(),
            waiting: Mutex::default(),
            lines_wait: Notify::new(),
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            changed: Notify::new(),
        });
        shared.runtime.spawn(press_when_quiet(shared.clone()));
        Ok(WriterHandle { shared })
    }
}

/// The writer as others see it. Clones are the same writer.
#[derive(Clone)]
pub struct WriterHandle {
    shared: Arc<Shared>,
}

impl WriterHandle {
    /// Takes lines to be written. Never blocks on I/O; from any thread.
    pub fn append(&self, batch: CheckedBatch) {
        batch.tenant.account.spool_lines(batch.line_count());
        let (database, load) = Load::of_batch(batch, Instant::now());
        self.append_load(database, load);
    }

    /// Takes lines whose accounts are kept by their receipt.
    pub fn append_load(&self, database: DatabaseName, load: Load) {
        let shared = &self.shared;
        shared.stats.lines_pending.fetch_add(load.line_count(), Ordering::Relaxed);
        let known = shared.databases.get(&database).map(|known| known.clone());
        let database = known.unwrap_or_else(|| {
            let entry = shared.databases.entry(database.clone());
            entry.or_insert_with(|| Arc::new(Database::new(database, load.tenant.id.clone()))).clone()
        });
        database.push(shared, load);
        if shared.window.is_half_full() {
            shared.press_all();
        } else {
            shared.lines_wait.notify_one();
        }
    }

    pub fn stats(&self) -> &WriterStats {
        &self.shared.stats
    }

    /// The backlog of each database that was ever written to, by name.
    pub fn databases(&self) -> Vec<DatabaseStatus> {
        let now = Instant::now();
        let mut all: Vec<_> = self.shared.databases.iter().map(|entry| entry.value().status(now)).collect();
        all.sort_by(|a, b| a.database.cmp(&b.database));
        all
    }

    /// Writes all that waits, at once, until `deadline`. What is left then stays unsettled: it was
    /// never acknowledged and comes again. No request begins after that; one that is under way may
    /// still be answered.
    pub async fn drain(&self, deadline: Instant) -> Left {
        let shared = &self.shared;
        shared.draining.store(true, Ordering::Release);
        for database in shared.all_databases() {
            database.hurry(shared);
        }
        let all_written = async {
            loop {
                let changed = shared.changed.notified();
                if shared.all_databases().iter().all(|database| database.lines_left() == 0) {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout_at(deadline.into(), all_written).await;
        shared.stopped.store(true, Ordering::Release);
        let mut left = Left::default();
        for database in shared.all_databases() {
            database.hurry(shared);
            let lines = database.lines_left();
            if lines > 0 {
                left.lines += lines;
                left.databases.push(database.name().clone());
            }
        }
        shared.lines_wait.notify_one();
        left
    }
}

impl Shared {
    fn all_databases(&self) -> Vec<Arc<Database>> {
        self.databases.iter().map(|entry| entry.value().clone()).collect()
    }

    /// All lines that wait now are what the sources wait for.
    fn press_all(&self) {
        for database in std::mem::take(&mut *self.waiting.lock()) {
            database.press();
        }
    }

    fn told(&self, tenant: &TenantId, outcome: &'static str, lines: u64, duration: Duration) {
        self.observer.write(tenant, outcome, lines, duration);
    }
}

/// Presses for the lines that wait when nothing else is coming. Sleeps without a tick while no
/// line waits.
async fn press_when_quiet(shared: Arc<Shared>) {
    while !shared.stopped.load(Ordering::Acquire) {
        shared.lines_wait.notified().await;
        let mut received = shared.activity.received();
        while !shared.waiting.lock().is_empty() && !shared.stopped.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(limits::QUIET_MS)).await;
            let now_received = shared.activity.received();
            if now_received == received && shared.activity.expected() == 0 {
                debug!("quiet: flushing what waits");
                shared.press_all();
            }
            received = now_received;
        }
    }
}
