//! The effect of an answer on the queue.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ApplyOutcome, QueueKind, Trouble, WriteQueue};
use crate::backoff::BackoffLimits;
use crate::batch::RefusedSink;
use crate::batch::bisect::RangeRefusal;
use crate::delayed_lines::{DelayReason, DelayedLine, Suspicion};
use crate::limits;
use crate::pending_lines::PendingLines;
use crate::verdict::{EndpointFault, FaultScope, Verdict};

impl WriteQueue {
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
        let server_errors = match verdict {
            Verdict::ServerError { .. } => request.server_errors + 1,
            _ => 0,
        };
        request.server_errors = server_errors;
        let (batch, sent_at) = (&mut request.batch, request.sent_at);
        let is_delayed = request.queue == QueueKind::Delayed;
        let mut applied = ApplyOutcome::default();
        let mut retry = None;
        // Nothing of the server is known by the answer.
        let mut says_nothing = false;
        let refusal = |explained, words| RangeRefusal { words, answer, explained, server_error: false, now };
        match verdict {
            Verdict::Accepted => {
                applied.progress = batch.accept(refused_sink, &mut self.repeats);
                self.record_accepted(now);
            }
            Verdict::Partial { refused, limited } => {
                (applied.progress, applied.limited) =
                    batch.accept_partly(refused, limited, refused_sink, &mut self.repeats);
                self.record_accepted(now);
            }
            Verdict::ResendWithout(fault) => applied.progress = batch.resend_without(fault, refused_sink),
            Verdict::Bisect { explained, words } => {
                applied.progress = batch.bisect(refusal(explained, words), refused_sink, &mut self.repeats);
            }
            Verdict::Split { words } => {
                applied.too_large = true;
                applied.progress = batch.split(words, refused_sink);
            }
            Verdict::SendPlain { words } if batch.plain => {
                applied.progress = batch.bisect(refusal(false, words), refused_sink, &mut self.repeats);
            }
            Verdict::SendPlain { .. } => batch.plain = true,
            Verdict::Retry { after, words } => {
                let wait = self.fail_once(now, sent_at, waits, after, random);
                retry = Some(Trouble::Retry { words, wait });
            }
            Verdict::ServerError { words } => {
                self.server_errors += 1;
                // Lines that wait apart were tried before.
                if is_delayed || server_errors.max(self.server_errors) >= limits::SERVER_ERRORS_MAX {
                    let refusal = RangeRefusal { server_error: true, ..refusal(false, words.clone()) };
                    applied.progress = batch.bisect(refusal, refused_sink, &mut self.repeats);
                }
                // While smaller bodies are accepted the server is well.
                let is_at_fault = applied.progress.request_at_fault.take().is_some();
                let is_well = (batch.is_accepted() || is_delayed) && !is_at_fault;
                says_nothing = is_delayed && !batch.is_accepted();
                if is_at_fault {
                    (request.server_errors, self.server_errors) = (0, 0);
                    self.repeats.clear();
                }
                if !is_well {
                    let wait = self.fail_once(now, sent_at, waits, None, random);
                    retry = Some(Trouble::Retry { words, wait });
                }
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
        if self.inflight[place].batch.is_done()
            && !self.finish(place, now, waits.pause(random), waits.retry_min)
        {
            let words = "too many lines meet a ceiling of the server".to_owned();
            let (scope, fault) = (FaultScope::Database, EndpointFault::LimitReached);
            retry = Some(Trouble::Pause { scope, fault, words, wait: waits.pause(random) });
        }
        match &retry {
            Some(Trouble::Retry { wait, .. } | Trouble::Pause { wait, .. }) => {
                let until = now + *wait;
                self.not_before = Some(self.not_before.map_or(until, |other| other.max(until)));
                self.catch_up = true;
            }
            None if says_nothing => {}
            None => {
                self.backoff.succeed();
                self.concurrency.succeed(now, sent_at);
            }
        }
        applied.trouble = retry;
        applied
    }

    fn record_accepted(&mut self, now: Instant) {
        self.accepted = Some(now);
        self.server_errors = 0;
    }

    /// Ends the request at `place`, whose batch is done; its delayed lines wait apart: those at a ceiling
    /// of the server for `pause`, others for `retry`. False: there was no room for all of them, and the
    /// rest went back to the store, with all that waits behind it.
    #[must_use]
    pub(super) fn finish(&mut self, place: usize, now: Instant, pause: Duration, retry: Duration) -> bool {
        let mut done = self.inflight.remove(place);
        let delayed = done.batch.take_delayed(&self.share, &mut self.repeats);
        let due = |line: DelayedLine| match line.reason {
            DelayReason::Limited => (now + pause, line),
            DelayReason::Suspect(Suspicion { refusals, .. }) => {
                (now + retry * (1 << refusals.min(6)) / 2, line)
            }
            DelayReason::Behind => (now + retry, line),
        };
        if done.queue == QueueKind::Delayed {
            self.delayed.put_back(delayed.into_iter().map(due).collect());
            return true;
        }
        self.queue(done.queue).release(done.shards);
        if delayed.is_empty() {
            return true;
        }
        let (kept, returned) = self.over_the_ceiling(delayed);
        self.delayed.add(kept.into_iter().map(due).collect());
        if returned.is_empty() {
            return true;
        }
        for (pending, message) in returned {
            self.return_messages(&pending, message..message + 1);
        }
        self.evict();
        false
    }

    /// Takes those messages out that have no room and can be fetched again: all lines of theirs are
    /// delayed, and no kept line is of one of their points.
    #[allow(clippy::type_complexity, reason = "two halves of one list")]
    fn over_the_ceiling(
        &self,
        delayed: Vec<DelayedLine>,
    ) -> (Vec<DelayedLine>, Vec<(Arc<PendingLines>, usize)>) {
        let room = if self.share.is_apart_full() { 0 } else { self.delayed.room() };
        let bytes: usize = delayed.iter().map(|line| line.bytes.len() + limits::DELAYED_OVERHEAD_BYTES).sum();
        if bytes <= room {
            return (delayed, Vec::new());
        }
        let name = |line: &DelayedLine| (Arc::as_ptr(&line.pending).addr(), line.message);
        let mut lines_of: HashMap<(usize, usize), u32> = HashMap::new();
        delayed.iter().for_each(|line| *lines_of.entry(name(line)).or_default() += 1);
        let can_return = |line: &DelayedLine| {
            line.pending.is_excerpt()
                && line.pending.is_untouched(line.message)
                && lines_of[&name(line)] == line.pending.messages[line.message].line_count
        };
        let stays = |line: &DelayedLine| !can_return(line) || self.delayed.holds(&line.point());
        let mut kept_points: HashSet<_> =
            delayed.iter().filter(|line| stays(line)).map(DelayedLine::point).collect();
        // A message is returned whole, so each of its points must be free.
        let mut kept_messages: HashSet<(usize, usize)> = HashSet::new();
        loop {
            let before = (kept_points.len(), kept_messages.len());
            for line in &delayed {
                if kept_points.contains(&line.point()) || kept_messages.contains(&name(line)) {
                    kept_messages.insert(name(line));
                    kept_points.insert(line.point());
                }
            }
            if before == (kept_points.len(), kept_messages.len()) {
                break;
            }
        }
        let (kept, back): (Vec<_>, Vec<_>) =
            delayed.into_iter().partition(|line| kept_messages.contains(&name(line)));
        let mut seen = HashSet::new();
        let returned = back
            .into_iter()
            .filter(|line| seen.insert(name(line)))
            .map(|line| (line.pending, line.message))
            .collect();
        (kept, returned)
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

    /// Makes lines that wait apart due now: the ceiling may have been raised.
    pub fn try_delayed_now(&mut self, now: Instant) {
        self.delayed.try_now(now);
    }
}
