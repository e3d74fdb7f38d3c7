//! One database's task: carries out the decisions of the database's `WriteQueue`. It runs while the
//! database has lines.

mod run;
mod outcome;
mod send;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits;
use crate::stats::DatabaseStatus;
use crate::verdict::EndpointFault;
use crate::write_queue::WriteQueue;
use tidegate_core::ids::DatabaseName;

pub struct DatabaseTask {
    name: DatabaseName,
    state: Mutex<TaskState>,
    wake: Notify,
    /// Lines of it wait in the store.
    stored_lines_wait: AtomicBool,
}

struct TaskState {
    queue: WriteQueue,
    /// A task is at work.
    running: bool,
    /// The flush timer starts a task at this time, or wakes it.
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
}

impl DatabaseTask {
    pub fn new(name: DatabaseName, requests_max: u32) -> Self {
        let state = TaskState {
            queue: WriteQueue::new(requests_max),
            running: false,
            due: None,
            sleeps_until: None,
            at_once: false,
            given_up: false,
            last_answer: String::new(),
            trouble: None,
        };
        Self {
            name,
            state: Mutex::new(state),
            wake: Notify::new(),
            stored_lines_wait: AtomicBool::new(false),
        }
    }

    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    pub fn has_lines(&self) -> bool {
        self.stored_lines_wait.load(Ordering::Acquire) || self.state.lock().queue.lines_left() > 0
    }

    /// True if a shutdown need not wait for it.
    pub fn is_drained(&self) -> bool {
        self.state.lock().given_up || !self.has_lines()
    }

    pub fn status(&self, now: Instant) -> DatabaseStatus {
        let state = self.state.lock();
        let queue = &state.queue;
        let next_try = queue.next_try().filter(|_| queue.failures() > 0 || state.trouble.is_some());
        DatabaseStatus {
            database: self.name.to_string(),
            output_of: self.name.output_of().map(ToString::to_string),
            lines_in_hand: queue.lines_left(),
            requests: queue.requests(),
            window: queue.requests_max(),
            last_answer: state.last_answer.clone(),
            failures: queue.failures(),
            next_try_ms: next_try.map(|at| at.saturating_duration_since(now).as_millis() as u64),
        }
    }
}

impl TaskState {
    /// True: the caller starts a task.
    fn start(&mut self) -> bool {
        self.due = None;
        !std::mem::replace(&mut self.running, true)
    }

    /// Returns lines to the store: a database in trouble holds no more memory than its tries need.
    fn evict_in_trouble(&mut self, stored_lines_wait: &AtomicBool) {
        if self.queue.failures() > 0 && self.queue.waiting_bytes() > limits::TROUBLE_BYTES_MAX {
            // Set before the lines are back, so that the task fetches them after.
            stored_lines_wait.store(true, Ordering::Release);
            self.queue.evict();
        }
    }
}

/// Evenly spread; good enough to keep databases from retrying in step.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}
