//! A fair queue in CPU time, so that a long or dear backlog delays only its own owner.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996): each owner has a tag, the virtual time at which its
//! turn begins. The owner with the lowest tag is next. A turn's CPU time, divided by the owner's weight, is
//! added to its tag after the turn, when it is known. An owner that comes back after a pause begins at the
//! present virtual time: it has saved nothing up.
//!
//! While two owners wait all the time, their CPU times differ by no more than the two dearest turns. A turn
//! costs O(log n) for n owners.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

/// The items that wait, by their owner; each owner's in their order.
#[derive(Debug)]
pub struct FairQueue<K: Ord, T> {
    owners: HashMap<K, Owner<T>>,
    /// Each owner with waiting items once, but for the one whose turn it is.
    order: BinaryHeap<Reverse<(Tag, K)>>,
    /// The owner of the turn that was given last, until it is charged.
    turn: Option<K>,
    /// The tag of the last turn, in nanoseconds of CPU time at weight 1.
    now_ns: u64,
    arrivals: u64,
}

#[derive(Debug)]
struct Owner<T> {
    waiting: VecDeque<T>,
    /// The virtual time at which its next turn begins.
    tag_ns: u64,
}

/// The place of an owner: by its tag, and among equals by the time since when it waits.
type Tag = (u64, u64);

impl<K: Ord, T> Default for FairQueue<K, T> {
    fn default() -> Self {
        Self { owners: HashMap::new(), order: BinaryHeap::new(), turn: None, now_ns: 0, arrivals: 0 }
    }
}

impl<K: Clone + Eq + Hash + Ord, T> FairQueue<K, T> {
    pub fn push(&mut self, owner: &K, item: T) {
        match self.owners.get_mut(owner) {
            Some(queue) => {
                let waits = !queue.waiting.is_empty() || self.turn.as_ref() == Some(owner);
                queue.waiting.push_back(item);
                if waits {
                    return;
                }
                queue.tag_ns = queue.tag_ns.max(self.now_ns);
            }
            None => {
                let queue = Owner { waiting: VecDeque::from([item]), tag_ns: self.now_ns };
                self.owners.insert(owner.clone(), queue);
            }
        }
        self.line_up(owner.clone());
    }

    /// Begins a turn: the next item, and those right behind it of the same owner that go along with it; `most`
    /// in all. Empty if nothing waits. A turn that was not charged before cost nothing.
    pub fn next(&mut self, most: usize, goes_along: impl Fn(&T, &T) -> bool) -> Vec<T> {
        self.charge(Duration::ZERO, 1.0);
        let Some(Reverse(((tag_ns, _), owner))) = self.order.pop() else { return Vec::new() };
        self.now_ns = tag_ns;
        let Some(queue) = self.owners.get_mut(&owner) else { return Vec::new() };
        let mut taken: Vec<T> = queue.waiting.pop_front().into_iter().collect();
        while taken.len() < most && queue.waiting.front().is_some_and(|next| goes_along(&taken[0], next)) {
            taken.extend(queue.waiting.pop_front());
        }
        self.turn = Some(owner);
        taken
    }

    /// Ends the turn, which took so much CPU time; an owner of twice the `weight` gets twice the time.
    pub fn charge(&mut self, cpu: Duration, weight: f64) {
        let Some(owner) = self.turn.take() else { return };
        let Some(queue) = self.owners.get_mut(&owner) else { return };
        let cost = cpu.as_nanos() as f64 / weight.max(WEIGHT_MIN);
        queue.tag_ns = self.now_ns.saturating_add(cost as u64);
        if !queue.waiting.is_empty() {
            return self.line_up(owner);
        }
        if self.order.is_empty() {
            // Nobody is behind it.
            self.owners.clear();
        } else if self.owners.len() > 2 * self.order.len() + FORGET_ABOVE {
            let now_ns = self.now_ns;
            self.owners.retain(|_, queue| !queue.waiting.is_empty() || queue.tag_ns > now_ns);
        }
    }

    fn line_up(&mut self, owner: K) {
        self.arrivals += 1;
        let tag_ns = self.owners.get(&owner).map_or(self.now_ns, |queue| queue.tag_ns);
        self.order.push(Reverse(((tag_ns, self.arrivals), owner)));
    }
}

/// The least weight: a tenant with a share of 0 is still served.
const WEIGHT_MIN: f64 = 1e-6;

