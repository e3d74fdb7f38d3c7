//! The outcome of a request: its effects on the queue, the breaker, the counts and the log.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::{error, info, warn};

use super::send::RequestResult;
use super::{DatabaseTask, TaskState, random};
use crate::batch::RefusedSink;
use crate::context::WriterContext;
use crate::output::Output;
use crate::verdict::{EndpointFault, FaultScope, Verdict};
use crate::write_queue::{ApplyOutcome, Trouble, WriteRequest};
use tidegate_core::ids::TenantId;

impl DatabaseTask {
    /// Applies the result of a request that was sent at `began`.
    pub(super) fn apply(
        &self,
        context: &WriterContext,
        output: &Arc<Output>,
        request: &WriteRequest,
        result: RequestResult,
        began: Instant,
    ) {
        let now = Instant::now();
        let refused_sink = RefusedSink { sink: &context.refused_lines, database: &self.name };
        let outcome = match &result {
            RequestResult::Answer(verdict, _) => verdict.name(),
            RequestResult::NoAnswer { .. } => "failed",
        };
        let flushed = matches!(result, RequestResult::Answer(Verdict::Accepted, _));
        let answered = matches!(result, RequestResult::Answer(..));
        let durable = flushed || matches!(result, RequestResult::Answer(Verdict::Partial { .. }, _));
        let mut state = self.state.lock();
        let applied = match result {
            RequestResult::Answer(verdict, answer) => {
                let (id, random) = (request.id, random());
                state.queue.apply(id, now, verdict, &answer, &refused_sink, &context.waits, random)
            }
            RequestResult::NoAnswer { words, broken } => {
                let (id, random) = (request.id, random());
                state.queue.fail(id, now, broken, words, &refused_sink, &context.waits, random)
            }
        };
        let failures = state.queue.failures();
        state.given_up |= applied.trouble.is_some() && context.draining.load(Ordering::Acquire);
        let changed = state.given_up || state.queue.lines_left() == 0;
        self.log_outcome(&mut state, &applied, failures, outcome);
        if applied.trouble.is_some() && state.queue.take_back_failed() {
            self.stored_lines_wait.store(true, Ordering::Release);
        }
        state.evict_in_trouble(&self.stored_lines_wait);
        drop(state);

        if let Some(Trouble::Pause { scope: FaultScope::Endpoint, wait, .. }) = applied.trouble {
            output.breaker.trip(now, wait, context.waits.pause_max);
        } else if answered && output.breaker.reset(now, durable) {
            for database in context.all_databases() {
                if Arc::ptr_eq(&context.output_of(&database.name), output) {
                    database.retry_now();
                }
            }
        }
        let stats = &context.stats;
        let progress = &applied.progress;
        stats.flushes.fetch_add(u64::from(flushed), Ordering::Relaxed);
        stats.lines_written.fetch_add(progress.written, Ordering::Relaxed);
        stats.lines_refused.fetch_add(progress.refused, Ordering::Relaxed);
        context.observer.write(&request.tenants, outcome, u64::from(request.lines), now - began);
        if changed {
            context.changed.notify_waiters();
        }
    }

    /// Applies that these tenants have other outputs than before. Waiting lines that may be theirs are
    /// fetched again, and go to the new outputs; a database of their own output is tried at once.
    pub fn move_to_outputs(&self, context: &WriterContext, changed: &HashSet<TenantId>) {
        let own = self.name.output_of().is_some_and(|tenant| changed.contains(tenant));
        let mut state = self.state.lock();
        if own {
            state.at_once = !context.stopped.load(Ordering::Acquire);
        } else if state.queue.carries(changed) {
            // Set before the lines are back, so that the task fetches them after.
            self.stored_lines_wait.store(true, Ordering::Release);
            state.queue.take_back();
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Tries at once, if it waited only because of its endpoint, which is well again.
    fn retry_now(&self) {
        let mut state = self.state.lock();
        if state.running
            && matches!(
                state.trouble,
                None | Some(Some(EndpointFault::Unauthorized | EndpointFault::WrongProduct))
            )
        {
            state.at_once = true;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Logs changes: a trouble is logged once when it comes and once when it goes.
    fn log_outcome(
        &self,
        state: &mut TaskState,
        applied: &ApplyOutcome,
        failures: u32,
        outcome: &'static str,
    ) {
        let database = &self.name;
        if applied.progress.refused > 0 {
            warn!(%database, lines = applied.progress.refused, "the database refused lines; they are in quarantine");
        }
        if applied.limited > 0 {
            error!(%database, lines = applied.limited, "lines meet a ceiling of the server and wait; {}",
                   EndpointFault::LimitReached.advice());
        }
        match &applied.trouble {
            None => {
                outcome.clone_into(&mut state.last_answer);
                if state.trouble.take().is_some() {
                    info!(%database, "the database takes lines again");
                }
            }
            Some(Trouble::Retry { words, wait }) => {
                words.clone_into(&mut state.last_answer);
                if state.trouble.replace(None) != Some(None) {
                    let wait_ms = wait.as_millis() as u64;
                    warn!(%database, failures, wait_ms, answer = words, "a write failed and is tried again");
                }
            }
            Some(Trouble::Pause { fault, words, wait, .. }) => {
                words.clone_into(&mut state.last_answer);
                if state.trouble.replace(Some(*fault)) != Some(Some(*fault)) {
                    let wait_ms = wait.as_millis() as u64;
                    error!(%database, wait_ms, answer = words, "the database cannot be written to; its lines wait; {}",
                           fault.advice());
                }
            }
        }
    }
}
