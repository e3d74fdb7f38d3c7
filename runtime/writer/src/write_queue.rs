//! The queue of one database: its backlog, its requests under way, and the time of the next try.
//! Pure: time and randomness are passed in.
//!
//! Several requests can be under way; no two carry lines of one device. Lines that are later than
//! all waiting ones go beside the backlog, so that a long backlog does not hide the present. Lines that
//! meet a ceiling of the server, or were refused once, wait apart (`delayed_lines`). The three take turns.

mod answer;
mod trouble;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::backlog::{Backlog, BatchLimits, Due, ShardSet};
use crate::backoff::Backoff;
use crate::batch::{Batch, BatchProgress, RepeatedRefusals};
use crate::concurrency_limit::ConcurrencyLimit;
use crate::delayed_lines::{DelayReason, DelayedLines, Suspicion};
use crate::limits;
use crate::lines_budget::DatabaseShare;
use crate::pending_lines::PendingLines;
use crate::verdict::{EndpointFault, FaultScope};
use tidegate_core::durable::StreamPosition;

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
    /// A body was too large for the server, or for a proxy in front of it.
    pub too_large: bool,
}

/// The queue that lines came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueKind {
    Backlog,
    Live,
    Delayed,
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
    /// Answers 500 in a row.
    server_errors: u32,
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
    /// Lines were returned since the last fetch began, so some wait in the store.
    has_returned: bool,
    /// The queue that the last batch came from; they take turns.
    last: QueueKind,
    inflight: Vec<InflightRequest>,
    next_id: u64,
    delayed: DelayedLines,
    /// Bytes in hand of this database.
    share: DatabaseShare,
    /// The last request was another try; then new lines have their turn.
    last_was_retry: bool,
    /// Answers 500 in a row, whatever the body.
    server_errors: u32,
    accepted: Option<Instant>,
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
    pub fn new(requests_max: u32, share: DatabaseShare) -> Self {
        Self {
            backlog: Backlog::default(),
            live: Backlog::default(),
            fetching: false,
            while_fetching: Vec::new(),
            returns: HashMap::new(),
            has_returned: false,
            last: QueueKind::Live,
            inflight: Vec::new(),
            next_id: 0,
            delayed: DelayedLines::default(),
            share,
            last_was_retry: false,
            server_errors: 0,
            accepted: None,
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
        self.has_returned = true;
    }

    /// True if lines were returned since the last fetch began: only a fetch brings them back.
    pub fn has_returned(&self) -> bool {
        self.has_returned
    }

    /// Returns all wanted messages of it.
    pub fn return_all(&mut self, pending: &PendingLines) {
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
        self.has_returned = false;
    }

    pub fn is_fetching(&self) -> bool {
        self.fetching
    }

    /// Takes the fetched lines and those that came meanwhile, in the order of their numbers. `more`: lines
    /// are left in the store.
    pub fn end_fetch(&mut self, mut fetched: Vec<Arc<PendingLines>>, more: bool) {
        self.fetching = false;
        let while_fetching = std::mem::take(&mut self.while_fetching);
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
                }
            }
            fetched.sort_by_key(|pending| (pending.position().stream, pending.position().number));
        }
        for pending in fetched {
            let _ = self.push(&pending);
        }
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

    /// The times of the next requests. With too many lines that wait apart, no others go.
    fn due(&self, now: Instant, limits: &BatchLimits, at_once: bool) -> [(QueueKind, Due); 3] {
        let of = |backlog: &Backlog| match backlog.due(now, limits) {
            _ if self.is_delayed_full() => Due::Never,
            Due::At(_) if at_once => Due::Now,
            due => due,
        };
        let delayed = match self.delayed.due() {
            Some(due) if due <= now => Due::Now,
            Some(due) => Due::At(due),
            None => Due::Never,
        };
        [
            (QueueKind::Live, of(&self.live)),
            (QueueKind::Backlog, of(&self.backlog)),
            (QueueKind::Delayed, delayed),
        ]
    }

    /// True if so many lines wait apart that the database must wait for them.
    pub fn is_delayed_full(&self) -> bool {
        self.delayed.is_full() || (!self.delayed.is_empty() && self.share.is_apart_full())
    }

    pub fn requests(&self) -> usize {
        self.inflight.iter().filter(|request| request.under_way).count()
    }

    pub fn requests_max(&self) -> u32 {
        if self.backoff.failures() > 0 { 1 } else { self.concurrency.size() }
    }

    /// `at_once`: waits of the backlog and of failed tries count for nothing.
    pub fn next(&mut self, now: Instant, limits: &BatchLimits, at_once: bool) -> Next {
        let is_empty = self.backlog.is_empty() && self.live.is_empty();
        if self.inflight.is_empty() && is_empty && self.delayed.is_empty() {
            return Next::Idle;
        }
        if let Some(not_before) = self.not_before
            && now < not_before
            && !at_once
        {
            return Next::Wait(not_before);
        }
        let due = self.due(now, limits, at_once);
        let is_due = due.iter().any(|(_, due)| *due == Due::Now);
        if is_due || self.inflight.iter().any(|request| !request.under_way) {
            if self.requests() < self.requests_max() as usize {
                return Next::Ready;
            }
            self.concurrency.record_limited();
            return Next::Busy;
        }
        let times = due.iter().filter_map(|(_, due)| if let Due::At(at) = due { Some(*at) } else { None });
        times.min().map_or(Next::Busy, Next::Wait)
    }

    /// The next request, if one can be sent now.
    pub fn next_request(
        &mut self,
        now: Instant,
        limits: &BatchLimits,
        at_once: bool,
    ) -> Option<WriteRequest> {
        loop {
            if self.next(now, limits, at_once) != Next::Ready {
                return None;
            }
            self.not_before = None;
            let place = self.next_place(now, limits, at_once)?;
            let request = &mut self.inflight[place];
            if request.batch.is_done() {
                // All its lines stand behind others that wait.
                let _ = self.finish(place, now, Duration::ZERO, limits.interval);
                continue;
            }
            request.batch.fit(limits.bytes_max);
            request.under_way = true;
            request.sent_at = now;
            let (body, lines) = request.batch.body();
            let plain = request.batch.plain;
            return Some(WriteRequest { id: request.id, body, lines, plain });
        }
    }

    /// The place of the request that goes next: another try, or new lines. While the only batch that
    /// failed is tried again, new lines have every second turn: it may be the batch that is at fault.
    fn next_place(&mut self, now: Instant, limits: &BatchLimits, at_once: bool) -> Option<usize> {
        let mut retries = self.inflight.iter().enumerate().filter(|(_, request)| !request.under_way);
        let retry = retries.next().map(|(place, _)| place);
        let alone = retries.next().is_none();
        if let Some(retry) = retry {
            let yields = self.last_was_retry && alone && self.begin(now, limits, at_once).is_some();
            self.last_was_retry = !yields;
            return Some(if yields { self.inflight.len() - 1 } else { retry });
        }
        self.last_was_retry = false;
        self.begin(now, limits, at_once)?;
        Some(self.inflight.len() - 1)
    }

    /// Adds a request with the lines that wait longest.
    fn begin(&mut self, now: Instant, limits: &BatchLimits, at_once: bool) -> Option<()> {
        let due = self.due(now, limits, at_once).map(|(queue, due)| (queue, due == Due::Now));
        // Those that are due take turns.
        let last = due.iter().position(|(queue, _)| *queue == self.last).expect("it is one of them");
        let mut turns = due.iter().cycle().skip(last + 1).take(due.len());
        let (queue, _) = *turns.find(|(_, ready)| *ready)?;
        self.last = queue;
        let (batch, shards) = match queue {
            QueueKind::Delayed => {
                let mut lines = self.delayed.take(now, limits.lines_max.max(limits.lines) as usize);
                for line in &mut lines {
                    if let DelayReason::Suspect(suspicion) = &mut line.reason {
                        suspicion.is_last_try = is_last_try(suspicion, self.accepted);
                    }
                }
                (Batch::of_delayed(lines), 0)
            }
            QueueKind::Backlog | QueueKind::Live => {
                let catch_up = std::mem::take(&mut self.catch_up);
                let (parts, shards) = self.queue(queue).take(now, limits, catch_up);
                let mut batch = Batch::new(parts);
                if self.delayed.holds_any() {
                    batch.delay_behind(|point| self.delayed.holds(point));
                }
                (batch, shards)
            }
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
            server_errors: 0,
        });
        Some(())
    }

    fn queue(&mut self, queue: QueueKind) -> &mut Backlog {
        match queue {
            QueueKind::Live => &mut self.live,
            QueueKind::Backlog => &mut self.backlog,
            QueueKind::Delayed => unreachable!("delayed lines have no shards"),
        }
    }

    /// Delays the next try, without counting a failure.
    pub fn pause_until(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// Counts a request that was answered or failed for each tenant whose lines it carried.
    pub fn record_outcome(&self, id: u64, outcome: &'static str) {
        let request = self.inflight.iter().find(|request| request.id == id);
        for account in request.map(|request| request.batch.accounts()).unwrap_or_default() {
            account.record_write(outcome);
        }
    }

    /// Makes all requests under way ready to be sent again: their task is gone.
    pub fn abort_inflight(&mut self) {
        for request in &mut self.inflight {
            request.under_way = false;
        }
        // A fetch is gone with it.
        self.end_fetch(Vec::new(), true);
        self.has_returned = true;
    }

    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// True if no try has failed, none is delayed, and no line waits apart.
    pub fn is_well(&self) -> bool {
        self.failures() == 0 && self.not_before.is_none() && self.delayed.is_empty()
    }

    pub fn next_try(&self) -> Option<Instant> {
        self.not_before
    }

    /// Lines that wait or are under way.
    pub fn lines_left(&self) -> u64 {
        self.lines_besides_delayed() + self.lines_delayed()
    }

    /// The same, without the lines that wait apart.
    pub fn lines_besides_delayed(&self) -> u64 {
        let while_fetching: u64 = self.while_fetching.iter().map(|pending| pending.line_count()).sum();
        self.backlog.lines()
            + self.live.lines()
            + while_fetching
            + self.inflight_lines(|queue| queue != QueueKind::Delayed)
    }

    /// Lines that wait apart, because they meet a ceiling of the server or were refused once.
    pub fn lines_delayed(&self) -> u64 {
        self.delayed.count() + self.inflight_lines(|queue| queue == QueueKind::Delayed)
    }

    fn inflight_lines(&self, of: impl Fn(QueueKind) -> bool) -> u64 {
        self.inflight
            .iter()
            .filter(|request| of(request.queue))
            .map(|request| request.batch.lines_left())
            .sum()
    }
}

/// True if the next refusal of a line is believed.
fn is_last_try(suspicion: &Suspicion, accepted: Option<Instant>) -> bool {
    match suspicion.server_error {
        // A server that takes nothing says nothing about a line.
        true => {
            suspicion.refusals + 1 >= limits::SERVER_ERRORS_BELIEVED
                && accepted.is_some_and(|at| at > suspicion.since)
        }
        false => suspicion.refusals + 1 >= limits::REFUSALS_BELIEVED,
    }
}
