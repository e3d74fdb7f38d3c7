//! One database's way to its output: what waits, what is under way, and when the next try is.
//! Pure: time and randomness are passed in.
//!
//! Several requests can be under way; no two carry lines of one device. What is later than
//! everything that waits goes beside the backlog, so that a long backlog does not hide the present.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::backlog::{Backlog, BatchLimits, Due, ShardSet};
use crate::backoff::{Backoff, BackoffLimits};
use crate::batch::{Batch, BatchProgress, RefusedSink, RepeatedRefusals};
use crate::concurrency_limit::ConcurrencyLimit;
use crate::limits;
use crate::pending_lines::PendingLines;
use crate::verdict::{EndpointFault, FaultScope, Verdict};
use tidegate_core::durable::StreamPosition;
use tidegate_core::ids::TenantId;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Idle,
    /// Nothing before an answer comes, or lines.
    Busy,
    /// Nothing before this moment, unless an answer or lines come.
    Wait(Instant),
    /// A request can be shipped.
    Ready,
}

/// One request.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Names it when its answer comes.
    pub flight: u64,
    /// Whose lines it carries; several where they share the database.
    pub tenants: Vec<TenantId>,
    /// Each line ended by a newline.
    pub body: Bytes,
    pub lines: u32,
    pub plain: bool,
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Retry { words: String, wait: Duration },
    Pause { scope: FaultScope, fault: EndpointFault, words: String, wait: Duration },
}

/// What an answer brought about.
#[derive(Debug, Default)]
pub struct ApplyOutcome {
    pub progress: BatchProgress,
    pub trouble: Option<Trouble>,
    /// Lines that meet a ceiling of the server and wait apart from the others.
    pub limited: u64,
}

/// Which of the two queues lines came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueKind {
    Backlog,
    Live,
}

/// Work that is under way, or waits for its next try.
struct InflightRequest {
    id: u64,
    work: Batch,
    queue: QueueKind,
    shards: ShardSet,
    under_way: bool,
    shipped: Instant,
    /// Times in a row that the connection broke under a large body.
    broken: u32,
}

pub struct WriteQueue {
    backlog: Backlog,
    /// Lines later than everything in the backlog and behind it.
    live: Backlog,
    /// Lines are being fetched, and these came meanwhile.
    fetching: bool,
    held: Vec<Arc<PendingLines>>,
    /// How often lines of a stream had been given back when it was last done from here.
    returns: HashMap<u32, u32>,
    /// Whose turn it is.
    last: QueueKind,
    flights: Vec<InflightRequest>,
    next_flight: u64,
    /// Work that met a ceiling of the server, and when it is tried again.
    parked: VecDeque<(Instant, Batch)>,
    window: ConcurrencyLimit,
    not_before: Option<Instant>,
    /// When the last failure was counted: what was shipped before is the same failure.
    failed: Option<Instant>,
    backoff: Backoff,
    catch_up: bool,
    strikes: RepeatedRefusals,
    /// Somebody's lines are to go elsewhere: what fails is not tried again from here.
    recalled: bool,
}

impl WriteQueue {
    pub fn new(requests_max: u32) -> Self {
        Self {
            backlog: Backlog::default(),
            live: Backlog::default(),
            fetching: false,
            held: Vec::new(),
            returns: HashMap::new(),
            last: QueueKind::Live,
            flights: Vec::new(),
            next_flight: 0,
            parked: VecDeque::new(),
            window: ConcurrencyLimit::new(requests_max),
            not_before: None,
            failed: None,
            backoff: Backoff::default(),
            catch_up: false,
            strikes: RepeatedRefusals::default(),
            recalled: false,
        }
    }

    /// Takes lines. False: lines in front of them were given back after these were chosen, so that these
    /// are given back too.
    #[must_use]
    pub fn push(&mut self, load: &Arc<PendingLines>) -> bool {
        if self.is_stale(load) {
            self.give_back_all(load);
            return false;
        }
        match load.overtakes {
            true => self.live.push(load),
            // What is being fetched may stand in front of it.
            false if self.fetching => self.held.push(load.clone()),
            false => self.backlog.push(load),
        }
        true
    }

    fn is_stale(&self, load: &PendingLines) -> bool {
        let position = load.position();
        self.returns.get(&position.stream).is_some_and(|&returns| position.returns < returns)
    }

