//! A timer for databases whose lines only wait for the flush delay: one list and one task for all of
//! them. A thousand databases that get a line a second cost no task and no timer each while they wait.
//! Databases that are due at about the same moment go at once.
//!
//! Databases are listed by the arrival of their oldest line, because the delay changes while they wait
//! (`flush_delay`). Where it is stretched and their lines take much memory, the oldest go before their time.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::database_task::DatabaseTask;
use crate::flush_delay::SAMPLE_INTERVAL;
use crate::flush_pacer::FlushPacer;
use crate::limits;
use crate::lines_budget::LinesBudget;

#[derive(Default)]
pub struct FlushTimer {
    entries: Mutex<FlushEntries>,
    /// The task has to look earlier than it knows.
    earlier: Notify,
    /// The lines that wait take much memory, and the task is told.
    short_of_memory: AtomicBool,
}

#[derive(Default)]
struct FlushEntries {
    /// By the arrival of the oldest line, and in the order in which they were scheduled.
    waiting: BTreeMap<(Instant, u64), Arc<DatabaseTask>>,
    scheduled: u64,
    /// The task runs, and sleeps because of the first that it saw.
    running: bool,
    first_seen: Option<Instant>,
}

/// A database whose time has come.
pub struct DueDatabase {
    pub database: Arc<DatabaseTask>,
    /// The arrival for which it was scheduled.
    pub oldest: Instant,
    /// Its lines go although their delay is not over.
    pub early: bool,
}

impl FlushTimer {
    /// Starts `database` once the delay of a line that came at `oldest` is over. True: the caller starts a
    /// task with `run`.
    #[must_use]
    pub fn schedule(&self, database: Arc<DatabaseTask>, oldest: Instant) -> bool {
        let mut entries = self.entries.lock();
        entries.scheduled += 1;
        let key = (oldest, entries.scheduled);
        entries.waiting.insert(key, database);
        if !std::mem::replace(&mut entries.running, true) {
            return true;
        }
        if entries.first_seen.is_some_and(|first| oldest < first) {
            entries.first_seen = None;
            drop(entries);
            self.earlier.notify_one();
        }
        false
    }

    /// Has the task give memory free, if lines wait longer than the interval and take too much of it.
    pub fn relieve(&self, pacer: &FlushPacer, budget: &LinesBudget) {
        if pacer.is_stretched()
            && budget.over_waiting_max() > 0
            && !self.short_of_memory.swap(true, Ordering::AcqRel)
        {
            self.earlier.notify_one();
        }
    }

    /// Passes each database that is due to `begin`, at most `early` before its time; false: it was scheduled
    /// for lines that have gone. Ends when nothing is scheduled.
    pub async fn run(
        &self,
        pacer: &FlushPacer,
        budget: &LinesBudget,
        early: Duration,
        begin: impl Fn(DueDatabase) -> bool,
    ) {
        while let Some(oldest) = self.next() {
            let mut until = oldest + pacer.delay();
            if pacer.is_stretched() {
                // The delay may be shorter soon.
                until = until.min(Instant::now() + SAMPLE_INTERVAL);
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = self.earlier.notified() => {}
            }
            let now = Instant::now();
            pacer.sample(now);
            let due_before = (now + early).checked_sub(pacer.delay());
            for due in due_before.map(|until| self.take(until)).unwrap_or_default() {
                let _ = begin(due);
            }
            if self.short_of_memory.load(Ordering::Acquire) {
                if let Some(until) = now.checked_sub(pacer.interval()) {
                    self.begin_early(until, budget, &begin);
                }
                // Their memory is free once they are written.
                tokio::time::sleep(Duration::from_millis(limits::RELIEF_INTERVAL_MS)).await;
                self.short_of_memory.store(false, Ordering::Release);
            }
        }
    }

    /// Takes those whose oldest line came up to `until`.
    fn take(&self, until: Instant) -> Vec<DueDatabase> {
        let mut entries = self.entries.lock();
        if entries.waiting.first_key_value().is_none_or(|((oldest, _), _)| *oldest > until) {
            return Vec::new();
        }
        let later = entries.waiting.split_off(&(until, u64::MAX));
        let due = std::mem::replace(&mut entries.waiting, later);
        let due = due.into_iter();
        due.map(|((oldest, _), database)| DueDatabase { database, oldest, early: false }).collect()
    }

    /// Takes the oldest, if its oldest line came up to `until`.
    fn take_oldest(&self, until: Instant) -> Option<DueDatabase> {
        let mut entries = self.entries.lock();
        let first = entries.waiting.first_entry().filter(|first| first.key().0 <= until)?;
        let ((oldest, _), database) = first.remove_entry();
        Some(DueDatabase { database, oldest, early: true })
    }

    /// Has the oldest begin that have waited for the interval, until they hold what is over the memory of
    /// waiting lines.
    fn begin_early(&self, until: Instant, budget: &LinesBudget, begin: &impl Fn(DueDatabase) -> bool) {
        let (over, mut held) = (budget.over_waiting_max(), 0);
        while held < over
            && let Some(due) = self.take_oldest(until)
        {
            let bytes = due.database.bytes_in_hand();
            // Many were scheduled for lines that went in a full batch since.
            held += if begin(due) { bytes } else { 0 };
        }
    }

    /// The arrival of the line that is due next. `None`: nothing is scheduled, and the task ends.
    fn next(&self) -> Option<Instant> {
        let mut entries = self.entries.lock();
        entries.first_seen = entries.waiting.first_key_value().map(|((oldest, _), _)| *oldest);
        entries.running = entries.first_seen.is_some();
        entries.first_seen
    }
}
