//! The first messages of a new version: if it fails and the one before it does not, the one
//! before decodes, and too many such failures bring it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::route::rules::ProbationRules;
use crate::route::version::RouteVersion;

const RUNS: u8 = 0;

const PASSED: u8 = 1;

const FAILED: u8 = 2;

/// The probation of one version; the one that served before it is its fallback.
#[derive(Debug)]
pub struct Probation {
    rules: ProbationRules,
    /// The version to go back to; `None` once the probation has passed.
    previous: Mutex<Option<Arc<RouteVersion>>>,
    began: Instant,
    messages: AtomicU64,
    failures: AtomicU64,
    state: AtomicU8,
    /// The last failure.
    why: Mutex<String>,
}

impl Probation {
    pub fn new(previous: Arc<RouteVersion>, rules: ProbationRules) -> Self {
        Self {
            rules,
            previous: Mutex::new(Some(previous)),
            began: Instant::now(),
            messages: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            state: AtomicU8::new(RUNS),
            why: Mutex::default(),
        }
    }

    /// The version that decodes messages that this one fails on, while the probation runs.
    pub fn fallback(&self) -> Option<Arc<RouteVersion>> {
        if self.state.load(Ordering::Acquire) != RUNS {
            return None;
        }
        self.previous.lock().clone()
    }

    /// The version that serves in this one's place, once it has failed.
    pub fn rolled_back_to(&self) -> Option<Arc<RouteVersion>> {
        if self.state.load(Ordering::Acquire) != FAILED {
            return None;
        }
        self.previous.lock().clone()
    }

    /// `messages` are decoded by this version, whatever comes of it.
    pub fn record_messages(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::AcqRel);
    }

    /// Ends it when enough were decoded; called after their failures were recorded.
    pub fn end_if_enough(&self) {
        if self.messages() >= self.rules.messages {
            self.decide();
        }
    }

    /// This version failed on a message that the one before made something of.
    pub fn record_failure(&self, why: impl FnOnce() -> String) {
        let failures = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
        if self.rules.is_too_much(failures, self.messages()) {
            *self.why.lock() = why();
            let _ = self.state.compare_exchange(RUNS, FAILED, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Ends it when its time is over.
    pub fn expire(&self, now: Instant) {
        if now.saturating_duration_since(self.began) >= self.rules.duration {
            self.decide();
        }
    }

    /// Passes a probation that still runs: a version that fails too often is failed at once.
    fn decide(&self) {
        let _ = self.state.compare_exchange(RUNS, PASSED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Ends it: another version was put in this one's place.
    pub fn end(&self) {
        self.decide();
        self.forget_if_passed();
    }

    /// Lets go of the previous version once it is not needed. True if it did just now.
    pub fn forget_if_passed(&self) -> bool {
        self.state.load(Ordering::Acquire) == PASSED && self.previous.lock().take().is_some()
    }

    pub fn runs(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNS
    }

    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// The reason why it failed, in words.
    pub fn verdict(&self) -> String {
        format!(
            "on probation it failed on {} of {} messages that the version before decodes; at most {} % are allowed: {}",
            self.failures(),
            self.messages(),
            self.rules.failures_percent_max,
            self.why.lock()
        )
    }
}