    fn give_back(&mut self, load: &PendingLines, messages: Range<usize>) {
        let returns = load.give_back(messages);
        self.returns.insert(load.position().stream, returns);
    }

    /// As `give_back`, all that is wanted of it.
    fn give_back_all(&mut self, load: &PendingLines) {
        let mut next = 0;
        while next < load.messages.len() {
            let first = next;
            while next < load.messages.len() && load.wants(next) {
                next += 1;
            }
            if first < next {
                self.give_back(load, first..next);
            }
            next += 1;
        }
    }

    /// Lines are being fetched: what comes meanwhile waits for them.
    pub fn begin_fetch(&mut self) {
        self.fetching = true;
    }

    /// Takes what was fetched, and what came meanwhile, in the order of their numbers. `more`: something is
    /// left where they were fetched from. False: some were given back.
    #[must_use]
    pub fn end_fetch(&mut self, mut fetched: Vec<Arc<PendingLines>>, more: bool) -> bool {
        self.fetching = false;
        let held = std::mem::take(&mut self.held);
        let mut took_all = true;
        if !held.is_empty() {
            let last: HashMap<u32, StreamPosition> =
                fetched.iter().map(|load| (load.position().stream, load.position())).collect();
            for load in held {
                let position = load.position();
                // Where something of its stream may be left that stands in front of it, it goes back.
                let is_next = match last.get(&position.stream) {
                    Some(last) => position.number < last.number || last.is_last,
                    None => !more,
                };
                if is_next {
                    fetched.push(load);
                } else {
                    self.give_back_all(&load);
                    took_all = false;
                }
            }
            fetched.sort_by_key(|load| (load.position().stream, load.position().number));
        }
        for load in fetched {
            took_all &= self.push(&load);
        }
        took_all
    }

    /// All lines that wait now are wanted at once.
    pub fn flush_now(&mut self) {
        self.backlog.flush_now();
        self.live.flush_now();
    }

    /// Bytes that wait and are not under way.
    pub fn waiting_bytes(&self) -> usize {
        let held: usize = self.held.iter().map(|load| load.lines.len()).sum();
        self.backlog.bytes() + self.live.bytes() + held
    }

    /// Gives back what waits, but not what is under way or between two tries.
    pub fn evict(&mut self) {
        for segment in self.backlog.evict().into_iter().chain(self.live.evict()) {
            self.give_back(&segment.load, segment.messages);
        }
        for load in std::mem::take(&mut self.held) {
            self.give_back_all(&load);
        }
    }

    /// Whether it has lines of one of these tenants.
    pub fn carries(&self, tenants: &HashSet<TenantId>) -> bool {
        let parked = self.parked.iter().map(|(_, work)| work);
        let works = self.flights.iter().map(|flight| &flight.work).chain(parked);
        let mut segments =
            works.flat_map(Batch::segments).chain(self.backlog.segments()).chain(self.live.segments());
        segments.any(|segment| tenants.contains(&segment.load.tenant))
            || self.held.iter().any(|load| tenants.contains(&load.tenant))
    }

    /// Gives back what waits and what waits for its next try, as soon as it is not under way; but for
    /// batches of which some lines are written and others are not.
    pub fn take_back(&mut self) {
        self.evict();
        let mut kept = Vec::new();
        for flight in std::mem::take(&mut self.flights) {
            if flight.under_way || !flight.work.is_untouched() {
                kept.push(flight);
                continue;
            }
            self.queue(flight.queue).release(flight.shards);
            for segment in flight.work.segments() {
                self.give_back(&segment.load, segment.messages.clone());
            }
        }
        self.flights = kept;
        self.recalled = self.flights.iter().any(|flight| flight.under_way);
    }

    fn due(&self, now: Instant, limits: &BatchLimits, at_once: bool) -> [(QueueKind, Due); 2] {
        [(QueueKind::Live, &self.live), (QueueKind::Backlog, &self.backlog)].map(|(queue, backlog)| {
            match backlog.due(now, limits) {
                Due::At(_) if at_once => (queue, Due::Now),
                due => (queue, due),
            }
        })
    }

    pub fn requests(&self) -> usize {
        self.flights.iter().filter(|flight| flight.under_way).count()
    }

    pub fn window(&self) -> u32 {
        if self.backoff.failures() > 0 { 1 } else { self.window.size() }
    }