/// Owners without waiting items that are kept for their tags before any is forgotten.
const FORGET_ABOVE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn each_waits_for_one_of_every_other_at_most_and_keeps_its_own_order() {
        let mut queue = FairQueue::default();
        for (owner, item) in [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 1), ("c", 1), ("b", 2)] {
            queue.push(&owner, (owner, item));
        }
        let mut next = || queue.next(1, |_, _| true);
        let order: Vec<_> = std::iter::from_fn(|| next().pop()).collect();
        assert_eq!(order, [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("a", 3), ("a", 4)]);
        assert!(queue.owners.is_empty() && queue.order.is_empty(), "nothing is left of who is done");
    }

    #[test]
    fn turns_follow_cpu_time_and_not_their_number() {
        let mut queue = FairQueue::default();
        for item in 0..1_000 {
            queue.push(&"dear", item);
            queue.push(&"cheap", item);
        }
        let mut turns = [0, 0];
        for _ in 0..500 {
            queue.next(1, |_, _| false);
            let dear = queue.turn == Some("dear");
            turns[usize::from(dear)] += 1;
            queue.charge(if dear { 9 * US } else { US }, 1.0);
        }
        assert_eq!(turns, [450, 50]);
    }

    #[test]
    fn an_owner_of_three_times_the_weight_gets_three_times_the_time() {
        let mut queue = FairQueue::default();
        for item in 0..1_000 {
            queue.push(&"plain", item);
            queue.push(&"more", item);
        }
        let mut more = 0;
        for _ in 0..400 {
            queue.next(1, |_, _| false);
            let weight = if queue.turn == Some("more") { 3.0 } else { 1.0 };
            more += usize::from(weight > 1.0);
            queue.charge(US, weight);
        }
        assert_eq!(more, 300);
    }

    #[test]
    fn a_pause_saves_nothing_up_and_a_long_turn_is_not_forgotten_by_one() {
        let mut queue = FairQueue::default();
        queue.push(&"busy", 0);
        queue.push(&"rare", 0);
        assert_eq!(queue.next(1, |_, _| false).len(), 1);
        for item in 1..100 {
            queue.push(&"busy", item);
            queue.charge(US, 1.0);
            queue.next(1, |_, _| false);
        }
        queue.charge(1_000 * US, 1.0);
        queue.push(&"busy", 100);
        queue.push(&"rare", 1);
        queue.push(&"rare", 2);
        let mut rare_turns = 0;
        loop {
            queue.next(1, |_, _| false);
            if queue.turn != Some("rare") {
                break;
            }
            rare_turns += 1;
            queue.push(&"rare", 3);
            queue.charge(100 * US, 1.0);
        }
        assert!(
            (9..=11).contains(&rare_turns),
            "{rare_turns}: as much time as the long turn took, and no more"
        );
    }

    #[test]
    fn items_go_along_up_to_the_most() {
        let mut queue = FairQueue::default();
        for item in [1, 1, 1, 2, 1] {
            queue.push(&"a", item);
        }
        let mut next = || queue.next(2, |first, next| first == next);
        assert_eq!([next(), next(), next(), next()], [vec![1, 1], vec![1], vec![2], vec![1]]);
    }

    #[test]
    fn owners_that_nothing_waits_of_are_forgotten() {
        let mut queue = FairQueue::default();
        queue.push(&0, 0);
        for owner in 1..10_000 {
            queue.push(&0, owner);
            queue.push(&owner, owner);
            for _ in 0..2 {
                queue.next(1, |_, _| false);
                queue.charge(US, 1.0);
            }
        }
        assert!(queue.owners.len() <= 2 * FORGET_ABOVE, "{}", queue.owners.len());
    }

    proptest! {
        /// Owners that wait all the time get CPU time in equal parts, whatever their turns cost, but for the
        /// dearest turn of each.
        #[test]
        fn owners_that_wait_all_the_time_get_equal_times(
            costs in prop::collection::vec(prop::collection::vec(1u64..5_000, 1..8), 2..6),
        ) {
            let mut queue = FairQueue::default();
            let mut used = vec![0u64; costs.len()];
            for owner in 0..costs.len() {
                queue.push(&owner, 0usize);
            }
            let dearest = costs.iter().flatten().copied().max().unwrap_or(0);
            for _ in 0..500 {
                let turn = queue.next(1, |_, _| false)[0];
                let owner = queue.turn.unwrap();
                queue.push(&owner, turn + 1);
                let cost = costs[owner][turn % costs[owner].len()];
                used[owner] += cost;
                queue.charge(Duration::from_nanos(cost), 1.0);
                let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
                prop_assert!(most - least <= 2 * dearest, "{used:?}");
            }
        }
    }
}
