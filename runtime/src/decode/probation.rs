//! The first messages of a new version: where it fails and the one before it does not, the one
//! before decodes, and too many such failures bring it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::routes::Route;
use crate::domain::limits::PROBATION_MESSAGES_MIN;

/// How long it lasts, and what a route allows. Pure: messages and failures are passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbationRules {
    pub messages: u64,
    pub duration: Duration,
    /// Failures in a hundred messages that are allowed.
    pub failures_percent_max: u64,
}

impl ProbationRules {
    /// Whether so many failures of so many messages are too many. A single stray one among the first
    /// is not, unless none is allowed.
    pub fn is_too_much(&self, failures: u64, messages: u64) -> bool {
        failures * 100 > self.failures_percent_max * messages.max(PROBATION_MESSAGES_MIN)
    }
}

const RUNS: u8 = 0;
const PASSED: u8 = 1;
const FAILED: u8 = 2;

/// Of one version, over the one that served before it.
#[derive(Debug)]
pub struct Probation {
    rules: ProbationRules,
    /// None once it has passed: nothing goes back any more.
    previous: Mutex<Option<Arc<Route>>>,
    began: Instant,
    messages: AtomicU64,
    failures: AtomicU64,
    state: AtomicU8,
    /// What failed last.
    why: Mutex<String>,
}

impl Probation {
    pub fn new(previous: Arc<Route>, rules: ProbationRules) -> Self {
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

    /// The version that decodes what this one fails on, while it runs.
    pub fn fallback(&self) -> Option<Arc<Route>> {
        if self.state.load(Ordering::Acquire) != RUNS {
            return None;
        }
        self.previous.lock().clone()
    }

    /// The version that serves in this one's place, once it has failed.
    pub fn came_back(&self) -> Option<Arc<Route>> {
        if self.state.load(Ordering::Acquire) != FAILED {
            return None;
        }
        self.previous.lock().clone()
    }

    /// `messages` are decoded by this version, whatever comes of it.
    pub fn note_messages(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::AcqRel);
    }

    /// Ends it when enough were decoded; after their failures were noted.
    pub fn end_if_enough(&self) {
        if self.messages() >= self.rules.messages {
            self.judge_at_the_end();
        }
    }

    /// This version failed on a message that the one before made something of.
    pub fn note_failure(&self, why: impl FnOnce() -> String) {
        let failures = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
        if self.rules.is_too_much(failures, self.messages()) {
            *self.why.lock() = why();
            let _ = self.state.compare_exchange(RUNS, FAILED, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Ends it when its time is over.
    pub fn look_at_the_clock(&self, now: Instant) {
        if now.saturating_duration_since(self.began) >= self.rules.duration {
            self.judge_at_the_end();
        }
    }

    /// What failed was judged when it failed; what is left has passed.
    fn judge_at_the_end(&self) {
        let _ = self.state.compare_exchange(RUNS, PASSED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Ends it: another version was put in this one's place.
    pub fn end(&self) {
        self.judge_at_the_end();
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

    /// Why it failed, in words.
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

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: ProbationRules =
        ProbationRules { messages: 1_000, duration: Duration::from_secs(300), failures_percent_max: 5 };

    #[test]
    fn a_stray_failure_among_the_first_is_not_too_much() {
        assert!(!RULES.is_too_much(1, 1));
        assert!(!RULES.is_too_much(2, 2));
        assert!(RULES.is_too_much(3, 3));
        assert!(!RULES.is_too_much(50, 1_000));
        assert!(RULES.is_too_much(51, 1_000));
    }

    #[test]
    fn where_none_is_allowed_the_first_failure_is_too_much() {
        let strict = ProbationRules { failures_percent_max: 0, ..RULES };
        assert!(!strict.is_too_much(0, 100));
        assert!(strict.is_too_much(1, 100));
    }
}
