//! One database's task: does what its lane decides. It lives while the database has lines.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::domain::ids::{DatabaseName, TenantId};

use super::lane::{Applied, Lane, Shipment, Step, Trouble};
use super::load::Load;
use super::stats::DatabaseStatus;
use super::verdict::{Fault, Scope, Verdict, verdict};
use super::work::Outlet;
use super::{Output, Shared};

pub struct Database {
    name: DatabaseName,
    tenant: TenantId,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    lane: Lane,
    /// A task is at work.
    running: bool,
    /// It stands in the list of those whose lines nobody has pressed for.
    listed: bool,
    /// The next step counts no waits: a shutdown has begun.
    hurried: bool,
    last_answer: String,
    /// What was logged about the trouble that lasts.
    trouble: Option<Option<Fault>>,
}

/// What a request came to.
enum Came {
    Answer(Verdict, Vec<u8>),
    NoAnswer { words: String, broken: bool },
}

impl Database {
    pub fn new(name: DatabaseName, tenant: TenantId) -> Self {
        Self { name, tenant, state: Mutex::default(), wake: Notify::new() }
    }

    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    pub fn lines_left(&self) -> u64 {
        self.state.lock().lane.lines_left()
    }

    /// Takes a load, and sees to it that somebody writes it.
    pub fn push(self: &Arc<Self>, shared: &Arc<Shared>, load: Load) {
        let (start, ready, list);
        {
            let mut state = self.state.lock();
            state.lane.push(Arc::new(load));
            start = !std::mem::replace(&mut state.running, true);
            list = !std::mem::replace(&mut state.listed, true);
            ready = state.lane.is_ready(Instant::now(), &shared.limits);
        }
        if list {
            shared.waiting.lock().push(self.clone());
        }
        if start {
            shared.runtime.spawn(supervise(shared.clone(), self.clone()));
        } else if ready {
            self.wake.notify_one();
        }
    }

    /// The lines that wait now are wanted at once.
    pub fn press(&self) {
        let mut state = self.state.lock();
        state.listed = false;
        state.lane.backlog.press();
        drop(state);
        self.wake.notify_one();
    }

    /// A shutdown has begun, or is over: no wait counts any more, once.
    pub fn hurry(&self, shared: &Shared) {
        self.state.lock().hurried = !shared.stopped.load(Ordering::Acquire);
        self.wake.notify_one();
    }

    pub fn status(&self, now: Instant) -> DatabaseStatus {
        let state = self.state.lock();
        let lane = &state.lane;
        let age = lane.oldest().map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest));
        let next_try = lane.next_try().map(|at| at.saturating_duration_since(now).as_millis() as u64);
        DatabaseStatus {
            database: self.name.to_string(),
            tenant: self.tenant.to_string(),
            lines: lane.lines_left(),
            bytes: lane.bytes_left(),
            oldest_age_ms: age.as_millis() as u64,
            last_answer: state.last_answer.clone(),
            failures: lane.failures(),
            next_try_ms: next_try,
        }
    }
}

/// Runs the task until the backlog is empty. A panic in it is a fault of ours: it is logged, the
/// lines are still in the lane, and the task begins again.
async fn supervise(shared: Arc<Shared>, database: Arc<Database>) {
    loop {
        let task = tokio::spawn(run(shared.clone(), database.clone()));
        match task.await {
            Ok(()) => return,
            Err(failure) if failure.is_panic() => {
                error!(database = %database.name, "the task of a database panicked; it starts again, nothing is lost");
                tokio::time::sleep(shared.waits.retry_min).await;
            }
            // The runtime is going down.
            Err(_) => return,
        }
    }
}

async fn run(shared: Arc<Shared>, database: Arc<Database>) {
    loop {
        let stopped = shared.stopped.load(Ordering::Acquire);
        let step = {
            let mut state = database.state.lock();
            let draining = shared.draining.load(Ordering::Acquire);
            if draining && state.lane.failures() == 0 {
                state.lane.backlog.press();
            }
            let at_once = std::mem::take(&mut state.hurried);
            let step = match stopped {
                true => Step::Idle,
                false => state.lane.step(Instant::now(), &shared.limits, at_once),
            };
            if matches!(step, Step::Idle) {
                state.running = false;
            }
            step
        };
        match step {
            Step::Idle => {
                shared.changed.notify_waiters();
                return;
            }
            Step::Wait(until) => {
                tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => {}
                    () = database.wake.notified() => {}
                }
            }
            Step::Send(shipment) => {
                if let Some(until) = shared.gate.ask(Instant::now(), shared.waits.pause(random())) {
                    database.state.lock().lane.hold(until);
                    continue;
                }
                let permit = shared.requests.acquire().await.expect("the semaphore is never closed");
                let began = Instant::now();
                let came = send(&shared, &database.name, &shipment).await;
                drop(permit);
                database.apply(&shared, &shipment, came, began);
            }
        }
    }
}

