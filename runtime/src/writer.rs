//! Lines to the database: a backlog and a retry clock a database, as many requests under way as its
//! backlog needs.
//!
//! - Lines of one device are written in the order in which they came: no two requests under way
//!   carry lines of one device. Databases are written beside each other and never wait for one
//!   another's troubles.
//! - Nothing is given up because a database is slow, down or misconfigured. Only lines that the
//!   database refuses one by one leave for quarantine.
//! - Lines are durable before they come here, so what waits here can be given back to its store
//!   at any time, and is when its database is in trouble.
//!
//! The decisions are pure (`batcher`, `window`, `verdict`, `work`, `backoff`, joined by `lane`);
//! `database` does what they say.

mod stats;
mod load;
mod batcher;
mod window;
mod verdict;
mod backoff;
mod work;
mod lane;
mod direct;
mod endpoint;
mod way;
mod file;
mod ease;
mod calendar;
mod database;
#[cfg(test)]
mod testing;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::domain::durable::{Delivery, Durable, Store};
use crate::domain::ids::{DatabaseName, TenantId};
use crate::domain::limits;
use crate::domain::tenant::settings::OutputId;
use crate::domain::tenant::table::Tenants;

pub use backoff::Waits;
pub use ease::Ease;
pub use load::RefusedLinesSink;
pub use stats::{DatabaseStatus, Left, WriteObserver, WriterStats};

use batcher::BatchLimits;
use calendar::Calendar;
use database::Database;
use load::Load;
use way::Way;

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
#[derive(Clone, PartialEq, Eq)]
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
    /// Requests under way to one database, at least 1.
    pub requests_max: u32,
    pub waits: Waits,
}

/// What the writer works with.
pub struct WriterParts {
    /// Where its tasks run.
    pub runtime: tokio::runtime::Handle,
    pub store: Arc<dyn Store>,
    pub refused_lines: RefusedLinesSink,
    pub observer: Arc<dyn WriteObserver>,
    /// Tenants, with the outputs that their lines go to.
    pub tenants: Arc<Tenants>,
}

/// The writer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    #[error("output.url {url:?} cannot be used: {why}")]
    Url { url: String, why: String },
    #[error(
        "output.token, output.username or output.password has a character that an HTTP header cannot contain"
    )]
    Credential,
    #[error("the HTTP client cannot start: {0}")]
    Client(String),
}

/// The outputs of tenants whose lines do not go the common way.
#[derive(Clone, Default)]
struct Outputs {
    ways: HashMap<OutputId, Arc<Way>>,
    /// How many were ever opened.
    opened: u64,
}

struct Shared {
    /// To where everybody's lines go.
    common: Arc<Way>,
    tenants: Arc<Tenants>,
    outputs: RwLock<Outputs>,
    limits: BatchLimits,
    requests_max: u32,
    waits: Waits,
    runtime: tokio::runtime::Handle,
    store: Arc<dyn Store>,
    refused_lines: RefusedLinesSink,
    observer: Arc<dyn WriteObserver>,
    stats: WriterStats,
    databases: DashMap<DatabaseName, Arc<Database>, foldhash::fast::RandomState>,
    calendar: Calendar,
    ease: Arc<Ease>,
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
        let requests_max = match &settings.output {
            OutputSettings::Http(_) => settings.requests_max.clamp(1, batcher::SHARDS as u32),
            // A file grows at one end.
            OutputSettings::File { .. } => 1,
        };
        let shared = Arc::new(Shared {
            common: Arc::new(Way::new(&settings.output)?),
            tenants: parts.tenants,
            outputs: RwLock::default(),
            limits: BatchLimits {
                lines: settings.batch_lines.max(1),
                interval: settings.flush_interval,
                early: (settings.flush_interval / 100).min(Duration::from_millis(limits::FLUSH_EARLY_MS_MAX)),
                lines_max: settings.batch_lines_max,
                bytes_max: limits::BATCH_BYTES_MAX,
            },
            requests_max,
            waits: settings.waits,
            runtime: parts.runtime,
            store: parts.store,
            refused_lines: parts.refused_lines,
            observer: parts.observer,
            stats: WriterStats::default(),
            databases: DashMap::default(),
            calendar: Calendar::default(),
            ease: Arc::default(),
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            changed: Notify::new(),
        });
        Ok(WriterHandle { shared })
    }
}

