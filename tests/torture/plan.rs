//! A plan of events: all of it follows from a seed.

use std::time::Duration;

use super::event::Event;
use super::{
    broker, certificate, clock, database, decoders, disk, process, registry, segments, shares, strangers,
};

/// Numbers that follow from a seed (xorshift).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Seeds beside each other shall not begin alike.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    pub fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }
}

/// An event from `begin` to `end` of the run.
pub struct Planned {
    pub begin: Duration,
    pub end: Duration,
    pub event: Box<dyn Event>,
}

type Maker = fn(&mut Random) -> Box<dyn Event>;

/// The kinds of event. The weight says how many of a hundred and some are of a kind; no two of one kind
/// are under way at once.
const KINDS: [(u64, Maker); 15] = [
    (14, process::kill),
    (6, process::stop),
    (6, process::change_setup),
    (10, segments::lose),
    (10, disk::fail),
    (8, broker::kill),
    (8, database::kill),
    (14, database::fail),
    (4, database::change_version),
    (8, clock::step),
    (8, registry::change),
    (6, certificate::change),
    (12, strangers::come),
    (10, decoders::attack),
    (10, shares::fill),
];

/// The longest that an event lasts.
const EVENT_MS_MAX: u64 = 4_000;

/// Makes the plan of a run. Every kind comes once before any comes at its weight.
pub fn make(seed: u64, length: Duration) -> Vec<Planned> {
    let mut random = Random::new(seed);
    let mut first: Vec<usize> = (0..KINDS.len()).collect();
    let mut free_from = [0; KINDS.len()];
    let (mut at, mut plan) = (1_000, Vec::new());
    let length_ms = length.as_millis() as u64;
    while at < length_ms {
        let kind = if first.is_empty() {
            weighted(&mut random)
        } else {
            first.swap_remove(random.below(first.len() as u64) as usize)
        };
        let lasts = 200 + random.below(EVENT_MS_MAX - 200);
        let begin = at.max(free_from[kind]);
        let end = (begin + lasts).min(length_ms.max(begin + 200));
        free_from[kind] = end;
        plan.push(Planned {
            begin: Duration::from_millis(begin),
            end: Duration::from_millis(end),
            event: KINDS[kind].1(&mut random),
        });
        at += 300 + random.below(2_500);
    }
    plan
}

fn weighted(random: &mut Random) -> usize {
    let mut left = random.below(KINDS.iter().map(|(weight, _)| weight).sum());
    for (kind, (weight, _)) in KINDS.iter().enumerate() {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return kind,
        }
    }
    0
}

#[test]
fn a_plan_follows_from_its_seed_and_has_every_kind() {
    let names = |seed| -> Vec<String> {
        make(seed, Duration::from_secs(60)).iter().map(|planned| planned.event.name()).collect()
    };
    assert_eq!(names(7), names(7));
    assert_ne!(names(7), names(8));
    assert!(names(7).len() >= KINDS.len());
}
