//! One database's task: does what its lane decides. It lives while the database has lines.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tracing::{error, info, warn};

use crate::batch::RefusedSink;
use crate::context::WriterContext;
use crate::ease::UnderWay;
use crate::limits;
use crate::output::{Output, OutputTransport};
use crate::pending_lines::PendingLines;
use crate::stats::DatabaseStatus;
use crate::verdict::{EndpointFault, FaultScope, Verdict, verdict};
use crate::write_queue::{ApplyOutcome, Next, Trouble, WriteQueue, WriteRequest};
use tidegate_core::durable::Durable;
use tidegate_core::ids::{DatabaseName, TenantId};

pub struct DatabaseTask {
    name: DatabaseName,
    state: Mutex<TaskState>,
    wake: Notify,
    /// Lines of it wait in the store.
    waits: AtomicBool,
}

struct TaskState {
    lane: WriteQueue,
    /// A task is at work.
    running: bool,
    /// The calendar starts one at this time, or wakes it.
    due: Option<Instant>,
    /// Until when its task sleeps if nothing happens; `None`: for ever.
    sleeps_until: Option<Instant>,
    /// The next step counts no waits: a shutdown has begun, or the endpoint is well again.
    hurried: bool,
    /// It failed since the shutdown began.
    given_up: bool,
    last_answer: String,
    /// What was logged about the trouble that lasts.
    trouble: Option<Option<EndpointFault>>,
}

/// What a request came to.
enum RequestResult {
    Answer(Verdict, Vec<u8>),
    NoAnswer { words: String, broken: bool },
}

/// What the task waits for.
enum TaskEvent {
    Came(WriteRequest, Arc<Output>, RequestResult, Instant),
    Fetched(Vec<Durable>, bool),
}

type TaskEvents = FuturesUnordered<Pin<Box<dyn Future<Output = TaskEvent> + Send>>>;

/// A fetch that brought nothing, because others hold the memory, is tried again after this.
const FETCH_AGAIN: Duration = Duration::from_millis(50);

impl DatabaseTask {
    pub fn new(name: DatabaseName, requests_max: u32) -> Self {
        let state = TaskState {
            lane: WriteQueue::new(requests_max),
            running: false,
            due: None,
            sleeps_until: None,
            hurried: false,
            given_up: false,
            last_answer: String::new(),
            trouble: None,
        };
        Self { name, state: Mutex::new(state), wake: Notify::new(), waits: AtomicBool::new(false) }
    }

    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    pub fn has_lines(&self) -> bool {
        self.waits.load(Ordering::Acquire) || self.state.lock().lane.lines_left() > 0
    }

    /// Whether a shutdown need not wait for it.
    pub fn is_drained(&self) -> bool {
        self.state.lock().given_up || !self.has_lines()
    }

    /// Takes a load, and sees to it that somebody writes it.
    pub fn push(self: &Arc<Self>, shared: &Arc<WriterContext>, load: PendingLines) {
        let (mut start, mut wake) = (false, false);
        let note;
        {
            let mut state = self.state.lock();
            if !state.lane.push(&Arc::new(load)) {
                drop(state);
                return self.mark_waiting(shared);
            }
            let next = state.lane.next(Instant::now(), &shared.limits, false);
            let at = match next {
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
                    None if shared.draining.load(Ordering::Acquire) => {
                        wake = true;
                        None
                    }
                    // It waits for answers, and need not be woken before.
                    None => Some(until),
                },
                Next::Busy | Next::Idle if state.running => None,
                next => {
                    let at = self.flush_due(shared, &state, next);
                    start = at.is_none() && state.start();
                    at
                }
            };
            note = at.filter(|at| state.due.is_none_or(|due| *at < due));
            state.due = note.or(state.due);
            give_back_in_trouble(&mut state, &self.waits);
        }
        if let Some(until) = note {
            shared.calendar.note(shared, self.clone(), until);
        }
        self.ensure_running(shared, start, wake);
    }

    /// Until when it needs no task, because its lines wait for the flush interval and for nothing
    /// else.
    fn flush_due(&self, shared: &WriterContext, state: &TaskState, next: Next) -> Option<Instant> {
        let Next::Wait(until) = next else { return None };
        let waits = self.waits.load(Ordering::Acquire) || shared.draining.load(Ordering::Acquire);
        (!waits && !state.hurried && state.lane.is_well()).then_some(until)
    }

    /// The time has come that was noted in the calendar, unless it was for nothing.
    pub fn begin(self: &Arc<Self>, shared: &Arc<WriterContext>, noted: Instant) {
        let start = {
            let mut state = self.state.lock();
            if state.due != Some(noted) {
                return;
            }
            state.start()
        };
        self.ensure_running(shared, start, true);
    }

    /// Lines of it wait in the store.
    pub fn mark_waiting(self: &Arc<Self>, shared: &Arc<WriterContext>) {
        self.waits.store(true, Ordering::Release);
        let start = self.state.lock().start();
        self.ensure_running(shared, start, true);
    }

    fn ensure_running(self: &Arc<Self>, shared: &Arc<WriterContext>, start: bool, wake: bool) {
        if start {
            shared.runtime.spawn(supervise(shared.clone(), self.clone()));
        } else if wake {
            self.wake.notify_one();
        }
    }

    /// A shutdown has begun, or is over: no wait counts any more, once.
    pub fn flush_now(self: &Arc<Self>, shared: &Arc<WriterContext>) {
        let start = {
            let mut state = self.state.lock();
            state.hurried = !shared.stopped.load(Ordering::Acquire);
            state.due.is_some() && state.start()
        };
        self.ensure_running(shared, start, true);
    }

    pub fn status(&self, now: Instant) -> DatabaseStatus {
        let state = self.state.lock();
        let lane = &state.lane;
        let next_try = lane.next_try().filter(|_| lane.failures() > 0 || state.trouble.is_some());
        DatabaseStatus {
            database: self.name.to_string(),
            output_of: self.name.output_of().map(ToString::to_string),
            lines_in_hand: lane.lines_left(),
            requests: lane.requests(),
            window: lane.window(),
            last_answer: state.last_answer.clone(),
            failures: lane.failures(),
            next_try_ms: next_try.map(|at| at.saturating_duration_since(now).as_millis() as u64),
        }
    }
}

