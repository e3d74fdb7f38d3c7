//! The cost of a version on one route, and whether it is too much for a thread that others wait for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{COST_MESSAGES, SLOW_ABOVE_US, SLOW_BELOW_US};

/// The moving average of CPU time a message, of one version on one route.
#[derive(Debug, Default)]
pub struct CostEstimate {
    average_ns: AtomicU64,
    slow: AtomicBool,
}

impl CostEstimate {
    pub fn record(&self, messages: u64, cpu: Duration) {
        let sample = cpu.as_nanos() as u64 / messages.max(1);
        let before = self.average_ns.load(Ordering::Relaxed);
        let weight = messages.min(COST_MESSAGES);
        // Threads that record at the same moment may lose one sample of the two.
        let average = (before * (COST_MESSAGES - weight) + sample * weight) / COST_MESSAGES;
        self.average_ns.store(average, Ordering::Relaxed);
        let us = average / 1_000;
        if us > SLOW_ABOVE_US {
            self.slow.store(true, Ordering::Release);
        } else if us < SLOW_BELOW_US && self.is_slow() {
            self.slow.store(false, Ordering::Release);
        }
    }

    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_route_is_slow_by_its_average_and_fast_again_below_half_of_it() {
        let cost = CostEstimate::default();
        cost.record(1, Duration::from_millis(10));
        assert!(!cost.is_slow(), "one slow message is no slow route");
        cost.record(1, Duration::from_millis(10));
        assert!(cost.is_slow());
        cost.record(16, Duration::from_micros(16 * 700));
        assert!(cost.is_slow(), "not before it is below half");
        cost.record(16, Duration::from_micros(16 * 400));
        assert!(!cost.is_slow());
    }
}
