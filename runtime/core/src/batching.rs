//! The batching delay: the time that a group waits for more messages. Pure: time is passed in.
//!
//! A read, a wake-up or a sync costs some ten microseconds of CPU whatever it carries, so a steady
//! trickle is gathered for a few milliseconds. There is no delay if nothing else will come: an idle
//! gateway adds no latency, nor does one whose sources wait for its acknowledgement. The forecast uses
//! recent arrivals and the yield of the last wait up to its end: a sender that waits for an
//! acknowledgement sends all that it may at once, and then nothing.

use std::time::Duration;

/// The longest delays between a PUBLISH and its PUBACK that serve batching, each of a trickle that nobody waits
/// for. The source waits before it reads a socket again:
pub const SOURCE_DELAY: Duration = Duration::from_millis(20);

/// Checked lines wait on a decode thread for those of other tenants:
pub const DECODE_DELAY: Duration = Duration::from_millis(1);

/// Lines wait for the next sync of the spool. A sync costs 200 us of CPU, and 200 of them a second are 4 % of a
/// core:
pub const SPOOL_DELAY: Duration = Duration::from_millis(5);

/// The sum of all delays before a PUBACK.
pub const ACKNOWLEDGE_DELAY: Duration = SOURCE_DELAY.saturating_add(DECODE_DELAY).saturating_add(SPOOL_DELAY);

/// Messages of a group that is worth its cost.
pub const LARGE_GROUP: usize = 64;

/// Messages of a read that is worth its cost. A read costs a twentieth of a sync, and who sends some thousand a
/// second on one connection would wait for nothing.
pub const LARGE_READ: usize = 16;

/// Groups without a delay after a wait in vain; twice as many after the next one.
const SKIP_MIN: u32 = 8;

const SKIP_MAX: u32 = 4_096;

/// Messages a second above which groups are large without a delay, or soon will be.
const RATE_MAX: f64 = 6_400.0;

/// The time over which the rate of arrivals is measured.
const WINDOW: Duration = Duration::from_millis(20);

/// The delay of one stream of groups; its owner reports every group and every wait.
#[derive(Debug)]
pub struct BatchDelay {
    /// The time between the beginnings of two groups while a trickle is gathered.
    interval: Duration,
    /// Messages of a group that need wait for no more.
    large: usize,
    skip: u32,
    penalty: u32,
    /// Messages that make a wait worth it.
    expected: f64,
    /// Messages in the present window, and the age of the window.
    arrived: usize,
    window: Duration,
    /// Messages a second in the window before.
    rate: f64,
}

impl BatchDelay {
    pub fn new(interval: Duration, large: usize) -> Self {
        Self {
            interval,
            large,
            skip: 0,
            penalty: SKIP_MIN,
            expected: 0.0,
            arrived: 0,
            window: Duration::ZERO,
            rate: 0.0,
        }
    }

    /// Records a group, taken `since` after the one before.
    pub fn record_group(&mut self, group: usize, since: Duration) {
        self.arrived += group;
        self.window += since;
        if self.window >= WINDOW {
            self.rate = self.arrived as f64 / self.window.as_secs_f64();
            (self.arrived, self.window) = (0, Duration::ZERO);
        }
    }

    /// The time to wait for more than the `waiting` messages, `since` after the last group was taken.
    pub fn wait(&mut self, since: Duration, waiting: usize) -> Duration {
        let wait = self.interval.saturating_sub(since);
        if wait.is_zero() || waiting >= self.large {
            return Duration::ZERO;
        }
        // No longer than until a group is large.
        let wait = wait.min(Duration::from_secs_f64(self.large as f64 / self.rate.max(1.0)));
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

    /// True if so few messages arrive that a wait may pay for the `waiting` ones.
    pub fn is_trickle(&self, waiting: usize) -> bool {
        waiting < self.large && self.rate <= RATE_MAX
    }

    /// The number of parts of a wait that would each bring something at the present rate; 1 if the rate is
    /// too low to tell.
    pub fn parts(&self) -> u32 {
        (self.expected / 2.0).clamp(1.0, 4.0) as u32
    }

    /// Records the messages of a wait.
    pub fn record_wait(&mut self, arrived: usize) {
        if (arrived as f64) < self.expected.min(8.0) {
            self.record_stall();
        } else {
            self.penalty = SKIP_MIN;
        }
    }

    /// Records that nothing came any more at the end of a wait.
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
        let mut delay = BatchDelay::new(5 * MS, LARGE_GROUP);
        let mut waits = 0;
        for _ in 0..10_000 {
            let wait = delay.wait(gap, batches);
            if !wait.is_zero() {
                waits += 1;
                delay.record_wait(brought);
            }
            delay.record_group(batches, gap + wait);
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
        let mut delay = BatchDelay::new(5 * MS, LARGE_GROUP);
        let mut waits = 0;
        for _ in 0..1000 {
            let wait = delay.wait(MS, 1);
            let brought = wait.as_millis() as usize;
            if !wait.is_zero() {
                waits += 1;
                delay.record_wait(brought);
            }
            delay.record_group(1 + brought, MS + wait);
        }
        assert!(waits > 970, "{waits}");
    }

    #[test]
    fn nobody_waits_longer_than_a_group_takes_to_be_large() {
        for (large, longest) in [(LARGE_GROUP, 16 * MS), (LARGE_READ, 4 * MS)] {
            let mut delay = BatchDelay::new(SOURCE_DELAY, large);
            // 4,000 messages a second.
            for _ in 0..100 {
                delay.record_group(4, MS);
            }
            assert_eq!(delay.wait(Duration::ZERO, 0), longest);
        }
    }

    #[test]
    fn sources_that_wait_for_an_answer_are_soon_not_waited_for() {
        let waits = waits(MS, 20, 0);
        assert!(waits <= 12, "{waits}");
    }
}
