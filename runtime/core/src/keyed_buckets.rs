//! Token buckets by key, in a bounded table that forgets full buckets first. Pure: time is passed in.

use std::collections::HashMap;
use std::hash::Hash;

use crate::token_bucket::{Rate, TokenBucket};

/// Seconds between two sweeps of full buckets.
const SWEEP_S: f64 = 1.0;

/// A bounded table of token buckets with one rate.
#[derive(Debug)]
pub struct KeyedTokenBuckets<K> {
    rate: Rate,
    entries_max: usize,
    buckets: HashMap<K, TokenBucket, foldhash::fast::RandomState>,
    swept_s: f64,
}

impl<K: Hash + Eq> KeyedTokenBuckets<K> {
    pub fn new(rate: Rate, entries_max: usize) -> Self {
        Self { rate, entries_max, buckets: HashMap::default(), swept_s: f64::NEG_INFINITY }
    }

    /// Takes a token of this key, if there is one.
    pub fn take(&mut self, key: K, now_s: f64) -> bool {
        if self.buckets.len() >= self.entries_max && !self.buckets.contains_key(&key) {
            self.sweep(now_s);
        }
        let rate = self.rate;
        self.buckets.entry(key).or_insert_with(|| TokenBucket::full(rate, now_s)).take(rate, now_s)
    }

    /// Returns a token that was taken for an event which did not count.
    pub fn release(&mut self, key: &K) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.release(self.rate);
        }
    }

    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Makes room: removes full buckets, then half-full ones, and everything if that is not enough.
    fn sweep(&mut self, now_s: f64) {
        let rate = self.rate;
        if now_s - self.swept_s >= SWEEP_S {
            self.swept_s = now_s;
            self.buckets.retain(|_, bucket| !bucket.is_full(rate, now_s));
            if self.buckets.len() > self.entries_max / 2 {
                let half = Rate { burst: rate.burst / 2.0, ..rate };
                self.buckets.retain(|_, bucket| !bucket.is_full(half, now_s));
            }
        }
        if self.buckets.len() >= self.entries_max {
            self.buckets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token_bucket::Rate;

    const RATE: Rate = Rate { per_s: 1.0, burst: 2.0 };

    #[test]
    fn keys_have_buckets_of_their_own() {
        let mut buckets = KeyedTokenBuckets::new(RATE, 10);
        assert!(buckets.take("a", 0.0) && buckets.take("a", 0.0));
        assert!(!buckets.take("a", 0.0) && buckets.take("b", 0.0));
        buckets.release(&"a");
        assert!(buckets.take("a", 0.0) && !buckets.take("a", 0.5) && buckets.take("a", 1.0));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_is_limited_as_long_as_it_can() {
        let mut buckets = KeyedTokenBuckets::new(RATE, 100);
        assert!(buckets.take(0, 0.0) && buckets.take(0, 0.0));
        for key in 1..150 {
            buckets.take(key, 10.0);
            buckets.take(0, 10.0);
            assert!(buckets.len() <= 100);
        }
        assert!(!buckets.take(0, 10.0), "the one that is limited was forgotten for others");
        for key in 0..10_000 {
            buckets.take(key, 10.0);
            buckets.take(key, 10.0);
            assert!(buckets.len() <= 100);
        }
    }
}
