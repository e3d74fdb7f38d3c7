//! A write queue against answers and failures, with a clock that the test moves.

mod order;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backlog::BatchLimits;
use crate::backoff::BackoffLimits;
use crate::batch::RefusedSink;
use crate::pending_lines::RefusedLinesSink;
use crate::testing::{pending_lines, pending_lines_at, unlimited};
use crate::verdict::{LineRefusal, Verdict};
use crate::write_queue::{ApplyOutcome, Next, WriteQueue, WriteRequest};
use tidegate_core::durable::StreamPosition;
use tidegate_core::ids::DatabaseName;

const LIMITS: BatchLimits = BatchLimits {
    lines: 500,
    interval: Duration::from_secs(1),
    early: Duration::ZERO,
    lines_max: 10_000,
    bytes_max: 8 << 20,
};

struct Harness {
    queue: WriteQueue,
    now: Instant,
    sink: RefusedLinesSink,
    database: DatabaseName,
    id: u64,
    /// Lines so far; each has a time of its own.
    pushed: u32,
}

impl Harness {
    fn new() -> Self {
        let sink: RefusedLinesSink = Arc::new(|_| {});
        Self {
            queue: WriteQueue::new(32, unlimited()),
            now: Instant::now(),
            sink,
            database: "db".into(),
            id: 0,
            pushed: 0,
        }
    }

    /// Messages of a line each, of one device.
    fn push(&mut self, messages: u32, line_bytes: usize) {
        self.push_of(0, messages, line_bytes);
    }

    fn push_of(&mut self, device: u32, messages: u32, line_bytes: usize) {
        let text = "x".repeat(line_bytes - 8);
        let pushed = self.pushed;
        self.pushed += messages;
        for first in (pushed..pushed + messages).step_by(50) {
            let line = |n| (device, vec![format!("{text} {n:06}")]);
            let messages: Vec<_> = (first..first + 50).map(line).collect();
            assert!(self.queue.push(&pending_lines(&messages, self.now).0));
        }
    }

    fn next(&mut self) -> Next {
        self.queue.next(self.now, &LIMITS, false)
    }

    fn sent(&mut self) -> WriteRequest {
        let request = self.queue.next_request(self.now, &LIMITS, false).expect("a request is ready");
        self.id = request.id;
        request
    }

    fn apply(&mut self, verdict: Verdict) -> ApplyOutcome {
        self.apply_to(self.id, verdict)
    }

    fn apply_to(&mut self, id: u64, verdict: Verdict) -> ApplyOutcome {
        let refused_sink = RefusedSink { sink: &self.sink, database: &self.database };
        self.queue.apply(id, self.now, verdict, &[], &refused_sink, &BackoffLimits::default(), 0)
    }

