use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backlog::BatchLimits;
use crate::backoff::BackoffLimits;
use crate::batch::RefusedSink;
use crate::pending_lines::RefusedLinesSink;
use crate::testing::{load_at, load_of};
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

struct Rig {
    lane: WriteQueue,
    now: Instant,
    sink: RefusedLinesSink,
    database: DatabaseName,
    flight: u64,
}

impl Rig {
    fn new() -> Self {
        let sink: RefusedLinesSink = Arc::new(|_| {});
        Self { lane: WriteQueue::new(32), now: Instant::now(), sink, database: "db".into(), flight: 0 }
    }

    /// Messages of a line each, of one device.
    fn push(&mut self, messages: u32, line_bytes: usize) {
        self.push_of(0, messages, line_bytes);
    }

    fn push_of(&mut self, device: u32, messages: u32, line_bytes: usize) {
        let line = "x".repeat(line_bytes - 1);
        for _ in 0..messages.div_ceil(50) {
            let messages: Vec<_> = (0..50).map(|_| (device, vec![line.clone()])).collect();
            assert!(self.lane.push(&load_of(&messages, self.now).0));
        }
    }

    fn next(&mut self) -> Next {
        self.lane.next(self.now, &LIMITS, false)
    }

    fn sent(&mut self) -> WriteRequest {
        let shipment = self.lane.next_request(self.now, &LIMITS, false).expect("a request is ready");
        self.flight = shipment.flight;
        shipment
    }

    fn apply(&mut self, verdict: Verdict) -> ApplyOutcome {
        self.apply_to(self.flight, verdict)
    }

    fn apply_to(&mut self, flight: u64, verdict: Verdict) -> ApplyOutcome {
        let outlet = RefusedSink { sink: &self.sink, database: &self.database };
        self.lane.apply(flight, self.now, verdict, &[], &outlet, &BackoffLimits::default(), 0)
    }

    fn fail(&mut self, broken: bool) -> ApplyOutcome {
        let outlet = RefusedSink { sink: &self.sink, database: &self.database };
        self.lane.fail(self.flight, self.now, broken, "reset".into(), &outlet, &BackoffLimits::default(), 0)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[test]
fn a_failed_request_is_sent_again_unchanged_and_what_came_meanwhile_goes_at_once_after_it() {
    let mut rig = Rig::new();
    rig.push(500, 10);
    let first = rig.sent();
    assert!(rig.apply(Verdict::Retry { after: None, words: "503".into() }).trouble.is_some());
    rig.push(2000, 10);
    let Next::Wait(until) = rig.next() else { panic!("it waits") };
    assert_eq!(until, rig.now + BackoffLimits::default().retry_min);
    rig.pass(2);
    assert_eq!(rig.sent().body, first.body);
    assert_eq!(rig.apply(Verdict::Accepted).progress.written, 500);
    assert_eq!(rig.sent().lines, 2000);
    rig.apply(Verdict::Accepted);
    assert_eq!(rig.next(), Next::Idle);
    assert_eq!((rig.lane.lines_left(), rig.lane.waiting_bytes()), (0, 0));
}

#[test]
fn a_large_body_that_breaks_the_connection_twice_is_split_and_a_small_one_never() {
    let mut rig = Rig::new();
    rig.push(500, 4000);
    rig.sent();
    assert!(rig.fail(true).trouble.is_some());
    rig.pass(60);
    assert_eq!(rig.sent().lines, 500);
    assert_eq!(rig.fail(true).trouble, None);
    assert_eq!(rig.sent().lines, 250);
    let mut rig = Rig::new();
    rig.push(500, 10);
    for _ in 0..5 {
        assert_eq!(rig.sent().lines, 500);
        rig.fail(true);
        rig.pass(60);
    }
}

#[test]
fn a_timeout_is_no_reason_to_split() {
    let mut rig = Rig::new();
    rig.push(500, 4000);
    for _ in 0..5 {
        assert_eq!(rig.sent().lines, 500);
        assert!(rig.fail(false).trouble.is_some());
        rig.pass(60);
    }
}

#[test]
fn lines_that_meet_a_ceiling_come_back_after_a_pause_alone() {
    let mut rig = Rig::new();
    rig.push(500, 10);
    rig.sent();
    let limited =
        vec![LineRefusal { line: 7, words: "limit".into() }, LineRefusal { line: 3, words: "limit".into() }];
    let applied = rig.apply(Verdict::Partial { refused: Vec::new(), limited });
    assert_eq!((applied.progress.written, applied.limited, applied.trouble), (498, 2, None));
    assert_eq!(rig.lane.lines_left(), 2);
    rig.push(500, 10);
    assert_eq!(rig.sent().lines, 500);
    rig.apply(Verdict::Accepted);
    let Next::Wait(until) = rig.next() else { panic!("it waits") };
    assert_eq!(until, rig.now + BackoffLimits::default().pause_min);
    rig.pass(30);
    assert_eq!(rig.sent().lines, 2);
    assert_eq!(rig.apply(Verdict::Accepted).progress.written, 2);
    assert_eq!(rig.next(), Next::Idle);
}

#[test]
fn a_body_that_the_server_cannot_unzip_goes_plain_at_once() {
    let mut rig = Rig::new();
    rig.push(500, 10);
    assert!(!rig.sent().plain);
    assert_eq!(rig.apply(Verdict::SendPlain { words: "gzip".into() }).trouble, None);
    assert!(rig.sent().plain);
}

#[test]
fn requests_under_way_that_fail_together_count_as_one_failure() {
    let mut rig = Rig::new();
    for device in 0..8 {
        rig.push_of(device, 500, 10);
    }
    let flights: Vec<u64> = (0..rig.lane.window()).map(|_| rig.sent().flight).collect();
    assert_eq!(rig.next(), Next::Busy);
    rig.pass(1);
    for flight in flights {
        assert!(rig.apply_to(flight, Verdict::Retry { after: None, words: "503".into() }).trouble.is_some());
    }
    assert_eq!((rig.lane.failures(), rig.lane.requests()), (1, 0));
    rig.pass(2);
    // One probes.
    rig.sent();
    assert_eq!(rig.next(), Next::Busy);
    rig.apply(Verdict::Accepted);
    rig.sent();
    assert_eq!(rig.lane.failures(), 0);
}

#[test]
fn what_overtakes_takes_turns_with_the_backlog() {
    let mut rig = Rig::new();
    rig.push(20_000, 10);
    let live: Vec<_> = (0..50).map(|_| (0, vec!["live".to_owned()])).collect();
    let position = StreamPosition { stream: 0, number: 1, returns: 0, is_last: false };
    let (load, _) = load_at(position, true, &live, rig.now);
    assert!(rig.lane.push(&load));
    rig.pass(1);
    let bodies = [rig.sent().body, rig.sent().body];
    assert_eq!(bodies.iter().filter(|body| body.starts_with(b"live")).count(), 1);
}

#[test]
fn what_is_given_back_is_what_is_not_under_way() {
    let mut rig = Rig::new();
    for device in 0..20 {
        rig.push_of(device, 500, 10);
    }
    let lines = u64::from(rig.sent().lines);
    assert!(rig.lane.waiting_bytes() > 0);
    rig.lane.evict();
    assert_eq!((rig.lane.lines_left(), rig.lane.waiting_bytes()), (lines, 0));
    assert_eq!(rig.apply(Verdict::Accepted).progress.written, lines);
    assert_eq!(rig.next(), Next::Idle);
}
