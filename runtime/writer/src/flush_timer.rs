//! When databases are due whose lines only wait for the flush interval: one list and one task for
//! all of them. A thousand databases that get a line a second cost no task and no timer each while
//! they wait, and those that are due at about the same moment go at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::context::WriterContext;
use crate::database_task::DatabaseTask;
use tidegate_core::worker;

#[derive(Default)]
pub struct FlushTimer {
    days: Mutex<FlushEntries>,
    /// Something is due earlier than the task knows.
    earlier: Notify,
}

#[derive(Default)]
struct FlushEntries {
    /// By time, and in the order in which they were noted.
    due: BTreeMap<(Instant, u64), Arc<DatabaseTask>>,
    noted: u64,
    /// The task runs, and sleeps until the first was due that it saw.
    running: bool,
    sleeps_until: Option<Instant>,
}

impl FlushTimer {
    /// Starts `database` at `at`, or a little before when others are due.
    pub fn note(&self, shared: &Arc<WriterContext>, database: Arc<DatabaseTask>, at: Instant) {
        let mut days = self.days.lock();
        days.noted += 1;
        let key = (at, days.noted);
        days.due.insert(key, database);
        if !std::mem::replace(&mut days.running, true) {
            drop(days);
            shared.runtime.spawn(worker::vital("calendar", run(shared.clone())));
        } else if days.sleeps_until.is_some_and(|until| at < until) {
            days.sleeps_until = None;
            drop(days);
            self.earlier.notify_one();
        }
    }

    /// Takes those that are due up to `until`, with the times that were noted.
    fn take(&self, until: Instant) -> Vec<(Instant, Arc<DatabaseTask>)> {
        let mut days = self.days.lock();
        let later = days.due.split_off(&(until, u64::MAX));
        let due = std::mem::replace(&mut days.due, later);
        due.into_iter().map(|((at, _), database)| (at, database)).collect()
    }

    /// When the task is to look again; `None`: nothing is noted, and it ends.
    fn next(&self) -> Option<Instant> {
        let mut days = self.days.lock();
        days.sleeps_until = days.due.first_key_value().map(|((at, _), _)| *at);
        days.running = days.sleeps_until.is_some();
        days.sleeps_until
    }
}

async fn run(shared: Arc<WriterContext>) {
    let calendar = &shared.calendar;
    while let Some(until) = calendar.next() {
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {
                for (at, database) in calendar.take(Instant::now() + shared.limits.early) {
                    database.begin(&shared, at);
                }
            }
            () = calendar.earlier.notified() => {}
        }
    }
}
