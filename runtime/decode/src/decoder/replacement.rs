//! Replacement: the choice of the instances that stay when not all find room.
//!
//! Least recently used is the worst choice for tenants that come in turn: the one that goes is the next that comes. So
//! an instance goes only for one whose route was used more (TinyLFU: Einziger, Friedman and Manes, 2017). Uses are
//! counted for routes with and without an instance, and halved now and then, so that what was used once makes room
//! for what is used now. A route whose instance finds no room has one for each batch. Where tenants come in turn, the
//! same ones stay, and their part of the messages starts nothing.

use crate::limits::{USES_HALVED_AFTER, USES_MARGIN, USES_MAX, VICTIMS_COMPARED};

/// The uses of places, and the choice among them.
#[derive(Debug)]
pub(super) struct Replacement {
    uses: Vec<u8>,
    /// Uses since all were halved.
    recorded: usize,
    /// The state of a generator of random numbers (xorshift64).
    random: u64,
}

impl Replacement {
    pub(super) fn new() -> Self {
        Self { uses: Vec::new(), recorded: 0, random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// Begins to count the uses of a place.
    pub(super) fn add(&mut self, place: usize) {
        if self.uses.len() <= place {
            self.uses.resize(place + 1, 0);
        }
        self.uses[place] = 0;
    }

    pub(super) fn record_use(&mut self, place: usize) {
        self.uses[place] = (self.uses[place] + 1).min(USES_MAX);
        self.recorded += 1;
        if self.recorded >= USES_HALVED_AFTER * self.uses.len() {
            self.recorded = 0;
            self.uses.iter_mut().for_each(|uses| *uses /= 2);
        }
    }

    /// The place with the fewest uses of some that hold; `None` if none does.
    pub(super) fn victim(&mut self, holds: impl Fn(usize) -> bool) -> Option<usize> {
        let begin = self.next_random() % self.uses.len().max(1);
        let places = (begin..self.uses.len()).chain(0..begin);
        let compared = places.filter(|place| holds(*place)).take(VICTIMS_COMPARED);
        compared.min_by_key(|place| self.uses[*place])
    }

    /// True if one place is to make room for another.
    pub(super) fn yields(&self, victim: usize, to: usize) -> bool {
        self.uses[to] > self.uses[victim] + USES_MARGIN
    }

    fn next_random(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A cache of places, as one thread has it.
    struct Cache {
        replacement: Replacement,
        kept: BTreeSet<usize>,
        capacity: usize,
    }

    impl Cache {
        fn new(places: usize, capacity: usize) -> Self {
            let mut replacement = Replacement::new();
            (0..places).for_each(|place| replacement.add(place));
            Self { replacement, kept: BTreeSet::new(), capacity }
        }

        /// Uses a place; true if it was kept.
        fn hits(&mut self, place: usize) -> bool {
            self.replacement.record_use(place);
            if self.kept.contains(&place) {
                return true;
            }
            if self.kept.len() == self.capacity {
                let victim = self.replacement.victim(|place| self.kept.contains(&place)).unwrap();
                if !self.replacement.yields(victim, place) {
                    return false;
                }
                self.kept.remove(&victim);
            }
            self.kept.insert(place);
            false
        }
    }

    #[test]
    fn tenants_that_come_in_turn_find_as_many_instances_as_there_is_room_for() {
        for (places, capacity) in [(1_000, 500), (1_000, 900), (1_000, 100)] {
            let mut cache = Cache::new(places, capacity);
            let mut hits = 0;
            for turn in 0..100 {
                let found = (0..places).filter(|place| cache.hits(*place)).count();
                hits += if turn >= 10 { found } else { 0 };
            }
            // As many as can be: the least recently used would be none.
            assert!(hits >= 90 * capacity * 9 / 10, "{places} {capacity}: {hits}");
        }
    }

    #[test]
    fn who_is_used_more_stays_and_who_is_used_no_more_goes() {
        let mut cache = Cache::new(1_000, 100);
        // One in two messages is of the first fifty; then of the last fifty.
        for (begin, name) in [(0, "first"), (950, "last")] {
            let mut hits = 0;
            for step in 0..100_000 {
                let place = if step % 2 == 0 { begin + step / 2 % 50 } else { step * 7 % 1_000 };
                hits += usize::from(cache.hits(place) && step >= 50_000 && step % 2 == 0);
            }
            assert!(hits > 24_000, "{name}: {hits} of 25,000");
        }
    }
}
