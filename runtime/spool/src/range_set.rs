//! A set of numbers as ranges: which frames above the base are released, and which are lost. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end, the end excluded.
    ranges: BTreeMap<u64, u64>,
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(ranges: T) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert_range(range));
        set
    }
}

impl From<Range<u64>> for RangeSet {
    fn from(range: Range<u64>) -> Self {
        std::iter::once(range).collect()
    }
}

impl RangeSet {
    pub fn insert(&mut self, number: u64) {
        self.insert_range(number..number + 1);
    }

    pub fn insert_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Those that overlap or touch become one with it.
        while let Some((&before, &before_end)) = self.ranges.range(..=end).next_back()
            && before_end >= start
        {
            start = start.min(before);
            end = end.max(before_end);
            self.ranges.remove(&before);
        }
        self.ranges.insert(start, end);
    }

    pub fn remove(&mut self, number: u64) {
        self.remove_range(number..number + 1);
    }

    pub fn remove_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.ranges.range(..range.end).next_back()
            && end > range.start
        {
            self.ranges.remove(&start);
            if start < range.start {
                self.ranges.insert(start, range.start);
            }
            if end > range.end {
                self.ranges.insert(range.end, end);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, &end)| number < end)
    }

    /// Forgets everything below `base`.
    pub fn cut_below(&mut self, base: u64) {
        while let Some((&start, &end)) = self.ranges.first_key_value()
            && start < base
        {
            self.ranges.remove(&start);
            if end > base {
                self.ranges.insert(base, end);
            }
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<u64>> {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_holds_what_a_set_of_numbers_holds(
            numbers in proptest::collection::vec((0u64..60, 0u64..8), 0..40), base in 0u64..60
        ) {
            let (mut ranges, mut set) = (RangeSet::default(), BTreeSet::new());
            for (start, len) in numbers {
                ranges.insert_range(start..start + len);
                set.extend(start..start + len);
            }
            for number in 0..80 {
                prop_assert_eq!(ranges.contains(number), set.contains(&number));
            }
            let all: Vec<_> = ranges.iter().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start));
            ranges.cut_below(base);
            for number in 0..80 {
                prop_assert_eq!(ranges.contains(number), number >= base && set.contains(&number));
            }
            ranges.remove_range(base + 2..base + 9);
            for number in 0..80 {
                let removed = number < base || (base + 2..base + 9).contains(&number);
                prop_assert_eq!(ranges.contains(number), !removed && set.contains(&number));
            }
            prop_assert!(ranges.iter().all(|range| !range.is_empty()));
        }
    }
}