impl TaskState {
    /// True: a task is to be started.
    fn start(&mut self) -> bool {
        self.due = None;
        !std::mem::replace(&mut self.running, true)
    }
}

/// A database in trouble holds no more memory than its tries need.
fn give_back_in_trouble(state: &mut TaskState, waits: &AtomicBool) {
    if state.lane.failures() > 0 && state.lane.waiting_bytes() > limits::TROUBLE_BYTES_MAX {
        // Before they are back, so that the task looks for them after.
        waits.store(true, Ordering::Release);
        state.lane.evict();
    }
}

/// Runs until the backlog is empty. A panic is a fault of ours: it is logged, the lines are still
/// in the lane, and it begins again.
async fn supervise(shared: Arc<WriterContext>, database: Arc<DatabaseTask>) {
    while AssertUnwindSafe(run(shared.clone(), database.clone())).catch_unwind().await.is_err() {
        error!(database = %database.name, "the task of a database panicked; it starts again, nothing is lost");
        database.state.lock().lane.abort_inflight();
        tokio::time::sleep(shared.waits.retry_min).await;
    }
}

async fn run(shared: Arc<WriterContext>, database: Arc<DatabaseTask>) {
    let mut events = TaskEvents::new();
    let mut fetching = false;
    let mut fetch_at = Instant::now();
    loop {
        let stopped = shared.stopped.load(Ordering::Acquire);
        let now = Instant::now();
        let mut fetch = false;
        let next = {
            let mut state = database.state.lock();
            let waits = database.waits.load(Ordering::Acquire);
            if shared.draining.load(Ordering::Acquire) && state.lane.failures() == 0 {
                state.lane.flush_now();
            }
            let at_once = state.hurried;
            let next = if stopped { Next::Idle } else { state.lane.next(now, &shared.limits, at_once) };
            state.sleeps_until = if let Next::Wait(until) = next { Some(until) } else { None };
            if waits && !stopped && !fetching {
                // What is in trouble needs no more than one try in hand.
                let low = match state.lane.failures() {
                    0 => limits::FETCH_LOW_BYTES,
                    _ => 1,
                };
                fetch = now >= fetch_at && state.lane.waiting_bytes() < low;
                if fetch {
                    state.lane.begin_fetch();
                }
            }
            if next == Next::Idle && !fetching && (!waits || stopped) && (events.is_empty() || stopped) {
                state.running = false;
                // What began to wait between the look and now starts the task anew.
                if stopped || !database.waits.load(Ordering::Acquire) {
                    drop(state);
                    shared.changed.notify_waiters();
                    return;
                }
                state.running = true;
            }
            // One that only waits for the time to pass needs no task for that.
            if events.is_empty()
                && !fetching
                && let Some(until) = database.flush_due(&shared, &state, next)
            {
                state.running = false;
                state.due = Some(until);
                drop(state);
                return shared.calendar.note(&shared, database, until);
            }
            next
        };
        if fetch {
            fetching = true;
            database.waits.store(false, Ordering::Release);
            let (store, name) = (shared.store.clone(), database.name.clone());
            events.push(Box::pin(async move {
                let fetched =
                    tokio::task::spawn_blocking(move || store.fetch(&name, limits::FETCH_BYTES)).await;
                let (durables, more) = fetched.unwrap_or((Vec::new(), true));
                TaskEvent::Fetched(durables, more)
            }));
        }
        let until = match next {
            Next::Ready => match database.next_request(&shared, &mut events).await {
                SendOutcome::Request(request) => {
                    events.push(request);
                    continue;
                }
                SendOutcome::Nothing => continue,
                SendOutcome::Instead(event) => {
                    database.handle(&shared, event, &mut fetching, &mut fetch_at);
                    continue;
                }
            },
            Next::Wait(until) => Some(until),
            Next::Busy | Next::Idle => None,
        };
        // Where lines wait in the store and memory was short, they are asked for again.
        let waits_for_memory = !fetching && fetch_at > now && database.waits.load(Ordering::Acquire);
        let until = match (until, waits_for_memory.then_some(fetch_at)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let event = tokio::select! {
            Some(event) = events.next() => Some(event),
            () = tokio::time::sleep_until(until.unwrap_or(now).into()), if until.is_some() => None,
            () = database.wake.notified() => None,
        };
        if let Some(event) = event {
            database.handle(&shared, event, &mut fetching, &mut fetch_at);
        }
    }
}

/// What came of trying to ship a request.
enum SendOutcome {
    Request(Pin<Box<dyn Future<Output = TaskEvent> + Send>>),
    /// It has to wait after all.
    Nothing,
    /// While it waited for its turn, this happened.
    Instead(TaskEvent),
}

impl DatabaseTask {
    /// Waits for a place among the endpoint's requests and ships what is ready then. One place is
    /// asked for at a time, so that places go round among the databases.
    async fn next_request(
        self: &Arc<Self>,
        shared: &Arc<WriterContext>,
        events: &mut TaskEvents,
    ) -> SendOutcome {
        let way = shared.output_of(&self.name);
        let places = match self.state.lock().lane.failures() {
            0 => &way.requests,
            _ => &way.probes,
        };
        let permit = tokio::select! {
            biased;
            permit = places.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            Some(event) = events.next() => return SendOutcome::Instead(event),
        };
        let now = Instant::now();
        if let Some(until) = way.gate.ask(now, shared.waits.pause(random())) {
            self.state.lock().lane.hold(until);
            return SendOutcome::Nothing;
        }
        let shipment = {
            let mut state = self.state.lock();
            let at_once = std::mem::take(&mut state.hurried);
            state.lane.next_request(now, &shared.limits, at_once)
        };
        let Some(shipment) = shipment else { return SendOutcome::Nothing };
        let urgent = shipment.lines >= shared.limits.lines || shared.draining.load(Ordering::Acquire);
        let under_way = shared.ease.begin(urgent);
        let name = self.name.clone();
        SendOutcome::Request(Box::pin(async move {
            let came = send_yielding(&way, &name, &shipment, permit, under_way).await;
            TaskEvent::Came(shipment, way, came, now)
        }))
    }

    fn handle(&self, shared: &WriterContext, event: TaskEvent, fetching: &mut bool, fetch_at: &mut Instant) {
        match event {
            TaskEvent::Came(shipment, way, came, began) => self.apply(shared, &way, &shipment, came, began),
            TaskEvent::Fetched(durables, more) => {
                *fetching = false;
                if more {
                    self.waits.store(true, Ordering::Release);
                    if durables.is_empty() {
                        *fetch_at = Instant::now() + FETCH_AGAIN;
                    }
                }
                let mut state = self.state.lock();
                let fetched =
                    durables.into_iter().map(|durable| Arc::new(PendingLines::new(durable))).collect();
                if !state.lane.end_fetch(fetched, more) {
                    self.waits.store(true, Ordering::Release);
                }
                if state.lane.lines_left() == 0 && !more {
                    drop(state);
                    shared.changed.notify_waiters();
                }
            }
        }
    }
}

/// Sends, and gives its place to others when the answer takes long.
async fn send_yielding(
    way: &Output,
    name: &DatabaseName,
    shipment: &WriteRequest,
    permit: OwnedSemaphorePermit,
    under_way: UnderWay,
) -> RequestResult {
    let mut sending = std::pin::pin!(send(way, name, shipment));
    let slow_after = Duration::from_millis(limits::SLOW_REQUEST_MS);
    match tokio::time::timeout(slow_after, &mut sending).await {
        Ok(came) => came,
        Err(_) => {
            // Its answer may never come.
            drop(under_way);
            let place = way.slow.clone().try_acquire_owned();
            let _kept = match place {
                Ok(place) => {
                    drop(permit);
                    place
                }
                Err(_) => permit,
            };
            sending.await
        }
    }
}

async fn send(way: &Output, name: &DatabaseName, shipment: &WriteRequest) -> RequestResult {
    match &way.output {
        OutputTransport::Http(endpoint) => {
            match endpoint.write(name, shipment.body.clone(), shipment.plain).await {
                Ok(answer) => {
                    RequestResult::Answer(verdict(endpoint.kind(), &answer, shipment.lines), answer.body)
                }
                Err(error) => RequestResult::NoAnswer { words: error.words, broken: error.broken },
            }
        }
        OutputTransport::File(file) => {
            let (file, name, body) = (file.clone(), name.clone(), shipment.body.clone());
            let appended =
                tokio::task::spawn_blocking(move || file.append(&name, jiff::Timestamp::now(), &body)).await;
            match appended {
                Ok(Ok(())) => RequestResult::Answer(Verdict::Accepted, Vec::new()),
                Ok(Err(error)) => RequestResult::NoAnswer { words: error.to_string(), broken: false },
                Err(_) => RequestResult::NoAnswer {
                    words: "writing the file was interrupted".into(),
                    broken: false,
                },
            }
        }
    }
}

impl DatabaseTask {
    fn apply(
        &self,
        shared: &WriterContext,
        way: &Arc<Output>,
        shipment: &WriteRequest,
        came: RequestResult,
        began: Instant,
    ) {
        let now = Instant::now();
        let outlet = RefusedSink { sink: &shared.refused_lines, database: &self.name };
        let outcome = match &came {
            RequestResult::Answer(verdict, _) => verdict.name(),
            RequestResult::NoAnswer { .. } => "failed",
        };
        let flushed = matches!(came, RequestResult::Answer(Verdict::Accepted, _));
        let answered = matches!(came, RequestResult::Answer(..));
        let durable = flushed || matches!(came, RequestResult::Answer(Verdict::Partial { .. }, _));
        let mut state = self.state.lock();
        let applied = match came {
            RequestResult::Answer(verdict, answer) => {
                let (flight, random) = (shipment.flight, random());
                state.lane.apply(flight, now, verdict, &answer, &outlet, &shared.waits, random)
            }
            RequestResult::NoAnswer { words, broken } => {
                let (flight, random) = (shipment.flight, random());
                state.lane.fail(flight, now, broken, words, &outlet, &shared.waits, random)
            }
        };
        let failures = state.lane.failures();
        state.given_up |= applied.trouble.is_some() && shared.draining.load(Ordering::Acquire);
        let changed = state.given_up || state.lane.lines_left() == 0;
        self.note(&mut state, &applied, failures, outcome);
        if applied.trouble.is_some() && state.lane.recall_failed() {
            self.waits.store(true, Ordering::Release);
        }
        give_back_in_trouble(&mut state, &self.waits);
        drop(state);

        if let Some(Trouble::Pause { scope: FaultScope::Endpoint, wait, .. }) = applied.trouble {
            way.gate.close(now, wait, shared.waits.pause_max);
        } else if answered && way.gate.open(now, durable) {
            for database in shared.all_databases() {
                if Arc::ptr_eq(&shared.output_of(&database.name), way) {
                    database.retry_now();
                }
            }
        }
        let stats = &shared.stats;
        let progress = &applied.progress;
        stats.flushes.fetch_add(u64::from(flushed), Ordering::Relaxed);
        stats.lines_written.fetch_add(progress.written, Ordering::Relaxed);
        stats.lines_refused.fetch_add(progress.refused, Ordering::Relaxed);
        shared.observer.write(&shipment.tenants, outcome, u64::from(shipment.lines), now - began);
        if changed {
            shared.changed.notify_waiters();
        }
    }

    /// These tenants have other outputs than before. What waits here that may be theirs is fetched
    /// again, and goes where it belongs now; a database of their own output is tried at once.
    pub fn move_to_outputs(&self, shared: &WriterContext, changed: &HashSet<TenantId>) {
        let own = self.name.output_of().is_some_and(|tenant| changed.contains(tenant));
        let mut state = self.state.lock();
        if own {
            state.hurried = !shared.stopped.load(Ordering::Acquire);
        } else if state.lane.carries(changed) {
            // Before they are back, so that the task looks for them after.
            self.waits.store(true, Ordering::Release);
            state.lane.take_back();
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The endpoint is well again: what was held back only for its sake goes now.
    fn retry_now(&self) {
        let mut state = self.state.lock();
        if state.running
            && matches!(
                state.trouble,
                None | Some(Some(EndpointFault::Unauthorized | EndpointFault::WrongProduct))
            )
        {
            state.hurried = true;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Logs what changed: a trouble is told once when it comes and once when it goes.
    fn note(&self, state: &mut TaskState, applied: &ApplyOutcome, failures: u32, outcome: &'static str) {
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

/// Evenly spread; good enough to keep databases from retrying in step.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}
