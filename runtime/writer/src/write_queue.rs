//! The queue of one database: its backlog, its requests under way, and the time of the next try.
//! Pure: time and randomness are passed in.
//!
//! Several requests can be under way; no two carry lines of one device. Lines that are later than
//! all waiting ones go beside the backlog, so that a long backlog does not hide the present.

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

/// The next step of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Idle,
    /// Nothing before an answer comes, or lines.
    Busy,
    /// Nothing before this moment, unless an answer or lines come.
    Wait(Instant),
    /// A request can be sent.
    Ready,
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Names it when its answer comes.
    pub id: u64,
    /// The tenants of its lines; several if they share the database.
    pub tenants: Vec<TenantId>,
    /// Each line ended by a newline.
    pub body: Bytes,
    pub lines: u32,
    pub plain: bool,
}

/// The failure of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Retry { words: String, wait: Duration },
    Pause { scope: FaultScope, fault: EndpointFault, words: String, wait: Duration },
}

/// The effect of an answer.
#[derive(Debug, Default)]
pub struct ApplyOutcome {
    pub progress: BatchProgress,
    pub trouble: Option<Trouble>,
    /// Lines that meet a ceiling of the server and wait apart from the others.
    pub limited: u64,
}

/// The one of the two queues that lines came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueKind {
    Backlog,
    Live,
}

/// A batch that is under way, or waits for its next try.
struct InflightRequest {
    id: u64,
    batch: Batch,
    queue: QueueKind,
    shards: ShardSet,
    under_way: bool,
    sent_at: Instant,
    /// Times in a row that the connection broke under a large body.
    broken: u32,
}

pub struct WriteQueue {
    backlog: Backlog,
    /// Lines later than everything in the backlog and behind it.
    live: Backlog,
    fetching: bool,
    /// Lines that came during a fetch.
    while_fetching: Vec<Arc<PendingLines>>,
    /// The count of returns of each stream when its lines were last returned from here.
    returns: HashMap<u32, u32>,
    /// The queue that the last batch came from; they take turns.
    last: QueueKind,
    inflight: Vec<InflightRequest>,
    next_id: u64,
    /// Batches that met a ceiling of the server, and the times of their next tries.
    limited: VecDeque<(Instant, Batch)>,
    concurrency: ConcurrencyLimit,
    not_before: Option<Instant>,
    /// The time of the last counted failure; requests sent before belong to the same failure.
    failed: Option<Instant>,
    backoff: Backoff,
    catch_up: bool,
    repeats: RepeatedRefusals,
    /// Some lines are to go to another output: requests that fail are not tried again from here.
    taking_back: bool,
}

impl WriteQueue {
    pub fn new(requests_max: u32) -> Self {
        Self {
            backlog: Backlog::default(),
            live: Backlog::default(),
            fetching: false,
            while_fetching: Vec::new(),
            returns: HashMap::new(),
            last: QueueKind::Live,
            inflight: Vec::new(),
            next_id: 0,
            limited: VecDeque::new(),
            concurrency: ConcurrencyLimit::new(requests_max),
            not_before: None,
            failed: None,
            backoff: Backoff::default(),
            catch_up: false,
            repeats: RepeatedRefusals::default(),
            taking_back: false,
        }
    }

    /// Takes lines. False: they are returned, because lines in front of them were returned after these
    /// were chosen.
    #[must_use]
    pub fn push(&mut self, pending: &Arc<PendingLines>) -> bool {
        if self.is_stale(pending) {
            self.return_all(pending);
            return false;
        }
        match pending.overtakes {
            true => self.live.push(pending),
            // Lines that are being fetched may stand in front of it.
            false if self.fetching => self.while_fetching.push(pending.clone()),
            false => self.backlog.push(pending),
        }
        true
    }

    fn is_stale(&self, pending: &PendingLines) -> bool {
        let position = pending.position();
        self.returns.get(&position.stream).is_some_and(|&returns| position.returns < returns)
    }