/// The writer as others see it. Clones are the same writer.
#[derive(Clone)]
pub struct WriterHandle {
    shared: Arc<Shared>,
}

/// Never blocks on I/O; from any thread.
impl Delivery for WriterHandle {
    fn deliver(&self, durable: Durable) {
        let database = self.database(&durable.database);
        database.push(&self.shared, Load::new(durable));
    }

    fn waits(&self, database: &DatabaseName) {
        self.database(database).note_waiting(&self.shared);
    }
}

impl WriterHandle {
    fn database(&self, name: &DatabaseName) -> Arc<Database> {
        let shared = &self.shared;
        let known = shared.databases.get(name).map(|known| known.clone());
        known.unwrap_or_else(|| {
            let entry = shared.databases.entry(name.clone());
            entry.or_insert_with(|| Arc::new(Database::new(name.clone(), shared.requests_max))).clone()
        })
    }

    /// How much the thread that the writer runs on may take its time.
    pub fn ease(&self) -> Arc<Ease> {
        self.shared.ease.clone()
    }

    /// Opens the outputs of these tenants, and numbers them; one that is open already keeps its number.
    /// Lines go there once the tenants' settings name the number. No connection is opened yet. Calls
    /// must not overlap.
    ///
    /// # Errors
    /// Settings lead nowhere; then nothing has changed.
    pub fn open_outputs(
        &self,
        own: &HashMap<TenantId, HttpSettings>,
    ) -> Result<HashMap<TenantId, OutputId>, WriterError> {
        // Not held meanwhile: making a client takes a while, and requests go on.
        let mut outputs = self.shared.outputs.read().clone();
        let mut numbers = HashMap::new();
        for (tenant, settings) in own {
            // Tenants of one server share their way to it.
            let open = outputs.ways.iter().find(|(_, way)| way.is_to(settings));
            let number = match open {
                Some((output, _)) => *output,
                None => {
                    let way = Arc::new(Way::new(&OutputSettings::Http(settings.clone()))?);
                    outputs.opened += 1;
                    let number = OutputId::new(outputs.opened);
                    outputs.ways.insert(number, way);
                    number
                }
            };
            numbers.insert(tenant.clone(), number);
        }
        *self.shared.outputs.write() = outputs;
        Ok(numbers)
    }

    /// What the writer has in hand of these tenants, whose outputs have changed, goes their new way too,
    /// but for what is under way; the store must have moved what it has of them. Outputs that no tenant
    /// has any more are closed.
    pub fn follow_outputs(&self, changed: &[TenantId]) {
        if changed.is_empty() {
            return;
        }
        let in_use = self.shared.tenants.outputs();
        self.shared.outputs.write().ways.retain(|output, _| in_use.contains(output));
        let changed: HashSet<TenantId> = changed.iter().cloned().collect();
        for database in self.shared.all_databases() {
            database.follow_outputs(&self.shared, &changed);
        }
    }

    pub fn stats(&self) -> &WriterStats {
        &self.shared.stats
    }

    /// Each database that was ever written to, by name.
    pub fn databases(&self) -> Vec<DatabaseStatus> {
        let now = Instant::now();
        let mut all: Vec<_> = self.shared.databases.iter().map(|entry| entry.value().status(now)).collect();
        all.sort_by(|a, b| a.database.cmp(&b.database));
        all
    }

    /// Writes all that waits, at once, until `deadline`. A database that does not take it gets one
    /// more try and is not waited for. No request begins after that; one that is under way may
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
                if shared.all_databases().iter().all(|database| database.is_drained()) {
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
            if database.has_lines() {
                left.databases.push(database.name().clone());
            }
        }
        left
    }
}

impl Shared {
    fn all_databases(&self) -> Vec<Arc<Database>> {
        self.databases.iter().map(|entry| entry.value().clone()).collect()
    }

    /// The way that the lines of a database go now.
    fn way_of(&self, database: &DatabaseName) -> Arc<Way> {
        let own = database.output_of().and_then(|tenant| self.tenants.output(tenant));
        let way = own.and_then(|output| self.outputs.read().ways.get(&output).cloned());
        way.unwrap_or_else(|| self.common.clone())
    }
}