async fn send(shared: &Shared, name: &DatabaseName, shipment: &Shipment) -> Came {
    match &shared.output {
        Output::Http(endpoint) => match endpoint.write(name, shipment.body.clone(), shipment.plain).await {
            Ok(answer) => Came::Answer(verdict(endpoint.kind(), &answer, shipment.lines), answer.body),
            Err(error) => Came::NoAnswer { words: error.words, broken: error.broken },
        },
        Output::File(file) => {
            let (file, name, body) = (file.clone(), name.clone(), shipment.body.clone());
            let appended =
                tokio::task::spawn_blocking(move || file.append(&name, jiff::Timestamp::now(), &body)).await;
            match appended {
                Ok(Ok(())) => Came::Answer(Verdict::Accepted, Vec::new()),
                Ok(Err(error)) => Came::NoAnswer { words: error.to_string(), broken: false },
                Err(_) => Came::NoAnswer { words: "writing the file was interrupted".into(), broken: false },
            }
        }
    }
}

impl Database {
    fn apply(&self, shared: &Shared, shipment: &Shipment, came: Came, began: Instant) {
        let now = Instant::now();
        let outlet = Outlet { sink: &shared.refused_lines, database: &self.name };
        let outcome = match &came {
            Came::Answer(verdict, _) => verdict.name(),
            Came::NoAnswer { .. } => "failed",
        };
        let flushed = matches!(came, Came::Answer(Verdict::Accepted, _));
        let answered = matches!(came, Came::Answer(..));
        let durable = flushed || matches!(came, Came::Answer(Verdict::Partial { .. }, _));
        let mut state = self.state.lock();
        let applied = match came {
            Came::Answer(verdict, answer) => {
                state.lane.apply(now, verdict, &answer, &outlet, &shared.waits, random())
            }
            Came::NoAnswer { words, broken } => {
                state.lane.fail(now, broken, words, &outlet, &shared.waits, random())
            }
        };
        let failures = state.lane.failures();
        let lines_left = state.lane.lines_left();
        self.note(&mut state, &applied, failures, outcome);
        drop(state);

        if let Some(Trouble::Pause { scope: Scope::Endpoint, wait, .. }) = applied.trouble {
            shared.gate.close(now, wait, shared.waits.pause_max);
        } else if answered && shared.gate.open(now, durable) {
            for database in shared.all_databases() {
                database.retry_now();
            }
        }
        let stats = &shared.stats;
        let progress = &applied.progress;
        stats.flushes.fetch_add(u64::from(flushed), Ordering::Relaxed);
        stats.lines_written.fetch_add(progress.written, Ordering::Relaxed);
        stats.lines_refused.fetch_add(progress.refused, Ordering::Relaxed);
        stats.lines_pending.fetch_sub(progress.written + progress.refused, Ordering::Relaxed);
        shared.told(&self.tenant, outcome, u64::from(shipment.lines), now - began);
        if lines_left == 0 {
            shared.changed.notify_waiters();
        }
    }

    /// The endpoint is well again: what was held back only for its sake goes now.
    fn retry_now(&self) {
        let mut state = self.state.lock();
        if state.running
            && matches!(state.trouble, None | Some(Some(Fault::Unauthorized | Fault::WrongProduct)))
        {
            state.hurried = true;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Logs what changed: a trouble is told once when it comes and once when it goes.
    fn note(&self, state: &mut State, applied: &Applied, failures: u32, outcome: &'static str) {
        let database = &self.name;
        if applied.progress.refused > 0 {
            warn!(%database, lines = applied.progress.refused, "the database refused lines; they are in quarantine");
        }
        if applied.limited > 0 {
            error!(%database, lines = applied.limited, "lines meet a ceiling of the server and wait; {}",
                   Fault::LimitReached.advice());
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