    fn return_messages(&mut self, pending: &PendingLines, messages: Range<usize>) {
        let returns = pending.return_messages(messages);
        self.returns.insert(pending.position().stream, returns);
    }

    /// Returns all wanted messages of it.
    fn return_all(&mut self, pending: &PendingLines) {
        let mut next = 0;
        while next < pending.messages.len() {
            let first = next;
            while next < pending.messages.len() && pending.wants(next) {
                next += 1;
            }
            if first < next {
                self.return_messages(pending, first..next);
            }
            next += 1;
        }
    }

    /// Makes lines that come from now on wait for those that are being fetched.
    pub fn begin_fetch(&mut self) {
        self.fetching = true;
    }

    /// Takes the fetched lines and those that came meanwhile, in the order of their numbers. `more`: lines
    /// are left in the store. False: some were returned.
    #[must_use]
    pub fn end_fetch(&mut self, mut fetched: Vec<Arc<PendingLines>>, more: bool) -> bool {
        self.fetching = false;
        let while_fetching = std::mem::take(&mut self.while_fetching);
        let mut took_all = true;
        if !while_fetching.is_empty() {
            let last: HashMap<u32, StreamPosition> =
                fetched.iter().map(|pending| (pending.position().stream, pending.position())).collect();
            for pending in while_fetching {
                let position = pending.position();
                // It is returned if lines of its stream that stand in front of it may be left in the store.
                let is_next = match last.get(&position.stream) {
                    Some(last) => position.number < last.number || last.is_last,
                    None => !more,
                };
                if is_next {
                    fetched.push(pending);
                } else {
                    self.return_all(&pending);
                    took_all = false;
                }
            }
            fetched.sort_by_key(|pending| (pending.position().stream, pending.position().number));
        }
        for pending in fetched {
            took_all &= self.push(&pending);
        }
        took_all
    }

    /// Makes all lines that wait now due at once.
    pub fn flush_now(&mut self) {
        self.backlog.flush_now();
        self.live.flush_now();
    }

    /// Bytes that wait and are not under way.
    pub fn waiting_bytes(&self) -> usize {
        let while_fetching: usize = self.while_fetching.iter().map(|pending| pending.lines.len()).sum();
        self.backlog.bytes() + self.live.bytes() + while_fetching
    }

    /// Returns the lines that wait, but no batch that is under way or between two tries.
    pub fn evict(&mut self) {
        for part in self.backlog.evict().into_iter().chain(self.live.evict()) {
            self.return_messages(&part.pending, part.messages);
        }
        for pending in std::mem::take(&mut self.while_fetching) {
            self.return_all(&pending);
        }
    }

    /// True if it has lines of one of these tenants.
    pub fn carries(&self, tenants: &HashSet<TenantId>) -> bool {
        let limited = self.limited.iter().map(|(_, batch)| batch);
        let batches = self.inflight.iter().map(|request| &request.batch).chain(limited);
        let mut parts = batches.flat_map(Batch::parts).chain(self.backlog.parts()).chain(self.live.parts());
        parts.any(|part| tenants.contains(&part.pending.tenant))
            || self.while_fetching.iter().any(|pending| tenants.contains(&pending.tenant))
    }

    /// Returns the lines that wait and batches between two tries; those under way follow when they fail.
    /// Batches with some lines written and others not stay.
    pub fn take_back(&mut self) {
        self.evict();
        let mut kept = Vec::new();
        for request in std::mem::take(&mut self.inflight) {
            if request.under_way || !request.batch.is_untouched() {
                kept.push(request);
                continue;
            }
            self.queue(request.queue).release(request.shards);
            for part in request.batch.parts() {
                self.return_messages(&part.pending, part.messages.clone());
            }
        }
        self.inflight = kept;
        self.taking_back = self.inflight.iter().any(|request| request.under_way);
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
        self.inflight.iter().filter(|request| request.under_way).count()
    }

