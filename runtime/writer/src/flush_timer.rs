//! A timer for databases whose lines only wait for the flush interval: one list and one task for
//! all of them. A thousand databases that get a line a second cost no task and no timer each while
//! they wait. Those that are due at about the same moment go at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::database_task::DatabaseTask;

#[derive(Default)]
pub struct FlushTimer {
    entries: Mutex<FlushEntries>,
    /// Something is due earlier than the task knows.
    earlier: Notify,
}

#[derive(Default)]
struct FlushEntries {
    /// By time, and in the order in which they were scheduled.
    due: BTreeMap<(Instant, u64), Arc<DatabaseTask>>,
    scheduled: u64,
    /// The task runs, and sleeps until the first was due that it saw.
    running: bool,
    sleeps_until: Option<Instant>,
}

impl FlushTimer {
    /// Starts `database` at `at`, or a little before when others are due. True: the caller starts a task
    /// with `run`.
    #[must_use]
    pub fn schedule(&self, database: Arc<DatabaseTask>, at: Instant) -> bool {
        let mut entries = self.entries.lock();
        entries.scheduled += 1;
        let key = (at, entries.scheduled);
        entries.due.insert(key, database);
        if !std::mem::replace(&mut entries.running, true) {
            return true;
        }
        if entries.sleeps_until.is_some_and(|until| at < until) {
            entries.sleeps_until = None;
            drop(entries);
            self.earlier.notify_one();
        }
        false
    }

    /// Passes each database that is due, and the time for which it was scheduled, to `begin`; at most
    /// `early` before that time. Ends when nothing is scheduled.
    pub async fn run(&self, early: Duration, begin: impl Fn(Arc<DatabaseTask>, Instant)) {
        while let Some(until) = self.next() {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {
                    for (at, database) in self.take(Instant::now() + early) {
                        begin(database, at);
                    }
                }
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Takes those that are due up to `until`, with the times for which they were scheduled.
    fn take(&self, until: Instant) -> Vec<(Instant, Arc<DatabaseTask>)> {
        let mut entries = self.entries.lock();
        let later = entries.due.split_off(&(until, u64::MAX));
        let due = std::mem::replace(&mut entries.due, later);
        due.into_iter().map(|((at, _), database)| (at, database)).collect()
    }

    /// The time at which the task looks again. `None`: nothing is scheduled, and it ends.
    fn next(&self) -> Option<Instant> {
        let mut entries = self.entries.lock();
        entries.sleeps_until = entries.due.first_key_value().map(|((at, _), _)| *at);
        entries.running = entries.sleeps_until.is_some();
        entries.sleeps_until
    }
}
