use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dashmap::DashMap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::Outputs;
use crate::backlog::BatchLimits;
use crate::backoff::BackoffLimits;
use crate::database_task::DatabaseTask;
use crate::ease::Ease;
use crate::flush_timer::FlushTimer;
use crate::output::Output;
use crate::pending_lines::RefusedLinesSink;
use crate::stats::{WriteObserver, WriterStats};
use tidegate_core::durable::DurableLines;
use tidegate_core::ids::DatabaseName;
use tidegate_core::tenant::table::Tenants;

/// What the writer works with.
pub struct WriterParts {
    /// Where its tasks run.
    pub runtime: tokio::runtime::Handle,
    pub store: Arc<dyn DurableLines>,
    pub refused_lines: RefusedLinesSink,
    pub observer: Arc<dyn WriteObserver>,
    /// Tenants, with the outputs that their lines go to.
    pub tenants: Arc<Tenants>,
}

pub(crate) struct WriterContext {
    /// To where everybody's lines go.
    pub(crate) common: Arc<Output>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) outputs: RwLock<Outputs>,
    pub(crate) limits: BatchLimits,
    pub(crate) requests_max: u32,
    pub(crate) waits: BackoffLimits,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) store: Arc<dyn DurableLines>,
    pub(crate) refused_lines: RefusedLinesSink,
    pub(crate) observer: Arc<dyn WriteObserver>,
    pub(crate) stats: WriterStats,
    pub(crate) databases: DashMap<DatabaseName, Arc<DatabaseTask>, foldhash::fast::RandomState>,
    pub(crate) calendar: FlushTimer,
    pub(crate) ease: Arc<Ease>,
    pub(crate) draining: AtomicBool,
    pub(crate) stopped: AtomicBool,
    /// A database has nothing left, or all are to stop.
    pub(crate) changed: Notify,
}

impl WriterContext {
    pub(crate) fn all_databases(&self) -> Vec<Arc<DatabaseTask>> {
        self.databases.iter().map(|entry| entry.value().clone()).collect()
    }

    /// The way that the lines of a database go now.
    pub(crate) fn output_of(&self, database: &DatabaseName) -> Arc<Output> {
        let own = database.output_of().and_then(|tenant| self.tenants.output(tenant));
        let way = own.and_then(|output| self.outputs.read().ways.get(&output).cloned());
        way.unwrap_or_else(|| self.common.clone())
    }
}
