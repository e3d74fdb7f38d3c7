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

struct Shared {
    /// To where everybody's lines go.
    common: Arc<Way>,
    /// Tenants whose lines go elsewhere.
    own: RwLock<HashMap<TenantId, Arc<Way>>>,
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
            own: RwLock::default(),
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

    /// From now on the lines of these tenants go to servers of their own, and those of no others. Gives
    /// the tenants whose lines go another way than before.
    ///
    /// # Errors
    /// Settings lead nowhere; then nothing has changed.
    pub fn set_own_outputs(
        &self,
        own: &HashMap<TenantId, HttpSettings>,
    ) -> Result<HashSet<TenantId>, WriterError> {
        let shared = &self.shared;
        let before = shared.own.read().clone();
        // Tenants of one server share their way to it.
        let mut ways: Vec<Arc<Way>> = before.values().cloned().collect();
        let mut after = HashMap::new();
        for (tenant, settings) in own {
            let way = match ways.iter().find(|way| way.is_to(settings)) {
                Some(way) => way.clone(),
                None => {
                    let way = Arc::new(Way::new(&OutputSettings::Http(settings.clone()))?);
                    ways.push(way.clone());
                    way
                }
            };
            after.insert(tenant.clone(), way);
        }
        let has_changed = |tenant: &&TenantId| match (before.get(*tenant), after.get(*tenant)) {
            (Some(before), Some(after)) => !Arc::ptr_eq(before, after),
            (None, None) => false,
            _ => true,
        };
        let changed: HashSet<TenantId> =
            before.keys().chain(after.keys()).filter(has_changed).cloned().collect();
        *shared.own.write() = after;
        Ok(changed)
    }

    /// What the writer has in hand of these tenants goes their new way too, but for what is under way;
    /// the store must know of it by now.
    pub fn follow_outputs(&self, changed: &HashSet<TenantId>) {
        if !changed.is_empty() {
            for database in self.shared.all_databases() {
                database.follow_outputs(&self.shared, changed);
            }
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
        let own = database.output_of().and_then(|tenant| self.own.read().get(tenant).cloned());
        own.unwrap_or_else(|| self.common.clone())
    }
}
