//! One database's task: carries out the decisions of the database's `WriteQueue`. It runs while the
//! database has lines.

mod run;
mod outcome;
mod send;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits;
use crate::lines_budget::DatabaseShare;
use crate::rare_log::RareLog;
use crate::stats::{DatabaseHealth, DatabaseStatus};
use crate::verdict::EndpointFault;
use crate::write_queue::WriteQueue;
use tidegate_core::ids::DatabaseName;

pub struct DatabaseTask {
    name: DatabaseName,
    /// Bytes in hand of it.
    share: DatabaseShare,
    state: Mutex<TaskState>,
    wake: Notify,
    /// Lines of it wait in the store, besides those that its queue has returned.
    stored_lines_wait: AtomicBool,
}

struct TaskState {
    queue: WriteQueue,
    /// A task is at work.
    running: bool,
    /// The flush timer starts a task, or wakes it, when the delay of a line that came then is over.
    due: Option<Instant>,
    /// The task sleeps until then if nothing happens; `None`: for ever.
    sleeps_until: Option<Instant>,
    /// The next step counts no waits: a shutdown has begun, or the endpoint is well again.
    at_once: bool,
    /// It failed since the shutdown began.
    given_up: bool,
    last_answer: String,
    /// The trouble that lasts and was logged.
    trouble: Option<Option<EndpointFault>>,
    /// The time of the first failure since something was accepted.
    trouble_since: Option<Instant>,
    refused_log: RareLog,
    limited_log: RareLog,
    /// The last try to create the database.
    created: Option<Instant>,
}

impl DatabaseTask {
    pub fn new(name: DatabaseName, requests_max: u32, share: DatabaseShare) -> Self {
        let state = TaskState {
            queue: WriteQueue::new(requests_max, share.clone()),
            running: false,
            due: None,
            sleeps_until: None,
            at_once: false,
            given_up: false,
            last_answer: String::new(),
            trouble: None,
            trouble_since: None,
            refused_log: RareLog::default(),
            limited_log: RareLog::default(),
            created: None,
        };
        Self {
            name,
            share,
            state: Mutex::new(state),
            wake: Notify::new(),
            stored_lines_wait: AtomicBool::new(false),
        }
    }

    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    /// Bytes of the budget that it uses.
    pub fn bytes_in_hand(&self) -> usize {
        self.share.used()
    }

    pub fn has_lines(&self) -> bool {
        self.has_any(&self.state.lock())
    }

    fn has_any(&self, state: &TaskState) -> bool {
        self.has_stored_lines(state) || state.queue.lines_left() > 0
    }

    /// True if lines of it wait in the store.
    fn has_stored_lines(&self, state: &TaskState) -> bool {
        self.stored_lines_wait.load(Ordering::Acquire) || state.queue.has_returned()
    }

    /// True if a shutdown need not wait for it: it was given up, or has nothing but lines that wait apart.
    pub fn is_drained(&self) -> bool {
        let state = self.state.lock();
        let waits = self.has_stored_lines(&state);
        state.given_up || (!waits && state.queue.lines_besides_delayed() == 0)
    }

    /// Gives it up for a shutdown, if its last answer said that only a person can mend it, or if it waits
    /// for a ceiling of the server.
    pub fn give_up_if_paused(&self) {
        let mut state = self.state.lock();
        state.given_up |= matches!(state.trouble, Some(Some(_))) || state.queue.is_delayed_full();
    }

    pub fn status(&self, now: Instant) -> DatabaseStatus {
        let state = self.state.lock();
        let queue = &state.queue;
        let next_try = queue.next_try().filter(|_| queue.failures() > 0 || state.trouble.is_some());
        DatabaseStatus {
            database: self.name.to_string(),
            output_of: self.name.output_of().map(ToString::to_string),
            lines_in_hand: queue.lines_left(),
            lines_delayed: queue.lines_delayed(),
            state: state.health(),
            trouble_s: state.trouble_since.map(|since| now.saturating_duration_since(since).as_secs()),
            requests: queue.requests(),
            window: queue.requests_max(),
            last_answer: state.last_answer.clone(),
            failures: queue.failures(),
            next_try_ms: next_try.map(|at| at.saturating_duration_since(now).as_millis() as u64),
        }
    }
}

impl TaskState {
    fn health(&self) -> DatabaseHealth {
        match self.trouble {
            _ if self.queue.is_delayed_full() => DatabaseHealth::Paused,
            None => DatabaseHealth::Well,
            Some(None) => DatabaseHealth::Retrying,
            Some(Some(_)) => DatabaseHealth::Paused,
        }
    }

    /// True: the caller starts a task.
    fn start(&mut self) -> bool {
        self.due = None;
        !std::mem::replace(&mut self.running, true)
    }

    /// True if the database may be created now.
    fn begin_create(&mut self, now: Instant) -> bool {
        let interval = Duration::from_millis(limits::CREATE_DATABASE_MS);
        let is_due = self.created.is_none_or(|created| now.duration_since(created) >= interval);
        if is_due {
            self.created = Some(now);
        }
        is_due
    }

    /// Returns lines to the store: a database in trouble holds no more memory than its next try needs, and
    /// none where others need it.
    fn evict_in_trouble(&mut self, share: &DatabaseShare) {
        let most = if share.budget().is_short() { 0 } else { limits::TROUBLE_BYTES_MAX };
        if self.queue.holds_over(most) {
            self.queue.return_all_it_can();
        }
    }
}

/// Evenly spread; good enough to keep databases from retrying in step.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}
