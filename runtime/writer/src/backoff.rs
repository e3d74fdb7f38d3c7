//! The wait before the next try. Pure: randomness and time are passed in.

use std::time::Duration;

use crate::limits;

/// The waits of a writer. The defaults are the product's; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct BackoffLimits {
    pub retry_min: Duration,
    pub retry_max: Duration,
    pub pause_min: Duration,
    pub pause_max: Duration,
    pub retry_after_max: Duration,
}

impl Default for BackoffLimits {
    fn default() -> Self {
        Self {
            retry_min: Duration::from_millis(limits::RETRY_MIN_MS),
            retry_max: Duration::from_millis(limits::RETRY_MAX_MS),
            pause_min: Duration::from_millis(limits::PAUSE_MIN_MS),
            pause_max: Duration::from_millis(limits::PAUSE_MAX_MS),
            retry_after_max: Duration::from_millis(limits::RETRY_AFTER_MAX_MS),
        }
    }
}

impl BackoffLimits {
    /// The wait after a fault that only a person can mend.
    pub fn pause(&self, random: u32) -> Duration {
        between(self.pause_min, self.pause_max, random)
    }
}

/// Failed tries in a row of one database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failed try and gives the wait before the next: it doubles from try to try, half of
    /// it is random, and it is no less than the server asked for.
    pub fn fail(&mut self, waits: &BackoffLimits, asked: Option<Duration>, random: u32) -> Duration {
        let doubled = (waits.retry_min * 3 / 2).saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let longest = doubled.min(waits.retry_max);
        let own = between((longest / 2).max(waits.retry_min), longest, random);
        own.max(asked.unwrap_or_default().min(waits.retry_after_max))
    }

    /// The wait for another request that failed with the last one, which is not counted.
    pub fn again(&self, waits: &BackoffLimits, asked: Option<Duration>) -> Duration {
        waits.retry_min.max(asked.unwrap_or_default().min(waits.retry_after_max))
    }

    pub fn succeed(&mut self) {
        self.failures = 0;
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn between(least: Duration, most: Duration, random: u32) -> Duration {
    least + most.saturating_sub(least).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waits_grow_from_one_second_to_sixty_and_stay_between() {
        let waits = BackoffLimits::default();
        for random in [0, u32::MAX / 3, u32::MAX] {
            let mut backoff = Backoff::default();
            let all: Vec<_> = (0..40).map(|_| backoff.fail(&waits, None, random)).collect();
            assert!(all.is_sorted());
            assert!(all[0] >= waits.retry_min && all[0] <= waits.retry_min * 3 / 2);
            assert!(all[39] >= waits.retry_max / 2 && all[39] <= waits.retry_max);
            backoff.succeed();
            assert!(backoff.fail(&waits, None, random) <= waits.retry_min * 3 / 2);
        }
    }

    #[test]
    fn what_the_server_asks_for_is_honoured_up_to_the_ceiling() {
        let waits = BackoffLimits::default();
        let asked = |s| Backoff::default().fail(&waits, Some(Duration::from_secs(s)), 0);
        assert_eq!(asked(20), Duration::from_secs(20));
        assert_eq!(asked(0), waits.retry_min);
        assert_eq!(asked(1_000_000), waits.retry_after_max);
    }
}
