//! A write queue against answers and failures, with a clock that the test moves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backlog::BatchLimits;
use crate::backoff::BackoffLimits;
use crate::batch::RefusedSink;
use crate::pending_lines::RefusedLinesSink;
use crate::testing::{pending_lines, pending_lines_at};
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
}

impl Harness {
    fn new() -> Self {
        let sink: RefusedLinesSink = Arc::new(|_| {});
        Self { queue: WriteQueue::new(32), now: Instant::now(), sink, database: "db".into(), id: 0 }
    }

    /// Messages of a line each, of one device.
    fn push(&mut self, messages: u32, line_bytes: usize) {
        self.push_of(0, messages, line_bytes);
    }

    fn push_of(&mut self, device: u32, messages: u32, line_bytes: usize) {
        let line = "x".repeat(line_bytes - 1);
        for _ in 0..messages.div_ceil(50) {
            let messages: Vec<_> = (0..50).map(|_| (device, vec![line.clone()])).collect();
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
