//! Times for the lines of one message that give none: the message's own for the first line of a
//! series, and a nanosecond more for each further one. Points of one series and one time would be one
//! point in a database.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;

type Hasher = foldhash::fast::RandomState;

/// Series that had a line without a time in the message at hand.
#[derive(Debug, Default)]
pub(super) struct SeriesTimes {
    hasher: Hasher,
    /// The series of the first such line, until there is a second: most messages have one.
    first: Option<Range<usize>>,
    /// By the hash of the series: how many lines there were. Two series of one hash, which nobody can
    /// foresee, cost a nanosecond.
    lines: HashMap<u64, i64, Hasher>,
}

impl SeriesTimes {
    /// Begins a message.
    pub(super) fn clear(&mut self) {
        self.first = None;
        self.lines.clear();
    }

    /// Counts a line without a time whose measurement and tags stand at `series`, a checked part of
    /// `text`; gives how many nanoseconds it comes after the message's own time.
    pub(super) fn offset_ns(&mut self, text: &[u8], series: Range<usize>) -> i64 {
        if self.lines.is_empty() {
            let Some(first) = self.first.take() else {
                self.first = Some(series);
                return 0;
            };
            self.lines.insert(series_hash(&text[first], &self.hasher), 1);
        }
        let lines = self.lines.entry(series_hash(&text[series], &self.hasher)).or_insert(0);
        *lines += 1;
        *lines - 1
    }
}

/// A hash of measurement and tags that does not depend on the order of the tags.
fn series_hash(series: &[u8], hasher: &Hasher) -> u64 {
    let (mut hash, mut start, mut at) = (0_u64, 0, 0);
    while at < series.len() {
        match series[at] {
            b'\\' => at += 2,
            b',' => {
                hash = hash.wrapping_add(hasher.hash_one(&series[start..at]));
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    hash.wrapping_add(hasher.hash_one(&series[start..]))
}
