use proptest::prelude::*;

use super::super::load::{LoadMessage, Receipt};
use super::*;
use crate::domain::books::{Account, Outcome};
use crate::domain::message::Tenant;

const LIMITS: BatchLimits =
    BatchLimits { lines: 500, interval: Duration::from_secs(1), lines_max: 10_000, bytes_max: 8 << 20 };

struct Nobody;

impl Receipt for Nobody {
    fn lines_written(&self, _: u64) {}
    fn lines_refused(&self, _: u64) {}
    fn settled(&self, _: Range<usize>, _: Outcome) {}
}

fn load(line_counts: &[u32], arrived: Instant) -> Arc<Load> {
    let account = Arc::new(Account::new("acme".into()));
    let tenant = Arc::new(Tenant { id: "acme".into(), account, database: Ok("db".into()) });
    let (mut lines, mut messages) = (Vec::new(), Vec::new());
    for &line_count in line_counts {
        for _ in 0..line_count {
            lines.extend_from_slice(b"m f=1 1\n");
        }
        messages.push(LoadMessage {
            topic: "t".into(),
            received_ns: 0,
            lines_end: lines.len() as u32,
            line_count,
        });
    }
    Arc::new(Load::new(tenant, "g".into(), lines, messages, arrived, Box::new(Nobody)))
}

fn lines_of(segments: &[Segment]) -> u32 {
    segments.iter().map(|segment| segment.lines).sum()
}

#[test]
fn a_batch_is_due_when_it_is_full_or_its_first_line_has_waited() {
    let began = Instant::now();
    let mut backlog = Backlog::default();
    assert_eq!(backlog.due(began, &LIMITS), Due::Never);
    backlog.push(load(&[499], began));
    backlog.push(load(&[], began + Duration::from_millis(900)));
    assert_eq!(backlog.due(began, &LIMITS), Due::At(began + LIMITS.interval));
    assert_eq!(backlog.due(began + LIMITS.interval, &LIMITS), Due::Now);
    backlog.push(load(&[1], began));
    assert_eq!(backlog.due(began, &LIMITS), Due::Now);
}

#[test]
fn a_batch_is_exactly_full_however_the_lines_came() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    for _ in 0..10 {
        backlog.push(load(&[1; 64], now));
    }
    let batch = backlog.take(now, &LIMITS, false);
    assert_eq!(lines_of(&batch), 500);
    assert!(batch.iter().all(|segment| segment.whole));
    assert_eq!(backlog.lines(), 140);
    assert_eq!(backlog.due(now, &LIMITS), Due::At(now + LIMITS.interval));
    assert_eq!(lines_of(&backlog.take(now, &LIMITS, false)), 140);
    assert!(backlog.is_empty() && backlog.bytes() == 0);
}

#[test]
fn a_message_that_does_not_fit_the_rest_goes_whole_into_the_next_batch() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    backlog.push(load(&[300, 300, 200], now));
    assert_eq!(lines_of(&backlog.take(now, &LIMITS, false)), 300);
    assert_eq!(lines_of(&backlog.take(now, &LIMITS, false)), 500);
    assert!(backlog.is_empty());
}

#[test]
fn only_a_message_too_large_for_any_batch_is_split() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    backlog.push(load(&[10, 1200, 10], now));
    let sizes: Vec<_> = std::iter::from_fn(|| {
        let batch = backlog.take(now, &LIMITS, false);
        (!batch.is_empty())
            .then(|| batch.iter().map(|segment| (segment.lines, segment.whole)).collect::<Vec<_>>())
    })
    .collect();
    assert_eq!(
        sizes,
        [vec![(10, true)], vec![(500, false)], vec![(500, false)], vec![(200, false), (10, true)]]
    );
}

#[test]
fn late_lines_and_failed_tries_make_larger_batches() {
    let began = Instant::now();
    let filled = || {
        let mut backlog = Backlog::default();
        backlog.push(load(&[1; 20_000], began));
        backlog
    };
    assert_eq!(lines_of(&filled().take(began + LIMITS.interval, &LIMITS, false)), 500);
    assert_eq!(lines_of(&filled().take(began + 3 * LIMITS.interval, &LIMITS, false)), 10_000);
    assert_eq!(lines_of(&filled().take(began, &LIMITS, true)), 10_000);
    let small = BatchLimits { bytes_max: 80, ..LIMITS };
    assert_eq!(lines_of(&filled().take(began, &small, true)), 10);
    let tiny = BatchLimits { bytes_max: 3, ..LIMITS };
    assert_eq!(lines_of(&filled().take(began, &tiny, true)), 1);
}

#[test]
fn a_press_counts_for_the_lines_that_wait_then_and_no_others() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    backlog.push(load(&[400, 400], now));
    backlog.take(now, &LIMITS, false);
    backlog.press();
    assert_eq!(backlog.due(now, &LIMITS), Due::Now);
    backlog.push(load(&[50], now));
    assert_eq!(lines_of(&backlog.take(now, &LIMITS, false)), 450);
    backlog.push(load(&[50], now));
    assert_eq!(backlog.due(now, &LIMITS), Due::At(now + LIMITS.interval));
}

proptest! {
    /// Whatever came in goes out, in order, each byte once, and no batch is over its limit.
    #[test]
    fn batches_carry_every_line_once_in_order(
        loads in proptest::collection::vec(proptest::collection::vec(1u32..40, 1..6), 1..12),
        lines_max in 1u32..30,
    ) {
        let now = Instant::now();
        let limits = BatchLimits { lines: lines_max, lines_max, ..LIMITS };
        let mut backlog = Backlog::default();
        for counts in &loads {
            backlog.push(load(counts, now));
        }
        let total = backlog.lines();
        let (mut place, mut byte, mut taken) = (0, 0, 0u64);
        let all: Vec<Arc<Load>> = backlog.loads.iter().cloned().collect();
        while !backlog.is_empty() {
            let batch = backlog.take(now, &limits, false);
            prop_assert!(!batch.is_empty());
            prop_assert!(lines_of(&batch) <= lines_max);
            taken += u64::from(lines_of(&batch));
            for segment in batch {
                if byte == all[place].lines.len() {
                    (place, byte) = (place + 1, 0);
                }
                prop_assert!(Arc::ptr_eq(&segment.load, &all[place]));
                prop_assert_eq!(segment.bytes.start, byte);
                let newlines = segment.load.lines[segment.bytes.clone()].iter().filter(|&&b| b == b'\n').count();
                prop_assert_eq!(newlines as u32, segment.lines);
                byte = segment.bytes.end;
            }
        }
        prop_assert_eq!((taken, backlog.lines(), backlog.bytes()), (total, 0, 0));
    }
}
