//! Counts of the writer, for metrics, the statistics line and the backlog's listing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use tidegate_core::ids::DatabaseName;

/// Observes every request that was answered or failed.
pub trait WriteObserver: Send + Sync {
    /// `outcome` is a label of `tidegate_writes_total`.
    fn write(&self, outcome: &'static str, lines: u64, duration: Duration);
}

/// Observes nothing.
impl WriteObserver for () {
    fn write(&self, _: &'static str, _: u64, _: Duration) {}
}

/// Totals of all databases since the start.
#[derive(Debug, Default)]
pub struct WriterStats {
    pub(super) lines_written: AtomicU64,
    pub(super) lines_refused: AtomicU64,
    pub(super) flushes: AtomicU64,
    /// Refused lines by the outcome of the request that showed it.
    pub(super) refusals: Mutex<BTreeMap<&'static str, u64>>,
}

impl WriterStats {
    /// Lines that a database accepted (`influx_batch_ok`).
    pub fn lines_written(&self) -> u64 {
        self.lines_written.load(Ordering::Relaxed)
    }

    /// Lines that a database refused (`influx_batch_err`).
    pub fn lines_refused(&self) -> u64 {
        self.lines_refused.load(Ordering::Relaxed)
    }

    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refusals.lock().clone()
    }

    pub(super) fn refuse(&self, outcome: &'static str, lines: u64) {
        self.lines_refused.fetch_add(lines, Ordering::Relaxed);
        *self.refusals.lock().entry(outcome).or_default() += lines;
    }

    /// Requests that were answered 204, or file appends that were synced (`influx_flushes`).
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }
}

/// A database's answers of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseHealth {
    Well,
    /// The last try failed.
    Retrying,
    /// It waits for a person: a token, a missing database, a ceiling of the server.
    Paused,
}

impl DatabaseHealth {
    pub const ALL: [Self; 3] = [Self::Well, Self::Retrying, Self::Paused];

    pub fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Retrying => "retrying",
            Self::Paused => "paused",
        }
    }
}

/// The state of one database at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseStatus {
    #[serde(skip)]
    pub database: String,
    /// The tenant to whose own output it belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_of: Option<String>,
    /// Lines that the writer holds; others wait in the spool.
    pub lines_in_hand: u64,
    /// Lines of them that wait apart: they meet a ceiling of the server, or were refused once.
    pub lines_delayed: u64,
    pub state: DatabaseHealth,
    /// Seconds since its writes fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble_s: Option<u64>,
    /// Requests under way, and their ceiling at present.
    pub requests: usize,
    pub window: u32,
    /// The outcome of the last request, in words; empty before the first.
    pub last_answer: String,
    /// Failed tries in a row.
    pub failures: u32,
    /// Time until the next try, if one failed.
    pub next_try_ms: Option<u64>,
}

/// Databases with lines that a shutdown left: durable, and written after the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndrainedDatabases {
    pub databases: Vec<DatabaseName>,
}
