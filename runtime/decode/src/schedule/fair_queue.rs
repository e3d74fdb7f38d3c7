//! A fair queue: tenants take turns, the one first that has used least, so that a long backlog delays
//! only its own tenant.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// The items that wait, by their owner; each owner's in their order.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    waiting: HashMap<K, VecDeque<T>>,
    /// Owners with waiting items, the next first.
    order: VecDeque<K>,
}

impl<K, T> Default for FairQueue<K, T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, T> FairQueue<K, T> {
    pub fn push(&mut self, whose: &K, what: T) {
        match self.waiting.get_mut(whose) {
            Some(waiting) => waiting.push_back(what),
            None => {
                self.waiting.insert(whose.clone(), VecDeque::from([what]));
                self.order.push_back(whose.clone());
            }
        }
    }

    /// The next item, and those right behind it of the same owner that go along with it; `most` in all.
    /// The owner that has used least is first; among equals, the one that has waited longest. Empty when
    /// nothing waits.
    pub fn next(
        &mut self,
        most: usize,
        used: impl Fn(&T) -> f64,
        goes_along: impl Fn(&T, &T) -> bool,
    ) -> Vec<T> {
        let used = |whose: &K| self.waiting.get(whose).and_then(VecDeque::front).map_or(0.0, &used);
        let least = match self.order.len() {
            0 | 1 => 0,
            len => {
                let all: Vec<f64> = self.order.iter().map(used).collect();
                (0..len).min_by(|&a, &b| all[a].total_cmp(&all[b])).unwrap_or(0)
            }
        };
        let Some(whose) = self.order.remove(least) else { return Vec::new() };
        let Some(waiting) = self.waiting.get_mut(&whose) else { return Vec::new() };
        let mut taken: Vec<T> = waiting.pop_front().into_iter().collect();
        while taken.len() < most && waiting.front().is_some_and(|next| goes_along(&taken[0], next)) {
            taken.extend(waiting.pop_front());
        }
        if waiting.is_empty() {
            self.waiting.remove(&whose);
        } else {
            self.order.push_back(whose);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_for_one_of_every_other_at_most_and_keeps_its_own_order() {
        let mut queue = FairQueue::default();
        for (whose, what) in [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 1), ("c", 1), ("b", 2)] {
            queue.push(&whose, (whose, what));
        }
        let mut next = || queue.next(1, |_| 0.0, |_, _| true);
        let order: Vec<_> = std::iter::from_fn(|| next().pop()).collect();
        assert_eq!(order, [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("a", 3), ("a", 4)]);
        assert!(queue.waiting.is_empty() && queue.order.is_empty(), "nothing is left of who is done");
    }

    #[test]
    fn whoever_has_used_least_is_first() {
        let mut queue = FairQueue::default();
        for (whose, used) in [("hog", 3.0), ("hog", 3.0), ("quiet", 1.0), ("middle", 2.0)] {
            queue.push(&whose, (whose, used));
        }
        let mut next = || queue.next(1, |(_, used)| *used, |_, _| true);
        let order: Vec<_> = std::iter::from_fn(|| next().pop()).map(|(whose, _)| whose).collect();
        assert_eq!(order, ["quiet", "middle", "hog", "hog"]);
    }

    #[test]
    fn what_goes_along_does_so_up_to_the_most() {
        let mut queue = FairQueue::default();
        for what in [1, 1, 1, 2, 1] {
            queue.push(&"a", what);
        }
        let mut next = || queue.next(2, |_| 0.0, |first, next| first == next);
        assert_eq!([next(), next(), next(), next()], [vec![1, 1], vec![1], vec![2], vec![1]]);
    }
}
