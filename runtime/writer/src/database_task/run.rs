//! The task of a database: starts, fetches lines from the store, sends requests, sleeps, ends.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tracing::error;

use super::send::{RequestResult, send_yielding};
use super::{DatabaseTask, TaskState, random};
use crate::backlog::BatchLimits;
use crate::context::WriterContext;
use crate::flush_delay::SAMPLE_INTERVAL;
use crate::flush_timer::DueDatabase;
use crate::limits;
use crate::lines_budget::LinesCharge;
use crate::output::Output;
use crate::pending_lines::PendingLines;
use crate::write_queue::{Next, WriteRequest};
use tidegate_core::durable::Durable;
use tidegate_core::worker;

/// An event that the task waits for.
enum TaskEvent {
    Answered(WriteRequest, Arc<Output>, RequestResult, Instant),
    /// With the room that was reserved for them.
    Fetched(Vec<Durable>, bool, LinesCharge),
    /// The database was created, or why not.
    Created(Result<(), String>),
}

type TaskEvents = FuturesUnordered<Pin<Box<dyn Future<Output = TaskEvent> + Send>>>;

/// A fetch that brought nothing, because others hold the memory, is tried again after this; or earlier,
/// when the writer's own ceiling has room again.
const FETCH_AGAIN: Duration = Duration::from_millis(100);

impl DatabaseTask {
    /// Takes lines, and ensures that a task writes them.
    pub fn push(self: &Arc<Self>, context: &Arc<WriterContext>, durables: impl IntoIterator<Item = Durable>) {
        let (mut start, mut wake) = (false, false);
        let scheduled;
        {
            let mut state = self.state.lock();
            let mut took_all = true;
            for durable in durables {
                took_all &= self.take(&mut state, durable);
            }
            if !took_all {
                drop(state);
                return self.mark_waiting(context);
            }
            let may_wait = self.may_wait(context, &state);
            let limits = context.limits_now(may_wait);
            let next = state.queue.next(Instant::now(), &limits, false);
            let oldest = match next {
                Next::Ready if state.running => {
                    wake = true;
                    None
                }
                Next::Wait(until) if state.running => match state.sleeps_until {
                    // More lines can be reason to wake it.
                    Some(sleeps) => {
                        wake = until < sleeps;
                        None
                    }
                    None if context.draining.load(Ordering::Acquire) => {
                        wake = true;
                        None
                    }
                    // It waits for answers, and need not be woken before.
                    None if may_wait => Some(until - limits.interval),
                    None => Some(until - context.pacer.delay()),
                },
                Next::Busy | Next::Idle if state.running => None,
                next => {
                    let oldest = self.flush_due(context, &state, next, &limits);
                    start = oldest.is_none() && state.start();
                    oldest
                }
            };
            scheduled = oldest.filter(|oldest| state.due.is_none_or(|due| *oldest < due));
            state.due = scheduled.or(state.due);
            state.evict_in_trouble(&self.share);
        }
        if let Some(oldest) = scheduled {
            self.schedule_flush(context, oldest);
        }
        self.ensure_running(context, start, wake);
        context.flush_timer.relieve(&context.pacer, &context.budget);
    }

    /// Takes lines. False: they are returned, to be fetched again.
    fn take(&self, state: &mut TaskState, durable: Durable) -> bool {
        match self.share.try_charge(PendingLines::memory_bytes(&durable)) {
            Some(charge) => state.queue.push(&Arc::new(PendingLines::new(durable, charge))),
            // There is no room for it.
            None => {
                state.queue.return_all(&PendingLines::new(durable, self.share.charge(0)));
                false
            }
        }
    }

    /// True if its lines may wait longer than the flush interval: no others of it wait, for whatever reason.
    fn may_wait(&self, context: &WriterContext, state: &TaskState) -> bool {
        let waits = self.has_stored_lines(state) || context.draining.load(Ordering::Acquire);
        !waits && !state.at_once && state.queue.is_well() && !state.queue.is_fetching()
    }

