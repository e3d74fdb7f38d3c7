//! `WriterContext`: the state and the settings that the tasks of all databases have in common.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dashmap::DashMap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::backlog::BatchLimits;
use crate::backoff::BackoffLimits;
use crate::database_task::DatabaseTask;
use crate::flush_pacer::FlushPacer;
use crate::flush_timer::FlushTimer;
use crate::lines_budget::LinesBudget;
use crate::output::{Output, Outputs};
use crate::pending_lines::RefusedLinesSink;
use crate::stats::{WriteObserver, WriterStats};
use crate::thread::IdleDelay;
use tidegate_core::durable::DurableLines;
use tidegate_core::ids::DatabaseName;
use tidegate_core::tenant::table::Tenants;

/// The parts of the gateway that the writer works with.
pub struct WriterParts {
    /// Runs the writer's tasks.
    pub runtime: tokio::runtime::Handle,
    /// The one that the runtime's thread was started with.
    pub idle_delay: Arc<IdleDelay>,
    pub store: Arc<dyn DurableLines>,
    pub refused_lines: RefusedLinesSink,
    pub observer: Arc<dyn WriteObserver>,
    /// Tenants, with the outputs that their lines go to.
    pub tenants: Arc<Tenants>,
}

pub struct WriterContext {
    /// The output of all lines that have no other.
    pub common: Arc<Output>,
    pub tenants: Arc<Tenants>,
    pub outputs: RwLock<Outputs>,
    /// The sizes of batches while nothing is short.
    pub limits: BatchLimits,
    pub requests_max: u32,
    pub waits: BackoffLimits,
    pub runtime: tokio::runtime::Handle,
    pub store: Arc<dyn DurableLines>,
    pub refused_lines: RefusedLinesSink,
    pub observer: Arc<dyn WriteObserver>,
    pub stats: WriterStats,
    pub databases: DashMap<DatabaseName, Arc<DatabaseTask>, foldhash::fast::RandomState>,
    /// Bytes in hand of all databases.
    pub budget: Arc<LinesBudget>,
    pub flush_timer: FlushTimer,
    pub pacer: FlushPacer,
    pub idle_delay: Arc<IdleDelay>,
    pub draining: AtomicBool,
    pub stopped: AtomicBool,
    /// A database has nothing left, or all are to stop.
    pub changed: Notify,
}

impl WriterContext {
    /// The sizes of batches now. `may_wait`: lines may wait longer than the flush interval while the gateway
    /// is short of CPU.
    pub fn limits_now(&self, may_wait: bool) -> BatchLimits {
        match may_wait {
            true => BatchLimits { interval: self.pacer.delay(), ..self.limits },
            false => self.limits,
        }
    }

    pub fn all_databases(&self) -> Vec<Arc<DatabaseTask>> {
        self.databases.iter().map(|entry| entry.value().clone()).collect()
    }

    /// The output that the lines of a database go to now.
    pub fn output_of(&self, database: &DatabaseName) -> Arc<Output> {
        let own = database.output_of().and_then(|tenant| self.tenants.output(tenant));
        let output = own.and_then(|id| self.outputs.read().get(id));
        output.unwrap_or_else(|| self.common.clone())
    }
}
