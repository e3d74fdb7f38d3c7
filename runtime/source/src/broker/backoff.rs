//! The delay before the next try to connect: exponential, jittered, and short the first time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Tries without a session that lasted.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    /// A broker that restarts is back within seconds; one that is down for hours is found again
    /// within half a minute and not troubled more by it.
    const STEP: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(30);

    /// The delay before the next try.
    pub fn next(&mut self) -> Duration {
        let jitter = RandomState::new().hash_one(self.tries) as f64 / u64::MAX as f64;
        let delay = self.next_with(jitter);
        self.tries = self.tries.saturating_add(1);
        delay
    }

    /// `jitter` in 0..=1 spreads the delay over its upper half, so that gateways which lost the
    /// same broker do not return as one.
    fn next_with(&self, jitter: f64) -> Duration {
        let full = match self.tries {
            0 => Self::FIRST,
            tries => Self::STEP.saturating_mul(1 << (tries - 1).min(10)).min(Self::MAX),
        };
        full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_one_second_to_thirty_after_a_quick_first_try() {
        let mut backoff = Backoff::default();
        let mut full = Vec::new();
        for _ in 0..8 {
            full.push(backoff.next_with(1.0).as_millis());
            let (low, high) = (backoff.next_with(0.0), backoff.next_with(1.0));
            let drawn = backoff.next();
            assert!(low <= drawn && drawn <= high && low * 2 == high);
        }
        assert_eq!(full, [200, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next_with(1.0).as_millis(), 200);
    }
}
