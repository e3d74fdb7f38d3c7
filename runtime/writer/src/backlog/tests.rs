//! Sizes, times and order of the batches that a backlog gives.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::backlog::{Backlog, BatchLimits, BatchPart, Due, ShardSet};
use crate::testing::{lines_of_one_device, pending_lines};
use tidegate_core::line_protocol::split_checked;

const LIMITS: BatchLimits = BatchLimits {
    lines: 500,
    interval: Duration::from_secs(1),
    early: Duration::ZERO,
    lines_max: 10_000,
    bytes_max: 8 << 20,
};

/// Takes a batch as if the one before were answered.
fn take(backlog: &mut Backlog, now: Instant, limits: &BatchLimits, catch_up: bool) -> Vec<BatchPart> {
    let (batch, shards) = backlog.take(now, limits, catch_up);
    backlog.release(shards);
    batch
}

/// Checks what is counted of the lines that can go against the lines themselves.
fn assert_counted(backlog: &Backlog) {
    assert_eq!(backlog.free_lines, backlog.free().map(|(_, shard)| shard.lines).sum::<u64>());
    assert_eq!(backlog.oldest_free.is_some(), backlog.free().next().is_some());
}

fn lines_of(parts: &[BatchPart]) -> u32 {
    parts.iter().map(|part| part.lines).sum()
}

#[test]
fn a_batch_is_due_when_it_is_full_or_its_first_line_has_waited() {
    let began = Instant::now();
    let mut backlog = Backlog::default();
    assert_eq!(backlog.due(began, &LIMITS), Due::Never);
    backlog.push(&lines_of_one_device(&[499], began));
    backlog.push(&lines_of_one_device(&[], began + Duration::from_millis(900)));
    assert_eq!(backlog.due(began, &LIMITS), Due::At(began + LIMITS.interval));
    assert_eq!(backlog.due(began + LIMITS.interval, &LIMITS), Due::Now);
    backlog.push(&lines_of_one_device(&[1], began));
    assert_eq!(backlog.due(began, &LIMITS), Due::Now);
}

#[test]
fn a_batch_is_exactly_full_however_the_lines_came() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    for _ in 0..10 {
        backlog.push(&lines_of_one_device(&[1; 64], now));
    }
    let batch = take(&mut backlog, now, &LIMITS, false);
    assert_eq!(lines_of(&batch), 500);
    assert!(batch.iter().all(|part| part.whole));
    assert_eq!(backlog.lines(), 140);
    assert_eq!(backlog.due(now, &LIMITS), Due::At(now + LIMITS.interval));
    assert_eq!(lines_of(&take(&mut backlog, now, &LIMITS, false)), 140);
    assert!(backlog.is_empty() && backlog.bytes() == 0);
}

#[test]
fn a_message_that_does_not_fit_the_rest_goes_whole_into_the_next_batch() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    backlog.push(&lines_of_one_device(&[300, 300, 200], now));
    assert_eq!(lines_of(&take(&mut backlog, now, &LIMITS, false)), 300);
    assert_eq!(lines_of(&take(&mut backlog, now, &LIMITS, false)), 500);
    assert!(backlog.is_empty());
}

#[test]
fn only_a_message_too_large_for_any_batch_is_split() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    backlog.push(&lines_of_one_device(&[10, 1200, 10], now));
    let limits = BatchLimits { lines_max: 500, ..LIMITS };
    let sizes: Vec<_> = std::iter::from_fn(|| {
        let batch = take(&mut backlog, now, &limits, false);
        (!batch.is_empty()).then(|| batch.iter().map(|part| (part.lines, part.whole)).collect::<Vec<_>>())
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
        for _ in 0..400 {
            backlog.push(&lines_of_one_device(&[1; 50], began));
        }
        backlog
    };
    assert_eq!(
        lines_of(&take(
            &mut filled(),
            began + LIMITS.interval,
            &BatchLimits { lines: 12_000, ..LIMITS },
            false
        )),
        12_000
    );
    assert_eq!(lines_of(&take(&mut filled(), began + 3 * LIMITS.interval, &LIMITS, false)), 10_000);
    assert_eq!(lines_of(&take(&mut filled(), began, &LIMITS, true)), 10_000);
    let small = BatchLimits { bytes_max: 80, ..LIMITS };
    assert_eq!(lines_of(&take(&mut filled(), began, &small, true)), 10);
    let tiny = BatchLimits { bytes_max: 3, ..LIMITS };
    assert_eq!(lines_of(&take(&mut filled(), began, &tiny, true)), 1);
}

#[test]
fn a_press_counts_for_the_lines_that_wait_then_and_no_others() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    backlog.push(&lines_of_one_device(&[400, 400], now));
    take(&mut backlog, now, &LIMITS, false);
    backlog.flush_now();
    assert_eq!(backlog.due(now, &LIMITS), Due::Now);
    backlog.push(&lines_of_one_device(&[50], now));
    assert_eq!(lines_of(&take(&mut backlog, now, &LIMITS, false)), 450);
    backlog.push(&lines_of_one_device(&[50], now));
    assert_eq!(backlog.due(now, &LIMITS), Due::At(now + LIMITS.interval));
}

