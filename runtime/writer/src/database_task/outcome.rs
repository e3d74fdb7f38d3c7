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
use crate::endpoint::Endpoint;
use crate::output::Output;
use crate::verdict::{EndpointFault, FaultScope, Verdict};
use crate::write_queue::{ApplyOutcome, Trouble, WriteRequest};
use tidegate_core::detail::printable;
use tidegate_core::ids::TenantId;

impl DatabaseTask {
    /// Applies the result of a request that was sent at `began`. True: the database is missing and is to be
    /// created.
    #[must_use]
    pub(super) fn apply(
        &self,
        context: &WriterContext,
        output: &Arc<Output>,
        request: &WriteRequest,
        result: RequestResult,
        began: Instant,
    ) -> bool {
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
        state.queue.record_outcome(request.id, outcome);
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
        let changed = state.given_up || state.queue.lines_besides_delayed() == 0;
        self.log_outcome(context, &mut state, &applied, failures, outcome, now);
        let creates = applied.is_missing_database()
            && output.endpoint().is_some_and(Endpoint::creates_databases)
            && state.begin_create(now);
        if applied.trouble.is_some() {
            state.queue.take_back_failed();
        }
        state.evict_in_trouble(&self.share);
        drop(state);
        if applied.too_large {
            output.body_limit.refuse(request.body.len());
        } else if durable {
            output.body_limit.pass(request.body.len());
        }

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
        if progress.refused > 0 {
            stats.refuse(outcome, progress.refused);
        }
        context.observer.write(outcome, u64::from(request.lines), now - began);
        if changed {
            context.changed.notify_waiters();
        }
        creates
    }

    /// Records that the database was created, which makes its lines due; or why it was not.
    pub(super) fn record_created(&self, created: Result<(), String>) {
        let mut state = self.state.lock();
        match created {
            Ok(()) => {
                info!(database = %self.name, "the database was missing and is created");
                state.at_once = true;
            }
            Err(words) => {
                let answer = printable(&words);
                error!(database = %self.name, answer, "the database is missing and cannot be created");
                state.last_answer = format!("the database is missing and cannot be created: {answer}");
            }
        }
    }

    /// Tries at once, whatever its last answer was, the lines that wait apart too.
    pub fn retry(self: &Arc<Self>, context: &Arc<WriterContext>) {
        let start = {
            let mut state = self.state.lock();
            state.at_once = !context.stopped.load(Ordering::Acquire);
            state.queue.try_delayed_now(Instant::now());
            self.has_any(&state) && state.start()
        };
        self.ensure_running(context, start, true);
    }

    /// Applies that these tenants have other outputs than before. Waiting lines that may be theirs are
    /// fetched again, and go to the new outputs; a database of their own output is tried at once.
    pub fn move_to_outputs(&self, context: &WriterContext, changed: &HashSet<TenantId>) {
        let own = self.name.output_of().is_some_and(|tenant| changed.contains(tenant));
        let mut state = self.state.lock();
        if own {
            state.at_once = !context.stopped.load(Ordering::Acquire);
        } else if state.queue.carries(changed) {
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
        context: &WriterContext,
        state: &mut TaskState,
        applied: &ApplyOutcome,
        failures: u32,
        outcome: &'static str,
        now: Instant,
    ) {
        let database = &self.name;
        if let Some(lines) = state.refused_log.add(applied.progress.refused, now) {
            warn!(%database, lines, "the database refused lines; they are in quarantine");
        }
        if let Some(lines) = state.limited_log.add(applied.limited, now) {
            error!(%database, lines, "lines meet a ceiling of the server and wait; {}",
                   EndpointFault::LimitReached.advice());
        }
        if applied.trouble.is_some() {
            state.trouble_since.get_or_insert(now);
        }
        match &applied.trouble {
            None => {
                outcome.clone_into(&mut state.last_answer);
                let since = state.trouble_since.take();
                if state.trouble.take().is_some() {
                    let outage_s = since.map_or(0, |since| now.duration_since(since).as_secs());
                    let lines_waiting = context.store.lines_waiting(database);
                    info!(%database, outage_s, lines_waiting, "the database takes lines again");
                }
            }
            Some(Trouble::Retry { words, wait }) => {
                state.last_answer = printable(words);
                if state.trouble.replace(None) != Some(None) {
                    let wait_ms = wait.as_millis() as u64;
                    warn!(%database, failures, wait_ms, answer = state.last_answer,
                          "a write failed and is tried again");
                }
            }
            Some(Trouble::Pause { fault, words, wait, .. }) => {
                state.last_answer = printable(words);
                if state.trouble.replace(Some(*fault)) != Some(Some(*fault)) {
                    let wait_ms = wait.as_millis() as u64;
                    error!(%database, wait_ms, answer = state.last_answer,
                           "the database cannot be written to; its lines wait; {}", fault.advice());
                }
            }
        }
    }
}

impl ApplyOutcome {
    fn is_missing_database(&self) -> bool {
        matches!(
            self.trouble,
            Some(Trouble::Pause { scope: FaultScope::Database, fault: EndpointFault::NotFound, .. })
        )
    }
}