    /// The arrival of its oldest line, if its lines wait for the flush delay and for nothing else: it needs
    /// no task until then. `limits`: those by which `next` was found.
    fn flush_due(
        &self,
        context: &WriterContext,
        state: &TaskState,
        next: Next,
        limits: &BatchLimits,
    ) -> Option<Instant> {
        let Next::Wait(until) = next else { return None };
        self.may_wait(context, state).then(|| until - limits.interval)
    }

    /// Has the flush timer start it once the delay of a line that came at `oldest` is over.
    fn schedule_flush(self: &Arc<Self>, context: &Arc<WriterContext>, oldest: Instant) {
        if context.flush_timer.schedule(self.clone(), oldest) {
            let shared = context.clone();
            context.runtime.spawn(worker::vital("flush-timer", async move {
                let begin = |due: DueDatabase| due.database.begin(&shared, due.oldest, due.early);
                let early = shared.limits.early;
                shared.flush_timer.run(&shared.pacer, &shared.budget, early, begin).await;
            }));
        }
    }

    /// Starts or wakes its task for a line that came at `oldest`. False: it is scheduled for another by now,
    /// and goes on waiting. `early`: all lines go, though their delay is not over.
    fn begin(self: &Arc<Self>, context: &Arc<WriterContext>, oldest: Instant, early: bool) -> bool {
        let start = {
            let mut state = self.state.lock();
            if state.due != Some(oldest) {
                return false;
            }
            if early {
                state.queue.flush_now();
            }
            state.start()
        };
        self.ensure_running(context, start, true);
        true
    }

    /// Records that lines of it wait in the store, and ensures that a task fetches them.
    pub fn mark_waiting(self: &Arc<Self>, context: &Arc<WriterContext>) {
        self.stored_lines_wait.store(true, Ordering::Release);
        let start = self.state.lock().start();
        self.ensure_running(context, start, true);
    }

    pub(super) fn ensure_running(self: &Arc<Self>, context: &Arc<WriterContext>, start: bool, wake: bool) {
        if start {
            context.runtime.spawn(supervise(context.clone(), self.clone()));
        } else if wake {
            self.wake.notify_one();
        }
    }

    /// Counts no wait any more, once: a shutdown has begun, or is over.
    pub fn flush_now(self: &Arc<Self>, context: &Arc<WriterContext>) {
        let start = {
            let mut state = self.state.lock();
            state.at_once = !context.stopped.load(Ordering::Acquire);
            state.due.is_some() && state.start()
        };
        self.ensure_running(context, start, true);
    }
}

/// Runs until the backlog is empty. A panic is a fault of ours: it is logged, the lines are still
/// in the queue, and the task begins again.
async fn supervise(context: Arc<WriterContext>, database: Arc<DatabaseTask>) {
    while AssertUnwindSafe(run(context.clone(), database.clone())).catch_unwind().await.is_err() {
        error!(database = %database.name, "the task of a database panicked; it starts again, nothing is lost");
        database.state.lock().queue.abort_inflight();
        tokio::time::sleep(context.waits.retry_min).await;
    }
}

/// The next step of fetching.
enum FetchStep {
    Nothing,
    /// Nothing before this moment: the next try is due then, or there is no room.
    Wait(Instant),
    Fetch(LinesCharge),
}