#[test]
fn a_batch_grows_with_what_waits() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    backlog.push(&lines_of_one_device(&[1; 60], now));
    for _ in 0..100 {
        backlog.push(&lines_of_one_device(&[1; 60], now));
    }
    assert_eq!(lines_of(&take(&mut backlog, now, &LIMITS, false)), 3030);
    assert_eq!(lines_of(&take(&mut backlog, now, &LIMITS, false)), 500);
}

#[test]
fn lines_of_a_device_wait_while_others_of_it_are_under_way() {
    let now = Instant::now();
    let mut backlog = Backlog::default();
    let line = |n: u32| vec![format!("m f={n} 1")];
    let (first, _) = pending_lines(&[(1, line(1)), (2, line(2)), (1, line(3))], now);
    backlog.push(&first);
    backlog.flush_now();
    let (batch, shards) = backlog.take(now, &LIMITS, false);
    assert_eq!((lines_of(&batch), shards), (3, 0b110));
    let (second, recorded) = pending_lines(&[(2, line(4)), (3, line(5))], now);
    backlog.push(&second);
    backlog.flush_now();
    let (batch, others) = backlog.take(now, &LIMITS, false);
    assert_eq!((lines_of(&batch), others), (1, 0b1000));
    assert_eq!(backlog.due(now, &LIMITS), Due::Never);
    backlog.release(shards);
    assert_eq!(backlog.due(now, &LIMITS), Due::Now);
    for part in backlog.evict() {
        part.pending.return_messages(part.messages);
    }
    assert_eq!(recorded.lock().returned, [0]);
    assert!(backlog.is_empty() && backlog.bytes() == 0);
}

proptest! {
    /// Whatever came in goes out, each byte once, a device's in order, never two requests of one
    /// device at once, and no batch is over its limit.
    #[test]
    fn batches_carry_every_line_once_and_a_devices_in_order(
        loads in proptest::collection::vec(
            proptest::collection::vec((0u32..6, 1usize..40), 1..6), 1..12),
        lines_max in 1u32..30,
        answers in proptest::collection::vec(any::<bool>(), 400),
    ) {
        let now = Instant::now();
        let limits = BatchLimits { lines: lines_max, lines_max, ..LIMITS };
        let mut backlog = Backlog::default();
        let mut sent: Vec<Vec<String>> = vec![Vec::new(); 6];
        let mut number = 0;
        let mut loads = loads.iter().map(|messages| {
            let messages: Vec<_> = messages.iter().map(|&(device, count)| {
                let lines: Vec<String> = (0..count).map(|_| { number += 1; format!("m,d={device} f={number} 1") }).collect();
                sent[device as usize].extend(lines.iter().cloned());
                (device, lines)
            }).collect();
            pending_lines(&messages, now).0
        });
        let mut got: Vec<Vec<String>> = vec![Vec::new(); 6];
        let mut under_way: Vec<(Vec<BatchPart>, ShardSet)> = Vec::new();
        for answered in answers.into_iter().cycle().take(4000) {
            // Lines come while others are under way.
            if (answered || backlog.is_empty())
                && let Some(pending) = loads.next()
            {
                backlog.push(&pending);
                backlog.flush_now();
            }
            assert_counted(&backlog);
            if answered && !under_way.is_empty() {
                let (batch, shards) = under_way.remove(0);
                for part in batch {
                    for line in split_checked(&part.pending.lines[part.bytes.clone()]) {
                        let line = String::from_utf8(line.to_vec()).unwrap();
                        let device: usize = line[4..5].parse().unwrap();
                        got[device].push(line);
                    }
                }
                backlog.release(shards);
            } else if backlog.due(now, &limits) == Due::Now {
                let (batch, shards) = backlog.take(now, &limits, false);
                prop_assert!(!batch.is_empty() && lines_of(&batch) <= lines_max);
                prop_assert!(under_way.iter().all(|(_, others)| others & shards == 0));
                under_way.push((batch, shards));
            } else if under_way.is_empty() && backlog.is_empty() {
                break;
            }
        }
        drop(loads);
        prop_assert_eq!(got, sent);
        prop_assert_eq!((backlog.lines(), backlog.bytes()), (0, 0));
    }
}

#[test]
fn a_batch_is_due_a_little_before_its_interval_is_over_so_that_it_goes_along_with_others() {
    let (began, early) = (Instant::now(), Duration::from_millis(10));
    let limits = BatchLimits { early, ..LIMITS };
    let mut backlog = Backlog::default();
    backlog.push(&lines_of_one_device(&[1], began));
    let over = began + limits.interval;
    assert_eq!(backlog.due(over - 2 * early, &limits), Due::At(over));
    assert_eq!(backlog.due(over - early, &limits), Due::Now);
}
