//! The time for which the first line of a batch waits for others, by how short the gateway is of CPU. Pure.
//!
//! A POST costs the same CPU however few lines it carries. While nothing is short that is no matter, and
//! lines wait for the flush interval. While the threads that acknowledge messages wait for a processor, the
//! delay grows step by step up to its maximum: the same lines go in fewer POSTs. It falls faster than it
//! grows.

use std::time::Duration;

/// The time between two samples.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// Steps of a long interval between samples that count; more than it takes from any delay to the interval.
const STEPS_MAX: u32 = 16;

/// The CPU time of the threads that acknowledge messages, over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSample {
    pub elapsed: Duration,
    /// They ran for so long, all together.
    pub ran: Duration,
    /// They were ready to run for so long, and did not.
    pub waited: Duration,
}

impl CpuSample {
    /// True if one of them is ready to run at every moment, and each waits for a third of its time.
    fn is_short(&self) -> bool {
        self.ran + self.waited >= self.elapsed && self.waited >= self.ran / 2
    }

    /// True if they hardly wait, or have little to do.
    fn is_free(&self) -> bool {
        self.ran + self.waited < self.elapsed / 2 || self.waited < self.ran / 4
    }
}

/// The delay that follows from the samples so far.
#[derive(Clone, Debug)]
pub struct FlushDelay {
    interval: Duration,
    max: Duration,
    delay: Duration,
}

impl FlushDelay {
    pub fn new(interval: Duration, max: Duration) -> Self {
        Self { interval, max: max.max(interval), delay: interval }
    }

    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Applies what the threads did since the last sample.
    pub fn record(&mut self, sample: &CpuSample) {
        if sample.is_short() {
            self.delay = (self.delay * 3 / 2).min(self.max);
        } else if sample.is_free() {
            // Nobody asks for samples while nothing waits: one that covers a long time counts for many.
            let steps = sample.elapsed.as_millis() / SAMPLE_INTERVAL.as_millis();
            let steps = (steps as u32).clamp(1, STEPS_MAX);
            self.delay = (self.delay / (1 << steps)).max(self.interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A sample of 250 ms with so many milliseconds.
    fn sample(ran: u32, waited: u32) -> CpuSample {
        CpuSample { elapsed: SAMPLE_INTERVAL, ran: ran * MS, waited: waited * MS }
    }

    fn delay() -> FlushDelay {
        FlushDelay::new(1_000 * MS, 10_000 * MS)
    }

    #[test]
    fn the_delay_grows_to_its_maximum_while_the_threads_wait_for_a_processor() {
        let mut delay = delay();
        let mut last = delay.delay();
        for _ in 0..6 {
            delay.record(&sample(400, 300));
            assert!(delay.delay() > last || delay.delay() == 10_000 * MS, "{:?}", delay.delay());
            last = delay.delay();
        }
        assert_eq!(last, 10_000 * MS);
    }

    #[test]
    fn nothing_waits_longer_than_the_interval_while_no_thread_waits_for_a_processor() {
        let mut delay = delay();
        // Idle, half loaded, all processors in use without a wait, and little to do beside a busy neighbour.
        for (ran, waited) in [(0, 0), (120, 20), (499, 100), (10, 60)] {
            (0..100).for_each(|_| delay.record(&sample(ran, waited)));
            assert_eq!(delay.delay(), 1_000 * MS, "{ran} ms run, {waited} ms waited");
        }
    }

    #[test]
    fn the_delay_is_the_interval_again_soon_after_the_shortage() {
        let mut delay = delay();
        (0..100).for_each(|_| delay.record(&sample(400, 800)));
        (0..4).for_each(|_| delay.record(&sample(100, 5)));
        assert_eq!(delay.delay(), 1_000 * MS);
        (0..100).for_each(|_| delay.record(&sample(400, 800)));
        delay.record(&CpuSample { elapsed: 60_000 * MS, ..CpuSample::default() });
        assert_eq!(delay.delay(), 1_000 * MS, "one sample of a minute without work");
    }

    #[test]
    fn between_shortage_and_none_the_delay_stays() {
        let mut delay = delay();
        delay.record(&sample(400, 300));
        let before = delay.delay();
        delay.record(&sample(400, 150));
        assert_eq!(delay.delay(), before);
    }

    #[test]
    fn a_maximum_that_is_the_interval_is_never_exceeded() {
        let mut delay = FlushDelay::new(1_000 * MS, 1_000 * MS);
        (0..10).for_each(|_| delay.record(&sample(400, 800)));
        assert_eq!(delay.delay(), 1_000 * MS);
    }
}