impl DatabaseTask {
    /// Decides on the next fetch, and reserves the room for it.
    fn next_fetch(&self, state: &mut TaskState, fetch_at: Instant, now: Instant) -> FetchStep {
        let queue = &mut state.queue;
        // A database in trouble needs no more than one try in hand, and that when it is due.
        let (low, most) = match queue.failures() {
            0 => (limits::FETCH_LOW_BYTES, limits::FETCH_BYTES),
            _ => (1, limits::TROUBLE_BYTES_MAX),
        };
        if queue.is_delayed_full() || queue.waiting_bytes() >= low {
            return FetchStep::Nothing;
        }
        let next_try = queue.next_try().filter(|_| queue.failures() > 0 && !state.at_once);
        let due = next_try.map_or(fetch_at, |next_try| next_try.max(fetch_at));
        if now < due {
            return FetchStep::Wait(due);
        }
        // Lines are there once more in the body that is made of them.
        let bytes = (self.share.room() / 2).min(most);
        if bytes < limits::FETCH_BYTES_MIN {
            return FetchStep::Wait(now + FETCH_AGAIN);
        }
        state.queue.begin_fetch();
        FetchStep::Fetch(self.share.charge(2 * bytes))
    }
}

async fn run(context: Arc<WriterContext>, database: Arc<DatabaseTask>) {
    let mut events = TaskEvents::new();
    let mut fetching = false;
    let mut fetch_at = Instant::now();
    loop {
        let stopped = context.stopped.load(Ordering::Acquire);
        let now = Instant::now();
        context.pacer.sample(now);
        let mut fetch = FetchStep::Nothing;
        let next = {
            let mut state = database.state.lock();
            let waits = database.has_stored_lines(&state);
            let draining = context.draining.load(Ordering::Acquire);
            // A stop waits for no database that does not take its lines.
            let over = stopped || (draining && state.given_up);
            if draining && state.queue.failures() == 0 {
                state.queue.flush_now();
            }
            let at_once = state.at_once;
            let limits = context.limits_now(database.may_wait(&context, &state));
            let mut next = if over { Next::Idle } else { state.queue.next(now, &limits, at_once) };
            if let Next::Wait(until) = &mut next
                && !events.is_empty()
                && context.pacer.is_stretched()
            {
                // The delay may be shorter by then.
                *until = (*until).min(now + SAMPLE_INTERVAL);
            }
            state.sleeps_until = if let Next::Wait(until) = next { Some(until) } else { None };
            if waits && !over && !fetching {
                fetch = database.next_fetch(&mut state, fetch_at, now);
            }
            let fetches = fetching || matches!(fetch, FetchStep::Fetch(_));
            if next == Next::Idle && !fetches && (!waits || over) && (events.is_empty() || stopped) {
                state.running = false;
                // Lines that began to wait since the check start the task anew.
                if over || !database.has_stored_lines(&state) {
                    drop(state);
                    context.changed.notify_waiters();
                    return;
                }
                state.running = true;
            }
            // Waiting for the flush interval alone needs no task.
            if events.is_empty()
                && !fetches
                && let Some(oldest) = database.flush_due(&context, &state, next, &limits)
            {
                state.running = false;
                state.due = Some(oldest);
                drop(state);
                return database.schedule_flush(&context, oldest);
            }
            next
        };
        let mut waits_for_store = None;
        match fetch {
            FetchStep::Nothing => {}
            FetchStep::Wait(until) => waits_for_store = Some(until),
            FetchStep::Fetch(reserved) => {
                fetching = true;
                database.stored_lines_wait.store(false, Ordering::Release);
                let (store, name) = (context.store.clone(), database.name.clone());
                events.push(Box::pin(async move {
                    let bytes = reserved.bytes() / 2;
                    let fetched = tokio::task::spawn_blocking(move || store.fetch(&name, bytes)).await;
                    let (durables, more) = fetched.unwrap_or((Vec::new(), true));
                    TaskEvent::Fetched(durables, more, reserved)
                }));
            }
        }
        let until = match next {
            Next::Ready => match database.next_request(&context, &mut events).await {
                SendOutcome::Request(request) => {
                    events.push(request);
                    continue;
                }
                SendOutcome::Nothing => continue,
                SendOutcome::Instead(event) => {
                    database.handle(&context, event, &mut events, &mut fetching, &mut fetch_at);
                    continue;
                }
            },
            Next::Wait(until) => Some(until),
            Next::Busy | Next::Idle => None,
        };
        let until = match (until, waits_for_store) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let event = tokio::select! {
            Some(event) = events.next() => Some(event),
            () = tokio::time::sleep_until(until.unwrap_or(now).into()), if until.is_some() => None,
            () = database.share.budget().until_freed(), if waits_for_store.is_some() => None,
            () = database.wake.notified() => None,
        };
        if let Some(event) = event {
            database.handle(&context, event, &mut events, &mut fetching, &mut fetch_at);
        }
    }
}

