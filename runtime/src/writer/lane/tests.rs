use std::ops::Range;

use super::super::load::{LoadMessage, Receipt, RefusedLinesSink};
use super::super::verdict::LineFault;
use super::*;
use crate::domain::books::{Account, Outcome};
use crate::domain::ids::DatabaseName;
use crate::domain::message::Tenant;

const LIMITS: BatchLimits =
    BatchLimits { lines: 500, interval: Duration::from_secs(1), lines_max: 10_000, bytes_max: 8 << 20 };

struct Nobody;

impl Receipt for Nobody {
    fn lines_written(&self, _: u64) {}
    fn lines_refused(&self, _: u64) {}
    fn settled(&self, _: Range<usize>, _: Outcome) {}
}

fn load(messages: u32, line_bytes: usize, arrived: Instant) -> Arc<Load> {
    let account = Arc::new(Account::new("acme".into()));
    let tenant = Arc::new(Tenant { id: "acme".into(), account, database: Ok("db".into()) });
    let mut lines = Vec::new();
    let messages = (0..messages)
        .map(|_| {
            lines.resize(lines.len() + line_bytes - 1, b'x');
            lines.push(b'\n');
            LoadMessage { topic: "t".into(), received_ns: 0, lines_end: lines.len() as u32, line_count: 1 }
        })
        .collect();
    Arc::new(Load::new(tenant, "g".into(), lines, messages, arrived, Box::new(Nobody)))
}

struct Rig {
    lane: Lane,
    now: Instant,
    sink: RefusedLinesSink,
    database: DatabaseName,
}

impl Rig {
    fn new() -> Self {
        let sink: RefusedLinesSink = Arc::new(|_| {});
        Self { lane: Lane::default(), now: Instant::now(), sink, database: "db".into() }
    }

    fn push(&mut self, messages: u32, line_bytes: usize) {
        self.lane.push(load(messages, line_bytes, self.now));
    }

    fn step(&mut self) -> Step {
        self.lane.step(self.now, &LIMITS, false)
    }

    fn sent(&mut self) -> Shipment {
        match self.step() {
            Step::Send(shipment) => shipment,
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self, verdict: Verdict) -> Applied {
        let outlet = Outlet { sink: &self.sink, database: &self.database };
        self.lane.apply(self.now, verdict, &[], &outlet, &Waits::default(), 0)
    }

    fn fail(&mut self, broken: bool) -> Applied {
        let outlet = Outlet { sink: &self.sink, database: &self.database };
        self.lane.fail(self.now, broken, "reset".into(), &outlet, &Waits::default(), 0)
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
    let Step::Wait(until) = rig.step() else { panic!("it waits") };
    assert_eq!(until, rig.now + Waits::default().retry_min);
    rig.pass(2);
    assert_eq!(rig.sent().body, first.body);
    assert_eq!(rig.apply(Verdict::Accepted).progress.written, 500);
    assert_eq!(rig.sent().lines, 2000);
    rig.apply(Verdict::Accepted);
    assert!(matches!(rig.step(), Step::Idle));
    assert_eq!((rig.lane.lines_left(), rig.lane.bytes_left(), rig.lane.oldest()), (0, 0, None));
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
        vec![LineFault { line: 7, words: "limit".into() }, LineFault { line: 3, words: "limit".into() }];
    let applied = rig.apply(Verdict::Partial { refused: Vec::new(), limited });
    assert_eq!((applied.progress.written, applied.limited, applied.trouble), (498, 2, None));
    assert_eq!(rig.lane.lines_left(), 2);
    rig.push(500, 10);
    assert_eq!(rig.sent().lines, 500);
    rig.apply(Verdict::Accepted);
    let Step::Wait(until) = rig.step() else { panic!("it waits") };
    assert_eq!(until, rig.now + Waits::default().pause_min);
    rig.pass(30);
    assert_eq!(rig.sent().lines, 2);
    assert_eq!(rig.apply(Verdict::Accepted).progress.written, 2);
    assert!(matches!(rig.step(), Step::Idle));
}

#[test]
fn a_body_that_the_server_cannot_unzip_goes_plain_at_once() {
    let mut rig = Rig::new();
    rig.push(500, 10);
    assert!(!rig.sent().plain);
    assert_eq!(rig.apply(Verdict::SendPlain { words: "gzip".into() }).trouble, None);
    assert!(rig.sent().plain);
}