    /// `at_once`: waits of the backlog and of failed tries count for nothing.
    pub fn next(&mut self, now: Instant, limits: &BatchLimits, at_once: bool) -> Next {
        if self.flights.is_empty()
            && self.backlog.is_empty()
            && self.live.is_empty()
            && self.parked.is_empty()
        {
            return Next::Idle;
        }
        if let Some(not_before) = self.not_before
            && now < not_before
            && !at_once
        {
            return Next::Wait(not_before);
        }
        let due = self.due(now, limits, at_once);
        let parked = self.parked.front().map(|(due, _)| *due);
        let ready = self.flights.iter().any(|flight| !flight.under_way)
            || parked.is_some_and(|due| now >= due || at_once)
            || due.iter().any(|(_, due)| *due == Due::Now);
        if ready {
            if self.requests() < self.window() as usize {
                return Next::Ready;
            }
            self.window.note_limited();
            return Next::Busy;
        }
        let times = due.iter().filter_map(|(_, due)| if let Due::At(at) = due { Some(*at) } else { None });
        times.chain(parked).min().map_or(Next::Busy, Next::Wait)
    }

    /// The next request, if there is one to be shipped now.
    pub fn next_request(
        &mut self,
        now: Instant,
        limits: &BatchLimits,
        at_once: bool,
    ) -> Option<WriteRequest> {
        if self.next(now, limits, at_once) != Next::Ready {
            return None;
        }
        self.not_before = None;
        let place = match self.flights.iter().position(|flight| !flight.under_way) {
            Some(place) => place,
            None => {
                self.begin(now, limits, at_once)?;
                self.flights.len() - 1
            }
        };
        let flight = &mut self.flights[place];
        flight.under_way = true;
        flight.shipped = now;
        let (body, lines) = flight.work.body();
        let tenants = flight.work.tenants();
        Some(WriteRequest { flight: flight.id, tenants, body, lines, plain: flight.work.plain })
    }

    /// Makes a flight of what waits longest.
    fn begin(&mut self, now: Instant, limits: &BatchLimits, at_once: bool) -> Option<()> {
        let (work, queue, shards) = if self.parked.front().is_some_and(|(due, _)| now >= *due || at_once) {
            (self.parked.pop_front()?.1, QueueKind::Backlog, 0)
        } else {
            let due = self.due(now, limits, at_once);
            let mut ready = due.iter().filter(|(_, due)| *due == Due::Now).map(|(queue, _)| *queue);
            // They take turns where both are due.
            let first = ready.next()?;
            let queue = ready.next().filter(|_| self.last == first).unwrap_or(first);
            self.last = queue;
            let catch_up = std::mem::take(&mut self.catch_up);
            let (segments, shards) = self.queue(queue).take(now, limits, catch_up);
            (Batch::new(segments), queue, shards)
        };
        self.next_flight += 1;
        let id = self.next_flight;
        self.flights.push(InflightRequest {
            id,
            work,
            queue,
            shards,
            under_way: false,
            shipped: now,
            broken: 0,
        });
        Some(())
    }

    fn queue(&mut self, queue: QueueKind) -> &mut Backlog {
        match queue {
            QueueKind::Backlog => &mut self.backlog,
            QueueKind::Live => &mut self.live,
        }
    }

