//! How long a group waits for more before it is handled. Pure: time is passed in.
//!
//! A read, a wake-up or a sync costs the CPU some ten microseconds whatever it carries, so a steady
//! trickle is gathered for a few milliseconds. Where nothing else is coming nothing is waited for:
//! an idle gateway adds no latency, and neither does one whose sources wait for its answer. Whether
//! more is coming is told by what came of late, and by whether the last wait brought anything, up
//! to its end: what waits for an answer sends all that it may at once, and then nothing.

use std::time::Duration;

/// A group of so many pays for what it costs.
pub const LARGE_GROUP: usize = 64;

/// After a wait that brought nothing this many groups are not waited for, and twice as many after
/// the next one.
const SKIP_MIN: u32 = 8;

const SKIP_MAX: u32 = 4_096;

/// With more a second than this, groups are large without a wait, or soon will be.
const RATE_MAX: f64 = 6_400.0;

/// Over so long the rate of arrivals is told.
const WINDOW: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct BatchDelay {
    /// From the beginning of one group to that of the next, while a trickle is gathered.
    interval: Duration,
    skip: u32,
    penalty: u32,
    /// What a wait must bring to have been worth it.
    expected: f64,
    /// What came in the window that runs, and for how long it does.
    arrived: usize,
    window: Duration,
    /// What came a second in the window before.
    rate: f64,
}

impl BatchDelay {
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            skip: 0,
            penalty: SKIP_MIN,
            expected: 0.0,
            arrived: 0,
            window: Duration::ZERO,
            rate: 0.0,
        }
    }

    /// A group of so many was taken, `since` after the one before.
    pub fn took(&mut self, group: usize, since: Duration) {
        self.arrived += group;
        self.window += since;
        if self.window >= WINDOW {
            self.rate = self.arrived as f64 / self.window.as_secs_f64();
            (self.arrived, self.window) = (0, Duration::ZERO);
        }
    }

    /// How long to wait for more than the `waiting` that are there, `since` after the last group
    /// was taken.
    pub fn wait(&mut self, since: Duration, waiting: usize) -> Duration {
        let wait = self.interval.saturating_sub(since);
        if wait.is_zero() || waiting >= LARGE_GROUP {
            return Duration::ZERO;
        }
        // No longer than until a group is large.
        let wait = wait.min(Duration::from_secs_f64(LARGE_GROUP as f64 / self.rate.max(1.0)));
        // Half of what would come if it went on as it did.
        self.expected = self.rate * wait.as_secs_f64() / 2.0;
        if self.expected < 1.0 || self.rate > RATE_MAX {
            // Too little comes, or too much.
            return Duration::ZERO;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Duration::ZERO;
        }
        wait
    }

    /// Whether so little comes that a wait may pay for the `waiting`.
    pub fn is_trickle(&self, waiting: usize) -> bool {
        waiting < LARGE_GROUP && self.rate <= RATE_MAX
    }

    /// Into how many parts a wait can be divided so that something comes in each, if it goes on as
    /// it did; 1: too little comes to tell.
    pub fn parts(&self) -> u32 {
        (self.expected / 2.0).clamp(1.0, 4.0) as u32
    }

    /// So many came during a wait.
    pub fn record_wait(&mut self, arrived: usize) {
        if (arrived as f64) < self.expected.min(8.0) {
            self.record_stall();
        } else {
            self.penalty = SKIP_MIN;
        }
    }

    /// Nothing came any more at the end of a wait.
    pub fn record_stall(&mut self) {
        self.skip = self.penalty;
        self.penalty = (self.penalty * 2).min(SKIP_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    /// Groups with `gap` between them, each of `batches`; waits bring `brought`. Gives the waits.
    fn waits(gap: Duration, batches: usize, brought: usize) -> usize {
        let mut pacing = BatchDelay::new(5 * MS);
        let mut waits = 0;
        for _ in 0..10_000 {
            let wait = pacing.wait(gap, batches);
            if !wait.is_zero() {
                waits += 1;
                pacing.record_wait(brought);
            }
            pacing.took(batches, gap + wait);
        }
        waits
    }

    #[test]
    fn nothing_is_waited_for_while_little_comes_or_a_group_is_large() {
        assert_eq!(waits(10 * MS, 1, 0), 0);
        assert_eq!(waits(4 * MS, 1, 0), 0);
        assert_eq!(waits(MS, 64, 64), 0);
    }

    #[test]
    fn a_steady_trickle_is_gathered() {
        let mut pacing = BatchDelay::new(5 * MS);
        let mut waits = 0;
        for _ in 0..1000 {
            let wait = pacing.wait(MS, 1);
            let brought = wait.as_millis() as usize;
            if !wait.is_zero() {
                waits += 1;
                pacing.record_wait(brought);
            }
            pacing.took(1 + brought, MS + wait);
        }
        assert!(waits > 970, "{waits}");
    }

    #[test]
    fn sources_that_wait_for_an_answer_are_soon_not_waited_for() {
        let waits = waits(MS, 20, 0);
        assert!(waits <= 12, "{waits}");
    }
}