/// The outcome of a try to send a request.
enum SendOutcome {
    Request(Pin<Box<dyn Future<Output = TaskEvent> + Send>>),
    /// It has to wait after all.
    Nothing,
    /// This happened while it waited for its turn.
    Instead(TaskEvent),
}

impl DatabaseTask {
    /// Waits for a permit of the endpoint's requests, and takes the request that is ready then. One permit
    /// is asked for at a time, so that permits go round among the databases.
    async fn next_request(
        self: &Arc<Self>,
        context: &Arc<WriterContext>,
        events: &mut TaskEvents,
    ) -> SendOutcome {
        let output = context.output_of(&self.name);
        let permits = match self.state.lock().queue.failures() {
            0 => &output.requests,
            _ => &output.probes,
        };
        let permit = tokio::select! {
            biased;
            permit = permits.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            Some(event) = events.next() => return SendOutcome::Instead(event),
        };
        let now = Instant::now();
        if let Some(until) = output.breaker.try_pass(now, context.waits.pause(random())) {
            let mut state = self.state.lock();
            // Nothing goes before that, whoever asked for it.
            state.at_once = false;
            state.queue.pause_until(until);
            state.given_up |= context.draining.load(Ordering::Acquire);
            return SendOutcome::Nothing;
        }
        let request = {
            let mut state = self.state.lock();
            let at_once = std::mem::take(&mut state.at_once);
            let limits = context.limits_now(self.may_wait(context, &state));
            let limits = BatchLimits { bytes_max: output.body_limit.bytes_max(), ..limits };
            state.queue.next_request(now, &limits, at_once)
        };
        let Some(request) = request else { return SendOutcome::Nothing };
        let urgent = request.lines >= context.limits.lines || context.draining.load(Ordering::Acquire);
        let idle_guard = context.idle_delay.begin(urgent);
        let name = self.name.clone();
        SendOutcome::Request(Box::pin(async move {
            let result = send_yielding(&output, &name, &request, permit, idle_guard).await;
            TaskEvent::Answered(request, output, result, now)
        }))
    }

    fn handle(
        self: &Arc<Self>,
        context: &WriterContext,
        event: TaskEvent,
        events: &mut TaskEvents,
        fetching: &mut bool,
        fetch_at: &mut Instant,
    ) {
        match event {
            TaskEvent::Answered(request, output, result, began) => {
                if self.apply(context, &output, &request, result, began) {
                    let database = self.clone();
                    events.push(Box::pin(async move {
                        let created = output.endpoint().expect("it answered").create(&database.name).await;
                        TaskEvent::Created(created)
                    }));
                }
            }
            TaskEvent::Created(created) => self.record_created(created),
            TaskEvent::Fetched(durables, more, reserved) => {
                *fetching = false;
                if more {
                    self.stored_lines_wait.store(true, Ordering::Release);
                    if durables.is_empty() {
                        *fetch_at = Instant::now() + FETCH_AGAIN;
                    }
                }
                drop(reserved);
                let pending = |durable| {
                    let charge = self.share.charge(PendingLines::memory_bytes(&durable));
                    Arc::new(PendingLines::new(durable, charge))
                };
                let mut state = self.state.lock();
                state.queue.end_fetch(durables.into_iter().map(pending).collect(), more);
                if state.queue.lines_besides_delayed() == 0 && !more {
                    drop(state);
                    context.changed.notify_waiters();
                }
            }
        }
    }
}