    pub fn requests_max(&self) -> u32 {
        if self.backoff.failures() > 0 { 1 } else { self.concurrency.size() }
    }

    /// `at_once`: waits of the backlog and of failed tries count for nothing.
    pub fn next(&mut self, now: Instant, limits: &BatchLimits, at_once: bool) -> Next {
        if self.inflight.is_empty()
            && self.backlog.is_empty()
            && self.live.is_empty()
            && self.limited.is_empty()
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
        let limited = self.limited.front().map(|(due, _)| *due);
        let ready = self.inflight.iter().any(|request| !request.under_way)
            || limited.is_some_and(|due| now >= due || at_once)
            || due.iter().any(|(_, due)| *due == Due::Now);
        if ready {
            if self.requests() < self.requests_max() as usize {
                return Next::Ready;
            }
            self.concurrency.record_limited();
            return Next::Busy;
        }
        let times = due.iter().filter_map(|(_, due)| if let Due::At(at) = due { Some(*at) } else { None });
        times.chain(limited).min().map_or(Next::Busy, Next::Wait)
    }

    /// The next request, if one can be sent now.
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
        let place = match self.inflight.iter().position(|request| !request.under_way) {
            Some(place) => place,
            None => {
                self.begin(now, limits, at_once)?;
                self.inflight.len() - 1
            }
        };
        let request = &mut self.inflight[place];
        request.under_way = true;
        request.sent_at = now;
        let (body, lines) = request.batch.body();
        let tenants = request.batch.tenants();
        Some(WriteRequest { id: request.id, tenants, body, lines, plain: request.batch.plain })
    }

    /// Adds a request with the lines that wait longest.
    fn begin(&mut self, now: Instant, limits: &BatchLimits, at_once: bool) -> Option<()> {
        let (batch, queue, shards) = if self.limited.front().is_some_and(|(due, _)| now >= *due || at_once) {
            (self.limited.pop_front()?.1, QueueKind::Backlog, 0)
        } else {
            let due = self.due(now, limits, at_once);
            let mut ready = due.iter().filter(|(_, due)| *due == Due::Now).map(|(queue, _)| *queue);
            // They take turns if both are due.
            let first = ready.next()?;
            let queue = ready.next().filter(|_| self.last == first).unwrap_or(first);
            self.last = queue;
            let catch_up = std::mem::take(&mut self.catch_up);
            let (parts, shards) = self.queue(queue).take(now, limits, catch_up);
            (Batch::new(parts), queue, shards)
        };
        self.next_id += 1;
        let id = self.next_id;
        self.inflight.push(InflightRequest {
            id,
            batch,
            queue,
            shards,
            under_way: false,
            sent_at: now,
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

    /// Applies the answer to a request.
    ///
    /// # Panics
    /// It was not sent.
    #[allow(clippy::too_many_arguments, reason = "a pure function of all that an answer depends on")]
    pub fn apply(
        &mut self,
        id: u64,
        now: Instant,
        verdict: Verdict,
        answer: &[u8],
        refused_sink: &RefusedSink,
        waits: &BackoffLimits,
        random: u32,
    ) -> ApplyOutcome {
        let place =
            self.inflight.iter().position(|other| other.id == id).expect("an answer belongs to a request");
        let request = &mut self.inflight[place];
        request.under_way = false;
        request.broken = 0;
        let (batch, sent_at) = (&mut request.batch, request.sent_at);
        let mut applied = ApplyOutcome::default();
        let mut retry = None;
        match verdict {
            Verdict::Accepted => applied.progress = batch.accept(refused_sink, &mut self.repeats),
            Verdict::Partial { refused, limited } => {
                let (progress, limited) =
                    batch.accept_partly(refused, limited, refused_sink, &mut self.repeats);
                applied.progress = progress;
                if let Some(limited) = limited {
                    applied.limited = limited.lines_left();
                    self.limited.push_back((now + waits.pause(random), limited));
                }
            }
            Verdict::ResendWithout(fault) => applied.progress = batch.resend_without(fault, refused_sink),
            Verdict::Bisect { explained, words } => {
                applied.progress = batch.bisect(explained, words, answer, refused_sink, &mut self.repeats);
            }
            Verdict::Split { words } => applied.progress = batch.split(words, refused_sink),
            Verdict::SendPlain { words } if batch.plain => {
                applied.progress = batch.bisect(false, words, answer, refused_sink, &mut self.repeats);
            }
            Verdict::SendPlain { .. } => batch.plain = true,
            Verdict::Retry { after, words } => {
                let wait = self.fail_once(now, sent_at, waits, after, random);
                retry = Some(Trouble::Retry { words, wait });
            }
            Verdict::Pause { scope, fault, words } => {
                self.fail_once(now, sent_at, waits, None, random);
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
                self.concurrency.succeed(now, sent_at);
            }
        }
        if self.inflight[place].batch.is_done() {
            let done = self.inflight.remove(place);
            self.queue(done.queue).release(done.shards);
        }
        applied.trouble = retry;
        applied
    }

    /// Returns batches that have just failed, if `take_back` waits for them. True if it does.
    pub fn take_back_failed(&mut self) -> bool {
        let taking_back = self.taking_back;
        if taking_back {
            self.take_back();
        }
        taking_back
    }

    /// Counts a failure; requests that were under way together fail together.
    fn fail_once(
        &mut self,
        now: Instant,
        sent_at: Instant,
        waits: &BackoffLimits,
        asked: Option<Duration>,
        random: u32,
    ) -> Duration {
        if self.failed.is_some_and(|failed| sent_at <= failed) && self.backoff.failures() > 0 {
            return self.backoff.again(waits, asked);
        }
        self.failed = Some(now);
        self.concurrency.fail();
        self.backoff.fail(waits, asked, random)
    }

    /// Applies that no answer came. `broken`: the connection ended while the body was sent.
    #[allow(clippy::too_many_arguments, reason = "as apply")]
    pub fn fail(
        &mut self,
        id: u64,
        now: Instant,
        broken: bool,
        words: String,
        refused_sink: &RefusedSink,
        waits: &BackoffLimits,
        random: u32,
    ) -> ApplyOutcome {
        let of = self.inflight.iter_mut().find(|other| other.id == id).expect("it was sent");
        let large = of.batch.body().0.len() > limits::SUSPECT_BODY_BYTES;
        let count = if broken && large { of.broken + 1 } else { 0 };
        let verdict = match count {
            2.. => Verdict::Split { words },
            _ => Verdict::Retry { after: None, words },
        };
        let applied = self.apply(id, now, verdict, &[], refused_sink, waits, random);
        if let Some(of) = self.inflight.iter_mut().find(|other| other.id == id) {
            of.broken = if count < 2 { count } else { 0 };
        }
        applied
    }

    /// Delays the next try, without counting a failure.
    pub fn pause_until(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// Makes all requests under way ready to be sent again: their task is gone.
    pub fn abort_inflight(&mut self) {
        for request in &mut self.inflight {
            request.under_way = false;
        }
        // A fetch is gone with it.
        let _ = self.end_fetch(Vec::new(), true);
    }

    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// True if no try has failed, and none is delayed.
    pub fn is_well(&self) -> bool {
        self.failures() == 0 && self.not_before.is_none()
    }

    pub fn next_try(&self) -> Option<Instant> {
        self.not_before
    }

    /// Lines that wait or are under way.
    pub fn lines_left(&self) -> u64 {
        let batches = self
            .inflight
            .iter()
            .map(|request| &request.batch)
            .chain(self.limited.iter().map(|(_, batch)| batch));
        let while_fetching: u64 = self.while_fetching.iter().map(|pending| pending.line_count()).sum();
        self.backlog.lines()
            + self.live.lines()
            + while_fetching
            + batches.map(Batch::lines_left).sum::<u64>()
    }
}