    /// The answer to a shipment.
    ///
    /// # Panics
    /// When it was not shipped.
    #[allow(clippy::too_many_arguments, reason = "a pure function of all that an answer depends on")]
    pub fn apply(
        &mut self,
        flight: u64,
        now: Instant,
        verdict: Verdict,
        answer: &[u8],
        outlet: &RefusedSink,
        waits: &BackoffLimits,
        random: u32,
    ) -> ApplyOutcome {
        let place =
            self.flights.iter().position(|other| other.id == flight).expect("an answer is to a shipment");
        let flight = &mut self.flights[place];
        flight.under_way = false;
        flight.broken = 0;
        let (work, shipped) = (&mut flight.work, flight.shipped);
        let mut applied = ApplyOutcome::default();
        let mut retry = None;
        match verdict {
            Verdict::Accepted => applied.progress = work.accept(outlet, &mut self.strikes),
            Verdict::Partial { refused, limited } => {
                let (progress, parked) = work.accept_partly(refused, limited, outlet, &mut self.strikes);
                applied.progress = progress;
                if let Some(parked) = parked {
                    applied.limited = parked.lines_left();
                    self.parked.push_back((now + waits.pause(random), parked));
                }
            }
            Verdict::ResendWithout(fault) => applied.progress = work.resend_without(fault, outlet),
            Verdict::Bisect { explained, words } => {
                applied.progress = work.bisect(explained, words, answer, outlet, &mut self.strikes);
            }
            Verdict::Split { words } => applied.progress = work.split(words, outlet),
            Verdict::SendPlain { words } if work.plain => {
                applied.progress = work.bisect(false, words, answer, outlet, &mut self.strikes);
            }
            Verdict::SendPlain { .. } => work.plain = true,
            Verdict::Retry { after, words } => {
                let wait = self.fail_once(now, shipped, waits, after, random);
                retry = Some(Trouble::Retry { words, wait });
            }
            Verdict::Pause { scope, fault, words } => {
                self.fail_once(now, shipped, waits, None, random);
                retry = Some(Trouble::Pause { scope, fault, words, wait: waits.pause(random) });
            }
        }
        if let Some(words) = applied.progress.request_at_fault.take() {
            let (scope, fault) = (FaultScope::Database, EndpointFault::BadRequest);
            retry = Some(Trouble::Pause { scope, fault, words, wait: waits.pause(random) });
        }
        match &retry {
            Some(Trouble::Retry { wait, .. } | Trouble::Pause { wait, .. }) => {
                let until = now + *wait;
                self.not_before = Some(self.not_before.map_or(until, |other| other.max(until)));
                self.catch_up = true;
            }
            None => {
                self.backoff.succeed();
                self.window.succeed(now, shipped);
            }
        }
        if self.flights[place].work.is_done() {
            let done = self.flights.remove(place);
            self.queue(done.queue).release(done.shards);
        }
        applied.trouble = retry;
        applied
    }

    /// Whether what has just failed is to be given back, and is now.
    pub fn recall_failed(&mut self) -> bool {
        let recalled = self.recalled;
        if recalled {
            self.take_back();
        }
        recalled
    }

    /// Counts a failure; requests that were under way together fail together.
    fn fail_once(
        &mut self,
        now: Instant,
        shipped: Instant,
        waits: &BackoffLimits,
        asked: Option<Duration>,
        random: u32,
    ) -> Duration {
        if self.failed.is_some_and(|failed| shipped <= failed) && self.backoff.failures() > 0 {
            return self.backoff.again(waits, asked);
        }
        self.failed = Some(now);
        self.window.fail();
        self.backoff.fail(waits, asked, random)
    }

    /// No answer came. `broken`: the connection ended while the body was sent.
    #[allow(clippy::too_many_arguments, reason = "as apply")]
    pub fn fail(
        &mut self,
        flight: u64,
        now: Instant,
        broken: bool,
        words: String,
        outlet: &RefusedSink,
        waits: &BackoffLimits,
        random: u32,
    ) -> ApplyOutcome {
        let of = self.flights.iter_mut().find(|other| other.id == flight).expect("it was shipped");
        let large = of.work.body().0.len() > limits::SUSPECT_BODY_BYTES;
        let count = if broken && large { of.broken + 1 } else { 0 };
        let verdict = match count {
            2.. => Verdict::Split { words },
            _ => Verdict::Retry { after: None, words },
        };
        let applied = self.apply(flight, now, verdict, &[], outlet, waits, random);
        if let Some(of) = self.flights.iter_mut().find(|other| other.id == flight) {
            of.broken = if count < 2 { count } else { 0 };
        }
        applied
    }

    /// Holds the next try back, without counting a failure.
    pub fn hold(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// Nothing of what was under way will be answered: its task is gone.
    pub fn abort_inflight(&mut self) {
        for flight in &mut self.flights {
            flight.under_way = false;
        }
        // What was fetched is gone with it.
        let _ = self.end_fetch(Vec::new(), true);
    }

    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// No try has failed, and none is held back.
    pub fn is_well(&self) -> bool {
        self.failures() == 0 && self.not_before.is_none()
    }

    pub fn next_try(&self) -> Option<Instant> {
        self.not_before
    }

    /// Lines that wait or are under way.
    pub fn lines_left(&self) -> u64 {
        let works =
            self.flights.iter().map(|flight| &flight.work).chain(self.parked.iter().map(|(_, work)| work));
        let held: u64 = self.held.iter().map(|load| load.line_count()).sum();
        self.backlog.lines() + self.live.lines() + held + works.map(Batch::lines_left).sum::<u64>()
    }
}
