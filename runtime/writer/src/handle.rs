use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::backlog::BatchLimits;
use crate::context::{WriterContext, WriterParts};
use crate::database_task::DatabaseTask;
use crate::ease::Ease;
use crate::flush_timer::FlushTimer;
use crate::output::Output;
use crate::pending_lines::PendingLines;
use crate::settings::{HttpSettings, OutputSettings, WriterError, WriterSettings};
use crate::stats::{DatabaseStatus, UndrainedDatabases, WriterStats};
use crate::{backlog, limits};
use tidegate_core::durable::{Durable, Handoff};
use tidegate_core::ids::{DatabaseName, TenantId};
use tidegate_core::tenant::settings::OutputId;

/// The writer as others see it. Clones are the same writer.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<WriterContext>,
}

impl Writer {
    /// # Errors
    /// When the settings can lead nowhere. No connection is opened yet.
    pub fn start(settings: WriterSettings, parts: WriterParts) -> Result<Writer, WriterError> {
        let requests_max = match &settings.output {
            OutputSettings::Http(_) => settings.requests_max.clamp(1, backlog::SHARDS as u32),
            // A file grows at one end.
            OutputSettings::File { .. } => 1,
        };
        let shared = Arc::new(WriterContext {
            common: Arc::new(Output::new(&settings.output)?),
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
            calendar: FlushTimer::default(),
            ease: Arc::default(),
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            changed: Notify::new(),
        });
        Ok(Self { shared })
    }
}

/// Never blocks on I/O; from any thread.
impl Handoff for Writer {
    fn deliver(&self, durable: Durable) {
        let database = self.database(&durable.database);
        database.push(&self.shared, PendingLines::new(durable));
    }

    fn waits(&self, database: &DatabaseName) {
        self.database(database).mark_waiting(&self.shared);
    }
}

impl Writer {
    fn database(&self, name: &DatabaseName) -> Arc<DatabaseTask> {
        let shared = &self.shared;
        let known = shared.databases.get(name).map(|known| known.clone());
        known.unwrap_or_else(|| {
            let entry = shared.databases.entry(name.clone());
            entry.or_insert_with(|| Arc::new(DatabaseTask::new(name.clone(), shared.requests_max))).clone()
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
            let open = outputs.ways.iter().find(|(_, way)| way.has_settings(settings));
            let number = match open {
                Some((output, _)) => *output,
                None => {
                    let way = Arc::new(Output::new(&OutputSettings::Http(settings.clone()))?);
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
    pub fn move_to_outputs(&self, changed: &[TenantId]) {
        if changed.is_empty() {
            return;
        }
        let in_use = self.shared.tenants.outputs();
        self.shared.outputs.write().ways.retain(|output, _| in_use.contains(output));
        let changed: HashSet<TenantId> = changed.iter().cloned().collect();
        for database in self.shared.all_databases() {
            database.move_to_outputs(&self.shared, &changed);
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
    pub async fn drain(&self, deadline: Instant) -> UndrainedDatabases {
        let shared = &self.shared;
        shared.draining.store(true, Ordering::Release);
        for database in shared.all_databases() {
            database.flush_now(shared);
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
        let mut left = UndrainedDatabases::default();
        for database in shared.all_databases() {
            database.flush_now(shared);
            if database.has_lines() {
                left.databases.push(database.name().clone());
            }
        }
        left
    }
}
