//! The counts of a route, and the rest that all of its versions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::route::guest_log::GuestLog;
use crate::route::ignored_names::IgnoredNames;
use crate::route::recent_messages::RecentMessages;
use tidegate_core::reason::Reason;
use tidegate_core::tenant::budget::Budget;
use tidegate_core::tenant::budget_kind::Resource;

/// The counts of a route since the start.
#[derive(Debug, Default)]
pub struct RouteStats {
    pub messages: AtomicU64,
    cpu_ns: AtomicU64,
    failures: [AtomicU64; 5],
    ignored: [AtomicU64; IGNORED.len()],
}

/// The kinds of values that decoders leave out and report, and their warnings.
pub const IGNORED: [&str; 7] = ["time", "text", "list", "object", "null", "warning", "other"];

/// The kinds of failures that are counted, with the reasons they stand for.
pub const FAILURES: [(Reason, &str); 5] = [
    (Reason::GuestRefused, "refused"),
    (Reason::GuestTrap, "trap"),
    (Reason::GuestDeadline, "deadline"),
    (Reason::GuestMemory, "memory"),
    (Reason::GuestOutput, "output"),
];

impl RouteStats {
    pub fn record_messages(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    pub fn record_cpu(&self, cpu: Duration) {
        self.cpu_ns.fetch_add(cpu.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn record_failure(&self, reason: Reason) {
        if let Some(place) = FAILURES.iter().position(|(known, _)| *known == reason) {
            self.failures[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts values that a guest reports as left out; other kinds count as `other`.
    pub fn record_ignored(&self, kind: &str, values: u64) {
        let place = IGNORED.iter().position(|known| *known == kind).unwrap_or(IGNORED.len() - 1);
        self.ignored[place].fetch_add(values, Ordering::Relaxed);
    }

    /// (kind, values) of those that were left out.
    pub fn ignored(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.ignored.iter().map(|count| count.load(Ordering::Relaxed));
        IGNORED.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }

    /// (kind, messages) of those that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAILURES.iter().zip(&self.failures).map(|((_, kind), count)| (*kind, count.load(Ordering::Relaxed)))
    }
}

/// The parts that all versions of a route share.
#[derive(Debug)]
pub struct RouteActivity {
    pub stats: RouteStats,
    /// The last messages, for trying out the next version.
    pub recent: Mutex<RecentMessages>,
    pub log: GuestLog,
    pub ignored: IgnoredNames,
}

impl RouteActivity {
    /// An activity that is charged to the route's tenant.
    pub fn new(memory: &Budget) -> Arc<Self> {
        Self::with_log(memory, GuestLog::new(memory))
    }

    /// Counts the values in a guest's report that it left out.
    pub fn record_ignored(&self, report: &str) {
        self.ignored.read(report, |kind, values| self.stats.record_ignored(kind, values));
    }

    /// The activity of a trial, which logs nothing.
    pub fn of_trial() -> Arc<Self> {
        Self::with_log(&Budget::unlimited(Resource::Memory), GuestLog::silent())
    }

    fn with_log(memory: &Budget, log: GuestLog) -> Arc<Self> {
        let (stats, recent) = (RouteStats::default(), Mutex::new(RecentMessages::new(memory)));
        Arc::new(Self { stats, recent, log, ignored: IgnoredNames::default() })
    }
}