    fn fail(&mut self, broken: bool) -> ApplyOutcome {
        let refused_sink = RefusedSink { sink: &self.sink, database: &self.database };
        self.queue.fail(
            self.id,
            self.now,
            broken,
            "reset".into(),
            &refused_sink,
            &BackoffLimits::default(),
            0,
        )
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[test]
fn a_failed_request_is_sent_again_unchanged_and_what_came_meanwhile_goes_at_once_after_it() {
    let mut harness = Harness::new();
    harness.push(500, 10);
    let first = harness.sent();
    assert!(harness.apply(Verdict::Retry { after: None, words: "503".into() }).trouble.is_some());
    harness.push(2000, 10);
    let Next::Wait(until) = harness.next() else { panic!("it waits") };
    assert_eq!(until, harness.now + BackoffLimits::default().retry_min);
    harness.pass(2);
    assert_eq!(harness.sent().body, first.body);
    assert_eq!(harness.apply(Verdict::Accepted).progress.written, 500);
    assert_eq!(harness.sent().lines, 2000);
    harness.apply(Verdict::Accepted);
    assert_eq!(harness.next(), Next::Idle);
    assert_eq!((harness.queue.lines_left(), harness.queue.waiting_bytes()), (0, 0));
}

#[test]
fn a_large_body_that_breaks_the_connection_twice_is_split_and_a_small_one_never() {
    let mut harness = Harness::new();
    harness.push(500, 4000);
    harness.sent();
    assert!(harness.fail(true).trouble.is_some());
    harness.pass(60);
    assert_eq!(harness.sent().lines, 500);
    assert_eq!(harness.fail(true).trouble, None);
    assert_eq!(harness.sent().lines, 250);
    let mut harness = Harness::new();
    harness.push(500, 10);
    for _ in 0..5 {
        assert_eq!(harness.sent().lines, 500);
        harness.fail(true);
        harness.pass(60);
    }
}

#[test]
fn a_timeout_is_no_reason_to_split() {
    let mut harness = Harness::new();
    harness.push(500, 4000);
    for _ in 0..5 {
        assert_eq!(harness.sent().lines, 500);
        assert!(harness.fail(false).trouble.is_some());
        harness.pass(60);
    }
}

#[test]
fn lines_that_meet_a_ceiling_come_back_after_a_pause_alone() {
    let mut harness = Harness::new();
    harness.push(500, 10);
    harness.sent();
    let limited =
        vec![LineRefusal { line: 7, words: "limit".into() }, LineRefusal { line: 3, words: "limit".into() }];
    let applied = harness.apply(Verdict::Partial { refused: Vec::new(), limited });
    assert_eq!((applied.progress.written, applied.limited, applied.trouble), (498, 2, None));
    assert_eq!(harness.queue.lines_left(), 2);
    harness.push(500, 10);
    assert_eq!(harness.sent().lines, 500);
    harness.apply(Verdict::Accepted);
    let Next::Wait(until) = harness.next() else { panic!("it waits") };
    assert_eq!(until, harness.now + BackoffLimits::default().pause_min);
    harness.pass(30);
    assert_eq!(harness.sent().lines, 2);
    assert_eq!(harness.apply(Verdict::Accepted).progress.written, 2);
    assert_eq!(harness.next(), Next::Idle);
}

#[test]
fn a_body_that_the_server_cannot_unzip_goes_plain_at_once() {
    let mut harness = Harness::new();
    harness.push(500, 10);
    assert!(!harness.sent().plain);
    assert_eq!(harness.apply(Verdict::SendPlain { words: "gzip".into() }).trouble, None);
    assert!(harness.sent().plain);
}

#[test]
fn requests_under_way_that_fail_together_count_as_one_failure() {
    let mut harness = Harness::new();
    for device in 0..8 {
        harness.push_of(device, 500, 10);
    }
    let ids: Vec<u64> = (0..harness.queue.requests_max()).map(|_| harness.sent().id).collect();
    assert_eq!(harness.next(), Next::Busy);
    harness.pass(1);
    for id in ids {
        assert!(harness.apply_to(id, Verdict::Retry { after: None, words: "503".into() }).trouble.is_some());
    }
    assert_eq!((harness.queue.failures(), harness.queue.requests()), (1, 0));
    harness.pass(2);
    // One probes.
    harness.sent();
    assert_eq!(harness.next(), Next::Busy);
    harness.apply(Verdict::Accepted);
    harness.sent();
    assert_eq!(harness.queue.failures(), 0);
}

#[test]
fn what_overtakes_takes_turns_with_the_backlog() {
    let mut harness = Harness::new();
    harness.push(20_000, 10);
    let live: Vec<_> = (0..50).map(|_| (0, vec!["live".to_owned()])).collect();
    let position = StreamPosition { stream: 0, number: 1, returns: 0, is_last: false };
    let (pending, _) = pending_lines_at(position, true, &live, harness.now);
    assert!(harness.queue.push(&pending));
    harness.pass(1);
    let bodies = [harness.sent().body, harness.sent().body];
    assert_eq!(bodies.iter().filter(|body| body.starts_with(b"live")).count(), 1);
}

#[test]
fn what_is_given_back_is_what_is_not_under_way() {
    let mut harness = Harness::new();
    for device in 0..20 {
        harness.push_of(device, 500, 10);
    }
    let lines = u64::from(harness.sent().lines);
    assert!(harness.queue.waiting_bytes() > 0);
    harness.queue.evict();
    assert_eq!((harness.queue.lines_left(), harness.queue.waiting_bytes()), (lines, 0));
    assert_eq!(harness.apply(Verdict::Accepted).progress.written, lines);
    assert_eq!(harness.next(), Next::Idle);
}

/// Lines of so many devices, each of its own time.
fn push_lines(harness: &mut Harness, from: u32, lines: u32) {
    let messages: Vec<_> =
        (from..from + lines).map(|n| (n % 7, vec![format!("m,d={} v={n} {n}", n % 7)])).collect();
    for messages in messages.chunks(50) {
        assert!(harness.queue.push(&pending_lines(messages, harness.now).0));
    }
}

#[test]
fn lines_at_a_ceiling_hold_up_no_others_and_take_turns_with_them() {
    let mut harness = Harness::new();
    let mut limited_lines = 0;
    for round in 0..20 {
        push_lines(&mut harness, round * 500, 500);
        let body = harness.sent().body;
        let limit = |line: usize| LineRefusal { line: line as u32, words: "limit".into() };
        let new_lines = body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
        let limited: Vec<_> = (0..new_lines).step_by(100).map(limit).collect();
        limited_lines += limited.len() as u64;
        let applied = harness.apply(Verdict::Partial { refused: Vec::new(), limited });
        assert_eq!(applied.trouble, None);
        assert_eq!(harness.queue.lines_left(), limited_lines);
        assert_eq!(harness.queue.lines_besides_delayed(), 0);
        harness.pass(1);
    }
    // They go together, and after them new lines go before they are tried again.
    harness.pass(60);
    push_lines(&mut harness, 100_000, 500);
    let counts = [harness.sent().lines, harness.sent().lines];
    assert!(counts.contains(&(limited_lines as u32)) && counts.contains(&500), "{counts:?}");
}

#[test]
fn with_too_many_lines_at_a_ceiling_the_database_waits_and_the_rest_goes_back_to_the_store() {
    let mut harness = Harness::new();
    let line = "x".repeat(1_000);
    let messages: Vec<_> = (0..3_000).map(|n| (n % 7, vec![format!("m v=\"{line}\" {n}")])).collect();
    let mut receipts = Vec::new();
    for messages in messages.chunks(50) {
        let (pending, receipt) = pending_lines(messages, harness.now);
        assert!(harness.queue.push(&pending));
        receipts.push(receipt);
    }
    harness.pass(3);
    let request = harness.sent();
    assert_eq!(request.lines, 3_000);
    let limited = (0..request.lines).map(|line| LineRefusal { line, words: "limit".into() }).collect();
    let applied = harness.apply(Verdict::Partial { refused: Vec::new(), limited });
    assert!(applied.trouble.is_some());
    let returned: usize = receipts.iter().map(|receipt| receipt.lock().returned.len()).sum();
    assert!(returned > 0 && harness.queue.has_returned());
    assert_eq!(harness.queue.lines_left() + returned as u64, 3_000);
    assert!(harness.queue.lines_delayed() * 1_000 <= 2 << 20);
}

#[test]
fn a_database_in_trouble_returns_what_its_next_try_does_not_need() {
    let mut harness = Harness::new();
    for device in 0..8 {
        harness.push_of(device, 500, 1_000);
    }
    let ids: Vec<u64> = (0..harness.queue.requests_max()).map(|_| harness.sent().id).collect();
    for id in ids {
        harness.apply_to(id, Verdict::Retry { after: None, words: "503".into() });
    }
    assert!(harness.queue.holds_over(64 << 10));
    harness.queue.return_all_it_can();
    assert_eq!((harness.queue.lines_left(), harness.queue.waiting_bytes()), (0, 0));
}

#[test]
fn a_line_that_a_server_answers_500_to_is_found_and_the_others_are_written() {
    let mut harness = Harness::new();
    push_lines(&mut harness, 0, 500);
    let (mut written, mut refused) = (0, 0);
    for _ in 0..100 {
        while let Next::Wait(until) = harness.next() {
            harness.now = until;
        }
        if harness.next() == Next::Idle {
            break;
        }
        let body = harness.sent().body;
        let has_bad = body.split(|&byte| byte == b'\n').any(|line| line.ends_with(b" 123"));
        let verdict = match has_bad {
            true => Verdict::ServerError { words: "500: partial write: points beyond retention".into() },
            false => Verdict::Accepted,
        };
        harness.now += Duration::from_millis(1);
        let progress = harness.apply(verdict).progress;
        written += progress.written;
        refused += progress.refused;
    }
    assert_eq!((written, refused, harness.queue.lines_left()), (499, 1, 0));
}

#[test]
fn a_server_that_answers_500_to_everything_costs_no_line() {
    let mut harness = Harness::new();
    push_lines(&mut harness, 0, 1);
    push_lines(&mut harness, 1, 499);
    for _ in 0..200 {
        while let Next::Wait(until) = harness.next() {
            harness.now = until;
        }
        harness.sent();
        let progress = harness.apply(Verdict::ServerError { words: "500: timeout".into() }).progress;
        assert_eq!((progress.written, progress.refused), (0, 0));
    }
    assert_eq!(harness.queue.lines_left(), 500);
}
