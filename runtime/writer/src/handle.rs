//! `Writer`: the handle by which the rest of the gateway reaches the writer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::backlog::BatchLimits;
use crate::context::{WriterContext, WriterParts};
use crate::cpu_wait::CpuWait;
use crate::database_task::DatabaseTask;
use crate::error::WriterError;
use crate::flush_pacer::{CpuSource, FlushPacer};
use crate::flush_timer::FlushTimer;
use crate::lines_budget::LinesBudget;
use crate::output::Output;
use crate::server_version::ServerInfo;
use crate::settings::{HttpSettings, OutputSettings, WriterSettings};
use crate::stats::{DatabaseStatus, UndrainedDatabases, WriterStats};
use crate::{backlog, limits, server_watch};
use tidegate_core::durable::{Durable, Handoff};
use tidegate_core::ids::{DatabaseName, TenantId};
use tidegate_core::tenant::settings::OutputId;

/// Clones are the same writer.
#[derive(Clone)]
pub struct Writer {
    context: Arc<WriterContext>,
}

impl Writer {
    /// # Errors
    /// The settings can lead nowhere. No connection is opened yet.
    pub fn start(settings: WriterSettings, parts: WriterParts) -> Result<Writer, WriterError> {
        let mut wait = CpuWait::of_this_process(Instant::now());
        Self::start_with(settings, parts, Box::new(move |now| wait.sample(now)))
    }

    /// The same as `start`, with a source of its own for the CPU time.
    pub(crate) fn start_with(
        settings: WriterSettings,
        parts: WriterParts,
        cpu: CpuSource,
    ) -> Result<Writer, WriterError> {
        let requests_max = match &settings.output {
            OutputSettings::Http(_) => settings.requests_max.clamp(1, backlog::SHARDS as u32),
            // A file grows at one end.
            OutputSettings::File { .. } => 1,
        };
        let context = Arc::new(WriterContext {
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
            budget: LinesBudget::new(settings.memory_bytes_max),
            flush_timer: FlushTimer::default(),
            pacer: FlushPacer::new(settings.flush_interval, settings.flush_interval_max, cpu),
            idle_delay: parts.idle_delay,
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            changed: Notify::new(),
        });
        watch_server(&context, &context.common);
        Ok(Self { context })
    }
}

/// Never blocks on I/O; from any thread.
impl Handoff for Writer {
    fn deliver(&self, durable: Durable) {
        let database = self.database(&durable.database);
        database.push(&self.context, [durable]);
    }

    fn deliver_all(&self, durables: Vec<Durable>) {
        let mut durables = durables.into_iter().peekable();
        while let Some(first) = durables.next() {
            let database = self.database(&first.database);
            // Neighbours of one database, as many tenants in it make them, are one push.
            let others = std::iter::from_fn(|| durables.next_if(|next| next.database == *database.name()));
            database.push(&self.context, std::iter::once(first).chain(others));
        }
    }

    fn waits(&self, database: &DatabaseName) {
        self.database(database).mark_waiting(&self.context);
    }
}

impl Writer {
    fn database(&self, name: &DatabaseName) -> Arc<DatabaseTask> {
        let context = &self.context;
        let known = context.databases.get(name).map(|known| known.clone());
        known.unwrap_or_else(|| {
            let entry = context.databases.entry(name.clone());
            entry
                .or_insert_with(|| {
                    Arc::new(DatabaseTask::new(name.clone(), context.requests_max, context.budget.share()))
                })
                .clone()
        })
    }

    /// Opens the outputs of these tenants, and gives their ids; one that is open already keeps its id.
    /// Lines go there once the tenants' settings name the id. No connection is opened yet. Calls must
    /// not overlap.
    ///
    /// # Errors
    /// Settings lead nowhere; then nothing has changed.
    pub fn open_outputs(
        &self,
        own: &HashMap<TenantId, HttpSettings>,
    ) -> Result<HashMap<TenantId, OutputId>, WriterError> {
        // A copy, not the lock: making a client takes a while, and requests go on meanwhile.
        let mut outputs = self.context.outputs.read().clone();
        let mut ids = HashMap::new();
        for (tenant, settings) in own {
            ids.insert(tenant.clone(), outputs.open(settings)?);
        }
        let opened: Vec<_> = {
            let mut now = self.context.outputs.write();
            let opened = outputs.all().filter(|output| !now.has(output)).cloned().collect();
            *now = outputs;
            opened
        };
        opened.iter().for_each(|output| watch_server(&self.context, output));
        Ok(ids)
    }

    /// Moves the lines of these tenants, whose outputs have changed, to their new outputs, except for
    /// requests under way. The store must have moved its own lines of them before. Outputs that no
    /// tenant has any more are closed.
    pub fn move_to_outputs(&self, changed: &[TenantId]) {
        if changed.is_empty() {
            return;
        }
        let in_use = self.context.tenants.outputs();
        self.context.outputs.write().retain(&in_use);
        let changed: HashSet<TenantId> = changed.iter().cloned().collect();
        for database in self.context.all_databases() {
            database.move_to_outputs(&self.context, &changed);
        }
    }

    pub fn stats(&self) -> &WriterStats {
        &self.context.stats
    }

    /// The time for which the first line of a batch waits for others now.
    pub fn flush_delay(&self) -> Duration {
        // Nobody else looks while nothing waits.
        self.context.pacer.sample(Instant::now());
        self.context.pacer.delay()
    }

    /// Each database that was ever written to, by name.
    pub fn databases(&self) -> Vec<DatabaseStatus> {
        let now = Instant::now();
        let mut all: Vec<_> = self.context.databases.iter().map(|entry| entry.value().status(now)).collect();
        all.sort_by(|a, b| a.database.cmp(&b.database));
        all
    }

    /// Tries databases of this name, or all, now, whatever their last answer was. Gives their number.
    pub fn retry(&self, name: Option<&str>) -> usize {
        let context = &self.context;
        let mut all = context.all_databases();
        all.retain(|database| name.is_none_or(|name| database.name().as_str() == name));
        for database in &all {
            context.output_of(database.name()).breaker.reset(Instant::now(), false);
            database.retry(context);
        }
        all.len()
    }

    /// The servers with their versions, as far as they have said them.
    pub fn servers(&self) -> Vec<(String, ServerInfo)> {
        let outputs = self.context.outputs.read();
        let all = std::iter::once(&self.context.common).chain(outputs.all());
        all.filter_map(|output| Some((output.endpoint()?.host().to_owned(), output.server.info()))).collect()
    }

    /// Writes all that waits, at once, until `deadline`. A database that does not take it gets one
    /// more try and is not waited for. No request begins after that; one that is under way may
    /// still be answered.
    pub async fn drain(&self, deadline: Instant) -> UndrainedDatabases {
        let context = &self.context;
        context.draining.store(true, Ordering::Release);
        for database in context.all_databases() {
            database.give_up_if_paused();
            database.flush_now(context);
        }
        let all_written = async {
            loop {
                let changed = context.changed.notified();
                if context.all_databases().iter().all(|database| database.is_drained()) {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout_at(deadline.into(), all_written).await;
        context.stopped.store(true, Ordering::Release);
        let mut left = UndrainedDatabases::default();
        for database in context.all_databases() {
            database.flush_now(context);
            if database.has_lines() {
                left.databases.push(database.name().clone());
            }
        }
        left
    }
}

/// Has the server of an output asked for its version, now and each hour.
fn watch_server(context: &WriterContext, output: &Arc<Output>) {
    if output.endpoint().is_some() {
        context.runtime.spawn(server_watch::watch(Arc::downgrade(output)));
    }
}
